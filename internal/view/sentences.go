package view

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// The sentences begin with a capital letter and end with a full stop; each stands on one line, and nothing in it can be obeyed by a
// terminal. They do not name what they are about: the row or the page where they stand does.

// WhyJob tells in a sentence what is done for a job that was taken, since when, and why it waits if it does.
func WhyJob(s Snapshot, j Job, now time.Time) string {
	stage := StateWord(j.Stage)
	switch {
	case ended(j.JobHistory):
		return sentence(fmt.Sprintf("It has ended %s (%s); what is left of its log and its result are on their way to GitLab",
			Ago(j.Times.Ended, now), outcome(j.JobHistory)))
	case !j.Times.Placed.IsZero():
		return sentence(fmt.Sprintf("It has run for %s%s; its stage is %s%s", Since(cmpTime(j.Times.Started, j.Times.Placed), now), where(s, j.Place), stage, lasting(j.JobHistory, now)))
	}
	text := fmt.Sprintf("It was taken %s and waits for ", Ago(j.Times.Taken, now))
	if p := s.pool(j.Runner); p != nil && j.Place.Machine == "" {
		return sentence(text + "a machine: " + cmp.Or(line(j.Reason), s.whyNoMachine(*p, now)))
	}
	if c := s.cluster(j.Runner); c != nil {
		return sentence(text + "a place in a batch job: " + s.whyNoPlace(*c, cmp.Or(j.Place.Batch, s.batchOf(j.Key)), j.Reason, now))
	}
	return sentence(fmt.Sprintf("It was taken %s, and its environment is being made%s; its stage is %s%s", Ago(j.Times.Taken, now), where(s, j.Place), stage, because(j.Reason)))
}

// WhyWaiting tells in a sentence why a job waits in GitLab.
func WhyWaiting(s Snapshot, w Waiting, now time.Time) string {
	text := "It waits in GitLab"
	if !w.Since.IsZero() {
		text = fmt.Sprintf("It has waited in GitLab for %s", Since(w.Since, now))
	}
	r := s.runner(w.Runner)
	if r == nil {
		return sentence(text + ": " + cmp.Or(line(w.Reason), "no runner of this manager is there for it"))
	}
	text += ", for runner " + name(r.Name, r.Runner)
	if why := s.whyNotTaken(*r, now); why != "" {
		return sentence(text + ": " + why)
	}
	if c := s.cluster(w.Runner); c != nil {
		return sentence(text + ", and is taken once it has a place in a batch job: " + s.whyNoPlace(*c, w.Batch, w.Reason, now))
	}
	if w.Reason != "" {
		return sentence(text + ": " + line(w.Reason))
	}
	return sentence(text + ": it is taken the next time that the runner asks for a job, unless another runner takes it first")
}

// WhyQueued tells in a sentence what waits in GitLab for a runner, as far as GitLab has said so lately, and why; empty: nothing is
// known to. Jobs of runners that look into the queue by themselves are told one by one instead.
func WhyQueued(s Snapshot, r Runner, now time.Time) string {
	q := r.Queue
	if q == nil || q.Jobs <= 0 || now.Sub(q.At) > queueAge {
		return ""
	}
	if c := s.cluster(r.Runner); c != nil && c.Order != takeFirst {
		return ""
	}
	verb := "wait"
	if q.Jobs == 1 {
		verb = "waits"
	}
	why := cmp.Or(s.whyNotTaken(r, now), "they are taken one after the other, as the runner asks for jobs")
	return sentence(fmt.Sprintf("%s %s in GitLab for runner %s, as it said %s: %s", Count(int(q.Jobs), "job"), verb, name(r.Name, r.Runner), Ago(q.At, now), why))
}

// whyNotTaken says why a runner takes no job at the moment; empty: nothing keeps it from that.
func (s Snapshot) whyNotTaken(r Runner, now time.Time) string {
	switch {
	case s.Manager.State != "running":
		return "the manager is " + StateWord(s.Manager.State) + " and takes no jobs"
	case r.Paused != "":
		return "the runner is paused by a person: " + line(r.Paused)
	case r.Backoff != nil && r.Backoff.After(now):
		return fmt.Sprintf("the server has refused the runner's requests, and is asked again in %s%s", Short(r.Backoff.Sub(now)), because(r.Problem))
	case r.Problem != "":
		return "the runner can take no job: " + line(r.Problem)
	case r.Limit > 0 && r.Jobs >= r.Limit:
		return fmt.Sprintf("the runner has %s, and its limit is %d", Count(r.Jobs, "job"), r.Limit)
	case s.full():
		return fmt.Sprintf("the manager has %s, and \"concurrent\" is %d", Count(len(s.Jobs), "job"), s.Manager.Concurrent)
	case r.Busy != "":
		return line(r.Busy)
	}
	return ""
}

// full says whether the manager has as many jobs as it may.
func (s Snapshot) full() bool { return s.Manager.Concurrent > 0 && len(s.Jobs) >= s.Manager.Concurrent }

// whyNoMachine says why a job of a pool has no machine yet, with what is being done about it.
func (s Snapshot) whyNoMachine(p Pool, now time.Time) string {
	parts := p.trouble(now)
	if coming := p.Count["wanted"] + p.Count["booting"]; coming > 0 {
		verb := "is"
		if coming > 1 {
			verb = "are"
		}
		parts = append([]string{fmt.Sprintf("%d %s being made for %s", coming, verb, waitingJobs(p.Waiting))}, parts...)
	}
	all := p.all()
	if p.Limit > 0 && all >= p.Limit {
		parts = append(parts, fmt.Sprintf("all %d that the limit allows are there (%s)", p.Limit, counts(p.Count)))
	}
	switch {
	case len(parts) > 0:
		return strings.Join(parts, "; ")
	case all == 0:
		return "none is there yet"
	}
	return fmt.Sprintf("none of the %d is free (%s)", all, counts(p.Count))
}

// trouble says what is wrong with the provider of a pool.
func (p Pool) trouble(now time.Time) []string {
	var parts []string
	if p.Problem != "" {
		parts = append(parts, fmt.Sprintf("the provider %s fails: %s", line(p.Provider), line(p.Problem)))
	}
	if p.Throttle != nil && p.Throttle.After(now) {
		parts = append(parts, "the provider wants no requests for another "+Short(p.Throttle.Sub(now)))
	}
	return parts
}

// all is how many machines a pool has, whatever they do.
func (p Pool) all() int {
	all := 0
	for _, n := range p.Count {
		all += n
	}
	return all
}

func waitingJobs(n int) string {
	if n <= 1 {
		return "it"
	}
	return strconv.Itoa(n) + " jobs that wait"
}

// counts lists how many machines are in which state, in the order of their life.
func counts(count map[string]int) string {
	var parts []string
	for _, state := range states() {
		if n := count[state]; n > 0 {
			parts = append(parts, strconv.Itoa(n)+" "+state)
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func states() []string {
	return []string{"wanted", "booting", "idle", "stopped", "leased", "draining", "removing"}
}

// whyNoPlace says why a job of a cluster has no place yet.
func (s Snapshot) whyNoPlace(c Cluster, batch, reason string, now time.Time) string {
	if i := slices.IndexFunc(s.Batches, func(b Batch) bool { return b.Name == batch }); batch != "" && i >= 0 {
		return batchText(s.Batches[i], now)
	}
	switch {
	case reason != "":
		return "no batch job is made for it: " + line(reason)
	case c.Problem != "":
		return fmt.Sprintf("%s does not answer: %s", system(c), line(c.Problem))
	case c.Full != "":
		return "no more batch jobs are made at the moment: " + line(c.Full)
	case c.Busy != "":
		return line(c.Busy)
	}
	return fmt.Sprintf("none was made for it yet; %s and %s of the runner have none", countOf(c.Waiting, "job", "in GitLab"), countOf(c.Taken, "job", "taken"))
}

func countOf(n int, noun, more string) string { return Count(n, noun) + " " + more }

func system(c Cluster) string {
	return cmp.Or(line(c.System), "the batch system")
}

// batchText tells of the batch job that was made for a job.
func batchText(b Batch, now time.Time) string {
	label := "batch job " + name(b.ID, b.Name)
	reason := because(b.Reason)
	if means := SchedulerReason(b.Reason); means != "" {
		reason = fmt.Sprintf(", with the reason %q: %s", line(b.Reason), means)
	}
	switch b.State {
	case "queued":
		return fmt.Sprintf("%s has waited in the queue for %s%s", label, Since(b.Since, now), reason)
	case "started":
		return fmt.Sprintf("%s has started %s on %s, and has it next", label, Ago(b.Since, now), cmp.Or(line(b.Nodes), "its nodes"))
	default:
		return fmt.Sprintf("%s has been %s for %s%s", label, StateWord(b.State), Since(b.Since, now), reason)
	}
}

// WhyFailed tells in a sentence why a job that has ended failed: the step, the exit code and the message; or that it did not.
func WhyFailed(j tranter.JobHistory) string {
	ran := ""
	if d := j.Times.Ended.Sub(j.Times.Taken); !j.Times.Ended.IsZero() && d >= 0 {
		ran = " after " + Short(d)
	}
	switch {
	case !ended(j):
		return sentence("It has not ended")
	case j.Result.State == tranter.JobSuccess:
		return sentence("It succeeded" + ran)
	case j.Result.Reason == tranter.JobCanceled:
		text := "It was canceled" + ran
		if by, found := strings.CutPrefix(j.Result.Message, "canceled by "); found {
			text = "It was canceled by " + line(by) + ran
		}
		return sentence(text + failedStep(j))
	}
	text := "It failed" + ran + failedStep(j) + ": " + ReasonWord(string(j.Result.Reason))
	if j.Result.ExitCode != 0 {
		text += fmt.Sprintf(", with exit code %d", j.Result.ExitCode)
	}
	if m := line(j.Result.Message); m != "" && m != fmt.Sprintf("exit status %d", j.Result.ExitCode) {
		text += ": " + m
	}
	return sentence(text)
}

// failedStep says in which step a job failed, or at which stage it was at the end.
func failedStep(j tranter.JobHistory) string {
	for _, stage := range slices.Backward(j.Stages) {
		for _, step := range slices.Backward(stage.Steps) {
			if step.Status != tranter.PhaseSucceeded && step.Status != "" {
				return " at " + StateWord(step.Name)
			}
		}
	}
	for _, stage := range slices.Backward(j.Stages) {
		if len(stage.Steps) == 0 && !slices.Contains([]string{"cleanup", "reporting"}, stage.Name) {
			return " at " + StateWord(stage.Name)
		}
	}
	return ""
}

// ended says whether the result of a job is known.
func ended(j tranter.JobHistory) bool {
	return j.Result.State != "" && j.Result.State != tranter.JobRunning
}

// outcome is how a job ended, in few words.
func outcome(j tranter.JobHistory) string {
	if j.Result.State == tranter.JobSuccess {
		return "success"
	}
	return "failed: " + ReasonWord(string(j.Result.Reason))
}

// lasting says how long the stage has lasted in which a job is.
func lasting(j tranter.JobHistory, now time.Time) string {
	if n := len(j.Stages); n > 0 && j.Stages[n-1].End.IsZero() {
		return " for " + Since(j.Stages[n-1].Start, now)
	}
	return ""
}

// where says where a job runs; on this host it says nothing.
func where(s Snapshot, p tranter.JobPlace) string {
	switch {
	case p.Machine != "":
		return " on machine " + line(p.Machine)
	case p.Batch != "":
		if i := slices.IndexFunc(s.Batches, func(b Batch) bool { return b.Name == p.Batch }); i >= 0 && s.Batches[i].Nodes != "" {
			return fmt.Sprintf(" in batch job %s on %s", name(s.Batches[i].ID, p.Batch), line(s.Batches[i].Nodes))
		}
		return " in batch job " + line(p.Batch)
	}
	return ""
}

func (s Snapshot) runner(short string) *Runner {
	i := slices.IndexFunc(s.Runners, func(r Runner) bool { return r.Runner == short })
	if i < 0 {
		return nil
	}
	return &s.Runners[i]
}

func (s Snapshot) pool(short string) *Pool {
	i := slices.IndexFunc(s.Pools, func(p Pool) bool { return p.Pool == short })
	if i < 0 {
		return nil
	}
	return &s.Pools[i]
}

func (s Snapshot) cluster(class string) *Cluster {
	i := slices.IndexFunc(s.Clusters, func(c Cluster) bool { return c.Class == class })
	if i < 0 {
		return nil
	}
	return &s.Clusters[i]
}

// batchOf returns the name of the batch job that a job is in.
func (s Snapshot) batchOf(key string) string {
	for _, b := range s.Batches {
		if slices.Contains(b.Jobs, key) {
			return b.Name
		}
	}
	return ""
}

// name is the first of some names that is there.
func name(names ...string) string { return cmp.Or(line(cmp.Or(names...)), "without a name") }

func because(reason string) string {
	if reason = line(reason); reason != "" {
		return ": " + reason
	}
	return ""
}

func cmpTime(times ...time.Time) time.Time {
	for _, t := range times {
		if !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}

// sentence ends a text as a sentence does.
func sentence(text string) string { return text + "." }
