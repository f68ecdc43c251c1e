package web

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/tranter-ci/tranter/internal/cost"
)

// Costs are what things have cost.
type Costs struct {
	Report cost.Report
	Lines  []CostLine
	Last   time.Time // the last moment of the report
	Batch  bool      // there are batch jobs
	Query  cost.Query
	Month  string // 2026-11; empty: a time of its own
	Months []string
	Keys   []Choice
	CSV    string // address of the same as CSV
	JSON   string
}

// CostLine is a line of the table.
type CostLine struct {
	cost.Line

	Link  string  // where more is told of it
	Share float64 // of the dearest, in percent
}

// Choice is a link of a few.
type Choice struct {
	Name, Link string
	Here       bool
}

// costPages is the page of the cost.
type costPages struct{ *Server }

func (s costPages) routes(mux *http.ServeMux) {
	mux.Handle("GET /cost", s.cached(s.costs))
	mux.HandleFunc("GET /cost.csv", s.table)
	mux.HandleFunc("GET /api/cost", s.api)
}

func costKeys() []cost.Key {
	return []cost.Key{cost.ByProject, cost.ByRunner, cost.ByUser, cost.ByJob, cost.ByRef, cost.ByTag, cost.ByMachine, cost.ByDay, cost.ByMonth}
}

// costQuery reads by, month or from and to, project and runner; this month by project unless given.
func costQuery(v url.Values, now time.Time) (cost.Query, string, error) {
	q := cost.Query{By: cost.Key(v.Get("by")), Project: v.Get("project"), Runner: v.Get("runner")}
	if q.By == "" {
		q.By = cost.ByProject
	}
	if !slices.Contains(costKeys(), q.By) {
		return q, "", fmt.Errorf("the cost cannot be added up by that; it can by %v", costKeys())
	}
	q.From, q.To = timeOf(v.Get("from")), timeOf(v.Get("to"))
	if !q.From.IsZero() || !q.To.IsZero() {
		if q.To.IsZero() {
			q.To = now
		}
		return q, "", nil
	}
	month := v.Get("month")
	if month == "" {
		month = now.Format("2006-01")
	}
	from, err := time.ParseInLocation("2006-01", month, now.Location())
	if err != nil {
		return q, "", fmt.Errorf("the month is not of the form 2026-11")
	}
	q.From, q.To = from, from.AddDate(0, 1, 0)
	return q, month, nil
}

// bill is a report and what was asked for.
type bill struct {
	cost.Report

	query cost.Query
	month string
}

// report makes a report; it has answered with an error when there is none.
func (s costPages) report(w http.ResponseWriter, r *http.Request) (bill, bool) {
	q, month, err := costQuery(r.URL.Query(), time.Now())
	if err != nil {
		s.fail(w, r, http.StatusBadRequest, "Not understood: "+err.Error()+".")
		return bill{}, false
	}
	if s.options.Bills == nil {
		s.fail(w, r, http.StatusServiceUnavailable, "The cost is not known: this server has no store.")
		return bill{}, false
	}
	rep, err := s.options.Bills.Report(r.Context(), q)
	if err != nil {
		s.failed(w, r, "The cost could not be added up", err)
		return bill{}, false
	}
	return bill{Report: rep, query: q, month: month}, true
}

func (s costPages) costs(w http.ResponseWriter, r *http.Request) {
	b, ok := s.report(w, r)
	if !ok {
		return
	}
	v := r.URL.Query()
	v.Del("fragment")
	c := Costs{Report: b.Report, Query: b.query, Month: b.month, Months: months(time.Now()), CSV: "/cost.csv?" + v.Encode(), JSON: "/api/cost?" + v.Encode()}
	for _, key := range costKeys() {
		to := maps.Clone(v)
		to.Set("by", string(key))
		c.Keys = append(c.Keys, Choice{Name: string(key), Link: "/cost?" + to.Encode(), Here: key == b.query.By})
	}
	c.Lines = costLines(b.Report, b.query, v)
	c.Last = b.To.Add(-time.Second)
	c.Batch = b.Total.CPUTime > 0 || b.Total.GPUTime > 0
	s.page(w, r, "cost", c)
}

// costLines are the lines with links to what they are made of.
func costLines(r cost.Report, q cost.Query, v url.Values) []CostLine {
	largest := 0.0
	for _, line := range r.Lines {
		largest = max(largest, line.Cost)
	}
	all := make([]CostLine, 0, len(r.Lines))
	for _, line := range r.Lines {
		c := CostLine{Line: line, Link: costLink(line.Name, q, v)}
		if largest > 0 {
			c.Share = 100 * line.Cost / largest
		}
		all = append(all, c)
	}
	return all
}

// costLink leads from a line to the next finer report.
func costLink(name string, q cost.Query, v url.Values) string {
	to := maps.Clone(v)
	switch {
	case name == "":
		return ""
	case q.By == cost.ByProject:
		to.Set("project", name)
		to.Set("by", string(cost.ByJob))
	case q.By == cost.ByRunner:
		to.Set("runner", name)
		to.Set("by", string(cost.ByProject))
	case q.By == cost.ByMonth:
		to.Set("month", name)
		to.Set("by", string(cost.ByProject))
		to.Del("from")
		to.Del("to")
	default:
		return ""
	}
	return "/cost?" + to.Encode()
}

// months are the last twelve.
func months(now time.Time) []string {
	first := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, now.Location())
	var names []string
	for i := range 12 {
		names = append(names, first.AddDate(0, -i, 0).Format("2006-01"))
	}
	return names
}

func (s costPages) api(w http.ResponseWriter, r *http.Request) {
	if b, ok := s.report(w, r); ok {
		writeJSON(w, r, http.StatusOK, b.Report)
	}
}

func (s costPages) table(w http.ResponseWriter, r *http.Request) {
	b, ok := s.report(w, r)
	if !ok {
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/csv; charset=utf-8")
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=\"cost-%s-%s.csv\"", b.By, b.From.Format(time.DateOnly)))
	h.Set("Cache-Control", "no-store")
	_ = cost.WriteCSV(w, b.Report) // who reads may be gone
}
