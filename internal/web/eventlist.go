package web

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

const eventsOnPage = 100

// Events are what has happened, the latest first.
type Events struct {
	Query  view.EventQuery
	Events []tranter.Event
	Older  string // address of the page after this one; empty: there is none
	Newest string // address of the first page; empty: it is this one
	Kinds  []string
	Levels []string
	Names  map[string]string // of runners by short token
	Any    bool              // the query leaves something out
}

// eventPages is the page of events.
type eventPages struct{ *Server }

func (s eventPages) routes(mux *http.ServeMux) {
	mux.Handle("GET /events", s.cached(s.list))
	mux.HandleFunc("GET /api/events", s.api)
}

func (s eventPages) list(w http.ResponseWriter, r *http.Request) {
	if s.options.Past == nil {
		s.fail(w, r, http.StatusServiceUnavailable, "Nothing is kept of what happens: this server has no store.")
		return
	}
	q := eventQuery(r.URL.Query())
	q.Limit = eventsOnPage + 1
	found, err := s.options.Past.Events(r.Context(), q)
	if err != nil {
		s.failed(w, r, "The events could not be read", err)
		return
	}
	e := Events{Query: q, Events: found, Kinds: eventKinds(), Levels: []string{string(tranter.EventWarning), string(tranter.EventError)}, Names: map[string]string{}}
	if now, err := s.snapshot(r.Context()); err == nil {
		for _, l := range now.Runners {
			e.Names[l.Runner] = l.Name
		}
	}
	values := r.URL.Query()
	values.Del("fragment")
	values.Del("before")
	if q.Before > 0 {
		e.Newest = "/events?" + values.Encode()
	}
	if len(found) > eventsOnPage {
		e.Events = found[:eventsOnPage]
		values.Set("before", strconv.FormatInt(e.Events[eventsOnPage-1].ID, 10))
		e.Older = "/events?" + values.Encode()
	}
	for name, v := range values {
		e.Any = e.Any || name != "before" && len(v) > 0 && v[0] != ""
	}
	s.page(w, r, "events", e)
}

func (s eventPages) api(w http.ResponseWriter, r *http.Request) {
	if s.options.Past == nil {
		s.fail(w, r, http.StatusServiceUnavailable, "Nothing is kept of what happens: this server has no store.")
		return
	}
	q := eventQuery(r.URL.Query())
	q.Limit = limitOf(r.URL.Query().Get("limit"), eventsOnPage)
	found, err := s.options.Past.Events(r.Context(), q)
	if err != nil {
		s.failed(w, r, "The events could not be read", err)
		return
	}
	writeJSON(w, r, http.StatusOK, map[string]any{"events": found})
}

func eventQuery(v url.Values) view.EventQuery {
	before, _ := strconv.ParseInt(v.Get("before"), 10, 64) // 0: from the latest
	return view.EventQuery{
		Text: v.Get("q"), Kind: v.Get("kind"), Level: tranter.EventLevel(v.Get("level")), Runner: v.Get("runner"), Job: v.Get("job"),
		Machine: v.Get("machine"), Batch: v.Get("batch"), From: timeOf(v.Get("from")), To: timeOf(v.Get("to")), Before: max(0, before),
	}
}

// eventKinds are what events can be selected by: what kinds begin with.
func eventKinds() []string {
	return []string{"job_", "machine_", "lease_", "batch_", "runner_", "manager_", "config_"}
}

// timeOf reads a time: RFC 3339, or a day or what a form sends in this host's time; else it is the zero time.
func timeOf(text string) time.Time {
	for _, layout := range []string{time.RFC3339, time.DateOnly, "2006-01-02T15:04"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t
		}
	}
	return time.Time{}
}

const maxLimit = 1000

// limitOf reads how many are wanted.
func limitOf(text string, otherwise int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		return otherwise
	}
	return min(n, maxLimit)
}
