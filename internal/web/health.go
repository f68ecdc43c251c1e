package web

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

const checksTimeout = 5 * time.Second

// health is what is for monitoring: those of GitLab Runner (runner contract, section 12.6), and our own /healthz and /readyz.
type health struct{ *Server }

func (h health) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { plain(w, r, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", h.ready)
	mux.HandleFunc("GET /health/ready", h.booted)
	mux.HandleFunc("GET /debug/jobs/list", h.jobs)
	mux.HandleFunc("GET /debug/process/state", h.state)
	if h.options.Metrics != nil {
		mux.Handle("GET /metrics", h.options.Metrics)
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

func plain(w http.ResponseWriter, r *http.Request, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	answer(w, r, status, []byte(text))
}

// ready answers 200 when jobs can be taken, else 503, with one line for each check and its reason.
func (h health) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), checksTimeout)
	defer cancel()
	checks := h.checks(ctx)
	status := http.StatusOK
	var b strings.Builder
	for _, c := range checks {
		word := "ok"
		if !c.OK {
			word, status = "not ok", http.StatusServiceUnavailable
		}
		fmt.Fprintf(&b, "%s: %s", oneLine(c.Name), word)
		if c.Reason != "" {
			fmt.Fprintf(&b, ": %s", oneLine(c.Reason))
		}
		b.WriteByte('\n')
	}
	if wantsJSON(r) {
		writeJSON(w, r, status, map[string]any{"ready": status == http.StatusOK, "checks": checks})
		return
	}
	plain(w, r, status, b.String())
}

func (h health) checks(ctx context.Context) []Check {
	now, err := h.snapshot(ctx)
	own := Check{Name: "manager", OK: err == nil && now.Manager.State == "running", Reason: now.Manager.State}
	if err != nil {
		own.Reason = err.Error()
	}
	checks := []Check{own}
	if h.options.Checks != nil {
		checks = append(checks, h.options.Checks(ctx)...)
	}
	return checks
}

func oneLine(text string) string { return view.Printable(strings.Join(strings.Fields(text), " ")) }

// booted answers as GitLab Runner does: 503 until the runners were verified.
func (h health) booted(w http.ResponseWriter, r *http.Request) {
	if now, err := h.snapshot(r.Context()); err != nil || now.Manager.State == "starting" || now.Manager.State == "" {
		plain(w, r, http.StatusServiceUnavailable, "boot-verify pending")
		return
	}
	plain(w, r, http.StatusOK, "ready")
}

func (h health) state(w http.ResponseWriter, r *http.Request) {
	now, err := h.snapshot(r.Context())
	if err != nil {
		plain(w, r, http.StatusServiceUnavailable, oneLine(err.Error())+"\n")
		return
	}
	state := now.Manager.State
	switch state {
	case "draining":
		state = "graceful-shutdown"
	case "stopping":
		state = "forceful-shutdown"
	}
	plain(w, r, http.StatusOK, state+"\n")
}

// jobs lists the jobs that the manager has, in the second version of GitLab Runner's format.
func (h health) jobs(w http.ResponseWriter, r *http.Request) {
	now, err := h.snapshot(r.Context())
	if err != nil {
		plain(w, r, http.StatusServiceUnavailable, oneLine(err.Error())+"\n")
		return
	}
	w.Header().Set("X-List-Version", "2")
	var b strings.Builder
	at := time.Now()
	for _, j := range now.Jobs {
		state, stage, detail := runnerStage(j)
		fmt.Fprintf(&b, "url=%s state=%s stage=%s executor_stage=%s duration=%s\n",
			field(j.Job.URL), state, stage, detail, at.Sub(j.Times.Taken).Round(time.Millisecond))
	}
	plain(w, r, http.StatusOK, b.String())
}

// runnerStage says in GitLab Runner's words what is done for a job.
func runnerStage(j view.Job) (state, stage, detail string) {
	state = "running"
	switch {
	case j.Result.State != "" && j.Result.State != tranter.JobRunning:
		state = "finished"
	case j.Times.Placed.IsZero():
		return "pending", "prepare_executor", "prepare"
	}
	stage = strings.ReplaceAll(field(j.Stage), " ", "_")
	return state, stage, "run"
}

// field is a text of others as a field of a line.
func field(text string) string {
	return strings.Map(func(c rune) rune {
		if c <= ' ' || c == 0x7f {
			return '_'
		}
		return c
	}, view.Printable(text))
}
