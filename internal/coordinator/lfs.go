package coordinator

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/tranter-ci/tranter/internal/lazy"
)

var lfsObject = lazy.Regexp(`^[0-9a-f]{64}$`)

// lfsCall takes a call of Git LFS at PROJECT.git apart: what is "batch", or the name of an object. Others have none.
func lfsCall(r *http.Request) (project, what string) {
	project, what, found := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/info/lfs/objects/")
	switch {
	case !found:
		return "", ""
	case what == "batch" && r.Method == http.MethodPost, lfsObject().MatchString(what) && r.Method == http.MethodGet:
		return strings.TrimSuffix(project, ".git"), what
	}
	return "", ""
}

// lfs serves large files for reading: those that the user's repository has, and those that a snapshot has added.
func (g *gitHTTP) lfs(w http.ResponseWriter, r *http.Request, project int64, what string) {
	repo := g.c.disk.repoPath(project)
	if what == "batch" {
		lfsBatch(w, r, repo, g.c.base(r))
		return
	}
	f, err := openLFS(repo, what)
	if err != nil {
		answer(w, http.StatusNotFound, map[string]string{"message": "Object does not exist"})
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		answer(w, http.StatusInternalServerError, map[string]string{"message": "The object can't be read"})
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", info.ModTime(), f)
}

type lfsWanted struct {
	ID   string `json:"oid"`
	Size int64  `json:"size"`
}

type lfsFound struct {
	lfsWanted
	Authenticated bool                 `json:"authenticated,omitempty"`
	Actions       map[string]lfsAction `json:"actions,omitempty"`
	Error         *lfsError            `json:"error,omitempty"`
}

type lfsAction struct {
	URL    string            `json:"href"`
	Header map[string]string `json:"header,omitempty"`
}

type lfsError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// lfsBatch says where objects can be downloaded.
func lfsBatch(w http.ResponseWriter, r *http.Request, repo, server string) {
	var q struct {
		Operation string      `json:"operation"`
		Objects   []lfsWanted `json:"objects"`
	}
	if !decode(w, r, &q) {
		return
	}
	if q.Operation != "download" {
		answer(w, http.StatusForbidden, map[string]string{"message": "You can only download from this repository."})
		return
	}
	answered := struct {
		Transfer string     `json:"transfer"`
		Objects  []lfsFound `json:"objects"`
	}{"basic", []lfsFound{}}
	base := server + strings.TrimSuffix(r.URL.EscapedPath(), "batch")
	for _, o := range q.Objects {
		found := lfsFound{lfsWanted: o}
		if f, err := openLFS(repo, o.ID); err == nil {
			_ = f.Close()
			found.Authenticated = true
			found.Actions = map[string]lfsAction{
				"download": {URL: base + o.ID, Header: map[string]string{"Authorization": r.Header.Get("Authorization")}},
			}
		} else {
			found.Error = &lfsError{Code: http.StatusNotFound, Message: "the repository of the working tree does not have it: run git lfs pull there"}
		}
		answered.Objects = append(answered.Objects, found)
	}
	answer(w, http.StatusOK, answered)
}

// lfsStores are the directories of large files: of snapshots, and of the user's repository.
func lfsStores(repo string) []string {
	stores := []string{filepath.Join(repo, "lfs")}
	if theirs, err := os.ReadFile(filepath.Join(repo, lfsTheirs)); err == nil {
		stores = append(stores, string(theirs))
	}
	return stores
}

// lfsTheirs is the file in a bare repository that names the user's directory of large files.
const lfsTheirs = "lfs-theirs"

func openLFS(repo, id string) (*os.File, error) {
	if lfsObject().MatchString(id) {
		for _, store := range lfsStores(repo) {
			if f, err := os.Open(filepath.Join(store, "objects", id[:2], id[2:4], id)); err == nil {
				return f, nil
			}
		}
	}
	return nil, fs.ErrNotExist
}
