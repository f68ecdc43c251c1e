package web

import (
	"net/http"
	"slices"
	"time"

	"github.com/tranter-ci/tranter/internal/view"
)

func (s *Server) chartRoutes(mux *http.ServeMux) {
	p := chartPages{s}
	mux.Handle("GET /charts", s.cached(p.showCharts))
	mux.HandleFunc("GET /api/chart", p.chart)
}

// chartPages are the page of charts, and their values.
type chartPages struct{ *Server }

// chartsData is what templates/parts/charts.html draws: charts over a time that is the same for all.
type chartsData struct {
	Charts  []chartBox
	Range   string
	Ranges  []choice
	Runner  string
	Runners []view.Runner
	Missing bool // nothing is kept of the past
}

type chartBox struct{ Name, Title, Text string }

// chartTime is a choice of time, with how many values are drawn of it.
type chartTime struct {
	name   string
	length time.Duration
	steps  int
}

func chartTimes() []chartTime {
	return []chartTime{{"day", 24 * time.Hour, 144}, {"week", 7 * 24 * time.Hour, 168}, {"month", 30 * 24 * time.Hour, 180}}
}

func chartBoxes() []chartBox {
	return []chartBox{
		{"machines", "Machines", "How many machines there were, by state."},
		{"load", "Jobs at a time", "Jobs that ran, and jobs that waited."},
		{"waits", "Waiting time", "From creation to environment: of half of the jobs, and of 95 in 100."},
		{"jobs", "Jobs that ended", "By how they ended."},
		{"cost", "Cost", "Of machines and batch jobs."},
	}
}

// charts are the charts with the given names, over a time as a request says.
func (s chartPages) charts(r *http.Request, names ...string) chartsData {
	d := chartsData{Range: "day", Runner: r.URL.Query().Get("runner"), Missing: s.options.Past == nil}
	for _, c := range chartTimes() {
		if c.name == r.URL.Query().Get("range") {
			d.Range = c.name
		}
	}
	for _, c := range chartTimes() {
		d.Ranges = append(d.Ranges, choice{Label: c.name, Link: with(r, "range", c.name), Current: c.name == d.Range})
	}
	for _, box := range chartBoxes() {
		if slices.Contains(names, box.Name) {
			d.Charts = append(d.Charts, box)
		}
	}
	return d
}

func (s chartPages) showCharts(w http.ResponseWriter, r *http.Request) {
	now, err := s.snapshot(r.Context())
	if err != nil {
		s.fail(w, r, http.StatusServiceUnavailable, "What is there is not known: "+err.Error())
		return
	}
	d := s.charts(r, view.Charts()...)
	d.Runners = now.Runners
	s.page(w, r, "charts", d)
}

// chart answers with the values of a chart: view.Chart as JSON, which ends now.
func (s chartPages) chart(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	w.Header().Set("Cache-Control", "private, no-cache")
	name, length := q.Get("name"), q.Get("range")
	i := slices.IndexFunc(chartTimes(), func(c chartTime) bool { return c.name == length })
	switch {
	case !slices.Contains(view.Charts(), name):
		writeJSON(w, r, http.StatusBadRequest, map[string]any{"error": "name must be one of machines, waits, jobs, load, cost", "status": http.StatusBadRequest})
		return
	case i < 0:
		writeJSON(w, r, http.StatusBadRequest, map[string]any{"error": "range must be day, week or month", "status": http.StatusBadRequest})
		return
	case s.options.Past == nil:
		writeJSON(w, r, http.StatusNotFound, map[string]any{"error": "nothing is kept of the past", "status": http.StatusNotFound})
		return
	}
	look := chartTimes()[i]
	to := time.Now()
	c, err := s.options.Past.Chart(r.Context(), view.ChartQuery{Name: name, From: to.Add(-look.length), To: to, Steps: look.steps, Runner: q.Get("runner")})
	if err != nil {
		s.log.Error("A chart could not be made", "chart", name, "error", err)
		writeJSON(w, r, http.StatusInternalServerError, map[string]any{"error": "the chart could not be made: " + err.Error(), "status": http.StatusInternalServerError})
		return
	}
	writeJSON(w, r, http.StatusOK, c)
}
