package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mvdan.cc/sh/v3/shell"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/site"
)

// pages are the documents with snippets.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range []string{"../../README.md", "../../docs/*.md"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v, %v", pattern, names, err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			out[name] = string(data)
		}
	}
	return out
}

var (
	fence  = regexp.MustCompile("(?sm)^ *```([a-z ]*)\n(.*?)^ *```$")
	inline = regexp.MustCompile("`(tranter [a-z][^`]*)`")
	link   = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
)

// TestCommandsInTheDocumentsExist parses every command line of the documents with the program's own flags.
func TestCommandsInTheDocumentsExist(t *testing.T) {
	seen := 0
	for name, text := range pages(t) {
		var lines []string
		for _, block := range fence.FindAllStringSubmatch(text, -1) {
			if block[1] == "" || block[1] == "sh" {
				lines = append(lines, strings.Split(block[2], "\n")...)
			}
		}
		for _, m := range inline.FindAllStringSubmatch(text, -1) {
			lines = append(lines, m[1])
		}
		for _, line := range lines {
			line = strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(line), "$ "), "bin/")
			if !strings.HasPrefix(line, "tranter ") {
				continue
			}
			seen++
			words, err := shell.Fields(strings.SplitN(line, " #", 2)[0], func(s string) string { return "$" + s })
			if err != nil {
				t.Errorf("%s: %s: %v", name, line, err)
				continue
			}
			root := newRoot(streams{})
			cmd, rest, err := root.Find(doubleDashes(root, words[1:]))
			if err != nil {
				t.Errorf("%s: %s: %v", name, line, err)
				continue
			}
			if err := cmd.ParseFlags(rest); err != nil {
				t.Errorf("%s: %s: %v", name, line, err)
			} else if cmd.Args != nil && cmd.Runnable() {
				if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
					t.Errorf("%s: %s: %v", name, line, err)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d command lines were found", seen)
	}
}

// TestConfigurationsInTheDocumentsAreValid parses every snippet of config.toml; what is only a part of one may lack keys.
func TestConfigurationsInTheDocumentsAreValid(t *testing.T) {
	seen := 0
	for name, text := range pages(t) {
		for _, block := range fence.FindAllStringSubmatch(text, -1) {
			if block[1] != "toml" {
				continue
			}
			seen++
			_, problems := config.Parse(config.Source{Name: name, Data: []byte(block[2])})
			most := config.Note
			if strings.HasPrefix(block[2], "# config check warns of this.\n") {
				most = config.Warning
			}
			for _, p := range problems {
				if p.Severity > most && !strings.Contains(p.Text, "is missing") {
					t.Errorf("%s\nin\n%s", p, block[2])
				}
			}
		}
	}
	if seen < 3 {
		t.Errorf("only %d configurations were found", seen)
	}
}

// TestSiteFilesInTheDocumentsAreGood parses every snippet that is marked as one of a site file ("```toml site"), and the files
// that users copy.
func TestSiteFilesInTheDocumentsAreGood(t *testing.T) {
	texts := map[string]string{}
	for name, text := range pages(t) {
		for i, block := range fence.FindAllStringSubmatch(text, -1) {
			if block[1] == "toml site" {
				texts[fmt.Sprintf("%s, block %d", name, i+1)] = block[2]
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

// TestLinksInTheDocumentsLead somewhere.
func TestLinksInTheDocumentsLead(t *testing.T) {
	for name, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
