package coordinator

import (
	"net/http"
	"net/http/cgi"
	"os/exec"
	"strings"

	"github.com/tranter-ci/tranter"
)

// gitHTTP serves repositories to jobs that are running, for reading: with the user gitlab-ci-token and the job's token.
// A job may read all projects, so that submodules with relative URLs work. Large files are served, too.
type gitHTTP struct{ c *Coordinator }

// ServeHTTP answers the calls of git's smart protocol, and of Git LFS, at PROJECT.git, or at PROJECT.
func (g *gitHTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, service := gitService(r)
	project, large := lfsCall(r)
	if large != "" {
		path = project
	}
	if service == "" && large == "" {
		http.NotFound(w, r)
		return
	}
	_, password, _ := r.BasicAuth()
	id, status := g.allowed(path, tranter.Secret(password))
	switch {
	case status == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="GitLab"`)
		http.Error(w, "HTTP Basic: Access denied", status)
	case status != 0:
		http.Error(w, "The project you were looking for could not be found.", status)
	case large != "":
		g.lfs(w, r, id, large)
	case service == "git-receive-pack":
		http.Error(w, "You can only download this repository.", http.StatusForbidden)
	case r.Method == http.MethodGet:
		g.backend(w, r, g.c.disk.repoPath(id), "info/refs")
	default:
		g.backend(w, r, g.c.disk.repoPath(id), "git-upload-pack")
	}
}

// gitService takes a call of the smart protocol apart. Others have no service.
func gitService(r *http.Request) (project, service string) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	project, found := strings.CutSuffix(path, "/info/refs")
	if found && r.Method == http.MethodGet {
		service = r.URL.Query().Get("service")
	}
	for _, name := range []string{"git-upload-pack", "git-receive-pack"} {
		if repo, ok := strings.CutSuffix(path, "/"+name); ok && r.Method == http.MethodPost {
			project, service = repo, name
		}
	}
	if service != "git-upload-pack" && service != "git-receive-pack" {
		return "", ""
	}
	return strings.TrimSuffix(project, ".git"), service
}

// allowed finds the project, if the token is that of a running job.
func (g *gitHTTP) allowed(path string, token tranter.Secret) (int64, int) {
	b := g.c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.tokens[token]
	if j == nil || !j.Status.Executing() {
		return 0, http.StatusUnauthorized
	}
	for _, p := range b.settings.Projects {
		if p.Path == path {
			return p.ID, 0
		}
	}
	return 0, http.StatusNotFound
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
