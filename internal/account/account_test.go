//go:build unix

package account_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/account"
)

// tools puts programs before those of the system.
func tools(t *testing.T, programs map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil { //nolint:gosec // it is a program
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// program returns the path of a program.
func program(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "map user")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil { //nolint:gosec // it is a program
		t.Fatal(err)
	}
	return path
}

func unmapped(t *testing.T, err error, says string) {
	t.Helper()
	var u *account.UnmappedError
	if !errors.As(err, &u) || !strings.Contains(err.Error(), says) {
		t.Errorf("error %v, want an UnmappedError with %q", err, says)
	}
}

func TestTheTableComesFirstThenTheCommandThenTheSameName(t *testing.T) {
	m := account.New(account.Options{
		Table:   map[string]string{"Alice": "daemon", "mallory": ""},
		Command: []string{program(t, `test "$1" = bob && echo nobody; exit 0`)},
		Same:    true,
	})
	for gitlab, want := range map[string]string{"alice": "daemon", "Alice": "daemon", "bob": "nobody", "games": "games"} {
		a, err := m.Map(t.Context(), account.User{Name: gitlab})
		if err != nil || a.Name != want || a.UID == 0 || len(a.Groups) == 0 || a.Home == "" {
			t.Errorf("%s: %+v, %v; want %s", gitlab, a, err, want)
		}
	}
	_, err := m.Map(t.Context(), account.User{Name: "mallory"})
	unmapped(t, err, "no system user is given")
	_, err = m.Map(t.Context(), account.User{Name: "nobody-at-all"})
	unmapped(t, err, "create it")
}

func TestNobodyRunsAsRootOrBelowTheLeastUID(t *testing.T) {
	m := account.New(account.Options{Table: map[string]string{"eve": "root", "dave": "daemon"}, Same: true})
	for _, name := range []string{"eve", "root"} {
		_, err := m.Map(t.Context(), account.User{Name: name})
		unmapped(t, err, "root")
	}
	m = account.New(account.Options{Table: map[string]string{"dave": "daemon"}, MinimumUID: 1000})
	_, err := m.Map(t.Context(), account.User{Name: "dave"})
	unmapped(t, err, "minimum_uid")
}

func TestHostileNamesReachNobody(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "ran")
	m := account.New(account.Options{Command: []string{program(t, `touch `+mark+`; echo games`)}, Same: true})
	for _, name := range []string{"", "-rf", "--help", "../etc", "a b", "a\nroot", "a;id", "$(id)", "ä", ".hidden", "a\x00b", strings.Repeat("a", 256)} {
		_, err := m.Map(t.Context(), account.User{Name: name})
		unmapped(t, err, "not a user name of GitLab's")
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the program was run for one of them")
	}
	_, err := m.Map(t.Context(), account.User{Name: "0"})
	if err != nil {
		t.Errorf("GitLab user 0, mapped by the program: %v", err)
	}
	_, err = account.New(account.Options{Same: true}).Map(t.Context(), account.User{Name: "0"})
	unmapped(t, err, "create it")
}

func TestTheProgramLearnsOfTheJobAndNothingSecret(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	t.Setenv("TRANTER_TOKEN", "s3cret")
	t.Setenv("GITLAB_TOKEN", "s3cret")
	t.Setenv("CI_JOB_TOKEN", "s3cret")
	m := account.New(account.Options{Command: []string{program(t, `echo "$@" >`+out+`; env >>`+out+`; echo games`), "first word"}})
	a, err := m.Map(t.Context(), account.User{Name: "bob", ID: 7, Project: "group/project"})
	if err != nil || a.Name != "games" {
		t.Fatalf("%+v, %v", a, err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(got), "\n")
	for _, want := range []string{"first word bob", "TRANTER_USER=bob", "TRANTER_USER_ID=7", "TRANTER_PROJECT=group/project"} {
		if !slices.Contains(lines, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(string(got), "s3cret") {
		t.Errorf("a secret in\n%s", got)
	}
}

func TestAProgramThatFailsOrTalksNonsenseMapsNobody(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"fails":    {`echo the directory is down >&2; exit 3`, "the directory is down"},
		"nonsense": {`echo 'two words'`, "not the name of a user"},
		"lines":    {`echo games; echo daemon`, "not the name of a user"},
		"option":   {`echo --help`, "not the name of a user"},
		"uid":      {`echo 0`, "not the name of a user"},
		"much":     {`head -c 1000000 /dev/zero | tr '\0' a`, "not the name of a user"},
	} {
		m := account.New(account.Options{Command: []string{program(t, c.text)}, Same: true})
		a, err := m.Map(t.Context(), account.User{Name: "games"})
		if a != nil || err == nil || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 1500 {
			t.Errorf("%s: %+v, %.2000v; want %q", name, a, err, c.says)
		}
		if _, ok := errors.AsType[*account.UnmappedError](err); ok {
			t.Errorf("%s: it may pass, and is called unmapped", name)
		}
	}
}

func TestAProgramThatHangsIsEnded(t *testing.T) {
	m := account.New(account.Options{Command: []string{program(t, "sleep 1000")}, Timeout: 200 * time.Millisecond})
	begin := time.Now()
	_, err := m.Map(t.Context(), account.User{Name: "bob"})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}

func TestAnAnswerIsKeptAndNoCallerCanChangeIt(t *testing.T) {
	count := filepath.Join(t.TempDir(), "count")
	m := account.New(account.Options{Command: []string{program(t, "echo x >>"+count+"; echo games")}})
	for range 3 {
		a, err := m.Map(t.Context(), account.User{Name: "bob"})
		if err != nil || a.Name != "games" || a.Groups[0] == 12345 {
			t.Fatalf("%+v, %v", a, err)
		}
		a.Name, a.Groups[0] = "changed", 12345
	}
	if got, _ := os.ReadFile(count); string(got) != "x\n" {
		t.Errorf("the program ran %d times", strings.Count(string(got), "x"))
	}
}

func TestUsersOfADirectoryAreFoundWithTheirGroups(t *testing.T) {
	tools(t, map[string]string{
		"getent": `case "$2" in asmith) echo 'asmith:*:70001:70000:Ann:/home/asmith:/sbin/nologin';; odd) echo rubbish;; other) echo 'else:*:1:1::/:/';; none) echo 'none:*:4294967295:1::/:/';; *) exit 2;; esac`,
		"id":     `test "$3" = asmith && echo 70000 70005 70009`,
	})
	a, err := account.Lookup("asmith")
	if err != nil || a.UID != 70001 || a.GID != 70000 || a.Home != "/home/asmith" || !slices.Equal(a.Groups, []uint32{70000, 70005, 70009}) {
		t.Errorf("%+v, %v", a, err)
	}
	for _, name := range []string{"odd", "other", "none", "missing", "games", "-x", "", "1000"} { // games is local, and id fails
		if a, err := account.Lookup(name); err == nil {
			t.Errorf("%q: %+v", name, a)
		}
	}
}
