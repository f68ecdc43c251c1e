package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files anew")

// source returns a file of testdata with invented surroundings.
func source(t testing.TB, path string) Source {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return Source{
		Name: "/etc/runner/config.toml",
		Data: data,
		Getenv: func(name string) string {
			return map[string]string{"RUNNER_TOKEN": "glrt-fromenvironmentfrome"}[name]
		},
		ReadFile: func(path string) ([]byte, error) {
			if path == filepath.FromSlash("/etc/runner/good.token") {
				return []byte("glrt-fromfilefromfilefrom\n"), nil
			}
			return nil, errors.New("no such file")
		},
	}
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

func files(t testing.TB, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files match %s: %v", pattern, err)
	}
	return paths
}

func listing(problems []Problem) string {
	var b strings.Builder
	for _, p := range problems {
		b.WriteString(filepath.ToSlash(p.String()) + "\n")
	}
	return b.String()
}

func TestProblems(t *testing.T) {
	for _, path := range files(t, "testdata/problems/*.toml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			_, problems := Parse(source(t, path))
			got := listing(problems)
			golden(t, strings.TrimSuffix(path, ".toml")+".txt", got)
			for _, secret := range []string{"hunter2", "glrt-", "12345"} {
				if strings.Contains(got, secret) {
					t.Errorf("the problems show the secret %q", secret)
				}
			}
		})
	}
}

func TestSamples(t *testing.T) {
	for _, path := range files(t, "testdata/samples/*.toml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c, problems := Parse(source(t, path))
			base := strings.TrimSuffix(path, ".toml")
			golden(t, base+".problems.txt", listing(problems))
			for _, p := range problems {
				if (p.Severity == Error || p.Severity == Warning) && !p.NotBuilt {
					t.Errorf("a good file has a problem: %v", p)
				}
			}
			shown, err := Render(c)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, base+".show.golden", string(shown))
			object, err := RenderJSON(c)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, base+".json.golden", string(object))
			for _, secret := range []string{"hunter2", "s3cr3t", "fromenvironmentfrome", "elasticelasticelast", "staticstatic", "commandcommand"} {
				if strings.Contains(string(shown)+string(object), secret) {
					t.Errorf("the effective configuration shows the secret %q", secret)
				}
			}
		})
	}
}

// What is shown must be a configuration again that means the same, secrets aside.
func TestShownConfigurationParses(t *testing.T) {
	for _, path := range files(t, "testdata/samples/*.toml") {
		c, _ := Parse(source(t, path))
		shown, err := Render(c)
		if err != nil {
			t.Fatal(err)
		}
		again, problems := Parse(Source{Name: "shown", Data: shown})
		for _, p := range problems {
			if p.Severity != Note && !p.NotBuilt {
				t.Errorf("%s: %v", path, p)
			}
		}
		twice, err := Render(again)
		if err != nil {
			t.Fatal(err)
		}
		if again.Concurrent != c.Concurrent || len(again.Runners) != len(c.Runners) || strings.Count(string(twice), "\n") != strings.Count(string(shown), "\n") {
			t.Errorf("%s: shown again it is different:\n%s", path, cmp.Diff(string(shown), string(twice)))
		}
	}
}
