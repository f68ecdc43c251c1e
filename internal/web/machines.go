package web

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

const machinesPage = 100 // machines on a page

func (s *Server) machineRoutes(mux *http.ServeMux) {
	p := machinePages{s}
	mux.Handle("GET /machines", s.cached(p.showMachines))
	mux.Handle("GET /machines/{name}", s.cached(p.showMachine))
	mux.Handle("GET /batches", s.cached(p.showBatches))
	mux.Handle("GET /batches/{name}", s.cached(p.showBatch))
}

// machinePages are the pages of machines and of batch jobs.
type machinePages struct{ *Server }

// choice is one of several ways to look at a page.
type choice struct {
	Label, Link string
	Current     bool
	Count       int
}

// machinesData is the page of all machines.
type machinesData struct {
	Text, State, Pool, Range string
	Ranges, States           []choice
	Timeline                 timelineData
	Pools                    []poolRow
	Machines                 []machineRow
	Total, Found             int
	Newer, Older             string // addresses of the pages around this one
	Priced                   bool
	Batches                  int
}

type timelineData struct {
	Lanes   []lane
	Ticks   []tick
	Legend  []laneRow
	Hidden  int    // machines that are not drawn
	Trouble string // why nothing is
	Words   string
}

type machineRow struct {
	view.Machine

	Why, Age, Left, Price string
	Jobs                  []jobRef
	Runner                string
}

type jobRef struct{ Link, Name string }

type poolRow struct {
	view.Pool

	Name, Machines, Decided string
	Hours, Price            string
}

// span is a choice of time.
type span struct {
	name, label string
	length      time.Duration
}

func spans() []span {
	return []span{{"hour", "hour", time.Hour}, {"6h", "6 hours", 6 * time.Hour}, {"day", "day", 24 * time.Hour}, {"week", "week", 7 * 24 * time.Hour}}
}

// with returns the address of a page with a parameter set, or removed if it is empty.
func with(r *http.Request, name, value string) string {
	q := r.URL.Query()
	q.Del("fragment")
	q.Del("page")
	if value == "" {
		q.Del(name)
	} else {
		q.Set(name, value)
	}
	if len(q) == 0 {
		return r.URL.Path
	}
	return r.URL.Path + "?" + q.Encode()
}

func (s machinePages) showMachines(w http.ResponseWriter, r *http.Request) {
	now, err := s.snapshot(r.Context())
	if err != nil {
		s.fail(w, r, http.StatusServiceUnavailable, "What is there is not known: "+err.Error())
		return
	}
	q := r.URL.Query()
	d := &machinesData{Text: strings.TrimSpace(q.Get("q")), State: q.Get("state"), Pool: q.Get("pool"), Total: len(now.Machines), Priced: now.Recent.Priced, Batches: len(now.Batches)}
	look := spans()[1]
	for _, c := range spans() {
		if c.name == q.Get("range") {
			look = c
		}
	}
	d.Range = look.name
	for _, c := range spans() {
		d.Ranges = append(d.Ranges, choice{Label: c.label, Link: with(r, "range", c.name), Current: c == look})
	}
	found := filterMachines(now.Machines, d)
	d.States = machineStates(now.Machines, r, d.State)
	d.Found = len(found)
	sortMachines(found, q.Get("sort"))
	d.Pools = s.poolRows(r.Context(), now)
	d.Timeline = s.timeline(r.Context(), now, look.length, d)
	d.page(r, now, found)
	s.page(w, r, "machines", d)
}

// page takes the part of the machines that the page shows.
func (d *machinesData) page(r *http.Request, now view.Snapshot, found []view.Machine) {
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	page = min(max(page, 0), max(0, (len(found)-1)/machinesPage))
	if page > 0 {
		d.Newer = with(r, "page", strconv.Itoa(page-1))
	}
	if (page+1)*machinesPage < len(found) {
		d.Older = with(r, "page", strconv.Itoa(page+1))
	}
	names := labelsOf(now)
	for _, m := range found[page*machinesPage : min(len(found), (page+1)*machinesPage)] {
		d.Machines = append(d.Machines, machineOf(now, m, names))
	}
}

func machineOf(now view.Snapshot, m view.Machine, names labels) machineRow {
	row := machineRow{Machine: m, Why: view.WhyMachine(now, m, now.At), Age: view.Since(m.Since, now.At), Price: view.Money(m.Cost, now.Recent.Currency), Runner: runnerName(now, m.Pool)}
	if m.Deadline != nil {
		row.Left = view.When(*m.Deadline, now.At)
	}
	row.Jobs = jobRefs(names, m.Jobs)
	return row
}

// jobRefs names jobs by their keys.
func jobRefs(names labels, keys []string) []jobRef {
	out := make([]jobRef, 0, len(keys))
	for _, key := range keys {
		ref := jobRef{Link: jobLink(key), Name: "#" + jobNumber(key)}
		if l := names[key]; l != nil {
			ref.Name = l.Name + " " + ref.Name
		}
		out = append(out, ref)
	}
	return out
}

func runnerName(now view.Snapshot, token string) string {
	for i := range now.Runners {
		if now.Runners[i].Runner == token {
			return cmp.Or(now.Runners[i].Name, token)
		}
	}
	return token
}

func filterMachines(machines []view.Machine, d *machinesData) []view.Machine {
	var out []view.Machine
	text := strings.ToLower(d.Text)
	for _, m := range machines {
		if d.State == "leaked" && m.Leak == "" || d.State != "" && d.State != "leaked" && m.State != d.State || d.Pool != "" && m.Pool != d.Pool {
			continue
		}
		if text != "" && !strings.Contains(strings.ToLower(strings.Join([]string{m.Name, m.Pool, m.Set, m.Reason, m.Address, m.Problem, m.Leak, strings.Join(m.Jobs, " ")}, "\n")), text) {
			continue
		}
		out = append(out, m)
	}
	return out
}

func machineStates(machines []view.Machine, r *http.Request, current string) []choice {
	count := map[string]int{}
	for _, m := range machines {
		count[m.State]++
		if m.Leak != "" {
			count["leaked"]++
		}
	}
	out := []choice{{Label: "all", Link: with(r, "state", ""), Current: current == "", Count: len(machines)}}
	for _, state := range []string{"wanted", "booting", "idle", "leased", "draining", "stopped", "removing", "leaked"} {
		if count[state] > 0 || state == current {
			out = append(out, choice{Label: view.StateWord(state), Link: with(r, "state", state), Current: state == current, Count: count[state]})
		}
	}
	return out
}

func sortMachines(machines []view.Machine, by string) {
	slices.SortStableFunc(machines, func(a, b view.Machine) int {
		var c int
		switch by {
		case "state":
			c = strings.Compare(a.State, b.State)
		case "since":
			c = a.Since.Compare(b.Since)
		case "uses":
			c = b.Uses - a.Uses
		case "cost":
			c = cmp.Compare(b.Cost, a.Cost)
		}
		return cmp.Or(c, strings.Compare(a.Name, b.Name))
	})
}

// poolRows are the pools with what their machines have cost today.
func (s machinePages) poolRows(ctx context.Context, now view.Snapshot) []poolRow {
	hours, price := s.machineHours(ctx, now)
	var out []poolRow
	for _, p := range now.Pools {
		row := poolRow{Pool: p, Name: cmp.Or(runnerName(now, p.Pool), p.Pool), Decided: view.Ago(p.Decided, now.At), Machines: countWords(p.Count)}
		if p.Decided.IsZero() {
			row.Decided = ""
		}
		row.Hours, row.Price = hours[p.Pool], price[p.Pool]
		out = append(out, row)
	}
	return out
}

// countWords says how many machines are in which state.
func countWords(count map[string]int) string {
	var parts []string
	for _, state := range []string{"leased", "idle", "booting", "wanted", "draining", "stopped", "removing"} {
		if n := count[state]; n > 0 {
			parts = append(parts, strconv.Itoa(n)+" "+view.StateWord(state))
		}
	}
	return strings.Join(parts, ", ")
}

// timeline draws what the machines did.
func (s machinePages) timeline(ctx context.Context, now view.Snapshot, length time.Duration, d *machinesData) timelineData {
	axis := scale{from: now.At.Add(-length), to: now.At}
	t := timelineData{Ticks: ticks(axis), Legend: legend()}
	lanes, err := s.lanes(ctx, now, view.LaneQuery{From: axis.from, To: axis.to, Pool: d.Pool, Limit: 4 * mostLanes})
	if err != nil {
		t.Trouble = "What the machines did is not known: " + err.Error()
		return t
	}
	names := labelsOf(now)
	state := map[string]string{}
	for _, m := range now.Machines {
		state[m.Name] = m.State
	}
	text := strings.ToLower(d.Text)
	for _, l := range lanes {
		if d.State != "" && state[l.Machine] != d.State || text != "" && !strings.Contains(strings.ToLower(l.Machine+"\n"+l.Pool+"\n"+l.Set), text) {
			continue
		}
		if len(t.Lanes) >= mostLanes {
			t.Hidden++
			continue
		}
		drawn := drawLane(l, axis, now.At, names)
		drawn.finish()
		t.Lanes = append(t.Lanes, drawn)
	}
	return t
}

// lanes are those of the store, or, without one, what is known of the machines that are there.
func (s machinePages) lanes(ctx context.Context, now view.Snapshot, q view.LaneQuery) ([]view.Lane, error) {
	if s.options.Past != nil {
		return s.options.Past.Lanes(ctx, q)
	}
	var out []view.Lane
	for _, m := range now.Machines {
		if q.Pool != "" && m.Pool != q.Pool || q.Machine != "" && m.Name != q.Machine {
			continue
		}
		l := view.Lane{Machine: m.Name, Pool: m.Pool, Set: m.Set, Made: m.Made}
		if m.Ready != nil && m.Ready.After(m.Made) {
			l.Spans = append(l.Spans, view.Span{State: "booting", Start: m.Made, End: *m.Ready})
		}
		l.Spans = append(l.Spans, view.Span{State: m.State, Reason: m.Reason, Start: m.Since})
		for _, key := range m.Jobs {
			l.Spans = append(l.Spans, view.Span{Job: key, Start: m.Since})
		}
		out = append(out, l)
		if len(out) >= q.Limit {
			break
		}
	}
	return out, nil
}

// machineData is the page of one machine.
type machineData struct {
	Name     string
	Here     *machineRow // nil: it is gone, or never was
	Timeline timelineData
	Events   []tranter.Event
	Jobs     []jobRow
	Trouble  string
	Currency string
}

func (s machinePages) showMachine(w http.ResponseWriter, r *http.Request) {
	now, err := s.snapshot(r.Context())
	if err != nil {
		s.fail(w, r, http.StatusServiceUnavailable, "What is there is not known: "+err.Error())
		return
	}
	d := &machineData{Name: r.PathValue("name")}
	from := now.At.Add(-7 * 24 * time.Hour)
	if i := slices.IndexFunc(now.Machines, func(m view.Machine) bool { return m.Name == d.Name }); i >= 0 {
		row := machineOf(now, now.Machines[i], labelsOf(now))
		d.Here, from = &row, now.Machines[i].Made
	}
	for i := range now.Jobs {
		if now.Jobs[i].Place.Machine == d.Name {
			d.Jobs = append(d.Jobs, jobPages(s).liveRow(r.Context(), now, now.Jobs[i]))
		}
	}
	d.past(r.Context(), s, now)
	if d.Here == nil && len(d.Events) == 0 && len(d.Jobs) == 0 {
		s.fail(w, r, http.StatusNotFound, "There is no machine "+strconv.Quote(d.Name)+", and nothing is known of one.")
		return
	}
	if n := len(d.Events); n > 0 && d.Here == nil {
		from = d.Events[n-1].Time
	}
	d.Timeline = s.oneLane(r.Context(), now, d, from)
	s.page(w, r, "machine", d)
}

// past fills in what the store knows of the machine.
func (d *machineData) past(ctx context.Context, s machinePages, now view.Snapshot) {
	if s.options.Past == nil {
		d.Trouble = "Nothing is kept of the past."
		return
	}
	var err error
	if d.Events, err = s.options.Past.Events(ctx, view.EventQuery{Machine: d.Name, Limit: 200}); err != nil {
		d.Trouble = "Its events could not be read: " + err.Error()
	}
	ended, err := s.options.Past.Jobs(ctx, view.JobQuery{Machine: d.Name, Limit: 50})
	if err != nil {
		d.Trouble = "Its jobs could not be read: " + err.Error()
	}
	var rows []jobRow
	for i := range ended {
		rows = append(rows, jobPages(s).endedRow(ctx, now, ended[i]))
	}
	d.Jobs = append(withoutEnded(d.Jobs, rows), rows...)
}

func (s machinePages) oneLane(ctx context.Context, now view.Snapshot, d *machineData, from time.Time) timelineData {
	from = from.Add(-time.Second)
	to := now.At
	if d.Here == nil && len(d.Events) > 0 {
		to = d.Events[0].Time.Add(time.Second)
	}
	q := view.LaneQuery{From: from, To: to, Machine: d.Name}
	if d.Here != nil {
		q.Pool = d.Here.Pool
	}
	axis := scale{from: from, to: to}
	t := timelineData{Ticks: ticks(axis), Legend: legend()}
	lanes, err := s.lanes(ctx, now, q)
	if err != nil {
		t.Trouble = "What the machine did is not known: " + err.Error()
		return t
	}
	names := labelsOf(now)
	for i := range d.Jobs {
		names[d.Jobs[i].Key] = &tranter.JobLabel{Name: d.Jobs[i].Name, ID: d.Jobs[i].ID}
	}
	for _, l := range lanes {
		drawn := drawLane(l, axis, now.At, names)
		drawn.finish()
		t.Lanes = append(t.Lanes, drawn)
	}
	return t
}

func jobLink(key string) string { return "/jobs/" + url.PathEscape(key) }

// jobNumber is GitLab's number of a job, with which its key begins.
func jobNumber(key string) string {
	number, _, _ := strings.Cut(key, "-")
	return number
}
