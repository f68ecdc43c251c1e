package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

const registrationToken = "GR1348941registrationtoken"

// hookedGitLab is a coordinator on loopback that calls before ahead of each request.
type hookedGitLab struct {
	*coordinator.Coordinator
	url    string
	before hook
	after  hook
}

// hook is called with each request. It may be set while there are some.
type hook struct {
	f atomic.Pointer[func(*http.Request)]
}

func (h *hook) set(f func(*http.Request)) { h.f.Store(&f) }

func (h *hook) call(r *http.Request) {
	if f := h.f.Load(); f != nil {
		(*f)(r)
	}
}

func newHookedGitLab(t *testing.T) *hookedGitLab {
	t.Helper()
	c, err := coordinator.Open(coordinator.Options{Dir: t.TempDir(), Registration: registrationToken, LongPoll: -1})
	if err != nil {
		t.Fatal(err)
	}
	g := &hookedGitLab{Coordinator: c}
	handler := c.Handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.before.call(r)
		handler.ServeHTTP(w, r)
		g.after.call(r)
	}))
	g.url = server.URL
	t.Cleanup(func() {
		server.Close()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// newToken makes a runner as it is made in GitLab.
func (g *hookedGitLab) newToken(t *testing.T, lifetime time.Duration) tranter.Secret {
	t.Helper()
	r, err := g.CreateRunner(coordinator.RunnerSpec{RunUntagged: true, TokenLifetime: lifetime})
	if err != nil {
		t.Fatal(err)
	}
	return r.Token
}

// command runs a command line in this process.
func command(ctx context.Context, args ...string) (code int, out, errors string) {
	var stdout, stderr bytes.Buffer
	code = run(ctx, args, streams{in: strings.NewReader(""), out: &stdout, err: &stderr})
	return code, stdout.String(), stderr.String()
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A runner that was made in GitLab, but could not be written into the file, is removed from GitLab again: when the
// command is told to end, and when somebody breaks the file in the same moment.
func TestRegistrationIsTakenBack(t *testing.T) {
	tests := map[string]struct {
		args []string
		left int
		hook func(t *testing.T, path string, end func())
		want string
	}{
		"interrupted":         {nil, 0, func(_ *testing.T, _ string, end func()) { end() }, "taken back"},
		"interrupted, left":   {[]string{"--leave-runner"}, 1, func(_ *testing.T, _ string, end func()) { end() }, "stays registered"},
		"the file was broken": {nil, 0, func(t *testing.T, path string, _ func()) { writeFile(t, path, "concurrent = [\n") }, "taken back"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := newHookedGitLab(t)
			path := filepath.Join(t.TempDir(), "config.toml")
			ctx, end := context.WithCancel(t.Context())
			defer end()
			g.before.set(func(r *http.Request) {
				if r.Method == http.MethodPost && r.URL.Path == "/api/v4/runners" {
					test.hook(t, path, end)
				}
			})
			args := append([]string{"register", "-n", "-c", path, "-u", g.url, "-r", registrationToken, "--executor", "shell"}, test.args...)
			code, out, stderr := command(ctx, args...)
			if code != 1 || !strings.Contains(stderr, test.want) {
				t.Errorf("exit code %d, want 1; %s", code, stderr)
			}
			if n := len(g.Runners()); n != test.left {
				t.Errorf("%d runners are left in GitLab, want %d", n, test.left)
			}
			for _, r := range g.Runners() {
				if strings.Contains(out+stderr, r.Token.Reveal()) {
					t.Error("the token is shown")
				}
			}
			if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), "runners") {
				t.Errorf("the file was written:\n%s", data)
			}
		})
	}
}

// A token that the file had before belongs to a manager that may be running: it is not taken away from it.
func TestFailedRegistrationLeavesKnownManagers(t *testing.T) {
	g := newHookedGitLab(t)
	path := filepath.Join(t.TempDir(), "config.toml")
	args := []string{"register", "-n", "-c", path, "-u", g.url, "-t", g.newToken(t, 0).Reveal(), "--executor", "shell"}
	if code, _, stderr := command(t.Context(), args...); code != 0 {
		t.Fatal(stderr)
	}
	broken := false
	g.before.set(func(*http.Request) {
		if !broken {
			writeFile(t, path, "concurrent = [\n")
			broken = true
		}
	})
	if code, _, stderr := command(t.Context(), args...); code != 1 || !strings.Contains(stderr, "config.toml:1:") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if n := len(g.Runners()[0].Managers); n != 1 {
		t.Errorf("GitLab knows %d managers, want 1", n)
	}
}

// Commands that change the file at the same time do not undo each other's changes.
func TestEditsAtTheSameTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	const n = 16
	errs := make(chan error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			errs <- editConfig(t.Context(), path, appendSection(config.Section{
				{Key: "name", Value: fmt.Sprintf("runner %d", i)}, {Key: "url", Value: "https://gitlab.example.com"}, {Key: "token", Value: fmt.Sprint("glrt-", i)}, {Key: "executor", Value: "shell"},
			}))
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	file, err := readRunners(path, false)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, r := range file.config.Runners {
		names[r.Name] = true
	}
	if len(names) != n {
		t.Errorf("%d runners are in the file, want %d:\n%s", len(names), n, readFile(t, path))
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("files are left over: %v, %v", left, err)
	}
}

func TestEditThatIsNotRight(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	const before = "# mine\nconcurrent = 3\n"
	writeFile(t, path, before)
	for name, do := range map[string]configEdit{
		"fails":         func(*config.Editor, config.Config) error { return errors.New("no") },
		"breaks a rule": appendSection(config.Section{{Key: "executor", Value: "nonsense"}}),
	} {
		if err := editConfig(t.Context(), path, do); err == nil {
			t.Errorf("an edit that %s: no error", name)
		}
		if got := readFile(t, path); got != before {
			t.Errorf("an edit that %s changed the file:\n%s", name, got)
		}
	}
}

func TestReplacedFileKeepsOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = 12345, 12346
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	if err := replaceFile(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	owner := fmt.Sprintf("%+v", info.Sys())
	if !strings.Contains(owner, fmt.Sprintf("Uid:%d Gid:%d", uid, gid)) || info.Mode().Perm() != 0o600 || readFile(t, path) != "new" {
		t.Errorf("mode %v, %s", info.Mode(), owner)
	}
}

func TestSystemID(t *testing.T) {
	if got := machineSystemID("0123456789abcdef0123456789abcdef"); got != "s_ee3af03959fe" {
		t.Errorf("system id of the example is %s", got)
	}
	first, second := machineSystemID(""), machineSystemID("")
	if !systemIDPattern().MatchString(first) || !strings.HasPrefix(first, "r_") || first == second {
		t.Errorf("random system ids %s, %s", first, second)
	}
	for content, kept := range map[string]bool{"": false, "r_AbCdEf012345": true, " s_0123456789ab\n": true, "s_short": false, "x_0123456789ab": false, "s_0123456789ab-": false} {
		dir := t.TempDir()
		path := filepath.Join(dir, systemIDFile)
		if content != "" {
			writeFile(t, path, content)
		}
		conf := filepath.Join(dir, "config.toml")
		got := systemID(conf, slog.New(slog.DiscardHandler))
		if !systemIDPattern().MatchString(got) || kept != (got == strings.TrimSpace(content)) {
			t.Errorf("%q: system id %q", content, got)
		}
		if again := systemID(conf, slog.New(slog.DiscardHandler)); again != got {
			t.Errorf("%q: %s, the second time %s", content, got, again)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
	}
}

// Without a place to keep it there is still a system id, and a warning.
func TestSystemIDThatCannotBeSaved(t *testing.T) {
	var log bytes.Buffer
	id := systemID(filepath.Join(t.TempDir(), "missing", "config.toml"), slog.New(slog.NewTextHandler(&log, nil)))
	if !systemIDPattern().MatchString(id) || !strings.Contains(log.String(), "can't be saved") {
		t.Errorf("%q: %s", id, &log)
	}
}

// The page documents each key once, in its section.
func TestConfigurationReference(t *testing.T) {
	page := configurationReference()
	rows := regexp.MustCompile("(?m)^\\| `").FindAllString(page, -1)
	if len(rows) != len(config.Keys()) {
		t.Errorf("%d rows for %d keys", len(rows), len(config.Keys()))
	}
	for _, want := range []string{"## `[[runners]]`", "## `[runners.docker]`", "| `concurrent` | integer | `1` |", "`--docker-image`, variable `DOCKER_IMAGE`", "*Not yet.*", "Old spelling: `pre_clone_script`"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "|") && len(regexp.MustCompile(`[^\\]\|`).FindAllString(" "+line, -1)) != 5 {
			t.Errorf("not a row of four cells: %s", line)
		}
	}
}

// Questions go on until there is an answer, or the input ends.
func TestAsker(t *testing.T) {
	number := question{text: "Number", preset: "7", accept: func(s string) error {
		if strings.Trim(s, "0123456789") != "" {
			return errors.New("digits only")
		}
		return nil
	}}
	for input, want := range map[string]string{"\n": "7", "12\n": "12", "x\n\r\n": "7", "x\ny\n 3 \r\n": "3", "5": "5"} {
		var out bytes.Buffer
		got, err := newAsker(streams{in: strings.NewReader(input), out: &out}).ask(number)
		if got != want || err != nil {
			t.Errorf("%q: answer %q, %v", input, got, err)
		}
		if asked, wrong := strings.Count(out.String(), "Number [7]:"), strings.Count(out.String(), "digits only"); asked != wrong+1 {
			t.Errorf("%q: asked %d times after %d wrong answers", input, asked, wrong)
		}
	}
	if got, err := newAsker(streams{in: strings.NewReader("x\n"), out: io.Discard}).ask(number); err == nil {
		t.Errorf("answer %q to an input that has ended", got)
	}
}
