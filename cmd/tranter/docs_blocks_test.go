package main

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

// block is a fenced block of a document.
type block struct {
	file string
	line int    // of its first fence
	kind string // what stands behind the fence
	text string // without the indentation of the fence
}

// pages are the documents with snippets, by their paths. Those in docs/reference are made from the code.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	read := func(name string) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(data)
	}
	read("../../README.md")
	err := filepath.WalkDir("../../docs", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "reference":
			return fs.SkipDir
		case strings.HasSuffix(path, ".md"):
			read(path)
		}
		return nil
	})
	if err != nil || len(out) < 20 {
		t.Fatalf("%d pages: %v", len(out), err)
	}
	return out
}

// blocks returns the fenced blocks of a page, and what is left of it without them.
func blocks(t *testing.T, name, page string) (found []block, rest string) {
	t.Helper()
	var in *block
	var indent string
	var prose strings.Builder
	for i, line := range strings.Split(page, "\n") {
		before, mark, fence := strings.Cut(line, "```")
		fence = fence && strings.TrimSpace(before) == ""
		switch {
		case fence && in == nil:
			in, indent = &block{file: name, line: i + 1, kind: strings.TrimSpace(mark)}, before
		case fence && strings.TrimSpace(mark) == "":
			found = append(found, *in)
			in = nil
		case in != nil:
			in.text += strings.TrimPrefix(line, indent) + "\n"
		default:
			prose.WriteString(line + "\n")
		}
	}
	if in != nil {
		t.Errorf("%s:%d: the block does not end", name, in.line)
	}
	return found, prose.String()
}

// TestBlocksInTheDocumentsAreWhatTheySay checks each fenced block by its kind; one without a kind, or of another, is a mistake.
// Those of site files are checked by TestSiteFilesInTheDocumentsAreGood, and those that are run by TestExamplesInTheDocumentsRun.
func TestBlocksInTheDocumentsAreWhatTheySay(t *testing.T) {
	fixed := func(check func(*testing.T, string)) func(*testing.T, block) {
		return func(t *testing.T, b block) { t.Helper(); check(t, b.text) }
	}
	shell := newShellCheck(t)
	kinds := map[string]func(*testing.T, block){
		"toml": checkConfig, "toml site": func(*testing.T, block) {}, "toml template": checkTemplate,
		"yaml": checkPipeline, "yaml rules": checkRules, "yaml scrape": checkScrape, "yaml plain": fixed(checkYAML),
		"json": fixed(checkJSON), "ini": checkUnit, "text": func(*testing.T, block) {},
		"sh": shell.script, "sh run": shell.script, "console": shell.session,
	}
	seen := map[string]int{}
	for name, page := range pages(t) {
		found, _ := blocks(t, name, page)
		for _, b := range found {
			check := kinds[b.kind]
			if check == nil {
				t.Errorf("%s:%d: a block of the kind %q: say what it is, and have it checked", b.file, b.line, b.kind)
				continue
			}
			seen[b.kind]++
			check(t, b)
		}
	}
	for kind := range kinds {
		if seen[kind] == 0 {
			t.Errorf("no block of the kind %q was found", kind)
		}
	}
	t.Logf("blocks by kind: %v", seen)
}

// checkConfig parses a snippet of config.toml; what is only a part of one may lack keys.
func checkConfig(t *testing.T, b block) {
	t.Helper()
	_, problems := config.Parse(config.Source{Name: b.file, Data: []byte(b.text)})
	most := config.Note
	if strings.HasPrefix(b.text, "# config check warns of this.\n") {
		most = config.Warning
	}
	for _, p := range problems {
		if p.Severity > most && !strings.Contains(p.Text, "is missing") {
			t.Errorf("%s:%d: %s\nin\n%s", b.file, b.line, p, b.text)
		}
	}
}

// checkTemplate fills a template of "tranter up" with its defaults.
func checkTemplate(t *testing.T, b block) {
	t.Helper()
	text, _, err := fillTemplate(b.file, b.text, func(name string) (string, bool) {
		return "/srv/" + strings.ToLower(name), name == strings.ToUpper(name) && strings.HasSuffix(name, "_DIR")
	})
	if err != nil {
		t.Errorf("%s:%d: %v", b.file, b.line, err)
		return
	}
	checkConfig(t, block{b.file, b.line, b.kind, text})
}

// checkPipeline compiles a .gitlab-ci.yml.
func checkPipeline(t *testing.T, b block) {
	t.Helper()
	_, problems := pipeline.Compile(pipeline.Input{
		Content: []byte(b.text), Source: "push", Ref: "main",
		Read: func(string) ([]byte, error) { return nil, fs.ErrNotExist }, List: func() []string { return nil },
	})
	for _, p := range problems {
		t.Errorf("%s:%d: %s\nin\n%s", b.file, b.line, p, b.text)
	}
}

func checkRules(t *testing.T, b block) { t.Helper(); promtool(t, b, "check", "rules") }

func checkScrape(t *testing.T, b block) {
	t.Helper()
	promtool(t, b, "check", "config", "--syntax-only")
}

// promtool has Prometheus' own tool check a file.
func promtool(t *testing.T, b block, args ...string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(file, []byte(b.text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "promtool", append(args, file)...).CombinedOutput(); err != nil {
		t.Errorf("%s:%d: %v\n%s(promtool is in Debian's package prometheus)", b.file, b.line, err, out)
	}
}

func checkYAML(t *testing.T, text string) {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Errorf("%v\nin\n%s", err, text)
	}
}

// checkJSON reads one or more values.
func checkJSON(t *testing.T, text string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	for {
		var v any
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Errorf("%v\nin\n%s", err, text)
			return
		}
	}
}

// checkUnit checks that each line of a unit is a section, a setting or a comment.
func checkUnit(t *testing.T, b block) {
	t.Helper()
	line := regexp.MustCompile(`^(|[#;].*|\[[A-Z][A-Za-z]+\]|[A-Z][A-Za-z]+=.*)$`)
	for i, l := range strings.Split(b.text, "\n") {
		if !line.MatchString(l) {
			t.Errorf("%s:%d: no line of a unit: %s", b.file, b.line+1+i, l)
		}
	}
}
