package coordinator

import (
	"net/http"
	"net/http/cgi"
	"os/exec"
	"strings"

	"github.com/tranter-ci/tranter"
)

// gitHTTP serves repositories to jobs that are running, for reading: with the user gitlab-ci-token and the job's token.
type gitHTTP struct{ c *Coordinator }

// ServeHTTP answers the calls of git's smart protocol at PROJECT.git.
func (g *gitHTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, rest, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), ".git/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	reads := r.Method == http.MethodGet && rest == "info/refs" && r.URL.Query().Get("service") == "git-upload-pack" ||
		r.Method == http.MethodPost && rest == "git-upload-pack"
	_, password, given := r.BasicAuth()
	if !given {
		w.Header().Set("WWW-Authenticate", `Basic realm="GitLab"`)
		http.Error(w, "HTTP Basic: Access denied", http.StatusUnauthorized)
		return
	}
	id, status := g.allowed(path, tranter.Secret(password))
	switch {
	case status != 0:
		http.Error(w, "HTTP Basic: Access denied", status)
		return
	case !reads:
		http.Error(w, "You can only download this repository.", http.StatusForbidden)
		return
	}
	g.backend(w, r, g.c.disk.repoPath(id), rest)
}

// allowed finds the project if the token is that of one of its running jobs.
func (g *gitHTTP) allowed(path string, token tranter.Secret) (int64, int) {
	b := g.c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.tokens[token]
	if j == nil || !j.Status.Executing() {
		return 0, http.StatusUnauthorized
	}
	p := b.project(j.run.Project)
	if p.Path == "" || p.Path != path {
		return 0, http.StatusNotFound
	}
	j.contact = b.now()
	return p.ID, 0
}

func (g *gitHTTP) backend(w http.ResponseWriter, r *http.Request, repo, rest string) {
	git, err := exec.LookPath("git")
	if err != nil {
		http.Error(w, "git is not installed where the coordinator runs", http.StatusInternalServerError)
		return
	}
	if len(r.TransferEncoding) > 0 {
		// CGI needs to know the length; http-backend reads to the end when it is given none.
		r.TransferEncoding = nil
	}
	r2 := r.Clone(r.Context())
	r2.URL.Path = "/" + rest
	handler := &cgi.Handler{
		Path: git,
		Args: []string{"http-backend"},
		Root: "/",
		Dir:  repo,
		Env: []string{
			"GIT_PROJECT_ROOT=" + repo, "GIT_HTTP_EXPORT_ALL=1", "GIT_PROTOCOL=" + r.Header.Get("Git-Protocol"),
			"GIT_CONFIG_COUNT=3",
			"GIT_CONFIG_KEY_0=uploadpack.allowAnySHA1InWant", "GIT_CONFIG_VALUE_0=true",
			"GIT_CONFIG_KEY_1=uploadpack.allowFilter", "GIT_CONFIG_VALUE_1=true",
			"GIT_CONFIG_KEY_2=safe.directory", "GIT_CONFIG_VALUE_2=*",
		},
		InheritEnv: []string{"PATH", "HOME", "TMPDIR", "SYSTEMROOT"},
	}
	handler.ServeHTTP(w, r2)
}
