package gitlab

import (
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Call is one try of a call of the server, as Options.Observe is told of it.
type Call struct {
	Endpoint string // request_job, update_job, patch_trace, reset_token or other (runner contract, section 12.7)
	Method   string // GET, POST ...
	Status   int    // -1: there was no answer
	Took     time.Duration
}

// observed tells Options.Observe, if it is set, of a try that has ended.
func (w *wire) observed(q *call, began time.Time, a *answer) {
	if w.observe == nil {
		return
	}
	c := Call{Endpoint: endpoint(q.method, q.url), Method: q.method, Status: -1, Took: time.Since(began)}
	if a != nil {
		c.Status = a.status
	}
	w.observe(c)
}

// endpoint names what a call is for, by its method and its path.
func endpoint(method string, u *url.URL) string {
	path := strings.TrimSuffix(u.Path, "/")
	_, last, _ := strings.Cut(path, "api/v4/")
	switch {
	case method == http.MethodPost && last == "jobs/request":
		return "request_job"
	case method == http.MethodPut && strings.HasPrefix(last, "jobs/"):
		return "update_job"
	case method == http.MethodPatch && strings.HasPrefix(last, "jobs/") && strings.HasSuffix(last, "/trace"):
		return "patch_trace"
	case method == http.MethodPost && strings.HasSuffix(last, "reset_authentication_token"):
		return "reset_token"
	}
	return "other"
}
