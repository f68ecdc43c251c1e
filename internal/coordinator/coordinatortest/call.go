package coordinatortest

import (
	"bytes"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// Endpoint is one kind of call.
type Endpoint string

// The endpoints of the Runner API, some of the management API, and git.
const (
	Any        Endpoint = ""
	Request    Endpoint = "jobs/request"
	Update     Endpoint = "update"
	Trace      Endpoint = "trace"
	Upload     Endpoint = "upload"
	Download   Endpoint = "download"
	Register   Endpoint = "register"
	Verify     Endpoint = "verify"
	Unregister Endpoint = "unregister"
	Reset      Endpoint = "reset"
	Create     Endpoint = "create a runner"
	Remove     Endpoint = "remove a runner"
	Git        Endpoint = "git"
	Other      Endpoint = "other"
)

// endpoint tells what a request is, and for which job.
func endpoint(r *http.Request) (Endpoint, int64) {
	path, ok := strings.CutPrefix(r.URL.Path, "/api/v4/")
	if !ok {
		return Git, 0
	}
	switch path {
	case "jobs/request":
		return Request, 0
	case "runners/verify":
		return Verify, 0
	case "runners":
		if r.Method == http.MethodDelete {
			return Unregister, 0
		}
		return Register, 0
	case "runners/managers":
		return Unregister, 0
	case "runners/reset_authentication_token":
		return Reset, 0
	case "user/runners":
		return Create, 0
	}
	if r.Method == http.MethodDelete && strings.HasPrefix(path, "runners/") {
		return Remove, 0
	}
	return jobEndpoint(r.Method, path)
}

func jobEndpoint(method, path string) (Endpoint, int64) {
	parts := strings.Split(path, "/")
	if len(parts) < 2 || parts[0] != "jobs" {
		return Other, 0
	}
	id, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return Other, 0
	}
	switch method + " " + strings.Join(parts[2:], "/") {
	case "PUT ":
		return Update, id
	case "PATCH trace":
		return Trace, id
	case "POST artifacts":
		return Upload, id
	case "GET artifacts":
		return Download, id
	}
	return Other, id
}

// Call is one request and how it was answered.
type Call struct {
	Time     time.Time
	Endpoint Endpoint
	Job      int64
	Method   string
	URL      *url.URL
	Header   http.Header
	Body     []byte // of JSON and of logs; not of uploads and of git
	Status   int    // as the client got it; 0: the connection was closed
}

// StateUpdate is what a runner reported about a job.
type StateUpdate struct {
	State    tranter.JobState      `json:"state"`
	Reason   tranter.FailureReason `json:"failure_reason"`
	ExitCode int                   `json:"exit_code"`
	Output   struct {
		Checksum string `json:"checksum"`
		Bytes    int64  `json:"bytesize"`
	} `json:"output"`
}

// Calls returns the calls of one kind, or all, in the order in which they ended.
func (g *GitLab) Calls(of Endpoint) []Call {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Call
	for _, c := range g.calls {
		if of == Any || c.Endpoint == of {
			out = append(out, c)
		}
	}
	return out
}

// Updates returns the states that were reported for a job, refused ones too.
func (g *GitLab) Updates(id int64) []StateUpdate {
	g.t.Helper()
	var out []StateUpdate
	for _, c := range g.Calls(Update) {
		if c.Job != id {
			continue
		}
		var u StateUpdate
		if err := json.Unmarshal(c.Body, &u); err != nil {
			g.t.Fatalf("update of job %d: %v", id, err)
		}
		out = append(out, u)
	}
	return out
}

// post uploads an artifact.
func (g *GitLab) post(job *tranter.Job, kind, format, name string, data []byte) *http.Response {
	g.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	w, err := form.CreateFormFile("file", name)
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		g.t.Fatal(err)
	}
	if err := form.Close(); err != nil {
		g.t.Fatal(err)
	}
	query := url.Values{"artifact_type": {kind}, "artifact_format": {format}}
	address := g.URL + "/api/v4/jobs/" + strconv.FormatInt(job.ID, 10) + "/artifacts?" + query.Encode()
	r, err := http.NewRequestWithContext(g.t.Context(), http.MethodPost, address, &body)
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header.Set("Content-Type", form.FormDataContentType())
	r.Header.Set("Job-Token", job.Token.Reveal())
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	answer, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		g.t.Fatal(err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	return resp
}
