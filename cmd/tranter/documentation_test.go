package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/site"
)

// TestSiteFilesInTheDocumentsAreGood parses every snippet that is marked as one of a site file ("```toml site"), and the files
// that users copy.
func TestSiteFilesInTheDocumentsAreGood(t *testing.T) {
	texts := map[string]string{}
	for name, text := range pages(t) {
		found, _ := blocks(t, name, text)
		for _, b := range found {
			if b.kind == "toml site" {
				texts[fmt.Sprintf("%s:%d", name, b.line)] = b.text
			}
		}
	}
	if len(texts) < 5 {
		t.Errorf("only %d snippets of site files were found", len(texts))
	}
	texts["site example"] = string(site.Example())
	demo, err := os.ReadFile("../../examples/hpc/site.toml")
	if err != nil {
		t.Fatal(err)
	}
	texts["examples/hpc/site.toml"] = string(demo)
	for name, text := range texts {
		parsed, problems := site.Parse(site.Source{
			Name: "/etc/tranter/site.toml", Data: []byte(text), This: "/usr/bin/tranter", Home: "/home/ci",
			Env:  func(name string) (string, bool) { v, ok := aroundSites()[name]; return v, ok },
			Read: func(path string) ([]byte, error) { return []byte(aroundSites()[filepath.Ext(path)]), nil },
			List: func(string) ([]string, error) { return []string{"/etc/tranter/runners.d/more.toml"}, nil },
		})
		for _, p := range problems {
			if p.Severity > config.Note && !strings.Contains(p.Text, "placeholder") {
				t.Errorf("%s: %s\nin\n%s", name, p, text)
			}
		}
		if len(parsed.Runners) == 0 {
			t.Errorf("%s: there is no runner in\n%s", name, text)
		}
	}
}

// aroundSites is what site files in the documents find in the environment, and in files by the ends of their names.
func aroundSites() map[string]string {
	return map[string]string{
		"HOME": "/home/ci", "GITLAB_URL": "https://gitlab.example.com", "DEMO_URL": "http://127.0.0.1:8080", "DEMO_TOKEN": "glpat-0123456789abcdef",
		"DEMO_SHARED": "/shared", ".token": "glpat-0123456789abcdef\n", ".toml": "[runners.more]\ntags = [\"more\"]\n",
	}
}

// TestExamplesOfConfigurationsAreGood checks the files that users copy, which are whole.
func TestExamplesOfConfigurationsAreGood(t *testing.T) {
	names, err := filepath.Glob("../../examples/*.toml")
	if err != nil || len(names) == 0 {
		t.Fatalf("%v, %v", names, err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{string(data), uncommented(string(data))} {
			if _, problems := config.Parse(config.Source{Name: name, Data: []byte(text)}); len(problems) > 0 {
				t.Errorf("%s\nin\n%s", problems[0], text)
			}
		}
	}
}

// uncommented switches on the settings that an example has as comments.
func uncommented(text string) string {
	return regexp.MustCompile(`(?m)^(\s*)# ([a-z_]+ = )`).ReplaceAllString(text, "$1$2")
}

// TestLinksInTheDocumentsLead somewhere: to a file, and to a heading in it.
func TestLinksInTheDocumentsLead(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s#]*)(?:#([^)\s]*))?\)`)
	seen := 0
	for name, text := range pages(t) {
		_, prose := blocks(t, name, text)
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			seen++
			target := filepath.Join(filepath.Dir(name), m[1])
			if m[1] == "" {
				target = name
			}
			data, err := os.ReadFile(target)
			if info, problem := os.Stat(target); problem == nil && info.IsDir() && m[2] == "" {
				continue
			}
			switch {
			case err != nil:
				t.Errorf("%s: %v", name, err)
			case m[2] != "" && !slices.Contains(anchors(string(data)), m[2]):
				t.Errorf("%s: %s has no heading #%s", name, target, m[2])
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d links were found", seen)
	}
}

// anchors are the names by which the headings of a page are linked to, as GitLab and GitHub make them.
func anchors(page string) []string {
	var out []string
	inBlock := false
	drop := regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	for line := range strings.Lines(page) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			inBlock = !inBlock
		}
		title := strings.TrimLeft(line, "#")
		if inBlock || title == line || !strings.HasPrefix(title, " ") {
			continue
		}
		title = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(title, "$1")
		name := strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), ""), " ", "-")
		for i := 1; slices.Contains(out, name); i++ {
			name = fmt.Sprintf("%s-%d", strings.TrimSuffix(name, fmt.Sprintf("-%d", i-1)), i)
		}
		out = append(out, name)
	}
	return out
}
