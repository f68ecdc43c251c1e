package source_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// authorizations returns which of the requests so far came with credentials: "+" and "-".
func (r *remote) authorizations() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out strings.Builder
	for _, h := range r.headers {
		if h.Get("Authorization") == "" {
			out.WriteByte('-')
		} else {
			out.WriteByte('+')
		}
	}
	r.headers = nil
	return out.String()
}

// A private project costs no request that is refused, unless the user has headers of their own.
func TestCredentialsComeWithTheFirstRequest(t *testing.T) {
	t.Parallel()
	for settings, refused := range map[string]bool{
		"": false, "[user]\n\tname = x\n": false, "[http]\n\textraHeader = X-Own: 1\n": true, "[include]\n\tpath = other\n": true,
	} {
		r, dir := newRemote(t), t.TempDir()
		s := fetchOf(r.URL+"/p.git", head(t, r.repo(t, "p.git")))
		j := newJob(t, dir)
		if err := os.WriteFile(filepath.Join(j.home, ".gitconfig"), []byte(settings), 0o600); err != nil {
			t.Fatal(err)
		}
		j.get(t, s)
		if got := r.authorizations(); strings.Contains(got, "-") != refused {
			t.Errorf("settings %q: requests with and without credentials: %s", settings, got)
		}
		if found := filesWith(t, "Authorization", dir); len(found) > 0 {
			t.Errorf("the header is still in %v", found)
		}
		r.check(t)
	}
}

// A server that sends git elsewhere does not thereby send it the job's token.
func TestRedirectGetsNoHeader(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	sha := head(t, r.repo(t, "p.git"))
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, r.URL+req.URL.RequestURI(), http.StatusMovedPermanently)
	}))
	t.Cleanup(front.Close)
	s := fetchOf(front.URL+"/p.git", sha)
	j := newJob(t, t.TempDir())
	j.env.Phase.Server.URL = r.URL // so that a helper knows what to say to it
	j.get(t, s)
	if got := r.authorizations(); !strings.HasPrefix(got, "-") || j.read(t, "file") != "one" {
		t.Errorf("requests with and without credentials: %s; file %q\n%s", got, j.read(t, "file"), j.text(t))
	}
}

// Settings that were removed are what git itself would make them again.
func TestSettingsAreWrittenAsGitDoes(t *testing.T) {
	t.Parallel()
	bare, dir := filepath.Join(t.TempDir(), "p.git"), t.TempDir()
	s := fetchOf("file://"+bare, head(t, newRepo(t, bare)))
	s.CleanConfig = true
	first := newJob(t, dir)
	first.get(t, s)
	byGit := first.read(t, ".git/config")
	path, argv := recorder(t)
	second := newJob(t, dir, path)
	second.get(t, s)
	if got := second.read(t, ".git/config"); got != byGit {
		t.Errorf("git writes\n%s\nwe write\n%s", byGit, got)
	}
	if info, err := os.Stat(filepath.Join(second.project(), ".git", "config")); err != nil || info.Mode().Perm()&0o133 != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if data, err := os.ReadFile(argv); err != nil || strings.Contains(string(data), " init ") || strings.Count(string(data), "\n") > 4 {
		t.Errorf("git was called with: %v\n%s", err, data)
	}
}

// Maintenance is left out while there is nothing to maintain, and only then.
func TestMaintenanceWhenThereIsSomethingToMaintain(t *testing.T) {
	t.Parallel()
	bare, dir := filepath.Join(t.TempDir(), "p.git"), t.TempDir()
	s := fetchOf("file://"+bare, head(t, newRepo(t, bare)))
	for _, crowded := range []bool{false, true} {
		path, argv := recorder(t)
		j := newJob(t, dir, path)
		if crowded {
			for i := range 60 {
				j.write(t, ".git/objects/pack/pack-"+strings.Repeat("0", 38)+string(rune('0'+i/10))+string(rune('0'+i%10))+".pack", "")
			}
		}
		j.get(t, s)
		data, err := os.ReadFile(argv)
		if without := strings.Contains(string(data), "maintenance.auto=false"); err != nil || without == crowded {
			t.Errorf("crowded %v: %v\n%s", crowded, err, data)
		}
	}
}
