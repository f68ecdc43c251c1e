package job

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/tranter-ci/tranter"
)

// Past keeps what jobs were like. To keep the same job again replaces it.
type Past interface {
	Keep(ctx context.Context, h tranter.JobHistory) error
}

// Logs keeps the logs of jobs that have ended: it takes the file over.
type Logs interface {
	Keep(key, path string) error
}

// Ties are a job's to those who look on while it runs, and later. Each may be nil.
type Ties struct {
	History *History
	Past    Past
	Logs    Logs   // nil: the log is removed
	Placed  func() // told once the job's environment was made
}

// History is what is told of a job while it runs, and by which a person ends it. It is made before the job runs and is safe for
// concurrent use.
type History struct {
	cancel chan string // by whom, once

	mu    sync.Mutex
	now   tranter.JobHistory
	by    string // who has ended the job
	trace progress
}

// progress is how far a log has come.
type progress interface {
	Size() int64
	Lag() int64
}

// NewHistory returns the history of a job, as far as its record has it, which a runner with the given name and executor has taken.
func NewHistory(rec tranter.JobRecord, name, executor string) *History {
	past := rec.Past
	h := &History{cancel: make(chan string, 1), by: past.CanceledBy, now: tranter.JobHistory{
		Key: rec.Key, Runner: rec.Runner, Name: name, Executor: executor, Job: labelOf(rec.Job), Place: past.Place, Times: past.Times,
		Stages: past.Stages, Usage: past.Usage, Result: tranter.Result{State: tranter.JobRunning}, Restarts: rec.Restarts, LogBytes: rec.ResultAt, Bill: rec.Bill,
	}}
	h.now.Usage.Samples = past.Samples
	h.now.Times.Taken = rec.Taken
	h.now.Times.Queued = queued(rec.Job)
	if rec.Result != nil {
		h.now.Result = *rec.Result
		if h.now.Times.Ended.IsZero() {
			h.now.Times.Ended = time.Now()
		}
	}
	return h
}

// queued is how long the job has waited at the coordinator.
func queued(j *tranter.Job) time.Duration {
	const most = 10 * 365 * 24 * 3600
	s := j.Info.TimeInQueueSeconds
	if math.IsNaN(s) || s <= 0 {
		return 0
	}
	return time.Duration(min(s, most) * float64(time.Second))
}

// Now returns the history as it stands.
func (h *History) Now() tranter.JobHistory {
	h.mu.Lock()
	now, trace := h.now, h.trace
	now.Stages = slices.Clone(now.Stages)
	h.mu.Unlock()
	if trace != nil {
		now.LogBytes = max(now.LogBytes, trace.Size())
	}
	return now
}

// Lag returns how many bytes of the job's log the coordinator has not confirmed yet.
func (h *History) Lag() int64 {
	h.mu.Lock()
	trace := h.trace
	h.mu.Unlock()
	if trace == nil {
		return 0
	}
	return trace.Lag()
}

// Cancel ends the job as its coordinator's cancel does: before a script at once, in a script with grace, and after_script runs. The error
// is tranter.ErrJobEnded if it has ended. To repeat it is harmless. by is shown to the job's user.
func (h *History) Cancel(by string) error {
	h.mu.Lock()
	ended := h.now.Result.State != tranter.JobRunning
	h.mu.Unlock()
	if ended {
		return tranter.ErrJobEnded
	}
	select {
	case h.cancel <- inLine(by):
	default:
	}
	return nil
}

// inLine returns a text without what can't be in a line of a log.
func inLine(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), mostWord)], "")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

func (h *History) canceledBy(by string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.by = by
}

// outcome says who has canceled a job that was canceled.
func (h *History) outcome(r tranter.Result) tranter.Result {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.Reason == tranter.JobCanceled && h.by != "" {
		r.Message = "canceled by " + h.by
	}
	return r
}

func (h *History) follow(t progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trace = t
}

// mostStages is more than a job has, with all its restarts.
const mostStages = 100

// begin ends the stage that lasts and begins another one, unless it is the same, which goes on: after a restart of the manager.
func (h *History) begin(stage string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	stages := h.now.Stages
	last := len(stages) - 1
	if last >= 0 && stages[last].End.IsZero() && stages[last].Name == stage {
		return
	}
	h.endStageLocked()
	if len(stages) < mostStages {
		h.now.Stages = append(h.now.Stages, tranter.JobStage{Name: stage, Start: time.Now().UTC()})
	}
}

func (h *History) endStageLocked() {
	if last := len(h.now.Stages) - 1; last >= 0 && h.now.Stages[last].End.IsZero() {
		h.now.Stages[last].End = time.Now().UTC()
	}
}

// place takes in where the job is.
func (h *History) place(s tranter.Session) {
	var place tranter.JobPlace
	if p, ok := s.(tranter.Placed); ok {
		place = p.Place()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if place != (tranter.JobPlace{}) {
		h.now.Place = place
	}
	if h.now.Times.Placed.IsZero() {
		h.now.Times.Placed = time.Now().UTC()
	}
}

// work takes in that the job's agent works on a phase.
func (h *History) work() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now.Times.Started.IsZero() {
		h.now.Times.Started = time.Now().UTC()
	}
}

// phase takes in how a phase has gone, and returns the result without what later ones need not know.
func (h *History) phase(prior, result tranter.PhaseResult) tranter.PhaseResult {
	h.mu.Lock()
	defer h.mu.Unlock()
	if last := len(h.now.Stages) - 1; last >= 0 && len(result.Steps) >= len(prior.Steps) {
		h.now.Stages[last].Steps = slices.Clone(result.Steps[len(prior.Steps):])
		h.startedLocked()
	}
	u := &h.now.Usage
	u.CPUTime += result.CPUTime
	u.MaxMemory = max(u.MaxMemory, result.MaxMemory)
	u.MaxDisk = max(u.MaxDisk, result.MaxDisk)
	if len(result.Samples) > 0 {
		u.Samples = tranter.JoinSamples(u.Samples, result.Samples)
	}
	result.Samples, result.MaxDisk = nil, 0
	return result
}

// startedLocked takes in when the first script of the user has begun, which an agent tells only with its result.
func (h *History) startedLocked() {
	for n, stage := range h.now.Stages {
		for _, step := range stage.Steps {
			if !strings.HasPrefix(step.Name, "step_") {
				continue
			}
			if at := time.UnixMilli(step.Started).UTC(); n == len(h.now.Stages)-1 && at.After(h.now.Times.Started) && at.Before(time.Now()) {
				h.now.Times.Started = at
			}
			return
		}
	}
}

// end takes in how the job ended and what it has used.
func (h *History) end(r tranter.Result, bill *tranter.Bill) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now.Result, h.now.Bill = r, bill
	h.now.Times.Ended = time.Now().UTC()
}

// ended takes in how the job had ended before it was begun with, unless that is known.
func (h *History) ended(r tranter.Result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now.Result.State == tranter.JobRunning {
		h.now.Result, h.now.Times.Ended = r, time.Now().UTC()
	}
}

// write puts into a record what is not in it already, and takes from it what is.
func (h *History) write(rec *tranter.JobRecord) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now.Restarts = rec.Restarts
	now := &h.now
	rec.Past = tranter.JobPast{Times: now.Times, Place: now.Place, Stages: slices.Clone(now.Stages), Usage: now.Usage, Samples: now.Usage.Samples, CanceledBy: h.by}
	rec.Past.Usage.Samples = nil
}

// close ends the last stage and returns the whole history.
func (h *History) close() tranter.JobHistory {
	h.mu.Lock()
	h.endStageLocked()
	h.mu.Unlock()
	return h.Now()
}
