package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
)

func TestTokenDue(t *testing.T) {
	at := func(s string) time.Time {
		when, err := time.Parse(time.DateTime, s)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	tests := []struct {
		name              string
		obtained, expires time.Time
		due               time.Time
		ok                bool
	}{
		{"never", at("2026-01-01 00:00:00"), time.Time{}, time.Time{}, false},
		{"three quarters of 40 days", at("2026-01-01 00:00:00"), at("2026-02-10 00:00:00"), at("2026-01-31 00:00:00"), true},
		{"issued nobody knows when", time.Time{}, at("2026-02-10 00:00:00"), time.Time{}, true},
		{"expires before it is issued", at("2026-03-01 00:00:00"), at("2026-02-10 00:00:00"), at("2026-03-01 00:00:00"), true},
	}
	for _, test := range tests {
		due, ok := tokenDue(config.Runner{TokenObtainedAt: test.obtained, TokenExpiresAt: test.expires})
		if ok != test.ok || !due.Equal(test.due) {
			t.Errorf("%s: due %v, %v", test.name, due, ok)
		}
	}
}

// A token is never due before it was issued nor after it has expired, however long its life.
func TestTokenDueProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		obtained := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "obtained"), 0)
		expires := obtained.Add(time.Duration(rapid.Int64Range(1, 1<<62).Draw(t, "life")))
		due, ok := tokenDue(config.Runner{TokenObtainedAt: obtained, TokenExpiresAt: expires})
		if !ok || due.Before(obtained) || due.After(expires) {
			t.Fatalf("issued %v, expires %v, due %v", obtained, expires, due)
		}
	})
}

func TestNextRotation(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC) }
	c := config.Config{Runners: []config.Runner{
		{Name: "never", TokenObtainedAt: day(1)},
		{Name: "later", TokenObtainedAt: day(1), TokenExpiresAt: day(21)},
		{Name: "sooner", TokenObtainedAt: day(1), TokenExpiresAt: day(9)},
		{Name: "off", TokenObtainedAt: day(1), TokenExpiresAt: day(5), FeatureFlags: map[string]bool{flagNoRotation: true}},
		{Name: "from the environment", TokenObtainedAt: day(1), TokenExpiresAt: day(13), Raw: config.Raw{Token: "$T"}},
	}}
	skipped := map[string]bool{}
	var order []string
	for {
		next, ok := nextRotation(c, func(r config.Runner) bool { return skipped[r.Name] })
		if !ok {
			break
		}
		name := next.runner.Name
		if advised := next.advice != ""; advised != (name == "off" || name == "from the environment") {
			t.Errorf("%s: advice %q", name, next.advice)
		}
		skipped[name] = true
		order = append(order, name)
	}
	if got := strings.Join(order, ", "); got != "off, sooner, from the environment, later" {
		t.Errorf("order: %s", got)
	}
}

// rotating is a configuration whose first runner has a token that expires.
func rotating(t *testing.T, g *hookedGitLab) (path string, client *gitlab.Client, r config.Runner) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "config.toml")
	writeFile(t, path, "# first\n\n[[runners]]\n  name = \"r\" # mine\n  url = \""+g.url+"\"\n  token = \""+g.newToken(t, 240*time.Hour).Reveal()+"\" # secret\n  executor = \"shell\"\n  [runners.cache]\n    Path = \"x\"\n")
	c, problems, err := parseConfig(path, false)
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	client, err = newClient(c, c.Runners[0], "s_0123456789ab", nil)
	if err != nil {
		t.Fatal(err)
	}
	return path, client, c.Runners[0]
}

func TestRotateToken(t *testing.T) {
	g := newHookedGitLab(t)
	path, client, old := rotating(t, g)
	now := time.Now()
	if err := rotateToken(t.Context(), path, old, client, now); err != nil {
		t.Fatal(err)
	}
	c, problems, err := parseConfig(path, false)
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	r := c.Runners[0]
	if due, ok := tokenDue(r); r.Token == old.Token || !ok || due.Before(now.Add(100*time.Hour)) {
		t.Errorf("token %v, due %v", r.Token == old.Token, due)
	}
	if r.Token != g.Runners()[0].Token {
		t.Error("the file does not have GitLab's token")
	}
	for _, kept := range []string{"# first\n\n[[runners]]\n  name = \"r\" # mine\n", "\" # secret\n", "  [runners.cache]\n    Path = \"x\"\n"} {
		if !strings.Contains(readFile(t, path), kept) {
			t.Errorf("%q is not in the file any more:\n%s", kept, readFile(t, path))
		}
	}
}

// A new token that could not be saved would be a runner that is lost: so nothing is asked of GitLab.
func TestTokenIsNotResetWhenItCouldNotBeSaved(t *testing.T) {
	g := newHookedGitLab(t)
	for name, spoil := range map[string]func(t *testing.T, path string){
		"broken file": func(t *testing.T, path string) { writeFile(t, path, readFile(t, path)+"x = \n") },
		"no section":  func(t *testing.T, path string) { writeFile(t, path, "concurrent = 1\n") },
		"no file": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, client, r := rotating(t, g)
			spoil(t, path)
			if err := rotateToken(t.Context(), path, r, client, time.Now()); err == nil || !strings.Contains(err.Error(), "left as it is") {
				t.Error(err)
			}
			if _, err := client.Verify(t.Context()); err != nil {
				t.Errorf("the old token: %v", err)
			}
		})
	}
}

// When saving fails although it had been tried, the new token is in a file that only its owner can read.
func TestNewTokenIsRescued(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	g := newHookedGitLab(t)
	path, client, r := rotating(t, g)
	g.after.set(func(req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "reset_authentication_token") {
			writeFile(t, path, "concurrent = \n")
		}
	})
	err := rotateToken(t.Context(), path, r, client, time.Now())
	if err == nil {
		t.Fatal("no error")
	}
	token := g.Runners()[0].Token
	if strings.Contains(err.Error(), token.Reveal()) {
		t.Error("the error shows the token")
	}
	file := regexp.MustCompile(`it is in (\S+),`).FindStringSubmatch(err.Error())
	if file == nil {
		t.Fatal(err)
	}
	if info, e := os.Stat(file[1]); e != nil || info.Mode().Perm() != 0o600 || strings.TrimSpace(readFile(t, file[1])) != token.Reveal() {
		t.Errorf("%v, %v", info, e)
	}
}

type resetterFunc func(context.Context) (gitlab.Registered, error)

func (f resetterFunc) ResetToken(ctx context.Context) (gitlab.Registered, error) { return f(ctx) }

// The end of the process does not come between a reset and the writing of the new token.
func TestEndDuringRotation(t *testing.T) {
	g := newHookedGitLab(t)
	path, _, r := rotating(t, g)
	ctx, end := context.WithCancel(t.Context())
	reset := resetterFunc(func(context.Context) (gitlab.Registered, error) {
		end()
		return gitlab.Registered{Token: "glrt-new"}, nil
	})
	if err := rotateToken(ctx, path, r, reset, time.Now()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(readFile(t, path), `token = "glrt-new" # secret`) {
		t.Error(readFile(t, path))
	}
	// A reset that fails leaves everything as it is.
	before := readFile(t, path)
	r.Raw.Token = "glrt-new"
	cause := errors.New("no")
	if err := rotateToken(t.Context(), path, r, resetterFunc(func(context.Context) (gitlab.Registered, error) { return gitlab.Registered{}, cause }), time.Now()); !errors.Is(err, cause) {
		t.Error(err)
	}
	if readFile(t, path) != before {
		t.Error(readFile(t, path))
	}
}
