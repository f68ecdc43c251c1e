package gitlab

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
)

func TestServerURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://gitlab.example.com":          "https://gitlab.example.com/api/v4/",
		"https://gitlab.example.com//":        "https://gitlab.example.com/api/v4/",
		"https://gitlab.example.com/ci":       "https://gitlab.example.com/api/v4/",
		"https://gitlab.example.com/ci/":      "https://gitlab.example.com/api/v4/",
		"http://example.com:8080/gitlab/":     "http://example.com:8080/gitlab/api/v4/",
		" https://gitlab.example.com/?a=b#c ": "https://gitlab.example.com/api/v4/",
		"http://[::1]:80":                     "http://[::1]:80/api/v4/",
	} {
		if got, err := apiURL(in); err != nil || got.String() != want {
			t.Errorf("%q: %v, %v, want %s", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"":                         "it is missing",
		"gitlab.example.com":       "does not begin with http:// or https://",
		"ftp://gitlab.example.com": "does not begin with http:// or https://",
		"https://":                 "names no host",
		"https:///path":            "names no host",
		"http://a b/":              "it can't be read",
		"ftp://u:secret@host":      "ftp://u:xxxxx@host does not begin",
	} {
		_, err := New(Options{URL: in})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: error %v, want %q", in, err, want)
		}
	}
}

func TestWhatARequestTells(t *testing.T) {
	s := newScript(t, reply{status: 204, header: map[string]string{"X-GitLab-Last-Update": "one"}}, reply{status: 204}, reply{status: 204}, reply{status: 204})
	c := connect(t, s.URL+"/ci/")
	ask := tranter.Request{
		Executor: "shell", Shell: "bash", GPUs: "all", Labels: map[string]string{"zone": "b"},
		Features: tranter.Features{Refspecs: true},
		Access:   &tranter.Access{URL: "https://here/session/1", Certificate: "PEM", Authorization: "hush"},
	}
	for _, hold := range []bool{true, true, false, true} {
		ask.NoHold = !hold
		if job, err := c.Request(t.Context(), ask); job != nil || err != nil {
			t.Fatalf("got %v, %v", job, err)
		}
	}
	var values []string
	for _, call := range s.seen() {
		var body struct {
			LastUpdate *string `json:"last_update"`
		}
		if err := json.Unmarshal([]byte(call.body), &body); err != nil {
			t.Fatal(err)
		}
		if body.LastUpdate == nil {
			values = append(values, "-")
		} else {
			values = append(values, *body.LastUpdate)
		}
	}
	// The first answer says that the queue has changed, so the request is made again, to be held. An answer without the
	// header does not make the value unknown.
	if want := []string{"-", "one", "one", "-", "one"}; !cmp.Equal(values, want) {
		t.Errorf("last_update was %q, want %q", values, want)
	}
	call := s.seen()[0]
	var body map[string]any
	if err := json.Unmarshal([]byte(call.body), &body); err != nil {
		t.Fatal(err)
	}
	about := body["info"].(map[string]any)
	features := about["features"].(map[string]any)
	for key, want := range map[string]any{
		"executor": "shell", "shell": "bash", "name": "gitlab-runner", "version": "19.4.0", "revision": "tranter-1.2.3-01234567",
	} {
		if about[key] != want {
			t.Errorf("info.%s = %v, want %v", key, about[key], want)
		}
	}
	for key, want := range map[string]bool{
		"refspecs": true, "trace_reset": true, "trace_checksum": true, "trace_size": true, "cancelable": true,
		"cancel_gracefully": true, "two_phase_job_commit": true, "session": false, "image": false,
	} {
		if features[key] != want {
			t.Errorf("features.%s = %v, want %v", key, features[key], want)
		}
	}
	if body["token"] != runnerToken || body["system_id"] != "s_0123456789ab" || about["config"].(map[string]any)["gpus"] != "all" {
		t.Errorf("body: %s", call.body)
	}
	if want := map[string]any{"url": "https://here/session/1", "certificate": "PEM", "authorization": "hush"}; !cmp.Equal(body["session"], any(want)) {
		t.Errorf("session: %v", body["session"])
	}
	h := call.header
	if call.method != "POST" || call.path != "/api/v4/jobs/request" || h.Get("Runner-Token") != runnerToken || h.Get("Accept") != "application/json" ||
		h.Get("Content-Type") != "application/json" || call.length != int64(len(call.body)) {
		t.Errorf("request: %+v", call)
	}
	if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(h.Get("X-Request-Id")) {
		t.Errorf("X-Request-Id: %q", h.Get("X-Request-Id"))
	}
	if !regexp.MustCompile(`^gitlab-runner 19\.4\.0 \(tranter-1\.2\.3-01234567; go[^;]+; \w+/\w+\)$`).MatchString(h.Get("User-Agent")) {
		t.Errorf("User-Agent: %q", h.Get("User-Agent"))
	}
}

func TestAnswersToARequest(t *testing.T) {
	elsewhere := newScript(t, reply{status: 201, body: payload})
	wait := func(d time.Duration) *time.Duration { return &d }
	for name, tc := range map[string]struct {
		replies []reply
		job     int64
		calls   int
		is      error
		pause   *time.Duration // of an UnavailableError
		text    string         // in the error
	}{
		"a job":              {replies: []reply{{status: 201, body: payload}}, job: 77, calls: 1},
		"no job":             {replies: []reply{{status: 204}}, calls: 1},
		"somebody faster":    {replies: []reply{{status: 409, body: `{"message":"409 Conflict"}`}}, calls: maxAsks},
		"faster than others": {replies: []reply{{status: 409}, {status: 201, body: payload}}, job: 77, calls: 2},
		"forbidden":          {replies: []reply{{status: 403, body: `{"message":"403 Forbidden"}`}}, calls: 1, is: tranter.ErrForbidden, text: "(403 Forbidden)"},
		"limited":            {replies: []reply{{status: 429, body: `{"message":{"error":"too many times"}}`, header: map[string]string{"Retry-After": "60"}}}, calls: 1, pause: wait(time.Minute), text: "429 Too Many Requests: error: too many times"},
		"limited briefly":    {replies: []reply{{status: 429, header: map[string]string{"Retry-After": "2"}}, {status: 201, body: payload}}, job: 77, calls: 2},
		"down":               {replies: []reply{{status: 503, body: "<html><title>GitLab is\n not responding</title>"}}, calls: 5, pause: wait(0), text: `503 Service Unavailable: a web page with the title "GitLab is not responding"`},
		"back again":         {replies: []reply{{status: 500}, {status: 502}, {status: 599}, {status: 204}}, calls: 4},
		"wrong address":      {replies: []reply{{status: 404, body: "404 page not found"}}, calls: 1, is: tranter.ErrNotFound},
		"not implemented":    {replies: []reply{{status: 501}}, calls: 1, text: "501 Not Implemented"},
		"bad request":        {replies: []reply{{status: 400, body: `{"error":"token is missing"}`}}, calls: 1, text: "400 Bad Request: token is missing"},
		"moved":              {replies: []reply{{status: 301, header: map[string]string{"Location": elsewhere.URL + "/api/v4/jobs/request"}}}, calls: 1, text: "to " + elsewhere.URL + "; if that"},
		"moved with method":  {replies: []reply{{status: 308, header: map[string]string{"Location": elsewhere.URL + "/api/v4/jobs/request"}}}, calls: 1, text: "308 Permanent Redirect to " + elsewhere.URL},
		"moved within":       {replies: []reply{{status: 301, header: map[string]string{"Location": "/other"}}, {status: 201, body: payload}}, calls: 1, text: "301 Moved Permanently"},
		"within the server":  {replies: []reply{{status: 307, header: map[string]string{"Location": "/other"}}, {status: 201, body: payload}}, job: 77, calls: 2},
		"says our token":     {replies: []reply{{status: 400, body: `{"message":"no runner ` + runnerToken + ` and no glpat-0123456789abcdefghij"}`}}, calls: 1, text: "no runner [MASKED] and no [MASKED]"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, tc.replies...)
			c := connect(t, s.URL)
			job, err := c.Request(t.Context(), tranter.Request{})
			discreet(t, err)
			if failed := tc.is != nil || tc.pause != nil || tc.text != ""; failed != (err != nil) {
				t.Fatalf("error: %v", err)
			}
			if (tc.job != 0) != (job != nil) || job != nil && job.ID != tc.job {
				t.Errorf("job: %+v", job)
			}
			if n := len(s.seen()); n != tc.calls {
				t.Errorf("%d calls, want %d", n, tc.calls)
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("error %v, want %v", err, tc.is)
			}
			var busy *tranter.UnavailableError
			if tc.pause != nil && (!errors.As(err, &busy) || busy.RetryAfter != *tc.pause) {
				t.Errorf("error %v with %+v, want a pause of %v", err, busy, *tc.pause)
			}
			if tc.pause == nil && errors.As(err, &busy) {
				t.Errorf("error %v asks for a pause", err)
			}
			if err != nil && !strings.Contains(err.Error(), tc.text) {
				t.Errorf("error %q, want %q in it", err, tc.text)
			}
		})
	}
	if calls := elsewhere.seen(); len(calls) != 0 {
		t.Errorf("the other server was sent %+v", calls)
	}
}

// A front end of GitLab ends a held request when the queue has changed, without saying so: the job is there to be asked for.
func TestAHeldRequestThatEndsIsFollowedByAnother(t *testing.T) {
	for name, tc := range map[string]struct {
		hold  time.Duration
		calls int32
		job   bool
	}{
		"held":     {leastHold, 3, true},
		"not held": {0, 2, false}, // no reason to ask sooner than the check interval
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				switch calls.Add(1) {
				case 1:
					w.Header().Set("X-GitLab-Last-Update", "one")
				case 2:
					<-time.After(tc.hold)
				default:
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(http.StatusCreated)
					_, _ = io.WriteString(w, payload)
					return
				}
				w.WriteHeader(http.StatusNoContent)
			}))
			t.Cleanup(s.Close)
			job, err := connect(t, s.URL).Request(t.Context(), tranter.Request{})
			if err != nil || (job != nil) != tc.job || calls.Load() != tc.calls {
				t.Errorf("%v, %v after %d calls, want %d", job, err, calls.Load(), tc.calls)
			}
		})
	}
}

func TestNoServer(t *testing.T) {
	s := newScript(t, reply{status: 204})
	s.Close()
	c := connect(t, s.URL)
	_, err := c.Request(t.Context(), tranter.Request{})
	discreet(t, err)
	if err == nil || !strings.Contains(err.Error(), "request a job: "+strings.TrimPrefix(s.URL, "http://")+": ") || len(c.waits) != 0 {
		t.Errorf("error %v after waits %v", err, c.waits)
	}
}

func TestAJobThatCannotBeReadIsReported(t *testing.T) {
	html := map[string]string{"Content-Type": "text/html"}
	for name, tc := range map[string]struct {
		first    reply
		reported bool
		text     string
	}{
		"cut off":          {reply{status: 201, body: payload[:len(payload)-9]}, true, "job 77 can't be read"},
		"wrong type":       {reply{status: 201, body: payload, header: html}, true, `"text/html"`},
		"field of a kind":  {reply{status: 201, body: `{"id":77,"token":"` + jobToken + `","git_info":{"depth":"all"}}`}, true, "git_info.depth"},
		"token after data": {reply{status: 201, body: `{"variables":[{"key":5}],"token":"` + jobToken + `","id":77}`}, true, "variables"},
		"no job":           {reply{status: 201, body: `{}`}, false, "names no job"},
		"no token":         {reply{status: 201, body: `{"id":77,"steps":7}`}, false, "which one it is"},
		"a page":           {reply{status: 201, body: "<html>", header: html}, false, "which one it is"},
		"nothing":          {reply{status: 201}, false, "which one it is"},
		"other id":         {reply{status: 201, body: `{"id":"x","token":"t"}`}, false, "which one it is"},
		"negative":         {reply{status: 201, body: `{"id":-3,"token":"t"}`}, false, "which one it is"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, tc.first, reply{status: 202, header: map[string]string{"Range": "0-1"}}, reply{status: 202}, reply{status: 200})
			job, err := connect(t, s.URL).Request(t.Context(), tranter.Request{})
			discreet(t, err)
			if job != nil || err == nil || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("%v, %v, want %q", job, err, tc.text)
			}
			calls := s.seen()
			if !tc.reported {
				if len(calls) != 1 {
					t.Errorf("calls: %+v", calls)
				}
				return
			}
			if len(calls) != 4 || calls[1].path != "/api/v4/jobs/77/trace" || calls[3].path != "/api/v4/jobs/77" {
				t.Fatalf("calls: %+v", calls)
			}
			if !strings.Contains(calls[1].body, "could not read the job's payload") {
				t.Errorf("log: %q", calls[1].body)
			}
			var u coordinatortest.StateUpdate
			if err := json.Unmarshal([]byte(calls[3].body), &u); err != nil {
				t.Fatal(err)
			}
			if u.State != tranter.JobFailed || u.Reason != tranter.RunnerSystemFailure || calls[3].header.Get("Job-Token") != jobToken ||
				u.Output.Bytes != int64(len(calls[1].body)) {
				t.Errorf("update: %+v", u)
			}
		})
	}
}

func TestAJobWhoseReportFails(t *testing.T) {
	s := newScript(t, reply{status: 201, body: `{"id":77,"token":"t","steps":1}`}, reply{status: 400})
	c := connect(t, s.URL)
	n := 0
	c.pause = func(context.Context, time.Duration) error {
		if n++; n < 3 {
			return nil
		}
		return context.DeadlineExceeded
	}
	_, err := c.Request(t.Context(), tranter.Request{})
	if err == nil || !strings.Contains(err.Error(), "could not be reported as failed") || n != 3 {
		t.Errorf("error %v after %d tries", err, n)
	}
}

// before is a server in front of another that does something before it passes a request for a job on.
func before(t *testing.T, url string, do func()) string {
	t.Helper()
	to, err := neturl.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/jobs/request") {
			do()
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestAJobThatArrivesLate(t *testing.T) {
	for name, claim := range map[string]bool{"passed on": true, "reported": false} {
		t.Run(name, func(t *testing.T) {
			g := coordinatortest.New(t)
			id := g.Enqueue(coordinatortest.Script("true"))
			ctx, cancel := context.WithCancelCause(t.Context())
			stopping := errors.New("we stop")
			// The request is on its way when the context ends, and the server hands out the job after that.
			url := before(t, g.URL, func() { cancel(stopping) })
			c := connect(t, url, func(o *Options) { o.Token, o.Drain = g.Token, time.Minute })
			var late *tranter.Job
			r := tranter.Request{Executor: "shell"}
			if claim {
				r.Unclaimed = func(j *tranter.Job) { late = j }
			}
			job, err := c.Request(ctx, r)
			if job != nil || !errors.Is(err, stopping) {
				t.Fatalf("%v, %v", job, err)
			}
			if claim {
				if late == nil || late.ID != id || late.Local[tranter.LocalCorrelationID] == "" || g.Job(id).Status != coordinator.Running {
					t.Errorf("late job: %+v", late)
				}
				return
			}
			v := g.Wait(id)
			if v.Status != coordinator.Failed || v.Reason != tranter.RunnerSystemFailure || !strings.Contains(g.Log(id), "The runner was stopping") {
				t.Errorf("job: %+v\n%s", v, g.Log(id))
			}
		})
	}
}

// A stop does not wait for a request that a server holds for long, and the server hears that nobody waits any more.
func TestAHeldRequestEndsAfterTheDrain(t *testing.T) {
	asked, closed := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(asked)
		<-r.Context().Done()
		close(closed)
	}))
	t.Cleanup(s.Close)
	c := connect(t, s.URL, func(o *Options) { o.Drain = 50 * time.Millisecond })
	ctx, cancel := context.WithCancelCause(t.Context())
	stopping := errors.New("we stop")
	var ended time.Time
	go func() {
		<-asked
		ended = time.Now()
		cancel(stopping)
	}()
	job, err := c.Request(ctx, tranter.Request{Unclaimed: func(*tranter.Job) { t.Error("there was no job") }})
	if job != nil || !errors.Is(err, stopping) {
		t.Fatalf("%v, %v", job, err)
	}
	if took := time.Since(ended); took < 10*time.Millisecond || took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	<-closed
}

func TestNothingIsAskedAfterTheEnd(t *testing.T) {
	s := newScript(t, reply{status: 503})
	ctx, cancel := context.WithCancelCause(t.Context())
	c := connect(t, s.URL)
	stopping := errors.New("we stop")
	c.pause = func(ctx context.Context, _ time.Duration) error {
		cancel(stopping)
		return context.Cause(ctx)
	}
	if _, err := c.Request(ctx, tranter.Request{}); !errors.Is(err, stopping) || len(s.seen()) != 1 {
		t.Errorf("error %v after %d calls", err, len(s.seen()))
	}
	if _, err := c.Request(ctx, tranter.Request{}); !errors.Is(err, stopping) || len(s.seen()) != 1 {
		t.Errorf("error %v after %d calls", err, len(s.seen()))
	}
}

// A server that does not trust the log of a failed job gets the state without it.
func TestAJobIsReportedWithoutItsLogIfNeedBe(t *testing.T) {
	s := newScript(t, reply{status: 201, body: `{"id":77,"token":"t","steps":1}`}, reply{status: 202}, reply{status: 412}, reply{status: 200})
	_, err := connect(t, s.URL).Request(t.Context(), tranter.Request{})
	if err == nil || !strings.Contains(err.Error(), "was reported as failed") {
		t.Fatal(err)
	}
	calls := s.seen()
	if first, last := calls[2].body, calls[len(calls)-1].body; len(calls) != 4 || !strings.Contains(first, "crc32:") || strings.Contains(last, "crc32:") {
		t.Errorf("%d calls, first %s, last %s", len(calls), first, last)
	}
}
