package manager

import (
	"cmp"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/tranter-ci/tranter"
)

// tell passes on what has happened. It must not be called with a lock held: whoever is told may ask the manager.
func tell(m *Manager, e tranter.Event) {
	if m.options.Events == nil {
		return
	}
	e.Time = time.Now()
	m.options.Events(e)
}

// jobDir is the directory of one job alone.
func jobDir(m *Manager, key string) string { return filepath.Join(m.options.Dir, key) }

// tellOf passes on what has happened to a job, with the job as it stands.
func tellOf(m *Manager, kind tranter.EventKind, past tranter.JobHistory, text string) {
	e := tranter.Event{Kind: kind, Runner: past.Runner, Job: past.Key, Machine: past.Place.Machine, Batch: past.Place.Batch, Text: text, Past: &past}
	switch kind {
	case tranter.JobTaken:
		e.Took = past.Times.Queued
	case tranter.JobPlaced:
		e.Took = max(0, past.Times.Placed.Sub(past.Times.Taken))
	case tranter.JobEnded:
		e.Took = max(0, past.Times.Ended.Sub(past.Times.Taken))
		if isSystem(past.Result.Reason) {
			e.Level = tranter.EventWarning
		}
	default:
	}
	tell(m, e)
}

// isSystem says whether a job has failed for what is the operator's business rather than the user's.
func isSystem(r tranter.FailureReason) bool {
	switch r {
	case tranter.RunnerSystemFailure, tranter.RunnerConfigurationError, tranter.ExternalDependencyFailure, tranter.UnknownFailure:
		return true
	default:
		return false
	}
}

// placed tells that a job's environment was made.
func placed(m *Manager, past tranter.JobHistory, log *slog.Logger) {
	where := ""
	switch p := past.Place; {
	case p.Machine != "":
		log = log.With("machine", p.Machine)
		where = " on machine " + p.Machine
	case p.Batch != "":
		log = log.With("batch", p.Batch)
		where = " in batch job " + p.Batch
	}
	log.Info("The job's environment was made")
	tellOf(m, tranter.JobPlaced, past, "The job's environment was made"+where)
}

// ended tells that a job has ended and was reported.
func ended(m *Manager, past tranter.JobHistory, result tranter.Result, log *slog.Logger) {
	past.Result = result
	took := past.Times.Ended.Sub(past.Times.Taken).Round(time.Millisecond)
	if past.Place.Machine != "" {
		log = log.With("machine", past.Place.Machine)
	}
	if result.State == tranter.JobSuccess {
		log.Info("Job succeeded", "duration_s", took.Seconds())
		tellOf(m, tranter.JobEnded, past, "Job succeeded")
		return
	}
	log.Warn("Job failed", "duration_s", took.Seconds(), "failure_reason", result.Reason, "exit_code", result.ExitCode, "error", result.Message)
	tellOf(m, tranter.JobEnded, past, fmt.Sprintf("Job failed (%s): %s", result.Reason, result.Message))
}

// about names a job in a sentence.
func about(l tranter.JobLabel) string {
	if of := cmp.Or(l.Project, fmt.Sprint("project ", l.ProjectID)); l.Name != "" {
		return fmt.Sprintf("job %d, %q of %s", l.ID, l.Name, of)
	}
	return fmt.Sprint("job ", l.ID)
}
