package web

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
)

func rawLog(t *testing.T, o Options, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	New(o).Handler().ServeHTTP(w, r)
	return w
}

func TestARawLogIsTextInRanges(t *testing.T) {
	o := samples()
	o.Logs = logs{"90210-000000016062": []byte("<script>alert(1)</script>\nend\n"), "90209-000000016061": nil}
	const path = "/jobs/90210-000000016062/log/raw"
	tests := []struct {
		name, path, ranges string
		code               int
		body, disposition  string
	}{
		{"all of it", path, "", 200, "<script>alert(1)</script>\nend\n", `inline; filename="job-90210.log"`},
		{"to be saved", path + "?download=1", "", 200, "<script>alert(1)</script>\nend\n", `attachment; filename="job-90210.log"`},
		{"from an offset", path, "bytes=26-", 206, "end\n", `inline; filename="job-90210.log"`},
		{"the last bytes", path, "bytes=-4", 206, "end\n", `inline; filename="job-90210.log"`},
		{"after its end", path, "bytes=30-", 416, "invalid range: failed to overlap\n", ""},
		{"after its end, for who waits", path + "?wait=1", "bytes=30-", 204, "", ""},
		{"an empty one", "/jobs/90209-000000016061/log/raw", "bytes=0-", 200, "", `inline; filename="job-90209.log"`},
	}
	for _, test := range tests {
		w := rawLog(t, o, test.path, "Range", test.ranges)
		if w.Code != test.code || w.Body.String() != test.body || test.disposition != "" && w.Header().Get("Content-Disposition") != test.disposition {
			t.Errorf("%s: %d %q %s", test.name, w.Code, w.Body, w.Header().Get("Content-Disposition"))
		}
		if kind := w.Header().Get("Content-Type"); w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Body.Len() > 0 && kind != "text/plain; charset=utf-8" || w.Header().Get("X-Log") != "complete" {
			t.Errorf("%s: sent as %s, log %s", test.name, kind, w.Header().Get("X-Log"))
		}
	}
	if w := rawLog(t, o, "/jobs/1-00/log/raw"); w.Code != http.StatusNotFound {
		t.Errorf("the log of no job: %d", w.Code)
	}
	o.Logs = nil
	if w := rawLog(t, o, path); w.Code != http.StatusNotFound {
		t.Errorf("without logs: %d", w.Code)
	}
}

// growing is a log to which something is added while it is read.
type growing struct {
	memoryLog

	size atomic.Int64
	over atomic.Bool
}

func (g *growing) Size() (int64, error) { return g.size.Load(), nil }
func (g *growing) Live() bool           { return !g.over.Load() }

func TestWhoFollowsALogWaitsForMore(t *testing.T) {
	for name, test := range map[string]struct {
		from int64
		then func(g *growing)
		size int64
		live bool
		wait time.Duration // at most
	}{
		"there is more already":   {3, func(*growing) {}, 10, true, 0},
		"more comes":              {10, func(g *growing) { g.size.Store(12) }, 12, true, 5*time.Second + logLook},
		"the job ends":            {10, func(g *growing) { g.over.Store(true) }, 10, false, 5*time.Second + logLook},
		"nothing comes":           {10, func(*growing) {}, 10, true, logWait},
		"it is not to be waited":  {-1, func(*growing) {}, 10, true, 0},
		"it is shorter than that": {50, func(g *growing) { g.over.Store(true) }, 10, false, 5*time.Second + logLook},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &growing{memoryLog: memoryLog{Reader: bytes.NewReader(nil)}}
				g.size.Store(10)
				time.AfterFunc(5*time.Second, func() { test.then(g) })
				start := time.Now()
				size, live, err := settle(t.Context(), g, test.from)
				if err != nil || size != test.size || live != test.live || time.Since(start) > test.wait {
					t.Errorf("got %d, %t, %v after %s", size, live, err, time.Since(start))
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		g := &growing{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, _, err := settle(ctx, g, 0); err != nil || time.Since(start) != time.Second {
			t.Errorf("a reader who has gone was waited for %s: %v", time.Since(start), err)
		}
	})
}

func TestJobsAreListedInPages(t *testing.T) {
	o := samples()
	var keys []string
	for path, n := "/jobs", 0; path != "" && n < 10; n++ {
		code, page := get(t, o, path)
		if code != http.StatusOK {
			t.Fatalf("%s: %d", path, code)
		}
		_, ended, _ := strings.Cut(page, `id="h-ended"`)
		for _, row := range strings.Split(ended, `<tr id="job-`)[1:] {
			key, _, _ := strings.Cut(row, `"`)
			keys = append(keys, key)
		}
		if (n == 0) != strings.Contains(page, `id="h-running"`) {
			t.Errorf("page %d: running jobs are shown: %t", n, n != 0)
		}
		path = ""
		if before, _, ok := strings.Cut(ended, `" rel="next"`); ok {
			path = before[strings.LastIndex(before, `href="`)+len(`href="`):]
		}
	}
	if len(keys) != 180 || keys[0] != "90210-000000016062" || keys[179] != "90031-"+"000000015faf" {
		t.Errorf("%d jobs, from %s to %s", len(keys), keys[0], keys[len(keys)-1])
	}
}

func TestJobsAreSearchedFor(t *testing.T) {
	if code, page := get(t, samples(), "/jobs?from=2026-11-01&to=bananas"); code != http.StatusBadRequest || !strings.Contains(page, "bananas") {
		t.Errorf("no day: %d", code)
	}
	for path, want := range map[string]struct {
		has, hasNot string
	}{
		"/jobs?state=failed":                {"It failed after", `id="h-running"`},
		"/jobs?state=running":               {`id="h-running"`, "It failed after"},
		"/jobs?state=waiting":               {"simulate", `id="h-running"`},
		"/jobs?runner=hP8s":                 {"simulate", `id="h-running"`},
		"/jobs?q=unit":                      {`id="h-running"`, "simulate"},
		"/jobs?q=%22%3E%3Cscript%3E":        {"No job is like that.", "<script>\""},
		"/jobs?reason=job_canceled":         {"It was canceled by mira", `id="h-running"`},
		"/jobs?machine=cloud-03":            {"/machines/cloud-03", "/machines/cloud-02"},
		"/jobs?from=2026-11-01":             {`value="2026-11-01"`, `id="h-running"`},
		"/jobs?before=nothing&state=failed": {"No job is like that.", "It failed after"},
	} {
		code, page := get(t, samples(), path)
		if code != http.StatusOK || !strings.Contains(page, want.has) || strings.Contains(page, want.hasNot) {
			t.Errorf("%s: %d, has %q: %t, has not %q: %t", path, code, want.has, strings.Contains(page, want.has), want.hasNot, !strings.Contains(page, want.hasNot))
		}
	}
}

func TestAJobHasItsStagesItsCostAndWhyItFailed(t *testing.T) {
	code, page := get(t, samples(), "/jobs/90207-00000001605f")
	for _, want := range []string{
		"the script failed", "queued in GitLab", "waiting for a machine", "step script", "×2", `class="t-failed"`, "0.04 EUR", "4.2", "at most 900 MiB", "https://gitlab.example.com/acme/shop/-/jobs/90207",
		"https://gitlab.example.com/acme/shop/-/pipelines/4711", "https://gitlab.example.com/acme/shop/-/commit/8f3b2c1d9e0a", `data-raw="/jobs/90207-00000001605f/log/raw"`, `data-live="false"`,
	} {
		if code != http.StatusOK || !strings.Contains(page, want) {
			t.Errorf("%d: there is no %s", code, want)
		}
	}
	if code, page := get(t, samples(), "/jobs/90300-00000001609c"); code != http.StatusOK || !strings.Contains(page, `data-live="true"`) {
		t.Errorf("a job that runs: %d", code)
	}
	if code, _ := get(t, samples(), "/jobs/nothing"); code != http.StatusNotFound {
		t.Errorf("a job that nobody knows: %d", code)
	}
}

func TestOnlyWebAddressesOfAJobAreLinks(t *testing.T) {
	for _, url := range []string{"javascript:alert(1)//-/jobs/1", "data:text/html,x/-/jobs/1", "", "/-/jobs/1"} {
		if l := linksOf(tranter.JobHistory{Job: tranter.JobLabel{URL: url, Pipeline: 1, SHA: "x"}}); l != (gitlabLinks{}) {
			t.Errorf("%s: %v", url, l)
		}
	}
}

// idle is a control that does nothing.
type idle struct{}

func (idle) Drain(context.Context) error                       { return nil }
func (idle) Pause(context.Context, string, bool, string) error { return nil }
func (idle) RemoveMachine(context.Context, string, bool) error { return nil }
func (idle) DrainMachine(context.Context, string) error        { return nil }
func (idle) CancelJob(context.Context, string, string) error   { return nil }

func TestWhoMayActIsOfferedIt(t *testing.T) {
	o := samples()
	o.Token, o.Control = "act", idle{}
	for path, action := range map[string]string{
		"/jobs/90300-00000001609c": "/actions/cancel-job", "/machines/cloud-04": "/actions/drain-machine", "/machines/cloud-05": "/actions/remove-machine",
	} {
		if page := rawLog(t, o, path).Body.String(); strings.Contains(page, `method="post" action="`+action) {
			t.Errorf("%s offers %s to everybody", path, action)
		}
		page := rawLog(t, o, path, "Authorization", "Bearer act").Body.String()
		if !strings.Contains(page, `method="post" action="`+action) || !strings.Contains(page, "data-confirm=") {
			t.Errorf("%s does not offer %s", path, action)
		}
	}
	if page := rawLog(t, o, "/jobs/90207-00000001605f", "Authorization", "Bearer act").Body.String(); strings.Contains(page, "/actions/") {
		t.Error("a job that has ended can be cancelled")
	}
}
