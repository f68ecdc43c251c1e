package web

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/tranter-ci/tranter/internal/view"
)

const overviewRows = 12 // jobs of each kind on the overview; the rest is on the jobs page

// Overview is all at a glance.
type Overview struct {
	view.Snapshot `json:"-"`

	Now     time.Time     `json:"at"`
	Notices []view.Notice `json:"attention"`
	Running int           `json:"running"`
	Pending int           `json:"pending"` // taken, without a place yet
	Queue   int           `json:"waiting"` // in GitLab
	// QueueKnown says whether the manager has heard how many those are.
	QueueKnown bool         `json:"waiting_known"`
	Machines   []Count      `json:"machines"`
	Failures   []Count      `json:"failures"`
	Failed     int          `json:"failed"`
	Last       view.Recent  `json:"recent"`
	Here       []view.Job   `json:"-"`
	Next       []WaitingJob `json:"-"`
	Queues     []string     `json:"queues,omitempty"` // what waits of which only the number is known, and why
	Oldest     string       `json:"-"`                // how long the longest waits
	Loads      []Load       `json:"runners"`
}

// WaitingJob is a job that waits in GitLab, and why.
type WaitingJob struct {
	Job view.Waiting
	Key string // of one that was taken and waits for its place
	Why string
}

// Count is how many there are of a kind.
type Count struct {
	Name    string  `json:"name"`
	Count   int     `json:"count"`
	Start   float64 `json:"-"` // share of those before it, in percent
	Percent float64 `json:"-"` // its share of all
}

// Load is how busy a runner is.
type Load struct {
	view.Runner

	Waiting  int     `json:"waiting"`
	Machines int     `json:"machines"`
	Most     int     `json:"-"` // jobs that it may have
	Share    float64 `json:"-"` // of Most, in percent
	Word     string  `json:"-"` // what is to say of it
	State    string  `json:"state"`
}

// overviewPages is the first page.
type overviewPages struct{ *Server }

func (s overviewPages) routes(mux *http.ServeMux) {
	mux.Handle("GET /{$}", s.cached(func(w http.ResponseWriter, r *http.Request) {
		now, err := s.snapshot(r.Context())
		if err != nil {
			s.fail(w, r, http.StatusServiceUnavailable, "It is not known what is there: "+err.Error())
			return
		}
		s.page(w, r, "overview", newOverview(now, s.now.attention()))
	}))
}

func newOverview(now view.Snapshot, notices []view.Notice) Overview {
	at := time.Now()
	o := Overview{Snapshot: now, Now: at, Notices: notices, Last: now.Recent}
	o.Queue, o.QueueKnown = now.Queued()
	for _, j := range now.Jobs {
		if j.Times.Placed.IsZero() {
			o.Pending++
		} else {
			o.Running++
		}
	}
	o.Here = now.Jobs[:min(len(now.Jobs), overviewRows)]
	for _, w := range now.Waiting[:min(len(now.Waiting), overviewRows)] {
		o.Next = append(o.Next, WaitingJob{Job: w, Why: view.WhyWaiting(now, w, at)})
	}
	for i := range now.Jobs {
		if j := &now.Jobs[i]; j.Times.Placed.IsZero() && j.Times.Ended.IsZero() && len(o.Next) < overviewRows {
			o.Next = append(o.Next, placeless(now, j, at))
		}
	}
	o.Queues = queues(now, at)
	o.Oldest = oldest(now.Waiting, at)
	states := map[string]int{}
	for _, m := range now.Machines {
		states[m.State]++
	}
	o.Machines = counts(states, stateOrder())
	o.Failures = counts(now.Recent.Failed, nil)
	for _, c := range o.Failures {
		o.Failed += c.Count
	}
	o.Loads = loads(now)
	return o
}

// placeless is a job that was taken, and waits for its place.
func placeless(now view.Snapshot, j *view.Job, at time.Time) WaitingJob {
	w := view.Waiting{ID: j.Job.ID, Name: j.Job.Name, Project: j.Job.Project, User: j.Job.User, Runner: j.Runner, Since: j.Times.Taken}
	return WaitingJob{Job: w, Key: j.Key, Why: view.WhyJob(now, *j, at)}
}

// queues says what waits in GitLab of which only the number is known.
func queues(now view.Snapshot, at time.Time) []string {
	var all []string
	for i := range now.Runners {
		if why := view.WhyQueued(now, now.Runners[i], at); why != "" {
			all = append(all, why)
		}
	}
	return all
}

// oldest says how long the job that waits longest does.
func oldest(waiting []view.Waiting, now time.Time) string {
	var first time.Time
	for _, w := range waiting {
		if !w.Since.IsZero() && (first.IsZero() || w.Since.Before(first)) {
			first = w.Since
		}
	}
	if first.IsZero() {
		return ""
	}
	return view.Since(first, now)
}

// stateOrder is the order in which a machine goes through them.
func stateOrder() []string {
	return []string{"wanted", "booting", "idle", "leased", "draining", "removing", "stopped"}
}

// counts are those of a map: in the given order, then by number. Share is of all.
func counts(of map[string]int, order []string) []Count {
	var all []Count
	total := 0
	for name, n := range of {
		if n > 0 {
			all = append(all, Count{Name: name, Count: n})
			total += n
		}
	}
	rank := func(name string) int {
		if i := slices.Index(order, name); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortFunc(all, func(a, b Count) int {
		return cmp.Or(cmp.Compare(rank(a.Name), rank(b.Name)), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
	start := 0.0
	for i := range all {
		all[i].Start = start
		all[i].Percent = 100 * float64(all[i].Count) / float64(total)
		start += all[i].Percent
	}
	return all
}

func loads(now view.Snapshot) []Load {
	waiting, machines := map[string]int{}, map[string]int{}
	for _, w := range now.Waiting {
		waiting[w.Runner]++
	}
	for _, m := range now.Machines {
		machines[m.Pool]++
	}
	all := make([]Load, 0, len(now.Runners))
	for _, r := range now.Runners {
		l := Load{Runner: r, Waiting: waiting[r.Runner], Machines: machines[r.Runner], Most: r.Limit, State: runnerState(r, time.Now())}
		if l.Most == 0 || now.Manager.Concurrent > 0 && l.Most > now.Manager.Concurrent {
			l.Most = now.Manager.Concurrent
		}
		if l.Most > 0 {
			l.Share = min(100, 100*float64(l.Jobs)/float64(l.Most))
		}
		l.Word = cmp.Or(r.Problem, r.Busy)
		if r.Paused != "" {
			l.Word = "paused " + r.Paused
		}
		all = append(all, l)
	}
	return all
}

// runnerState is a runner's state in a word.
func runnerState(r view.Runner, now time.Time) string {
	switch {
	case r.Paused != "":
		return "paused"
	case r.Backoff != nil && r.Backoff.After(now):
		return "trouble"
	case r.Problem != "":
		return "trouble"
	case r.Jobs > 0:
		return "busy"
	default:
		return "idle"
	}
}
