package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/site"
)

// siteBench is a site, a server and a state directory.
type siteBench struct {
	t      *testing.T
	gitlab *coordinatortest.GitLab
	site   site.Site
	state  string
	app    coordinator.Project
}

func newSiteBench(t *testing.T) *siteBench {
	t.Helper()
	g := coordinatortest.New(t)
	b := &siteBench{t: t, gitlab: g, state: t.TempDir()}
	for _, path := range []string{"hpc/lib", "hpc/app"} {
		p, err := g.Coordinator.CreateProject(path, "")
		if err != nil {
			t.Fatal(err)
		}
		b.app = p
	}
	app := site.Scope{Kind: site.ScopeProject, Path: "hpc/app"}
	b.site = site.Site{Name: "hpc", URL: g.URL, Token: b.token("read_api", "create_runner", "manage_runner"), Runners: []site.Runner{
		{Name: "small", Description: "hpc-small", Scope: app, Tags: []string{"small"}},
		{Name: "large", Description: "hpc-large", Scope: site.Scope{Kind: site.ScopeGroup, Path: "hpc"}, Tags: []string{"large"}, MaximumTimeout: time.Hour},
		{Name: "gpu", Description: "hpc-gpu", Scope: app, Tags: []string{"gpu"}, Projects: []site.Scope{{Kind: site.ScopeProject, Path: "hpc/lib"}}},
	}}
	return b
}

func (b *siteBench) token(scopes ...string) tranter.Secret {
	b.t.Helper()
	token, err := b.gitlab.Coordinator.CreateAccessToken(coordinator.AccessToken{Name: strings.Join(scopes, "+"), User: "ada", UserID: 7, Scopes: scopes})
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

// apply runs the command, as change has it.
func (b *siteBench) apply(change ...func(*siteApply)) (string, error) {
	b.t.Helper()
	var out bytes.Buffer
	c := &siteApply{
		s: streams{in: strings.NewReader(""), out: &out, err: &out}, log: slog.New(slog.DiscardHandler), backoff: time.Millisecond,
		facts: site.Facts{RotateBefore: time.Hour},
	}
	for _, f := range change {
		f(c)
	}
	err := c.apply(b.t.Context(), b.site, b.state)
	text := out.String()
	for _, r := range b.gitlab.Coordinator.Runners() {
		if strings.Contains(text, r.Token.Reveal()) || err != nil && strings.Contains(err.Error(), r.Token.Reveal()) {
			b.t.Errorf("a token is shown: %s, %v", text, err)
		}
	}
	return text, err
}

func (b *siteBench) applied(change ...func(*siteApply)) string {
	b.t.Helper()
	out, err := b.apply(change...)
	if err != nil {
		b.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// runners are those of the site at the server.
func (b *siteBench) runners() map[string]coordinator.Runner {
	out := map[string]coordinator.Runner{}
	for _, r := range b.gitlab.Coordinator.Runners() {
		if name, ok := strings.CutPrefix(r.Description, "hpc-"); ok {
			if _, twice := out[name]; twice {
				b.t.Errorf("there are two runners %s", name)
			}
			out[name] = r
		}
	}
	return out
}

// settled checks that the state directory knows each runner at the server, with its token, and that nothing is left to do.
func (b *siteBench) settled() {
	b.t.Helper()
	tokens, err := loadSiteTokens(b.state, "hpc")
	if err != nil {
		b.t.Fatal(err)
	}
	there := b.runners()
	if len(tokens) != len(b.site.Runners) || len(there) != len(tokens) {
		b.t.Errorf("%d tokens for %d runners at the server, %d in the file", len(tokens), len(there), len(b.site.Runners))
	}
	for name, token := range tokens {
		if r := there[name]; r.ID != token.ID || r.Token != token.Token {
			b.t.Errorf("runner %s: the state knows %d, the server has %d; same token: %v", name, token.ID, r.ID, r.Token == token.Token)
		}
	}
	before := len(b.gitlab.Calls(coordinatortest.Any))
	if out := b.applied(); !strings.Contains(out, "nothing to do") || strings.Contains(out, "Done") || strings.Contains(out, "configuration is in") {
		b.t.Errorf("again: %s", out)
	}
	for _, c := range b.gitlab.Calls(coordinatortest.Any)[before:] {
		if c.Method != http.MethodGet {
			b.t.Errorf("again: %s %s", c.Method, c.URL)
		}
	}
}

func TestApplyMakesTheRunnersAndThenHasNothingToDo(t *testing.T) {
	b := newSiteBench(t)
	if out := b.applied(func(c *siteApply) { c.dry = true }); !strings.Contains(out, "3 to create") || len(b.runners()) != 0 {
		t.Fatalf("dry run: %s", out)
	}
	if files, _ := os.ReadDir(filepath.Join(b.state, "site")); slices.ContainsFunc(files, func(f os.DirEntry) bool { return strings.Contains(f.Name(), "tokens") }) {
		t.Errorf("the dry run has left %v", files)
	}
	b.applied()
	got := b.runners()
	if r := got["small"]; r.Type != "project_type" || r.Owner != b.app.ID || r.Paused || !r.Locked || r.RunUntagged || !slices.Equal(r.Tags, []string{"small"}) {
		t.Errorf("small: %+v", r.RunnerSpec)
	}
	if r := got["large"]; r.Type != "group_type" || r.MaximumTimeout != time.Hour {
		t.Errorf("large: %+v", r.RunnerSpec)
	}
	if r := got["gpu"]; len(r.Projects) != 1 || r.Locked {
		t.Errorf("gpu: %+v", r.RunnerSpec)
	}
	b.settled()
	for _, name := range []string{"hpc.tokens.json", "hpc.config.toml"} {
		info, err := os.Stat(filepath.Join(b.state, "site", name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestApplyRemovesOnlyWithConsentAndOnlyWhatItMade(t *testing.T) {
	b := newSiteBench(t)
	stranger, err := b.gitlab.Coordinator.CreateRunner(coordinator.RunnerSpec{Description: "hpc small", Type: "project_type", Owner: b.app.ID, RunUntagged: true})
	if err != nil {
		t.Fatal(err)
	}
	b.applied()
	b.site.Runners = b.site.Runners[:1]
	out, err := b.apply()
	if err == nil || !strings.Contains(err.Error(), "--yes") || !strings.Contains(err.Error(), "gpu, large") || len(b.runners()) != 3 {
		t.Fatalf("without consent: %v\n%s", err, out)
	}
	b.applied(func(c *siteApply) { c.facts.KeepRemoved = true })
	if len(b.runners()) != 3 {
		t.Error("a runner that was to be kept is gone")
	}
	yes := func(c *siteApply) { c.yes = true }
	// A removal that fails is tried again the next time.
	b.gitlab.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Remove, Status: http.StatusForbidden, Body: `{"message":"403 Forbidden"}`})
	if out, err = b.apply(yes); err == nil || !strings.Contains(err.Error(), "delete runner gpu") || len(b.runners()) != 2 {
		t.Fatalf("%v\n%s", err, out)
	}
	b.applied(yes)
	b.settled()
	if !slices.ContainsFunc(b.gitlab.Coordinator.Runners(), func(r coordinator.Runner) bool { return r.ID == stranger.ID }) {
		t.Error("a stranger's runner was removed")
	}
}

func TestApplyFindsARunnerAgainWhoseAnswerGotLost(t *testing.T) {
	for name, fault := range map[string]coordinatortest.Fault{
		"connection cut after the call": {Lose: true}, "answer cut off": {Truncate: true}, "error of a server": {Status: 500}, "connection cut before the call": {Drop: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newSiteBench(t)
			fault.Endpoint, fault.Skip = coordinatortest.Create, 1
			b.gitlab.Inject(fault)
			if out, err := b.apply(); err != nil {
				t.Logf("the first time: %v\n%s", err, out)
				b.applied()
			}
			b.settled()
		})
	}
}

// The process ends at any moment, and so does each one that is started after it.
func TestApplyGoesOnWhereItWasKilled(t *testing.T) {
	killed := errors.New("killed")
	for n := 2; n <= 4; n++ {
		b := newSiteBench(t)
		work := func() {
			for range 12 { // each one gets a little further
				left := 1
				if _, err := b.apply(func(c *siteApply) {
					c.yes = true
					c.after = func(s site.Step) error {
						if left--; left < 0 && n%2 == 0 || s.Kind == site.Create && left == 0 && n%3 == 0 {
							return killed
						}
						return nil
					}
				}); !errors.Is(err, killed) {
					return
				}
			}
		}
		work()
		b.applied()
		b.settled()
		b.site.Runners[1].Scope = b.site.Runners[0].Scope // a move
		b.site.Runners = b.site.Runners[:2]
		work()
		b.applied(func(c *siteApply) { c.yes = true })
		b.settled()
	}
}

func TestApplyRotatesTokens(t *testing.T) {
	b := newSiteBench(t)
	b.applied()
	before := b.runners()
	b.applied(func(c *siteApply) { c.facts.Rotate = []string{"small"} })
	after := b.runners()
	if after["small"].Token == before["small"].Token || after["large"].Token != before["large"].Token || after["small"].ID != before["small"].ID {
		t.Error("not just the token of small was replaced")
	}
	b.settled()
	b.applied(func(c *siteApply) { c.facts.Rotate = []string{"all"} })
	if last := b.runners(); last["large"].Token == after["large"].Token || last["small"].Token == after["small"].Token {
		t.Error("not all tokens were replaced")
	}
	b.settled()
}

func TestApplyRefusesWhatAnotherStateDirectoryManages(t *testing.T) {
	b := newSiteBench(t)
	b.applied()
	first := b.state
	b.state = t.TempDir()
	out, err := b.apply(func(c *siteApply) { c.yes = true })
	if err == nil || !strings.Contains(out, "--adopt") || !strings.Contains(out, "3 in the way") || len(b.runners()) != 3 {
		t.Fatalf("%v\n%s", err, out)
	}
	b.applied(func(c *siteApply) { c.facts.Adopt = true })
	b.settled()
	b.state = first
	if out, err = b.apply(); err == nil || !strings.Contains(out, "3 in the way") {
		t.Errorf("the one that it was taken from: %v\n%s", err, out)
	}
}

func TestApplySaysWhatIsInTheWay(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*siteBench)
		want   []string
	}{
		"no token": {func(b *siteBench) { b.site.Token = "" }, []string{"no management_token", "read_api, create_runner and manage_runner"}},
		"a token that may not read": {
			func(b *siteBench) { b.site.Token = b.token("create_runner", "manage_runner") },
			[]string{"lacks the scope read_api", "it has create_runner, manage_runner"},
		},
		"a token that may not create": {func(b *siteBench) { b.site.Token = b.token("read_api") }, []string{"lacks the scope create_runner (to create runners)"}},
		"a wrong token":               {func(b *siteBench) { b.site.Token = "glpat-nonsense" }, []string{"wrong, revoked or has expired"}},
		"a project that has moved": {func(b *siteBench) {
			if err := b.gitlab.Coordinator.MoveProject(b.app.ID, "other/app"); err != nil {
				b.t.Fatal(err)
			}
		}, []string{"has moved to other/app", "runner small"}},
		"a project that is not there": {func(b *siteBench) { b.site.Runners[0].Scope.Path = "hpc/none" }, []string{"runner small", "there is no project of this path"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newSiteBench(t)
			c.change(b)
			out, err := b.apply()
			if err == nil || len(b.runners()) != 0 {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, text := range c.want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q is not in: %v", text, err)
				}
			}
		})
	}
}

func TestTwoOfOneSiteExcludeEachOther(t *testing.T) {
	b := newSiteBench(t)
	file := filepath.Join(b.state, "site.toml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockSite(b.state, "hpc", file, siteRuns)
	if err != nil {
		t.Fatal(err)
	}
	b.applied() // while its manager runs
	for _, dir := range []string{b.state, t.TempDir()} {
		if _, err := lockSite(dir, "hpc", file, siteRuns); err == nil || !strings.Contains(err.Error(), "another manager is at work") {
			t.Errorf("%s: %v", dir, err)
		}
	}
	unlock()
	if unlock, err = lockSite(b.state, "hpc", file, siteRuns); err != nil {
		t.Fatal(err)
	}
	unlock()
	if unlock, err = lockSite(b.state, "hpc", "", siteApplies); err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := b.apply(); err == nil || !strings.Contains(err.Error(), `another "site apply" is at work`) {
		t.Errorf("two applies: %v", err)
	}
}

func TestTokensOfTheBridgeAreImported(t *testing.T) {
	b := newSiteBench(t)
	b.applied()
	old, err := readSiteRecord(b.state, "hpc")
	if err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	for name, e := range old.Runners {
		file.WriteString("[" + name + "]\nid = " + strconv.FormatInt(e.ID, 10) + "\ntoken = \"" + e.Token.Token.Reveal() + "\"\n")
	}
	path := filepath.Join(t.TempDir(), "hpc.tokens")
	if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	api, err := gitlab.NewManagement(gitlab.ManagementOptions{URL: b.gitlab.URL, Token: b.gitlab.Coordinator.AdminToken()})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range old.Runners { // the bridge knows no marks
		if err := api.UpdateRunner(t.Context(), e.ID, gitlab.RunnerChange{MaintenanceNote: new("")}); err != nil {
			t.Fatal(err)
		}
	}
	b.state = t.TempDir()
	out := b.applied(func(c *siteApply) { c.tokens = path })
	if strings.Contains(out, "create") || !strings.Contains(out, "3 to change") {
		t.Errorf("%s", out)
	}
	b.settled()
}

func TestAManagerStoresTheTokensThatItRenews(t *testing.T) {
	b := newSiteBench(t)
	b.applied()
	tokens, err := loadSiteTokens(b.state, "hpc")
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := lockSite(b.state, "hpc", "", siteApplies)
	if err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	small := tokens["small"]
	small.Token = "glrt-new"
	if err := replaceSiteToken(short, b.state, "hpc", "small", small); err == nil {
		t.Error("it has not waited for the other one")
	}
	unlock()
	if err := replaceSiteToken(t.Context(), b.state, "hpc", "small", small); err != nil {
		t.Error(err)
	}
	if now, err := loadSiteTokens(b.state, "hpc"); err != nil || now["small"] != small || now["large"] != tokens["large"] {
		t.Errorf("%v", err)
	}
	small.ID++
	if err := replaceSiteToken(t.Context(), b.state, "hpc", "small", small); err == nil {
		t.Error("a token of a runner that is gone was stored")
	}
}

func TestADamagedFileOfTokensStopsEverything(t *testing.T) {
	b := newSiteBench(t)
	b.applied()
	path := filepath.Join(b.state, "site", "hpc.tokens.json")
	if err := os.WriteFile(path, []byte(`{"runners":{"small":{"id":"glrt-t1_abcdefgh"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.apply(); err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "abcdefgh") || len(b.runners()) != 3 {
		t.Errorf("%v", err)
	}
}

func FuzzSiteRecord(f *testing.F) {
	f.Add([]byte(`{"site":"a","runners":{"x":{"id":1,"token":"glrt-x","scope":{"kind":"project","path":"a/b"}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := decodeSiteRecord(data); err == nil && r.Runners == nil {
			t.Error("no map")
		}
	})
}

func FuzzBridgeTokens(f *testing.F) {
	f.Add([]byte("[small]\nid = 1\ntoken = \"glrt-x\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := decodeBridgeTokens(data)
		for name, e := range found {
			if err != nil || e.ID <= 0 || e.Token.Token == "" {
				t.Errorf("%s: %+v, %v", name, e, err)
			}
		}
	})
}

func TestWhatIsTooLargeForASiteFileIsRefused(t *testing.T) {
	if _, err := readSiteFile("/dev/zero"); err == nil || !strings.Contains(err.Error(), "larger than 4 MiB") {
		t.Error(err)
	}
}
