package coordinator

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/tranter-ci/tranter"
)

// shelf is where pipelines and jobs are found: all of them, and the few that something may still happen to, so that
// nothing that is done often grows with what is over. The book's lock guards it.
type shelf struct {
	runs   map[int64]*run
	jobs   map[int64]*job
	tokens map[tranter.Secret]*job

	live   map[int64]*run // pipelines that are not over
	queue  []*job         // pending jobs, by id
	active map[*job]bool  // jobs that change by the clock
}

func newShelf() shelf {
	return shelf{
		runs: map[int64]*run{}, jobs: map[int64]*job{}, tokens: map[tranter.Secret]*job{}, live: map[int64]*run{}, active: map[*job]bool{},
	}
}

// add makes a pipeline and its jobs known. Runners get the full time from now to make themselves heard.
func (b *shelf) add(r *run, now time.Time) {
	b.runs[r.ID] = r
	b.live[r.ID] = r
	for _, j := range r.Jobs {
		j.run, j.contact = r, now
		b.addJob(j)
	}
}

func (b *shelf) addJob(j *job) {
	b.jobs[j.ID], b.tokens[j.Token] = j, j
	b.place(j)
}

// place keeps the parts of the book in line with a job's state.
func (b *shelf) place(j *job) {
	at, queued := slices.BinarySearchFunc(b.queue, j.ID, func(x *job, id int64) int { return cmp.Compare(x.ID, id) })
	waits := j.Status == Pending && !j.Retried
	switch {
	case waits && !queued:
		b.queue = slices.Insert(b.queue, at, j)
	case !waits && queued:
		b.queue = slices.Delete(b.queue, at, at+1)
	}
	if j.Status.Executing() || j.Status == Scheduled {
		b.active[j] = true
	} else {
		delete(b.active, j)
	}
}

// holder finds the job that the path names and the token is for, executing. Else it returns how to refuse
// (gitlab-server 1.6).
func (b *shelf) holder(id int64, token tranter.Secret) (*job, reply) {
	j := b.jobs[id]
	if j == nil || !same(j.Token, token) {
		return nil, replyRefusal(http.StatusForbidden, "")
	}
	if !j.Status.Executing() {
		status := j.Status
		return nil, func(w http.ResponseWriter) {
			w.Header().Set("Job-Status", string(status))
			refuse(w, http.StatusForbidden, "Job is not processing on runner")
		}
	}
	return j, nil
}

// candidates lists the jobs that the runner may have, in the order in which they are offered: those of the project
// first that has the fewest jobs running (gitlab-server 3.1), which are returned too.
func (b *book) candidates(rn *runner) ([]*job, map[int64]int) {
	running := map[int64]int{}
	for j := range b.active {
		if j.Status.Executing() {
			running[j.run.Project]++
		}
	}
	var mine []*job
	for _, j := range b.queue {
		if b.takes(rn, j) {
			mine = append(mine, j)
		}
	}
	if rn.Spec.Type == instanceRunner {
		slices.SortStableFunc(mine, func(x, y *job) int { return cmp.Compare(running[x.run.Project], running[y.run.Project]) })
	}
	return mine, running
}

// busy lists the resource groups that jobs of other pipelines of the same project occupy.
func (b *shelf) busy(r *run) map[string]bool {
	if !slices.ContainsFunc(r.Definitions, func(d *definition) bool { return d.Spec.ResourceGroup != "" }) {
		return nil
	}
	out := map[string]bool{}
	for _, other := range b.live {
		if other == r || other.Project != r.Project {
			continue
		}
		for _, j := range other.Jobs {
			if j.Spec.ResourceGroup != "" && j.Status.holds() {
				out[j.Spec.ResourceGroup] = true
			}
		}
	}
	return out
}

// grade recomputes the state of a pipeline.
func (b *shelf) grade(r *run) {
	r.Status, r.Finished = PipelineStatus(r.graph(time.Time{}).Nodes), time.Time{}
	if !r.Status.Finished() {
		b.live[r.ID] = r
		return
	}
	delete(b.live, r.ID)
	r.Finished = r.Created
	for _, j := range r.Jobs {
		if j.Times.Finished.After(r.Finished) {
			r.Finished = j.Times.Finished
		}
	}
}
