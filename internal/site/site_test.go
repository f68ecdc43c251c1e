package site

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter/internal/config"
)

var update = flag.Bool("update", false, "write golden files anew")

// around are the files and the environment of the samples.
func around(name string, data []byte) Source {
	files := map[string]string{
		"/etc/tranter/management.token":  "glpat-hunter2fromafile\n",
		"/etc/tranter/runners.d/10.toml": "[runners.arm64]\ntags = [\"arm64\"]\n[runners.arm64.batch]\nconstraint = \"arm64\"\n",
		"/etc/tranter/parts/one.toml":    "include = [\"two.toml\", \"../site.toml\"]\n[runners.A]\ntags = [\"b\"]\n",
		"/etc/tranter/parts/two.toml":    "include = [\"one.toml\"]\n[poll]\ninterval = 5\n[launch]\nexecutable = \"x\"\n",
		"/etc/tranter/parts/untidy.toml": "[runners.c\ntags = 3\n",
	}
	return Source{
		Name: name, Path: name, Data: data, This: "/usr/bin/tranter", Home: "/home/ci",
		Read: func(path string) ([]byte, error) {
			text, ok := files[path]
			if !ok {
				return nil, errors.New("no such file")
			}
			return []byte(text), nil
		},
		List: func(pattern string) ([]string, error) {
			var out []string
			for path := range files {
				if ok, _ := filepath.Match(pattern, path); ok {
					out = append(out, path)
				}
			}
			slices.Sort(out)
			return out, nil
		},
		Env: func(name string) (string, bool) {
			value, ok := map[string]string{"HOME": "/home/ci", "MANAGEMENT_TOKEN": "glpat-hunter2fromenv"}[name]
			return value, ok
		},
	}
}

func sample(t testing.TB, path string) (Site, []config.Problem) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return Parse(around("/etc/tranter/site.toml", data))
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), -update writes it anew:\n%s", path, diff)
	}
}

func listing(problems []config.Problem) string {
	var b strings.Builder
	for _, p := range problems {
		b.WriteString(p.String() + "\n")
	}
	return b.String()
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files match %s: %v", pattern, err)
	}
	return paths
}

func tokens(s Site) map[string]Token {
	out := map[string]Token{}
	for i, r := range s.Runners {
		out[r.Name] = Token{ID: int64(100 + i), Token: "glrt-tokentokentoken", ObtainedAt: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	}
	return out
}

func TestProblemsAreToldAllAtOnceWithTheirPlaces(t *testing.T) {
	for _, path := range glob(t, "testdata/problems/*.toml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			_, problems := sample(t, path)
			got := listing(problems)
			golden(t, strings.TrimSuffix(path, ".toml")+".txt", got)
			for _, secret := range []string{"hunter2", "glrt-", "12345"} {
				if strings.Contains(got, secret) {
					t.Errorf("the problems show the secret %q", secret)
				}
			}
			if !config.Failed(problems, false) {
				t.Error("the file is good")
			}
		})
	}
}

func TestSamplesAreGoodAndBecomeWhatTheySay(t *testing.T) {
	for _, path := range glob(t, "testdata/samples/*.toml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			s, problems := sample(t, path)
			base := strings.TrimSuffix(path, ".toml")
			golden(t, base+".problems.txt", listing(problems))
			if config.Failed(problems, false) {
				t.Error("a good file has errors")
			}
			shown, err := config.Write(s.Show())
			if err != nil {
				t.Fatal(err)
			}
			golden(t, base+".show.golden", string(shown))
			if strings.Contains(string(shown), "hunter2") {
				t.Error("what is shown has a secret")
			}
			text, err := RenderConfig(s, tokens(s))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, base+".config.golden", string(text))
			c, problems := config.Parse(config.Source{Name: "generated", Data: text})
			for _, p := range problems {
				if p.Severity == config.Error || p.Unknown {
					t.Errorf("the generated configuration has a problem: %v", p)
				}
			}
			for _, r := range c.Runners {
				if r.Batch.Scheduler != "" || r.Executor == "apptainer" {
					t.Errorf("the stock runner does not know what runner %s has", r.Name)
				}
			}
			ours, err := config.Render(Config(s, tokens(s)))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, base+".ours.golden", string(ours))
			if strings.Contains(string(ours), "hunter2") {
				t.Error("the shown configuration has a secret")
			}
		})
	}
}
