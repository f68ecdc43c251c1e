package web

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// api is the pages' data as JSON, for programs. The queries are those of the pages.
type api struct{ *Server }

func (s api) routes(mux *http.ServeMux) {
	snapshot := func(pick func(view.Snapshot) any) http.Handler {
		return s.cached(func(w http.ResponseWriter, r *http.Request) {
			now, err := s.snapshot(r.Context())
			if err != nil {
				s.fail(w, r, http.StatusServiceUnavailable, err.Error())
				return
			}
			writeJSON(w, r, http.StatusOK, pick(now))
		})
	}
	mux.Handle("GET /api/snapshot", snapshot(func(now view.Snapshot) any {
		now.Jobs = withoutSamples(now.Jobs)
		return now
	}))
	mux.Handle("GET /api/overview", snapshot(func(now view.Snapshot) any { return newOverview(now, s.now.attention()) }))
	mux.Handle("GET /api/machines", snapshot(func(now view.Snapshot) any {
		return map[string]any{"at": now.At, "pools": now.Pools, "machines": now.Machines}
	}))
	mux.Handle("GET /api/runners", snapshot(func(now view.Snapshot) any {
		return map[string]any{"at": now.At, "runners": now.Runners, "clusters": now.Clusters, "batches": now.Batches, "config": s.config()}
	}))
	mux.Handle("GET /api/pipelines", snapshot(func(now view.Snapshot) any { return map[string]any{"pipelines": now.Pipes} }))
	mux.HandleFunc("GET /api/jobs", s.jobs)
	mux.HandleFunc("GET /api/jobs/{key}", s.job)
}

// withoutSamples are jobs without the samples of their use, which are most of what is known of them; those of one job are in the answer
// about that one.
func withoutSamples(jobs []view.Job) []view.Job {
	out := slices.Clone(jobs)
	for i := range out {
		out[i].Usage.Samples = nil
	}
	return out
}

// jobs answers with the jobs that are there, and those that have ended that fit the query.
func (s api) jobs(w http.ResponseWriter, r *http.Request) {
	now, err := s.snapshot(r.Context())
	if err != nil {
		s.fail(w, r, http.StatusServiceUnavailable, err.Error())
		return
	}
	all := map[string]any{"at": now.At, "running": withoutSamples(now.Jobs), "waiting": now.Waiting}
	if s.options.Past != nil {
		q := r.URL.Query()
		ended, err := s.options.Past.Jobs(r.Context(), view.JobQuery{
			Text: q.Get("q"), Runner: q.Get("runner"), Project: q.Get("project"), State: tranter.JobState(q.Get("state")),
			Reason: tranter.FailureReason(q.Get("reason")), Machine: q.Get("machine"), Batch: q.Get("batch"),
			From: timeOf(q.Get("from")), To: timeOf(q.Get("to")), Before: q.Get("before"), Limit: limitOf(q.Get("limit"), 50),
		})
		if err != nil {
			s.failed(w, r, "The jobs of the past could not be read", err)
			return
		}
		all["ended"] = ended
	}
	writeJSON(w, r, http.StatusOK, all)
}

func (s api) job(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("key")
	if now, err := s.snapshot(r.Context()); err == nil {
		for _, j := range now.Jobs {
			if j.Key == key {
				writeJSON(w, r, http.StatusOK, j)
				return
			}
		}
	}
	if s.options.Past == nil {
		s.fail(w, r, http.StatusNotFound, "There is no such job.")
		return
	}
	j, err := s.options.Past.Job(r.Context(), key)
	if err != nil {
		s.failed(w, r, "The job could not be read", err)
		return
	}
	writeJSON(w, r, http.StatusOK, j)
}

func writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		http.Error(w, `{"error": "this could not be written as JSON"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if w.Header().Get("Cache-Control") == "" {
		w.Header().Set("Cache-Control", "no-store")
	}
	if into, ok := w.(*recorder); ok {
		into.WriteHeader(status)
		_, _ = into.Write(b.Bytes())
		return
	}
	answer(w, r, status, b.Bytes())
}
