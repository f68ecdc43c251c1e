//go:build linux

package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"
	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
)

// lookupIn finds values in a map.
func lookupIn(values map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		v, ok := values[name]
		return v, ok
	}
}

func TestPlaceholdersAreFilled(t *testing.T) {
	values := map[string]string{"N": "5", "S": `a"b\c`, "L": "x, y=1,,", "E": "", "M": "two\nlines"}
	for _, c := range []struct{ name, text, want, err string }{
		{"a number", "a = {{ N }}", "a = 5", ""},
		{"without spaces", "a = {{N}}", "a = 5", ""},
		{"in quotes", `a = "<{{ S }}>"`, `a = "<a\"b\\c>"`, ""},
		{"a default", "a = {{ X | 7 }}", "a = 7", ""},
		{"a default in quotes", `a = "{{ X | some text }}"`, `a = "some text"`, ""},
		{"an empty default", `a = "{{ X | }}"`, `a = ""`, ""},
		{"a default of what is empty", "a = {{ E | 7 }}", "a = 7", ""},
		{"empty", `a = "{{ E }}"`, `a = ""`, ""},
		{"a list", "a = {{ list L }}", `a = ["x", "y=1"]`, ""},
		{"an empty list", "a = {{ list X | }}", `a = []`, ""},
		{"in a comment", "# {{ X }}\na = 1", "# {{ X }}\na = 1", ""},
		{"after a comment sign in quotes", `a = "#{{ N }}"`, `a = "#5"`, ""},
		{"in single quotes", `a = '{{ N }}'`, `a = '5'`, ""},
		{"over lines", "a = \"\"\"\n{{ M }}\"\"\"", "a = \"\"\"\ntwo\\u000alines\"\"\"", ""},
		{"variables of jobs", `a = "${CI_JOB_ID} $X"`, `a = "${CI_JOB_ID} $X"`, ""},
		{"unknown", "b = 1\n  a = \"ü{{ X }}\"", "", "t.toml:2:9: the placeholder X is not known"},
		{"two mistakes", "a = {{ X }}\nb = {{ Y }}", "", "t.toml:2:5: the placeholder Y is not known"},
		{"open", "a = {{ N", "", "t.toml:1:5: a placeholder begins with {{ and has no }} on its line"},
		{"no name", "a = {{ N-1 }}", "", "t.toml:1:5: {{ N-1 }} is no placeholder"},
		{"text without quotes", "a = {{ S }}", "", "t.toml:1:5: S: without quotes it has to be a number, true or false"},
		{"a list in quotes", `a = "{{ list L }}"`, "", "t.toml:1:6: L: a list stands without quotes"},
		{"lines in single quotes", `a = '{{ M }}'`, "", "t.toml:1:6: M: its value can't stand between single quotes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := fillTemplate("t.toml", c.text, lookupIn(values))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("%v, want %s", err, c.err)
				}
				return
			}
			if err != nil || got != c.want {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// Whatever is in a value, it stays one text: it can't end the quotes that it stands in.
func TestAValueCanNotLeaveItsQuotes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.String().Filter(utf8.ValidString).Draw(t, "value")
		quotes := rapid.SampledFrom([]string{`"`, `"""`}).Draw(t, "quotes")
		text := "[s]\na = " + quotes + "{{ V }}" + quotes + "\nl = {{ list V }}\n"
		got, _, err := fillTemplate("t.toml", text, lookupIn(map[string]string{"V": value}))
		if err != nil {
			t.Fatal(err)
		}
		var read map[string]map[string]any
		if err := toml.Unmarshal([]byte(got), &read); err != nil {
			t.Fatalf("%v in %q", err, got)
		}
		if len(read) != 1 || len(read["s"]) != 2 || read["s"]["a"] != value {
			t.Fatalf("%q, want only %q", read, value)
		}
		for _, item := range read["s"]["l"].([]any) {
			if !strings.Contains(value, item.(string)) {
				t.Fatalf("%q is not in %q", item, value)
			}
		}
	})
}

func FuzzFillTemplate(f *testing.F) {
	for _, seed := range []string{"a = \"{{ N }}\"", "a = '{{ N }}' # {{", "{{{{", "a = \"\"\"\\", "a = {{ list N | }}"} {
		f.Add(seed, "value")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		got, _, err := fillTemplate("t", text, lookupIn(map[string]string{"N": value}))
		if err == nil && !strings.Contains(text, "{{") && got != text {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// The templates that the program has are good configurations once they are filled, with as little as they need.
func TestOwnTemplatesAreGood(t *testing.T) {
	t.Setenv("MACHINE_DRIVER", "openstack")
	t.Setenv("MACHINE_OPTIONS", "openstack-flavor-name=m1.large,openstack-password=hunter2")
	t.Setenv("CACHE_S3_BUCKET_NAME", "caches")
	t.Setenv("CACHE_S3_ACCESS_KEY", "ada")
	t.Setenv("CACHE_S3_SECRET_KEY", "hunter2")
	for name, executor := range map[string]string{"docker": "docker", "machine": "docker+machine", "shell": "shell"} {
		for _, by := range []struct{ name, executor string }{{name, ""}, {defaultTemplate, executor}} {
			tmpl, err := findTemplate(t.TempDir(), by.name, by.executor)
			if err != nil {
				t.Fatal(err)
			}
			v := upValues{URL: "https://gitlab.example.com", Name: `Build "host" 1`, Token: "glrt-abcdefghijkl", Prefix: ownPrefix("x")}
			f, err := tmpl.fill(v, gitlab.Registered{ID: 7}, time.Now())
			if err != nil {
				t.Fatalf("%s: %v", by.name, err)
			}
			c, problems := config.Parse(config.Source{Name: name, Data: f.text})
			if len(problems) > 0 || len(c.Runners) != 1 {
				t.Fatalf("%s: %v", by.name, problems)
			}
			r := c.Runners[0]
			if r.Executor != executor || r.Name != v.Name || r.Token != v.Token || r.URL != v.URL || r.ID != 7 {
				t.Errorf("%s: %+v", by.name, r)
			}
			if name == "machine" && (r.Machine.MachineName != "build-host-1-%s" || r.Cache.Path != v.Prefix || !f.prefixed || len(r.Machine.MachineOptions) != 2) {
				t.Errorf("machine: %q, %q, %v, %q", r.Machine.MachineName, r.Cache.Path, f.prefixed, r.Machine.MachineOptions)
			}
			shown, err := tmpl.shown(v)
			if err != nil || strings.Contains(shown, "hunter2") || strings.Contains(shown, "glrt-") || !strings.Contains(shown, `token = "******"`) {
				t.Errorf("%s is shown as\n%s\n%v", by.name, shown, err)
			}
			if name == "machine" && !strings.Contains(shown, `"openstack-password=******"`) {
				t.Errorf("the password is shown:\n%s", shown)
			}
		}
	}
}

// A template of one's own needs to say nothing about the runner but its executor: what is missing is added.
func TestATemplateIsCompleted(t *testing.T) {
	tmpl := upTemplate{"own.toml", "[[runners]]\n  executor = \"shell\" # mine\n  url = \"https://old.example.com\"\n"}
	v := upValues{URL: "https://gitlab.example.com", Name: "n", Token: "glrt-abcdefghijkl"}
	f, err := tmpl.fill(v, gitlab.Registered{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if r := f.runner(); r.URL != v.URL || r.Name != "n" || r.Token != v.Token || !strings.Contains(string(f.text), "# mine") {
		t.Errorf("%s", f.text)
	}
	for text, want := range map[string]string{
		"concurrent = 1\n": "0 runners: it needs exactly one",
		"[[runners]]\nexecutor = \"shell\"\n[[runners]]\nexecutor = \"shell\"\n": "2 runners: it needs exactly one",
		"[[runners]]\nexecutor = \"shell\"\nlimit = \"x\"\n":                     "own.toml:3:9: error: runners.limit",
		"[[runners]\n": "own.toml:1:",
	} {
		if _, err := (upTemplate{"own.toml", text}).fill(v, gitlab.Registered{}, time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestLogsAreKeptInNumberAndSize(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/other.log", "stays")
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	var also strings.Builder
	l, err := openUpLog(&upLog{dir: dir, most: 100, keep: 3, also: &also, now: func() time.Time {
		now = now.Add(time.Millisecond)
		return now
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	line := strings.Repeat("x", 59) + "\n"
	for range 10 {
		if _, err := l.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if also.Len() != 600 {
		t.Errorf("%d bytes went to standard error, want 600", also.Len())
	}
	if got := logFiles(t, dir); len(got) != 3 || got[2] != "tranter-2026-11-29T12-00-00.010000Z.log" || readFile(t, dir+"/"+got[2]) != line {
		t.Errorf("the files are %q", got)
	}
	if readFile(t, dir+"/other.log") != "stays" {
		t.Error("a file of somebody else is gone")
	}
}

// The page's template can be filled and is a good configuration, and its table names the variables that the command has.
func TestThePageOfTheLauncherIsTrue(t *testing.T) {
	page := readFile(t, "../../docs/launcher.md")
	t.Setenv("DATA_DIR", "/srv/data")
	seen := 0
	found, _ := blocks(t, "docs/launcher.md", page)
	for _, b := range found {
		if b.kind != "toml template" {
			continue
		}
		seen++
		f, err := upTemplate{"own.toml", b.text}.fill(upValues{URL: "https://gitlab.example.com", Name: "n", Token: "glrt-abcdefghijkl"}, gitlab.Registered{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if got := f.runner().Docker.AllowedImages; len(got) != 1 || got[0] != "debian:*" {
			t.Errorf("%q", got)
		}
	}
	if seen != 1 {
		t.Errorf("%d templates are on the page", seen)
	}
	cmd := newUp(streams{})
	named := 0
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		for _, env := range f.Annotations[envAnnotation] {
			named++
			if !strings.Contains(page, "`"+env+"`") {
				t.Errorf("%s is not on the page", env)
			}
		}
	})
	if named < 25 {
		t.Errorf("only %d variables were found", named)
	}
}
