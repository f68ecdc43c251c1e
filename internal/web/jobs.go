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

const (
	jobsOnPage    = 50
	runningOnPage = 100
	waitingOnPage = 25
	maxQuery      = 200 // bytes of what is searched for
)

func (s *Server) jobRoutes(mux *http.ServeMux) {
	p := jobPages{s}
	mux.Handle("GET /jobs", s.cached(p.showJobs))
	mux.Handle("GET /jobs/{key}", s.cached(p.showJob))
	mux.Handle("GET /jobs/{key}/log", s.cached(p.showLog))
	mux.HandleFunc("GET /jobs/{key}/log/raw", p.rawLog)
}

// jobPages are the pages of jobs and of their logs.
type jobPages struct{ *Server }

// jobsData is the list of jobs.
type jobsData struct {
	Query    view.JobQuery
	State    string
	From, To string // as in the form
	Waiting  []waitingRow
	Queues   []string // what waits of which only the number is known, and why
	Hidden   int      // waiting jobs that are not shown
	More     int      // running ones
	Running  []jobRow
	Ended    []jobRow
	Older    string // address of the next page; empty: there is none
	Newest   string // address of the first page, if this is another one
	States   []choice
	Reasons  []tranter.FailureReason
	Runners  []view.Runner
	Filtered bool
	Priced   bool
	Trouble  string
}

type waitingRow struct {
	view.Waiting

	Age, Why, RunnerName string
}

// jobRow is a job in a list.
type jobRow struct {
	Key, Link          string
	ID                 int64
	Name, Project, Ref string
	Stage, Runner      string
	State, Tone        string
	Wait, Took, Cost   string
	Place, PlaceLink   string
	Why                string
	Running            bool
	At                 time.Time // it was taken, or if it has ended, when
	From               time.Time // since when it runs
	Now                time.Time
}

func (s jobPages) showJobs(w http.ResponseWriter, r *http.Request) {
	now, err := s.snapshot(r.Context())
	if err != nil {
		s.fail(w, r, http.StatusServiceUnavailable, "What is there is not known: "+err.Error())
		return
	}
	d := jobsQuery(r)
	d.Runners = now.Runners
	d.Priced = now.Recent.Priced
	d.States = jobStates(r, d.State, now)
	if d.wants("waiting") {
		d.waiting(now)
	}
	if d.wants("running") && d.Query.Reason == "" && d.From+d.To == "" {
		s.here(r.Context(), now, d)
	}
	if d.State != "running" && d.State != "waiting" {
		s.ended(r, now, d)
		d.Running = withoutEnded(d.Running, d.Ended)
	}
	s.page(w, r, "jobs", d)
}

// wants tells whether jobs in a state that they are in now are shown: on the first page, unless only others are looked for.
func (d *jobsData) wants(state string) bool {
	return d.Query.Before == "" && (d.State == "" || d.State == state)
}

// here adds the jobs that the manager has.
func (s jobPages) here(ctx context.Context, now view.Snapshot, d *jobsData) {
	for i := range now.Jobs {
		switch {
		case !d.fits(&now.Jobs[i], now):
		case len(d.Running) >= runningOnPage:
			d.More++
		default:
			d.Running = append(d.Running, s.liveRow(ctx, now, now.Jobs[i]))
		}
	}
}

func jobsQuery(r *http.Request) *jobsData {
	q := r.URL.Query()
	get := func(name string) string {
		v := strings.TrimSpace(q.Get(name))
		return v[:min(len(v), maxQuery)]
	}
	d := &jobsData{State: get("state"), From: get("from"), To: get("to"), Reasons: []tranter.FailureReason{
		tranter.ScriptFailure, tranter.RunnerSystemFailure, tranter.JobExecutionTimeout, tranter.ImagePullFailure,
		tranter.RunnerConfigurationError, tranter.ExternalDependencyFailure, tranter.RunnerInterrupted, tranter.JobCanceled, tranter.UnknownFailure,
	}}
	d.Query = view.JobQuery{
		Text: get("q"), Runner: get("runner"), Project: get("project"), Reason: tranter.FailureReason(get("reason")), Machine: get("machine"),
		Before: get("before"), Limit: jobsOnPage + 1,
	}
	if d.State == "success" || d.State == "failed" {
		d.Query.State = tranter.JobState(d.State)
	}
	d.Query.From, d.Query.To = timeOf(d.From), timeOf(d.To)
	if !d.Query.To.IsZero() && len(d.To) == len(time.DateOnly) {
		d.Query.To = d.Query.To.AddDate(0, 0, 1) // the whole day
	}
	d.Filtered = d.Query.Text+d.Query.Runner+d.Query.Project+string(d.Query.Reason)+d.Query.Machine+d.From+d.To+d.State != ""
	if d.Query.Before != "" {
		d.Newest = with(r, "before", "")
	}
	return d
}

func jobStates(r *http.Request, current string, now view.Snapshot) []choice {
	var out []choice
	for _, state := range []string{"", "waiting", "running", "success", "failed"} {
		c := choice{Label: cmp.Or(state, "all"), Current: state == current}
		q := r.URL.Query()
		q.Del("before")
		q.Del("fragment")
		q.Del("state")
		if state != "" {
			q.Set("state", state)
		}
		c.Link = "/jobs"
		if len(q) > 0 {
			c.Link += "?" + q.Encode()
		}
		switch state {
		case "waiting":
			c.Count, _ = now.Queued()
		case "running":
			c.Count = len(now.Jobs)
		}
		out = append(out, c)
	}
	return out
}

func (d *jobsData) waiting(now view.Snapshot) {
	if !d.Filtered || d.State == "waiting" && d.Query.Text+d.Query.Runner+d.Query.Project == "" {
		d.Queues = queues(now, now.At)
	}
	most := waitingOnPage
	if d.State == "waiting" {
		most = 4 * jobsOnPage
	}
	for _, w := range now.Waiting {
		name := runnerName(now, w.Runner)
		if !d.fitsWaiting(w, name) {
			continue
		}
		if len(d.Waiting) >= most {
			d.Hidden++
			continue
		}
		row := waitingRow{Waiting: w, Why: view.WhyWaiting(now, w, now.At), RunnerName: name}
		if !w.Since.IsZero() {
			row.Age = view.Since(w.Since, now.At)
		}
		d.Waiting = append(d.Waiting, row)
	}
}

func (d *jobsData) fitsWaiting(w view.Waiting, runner string) bool {
	q := d.Query
	text := strings.ToLower(w.Name + "\n" + w.Project + "\n" + strconv.FormatInt(w.ID, 10))
	return (q.Text == "" || strings.Contains(text, strings.ToLower(q.Text))) && (q.Runner == "" || q.Runner == w.Runner || q.Runner == runner) &&
		(q.Project == "" || q.Project == w.Project) && q.Reason == "" && q.Machine == ""
}

// fits tells whether a job that runs is one of those that are looked for.
func (d *jobsData) fits(j *view.Job, now view.Snapshot) bool {
	q := d.Query
	text := strings.ToLower(strings.Join([]string{j.Job.Name, j.Job.Project, j.Job.Ref, strconv.FormatInt(j.Job.ID, 10)}, "\n"))
	return (q.Text == "" || strings.Contains(text, strings.ToLower(q.Text))) &&
		(q.Runner == "" || q.Runner == j.Runner || q.Runner == cmp.Or(j.Name, runnerName(now, j.Runner))) &&
		(q.Project == "" || q.Project == j.Job.Project) && (q.Machine == "" || q.Machine == j.Place.Machine)
}

func (s jobPages) ended(r *http.Request, now view.Snapshot, d *jobsData) {
	if s.options.Past == nil {
		d.Trouble = "Nothing is kept of jobs that have ended."
		return
	}
	jobs, err := s.options.Past.Jobs(r.Context(), d.Query)
	if err != nil {
		d.Trouble = "The jobs that have ended could not be read: " + err.Error()
		return
	}
	if len(jobs) > jobsOnPage {
		jobs = jobs[:jobsOnPage]
		d.Older = with(r, "before", jobs[jobsOnPage-1].Key)
	}
	for i := range jobs {
		d.Ended = append(d.Ended, s.endedRow(r.Context(), now, jobs[i]))
	}
}

// withoutEnded leaves out jobs that have ended already, and are reported soon: no job is in a list twice.
func withoutEnded(running, ended []jobRow) []jobRow {
	return slices.DeleteFunc(running, func(j jobRow) bool {
		return slices.ContainsFunc(ended, func(e jobRow) bool { return e.Key == j.Key })
	})
}

// liveRow is a job that the manager has.
func (s jobPages) liveRow(ctx context.Context, now view.Snapshot, j view.Job) jobRow {
	row := s.row(ctx, now, j.JobHistory)
	row.Running, row.State, row.Tone = true, cmp.Or(j.Stage, "running"), "busy"
	if j.Times.Placed.IsZero() {
		row.Tone = "wait"
	}
	row.Why = view.WhyJob(now, j, now.At)
	row.At, row.From = j.Times.Taken, cmp.Or(j.Times.Placed, j.Times.Taken)
	return row
}

// endedRow is a job that has ended.
func (s jobPages) endedRow(ctx context.Context, now view.Snapshot, j tranter.JobHistory) jobRow {
	row := s.row(ctx, now, j)
	row.State, row.Tone = string(j.Result.State), tone(string(j.Result.State))
	if j.Result.State == tranter.JobFailed {
		row.Why = view.WhyFailed(j)
		if j.Result.Reason == tranter.JobCanceled {
			row.State, row.Tone = "canceled", "gone"
		}
	}
	row.At = j.Times.Ended
	return row
}

func (s jobPages) row(ctx context.Context, now view.Snapshot, j tranter.JobHistory) jobRow {
	row := jobRow{
		Key: j.Key, Link: jobLink(j.Key), ID: j.Job.ID, Name: j.Job.Name, Project: j.Job.Project, Ref: j.Job.Ref, Stage: j.Job.Stage,
		Runner: cmp.Or(j.Name, runnerName(now, j.Runner)), Wait: view.Short(j.Times.Wait(now.At)), Took: view.Short(ran(j.Times, now.At)),
		Cost: s.price(ctx, j, now), Now: now.At,
	}
	row.Place, row.PlaceLink = place(j)
	return row
}

// ran is how long a job has had its environment, or has been ours if it never got one.
func ran(t tranter.JobTimes, now time.Time) time.Duration {
	from := t.Placed
	if from.IsZero() {
		from = t.Taken
	}
	return max(0, until(t.Ended, now).Sub(from))
}

func (s jobPages) price(ctx context.Context, j tranter.JobHistory, now view.Snapshot) string {
	if s.options.Bills == nil || !now.Recent.Priced {
		return ""
	}
	c, err := s.options.Bills.Job(ctx, j)
	if err != nil || !c.Priced {
		return ""
	}
	return view.Money(c.Cost, now.Recent.Currency)
}

// place says where a job runs or ran, and returns the address of the page about that.
func place(j tranter.JobHistory) (text, link string) {
	switch {
	case j.Place.Machine != "":
		return j.Place.Machine, "/machines/" + url.PathEscape(j.Place.Machine)
	case j.Place.Batch != "" && j.Bill != nil && j.Bill.BatchJob != "":
		return "batch job " + j.Bill.BatchJob, "/batches/" + url.PathEscape(j.Place.Batch)
	case j.Place.Batch != "":
		return j.Place.Batch, "/batches/" + url.PathEscape(j.Place.Batch)
	default:
		return "this host", ""
	}
}
