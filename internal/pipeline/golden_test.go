package pipeline_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

var update = flag.Bool("update", false, "write golden files anew")

// TestGolden compiles every project of testdata/golden. An archive holds the project's files, perhaps "settings" (one
// "key value" a line), and "want": the problems, then the pipeline as JSON without empty fields.
func TestGolden(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/golden/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			archive := parseArchive(string(data))
			p, problems := pipeline.Compile(project(t, archive))
			got := render(t, p, problems)
			if *update {
				before, _, _ := strings.Cut(string(data), "-- want --\n")
				if err := os.WriteFile(path, []byte(before+"-- want --\n"+string(got)), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(archive["want"], string(got)); diff != "" {
				t.Errorf("-want +got, -update writes it anew:\n%s", diff)
			}
		})
	}
}

// parseArchive reads the text form of several files: a line "-- NAME --" before each.
func parseArchive(s string) map[string]string {
	files := map[string]string{}
	name := ""
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, "-- ") && strings.HasSuffix(line, " --\n") {
			name = line[3 : len(line)-4]
			line = ""
		}
		files[name] += line
	}
	delete(files, "")
	return files
}

// project makes the input of a compilation of an archive.
func project(t *testing.T, archive map[string]string) pipeline.Input {
	t.Helper()
	files := map[string][]byte{}
	for name, data := range archive {
		if name != "want" && name != "settings" {
			files[name] = []byte(data)
		}
	}
	in := pipeline.Input{
		Ref: "main", Source: "push",
		Read: func(path string) ([]byte, error) {
			if data, ok := files[path]; ok {
				return data, nil
			}
			return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
		},
		List: func() []string {
			var names []string
			for name := range files {
				names = append(names, name)
			}
			return names
		},
		Blob:       func(path string) (string, bool) { _, ok := files[path]; return "blob-" + path, ok },
		LastCommit: func(path string) (string, bool) { _, ok := files[path]; return "commit-" + path, ok },
	}
	for line := range strings.Lines(archive["settings"]) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		applySetting(t, &in, key, value, files)
	}
	facts := pipeline.Facts{
		Project: pipeline.ProjectFacts{Path: "acme/web/shop"},
		Commit:  pipeline.CommitFacts{SHA: strings.Repeat("0123456789", 4), Ref: in.Ref, Tag: in.Tag, Message: "A change\n\nof it"},
		Server:  pipeline.ServerFacts{URL: "http://gitlab.test:8080"}, Source: in.Source,
	}
	in.Variables = pipeline.Predefined(facts)
	return in
}

func applySetting(t *testing.T, in *pipeline.Input, key, value string, files map[string][]byte) {
	t.Helper()
	name, rest, _ := strings.Cut(value, "=")
	switch key {
	case "ref":
		in.Ref = value
	case "tag":
		in.Ref, in.Tag = value, true
	case "source":
		in.Source = value
	case "variable":
		in.PipelineVariables = append(in.PipelineVariables, tranter.Variable{Key: name, Value: rest})
	case "project-variable":
		in.ProjectVariables = append(in.ProjectVariables, tranter.Variable{Key: name, Value: rest})
	case "input":
		if in.Inputs == nil {
			in.Inputs = map[string]any{}
		}
		in.Inputs[name] = rest
	case "changed":
		in.Changed = func(compareTo string) ([]string, bool) {
			if compareTo == "nowhere" {
				return nil, false
			}
			return strings.Fields(value), true
		}
	case "caches":
		in.SeparateCaches, in.Protected = true, value == "protected"
	case "fetch":
		in.Fetch = func(kind string, spec map[string]any) ([]byte, error) {
			data, err := json.Marshal(spec)
			if err != nil {
				return nil, err
			}
			if data, ok := files["elsewhere/"+kind+" "+strings.NewReplacer(`"`, "", "/", "_").Replace(string(data))]; ok {
				return data, nil
			}
			return nil, errors.New("there is no " + kind + " " + string(data))
		}
	default:
		t.Fatalf("unknown setting %q", key)
	}
}

func render(t *testing.T, p *pipeline.Pipeline, problems []pipeline.Problem) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, problem := range problems {
		fmt.Fprint(&b, problem)
		if problem.Kind != "" {
			fmt.Fprintf(&b, " [%s]", problem.Kind)
		}
		b.WriteByte('\n')
	}
	if p == nil {
		return b.Bytes()
	}
	short := json.NewEncoder(&b)
	short.SetEscapeHTML(false)
	short.SetIndent("", "  ")
	if err := short.Encode(prune(reflect.ValueOf(*p))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// prune turns a value into what JSON shows of it: without empty fields; variables as KEY=value, plain lists in one line.
func prune(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case json.RawMessage:
		return x
	case tranter.Variable:
		s := x.Key + "=" + x.Value
		if x.Raw {
			s += " (raw)"
		}
		return s
	case fmt.Stringer:
		return x.String()
	}
	switch v.Kind() {
	case reflect.Pointer:
		return prune(v.Elem())
	case reflect.Struct:
		out := map[string]any{}
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() {
				out[v.Type().Field(i).Name] = prune(f)
			}
		}
		return out
	case reflect.Slice:
		out := []any{}
		for i := range v.Len() {
			out = append(out, prune(v.Index(i)))
		}
		return out
	case reflect.Map:
		out := map[string]any{}
		for _, k := range v.MapKeys() {
			out[k.String()] = prune(v.MapIndex(k))
		}
		return out
	default:
		return v.Interface()
	}
}
