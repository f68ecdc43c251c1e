package manager

import (
	"fmt"
	"maps"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job"
)

// Pause lets a runner, which is named by its short token or else by its name, take no more jobs until Resume. Jobs that run go on. A
// request that is under way is ended; a job that it brings all the same is run. by is shown: who wanted it, and since when. The error is
// tranter.ErrNotFound if there is no such runner.
func (m *Manager) Pause(runner, by string) error { return setHeld(m, runner, by) }

// Resume lets a runner take jobs again.
func (m *Manager) Resume(runner string) error { return setHeld(m, runner, "") }

// heldBefore returns a copy of the runners that are paused at the start.
func heldBefore(paused map[string]string) map[string]string {
	held := maps.Clone(paused)
	if held == nil {
		held = map[string]string{}
	}
	return held
}

func setHeld(m *Manager, runner, by string) error {
	short, before, err := hold(m, runner, by)
	if err != nil || before == by {
		return err
	}
	log := m.options.Log.With("runner", short)
	if by == "" {
		log.Info("The runner was resumed, by a person")
		tell(m, tranter.Event{Kind: tranter.RunnerResumed, Runner: short, Text: "The runner was resumed, by a person"})
		return nil
	}
	log.Info("The runner was paused", "by", by)
	tell(m, tranter.Event{Kind: tranter.RunnerPaused, Runner: short, Text: "The runner was paused: " + by})
	return nil
}

// hold pauses or resumes a runner, and returns which it is and by whom it was paused before.
func hold(m *Manager, runner, by string) (short, before string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	short, ok := m.settings.find(runner)
	if !ok {
		if m.held[runner] == "" || by != "" { // one that is not in the configuration for now may be resumed
			return "", "", fmt.Errorf("runner %s: %w", runner, tranter.ErrNotFound)
		}
		short = runner
	}
	before = m.held[short]
	if by == "" {
		delete(m.held, short)
	} else {
		m.held[short] = by
	}
	for k, p := range m.pollers {
		if k.short == short {
			p.hold(by)
		}
	}
	return short, before, nil
}

// find returns the short token of a runner by that or by its name.
func (s *Settings) find(runner string) (short string, ok bool) {
	for i := range s.Runners {
		if s.Runners[i].Token.Short() == runner {
			return runner, true
		}
	}
	for i := range s.Runners {
		if s.Runners[i].Name == runner {
			return s.Runners[i].Token.Short(), true
		}
	}
	return "", false
}

// Cancel ends a job, which is named by its key in Status, as the coordinator's cancel does: before its script at once, in its script
// with grace, and after_script runs. The coordinator is told that it was canceled by the given person. The error is tranter.ErrNotFound
// if there is no such job, tranter.ErrJobEnded if only its report is left.
func (m *Manager) Cancel(key, by string) error {
	h := historyOf(m, key)
	if h == nil {
		return fmt.Errorf("job %s: %w", key, tranter.ErrNotFound)
	}
	if err := h.Cancel(by); err != nil {
		return fmt.Errorf("cancel job %s: %w", key, err)
	}
	past := h.Now()
	m.options.Log.Info("The job is canceled by hand", "job", past.Job.ID, "runner", past.Runner, "by", by)
	tellOf(m, tranter.JobCanceling, past, "The job is canceled by hand, by "+by)
	return nil
}

func historyOf(m *Manager, key string) *job.History {
	m.mu.Lock()
	defer m.mu.Unlock()
	if entry := m.running[key]; entry != nil {
		return entry.history
	}
	return nil
}

// LogPath returns where the log of a job is, which is named by its key in Status, and whether something may still be written to it. It
// only grows, and may be read meanwhile. The error is tranter.ErrNotFound if the manager does not have the job: it was never taken, or
// has ended and its log was handed over or removed.
func (m *Manager) LogPath(key string) (path string, live bool, err error) {
	m.mu.Lock()
	live = m.running[key] != nil
	left := m.left[key]
	m.mu.Unlock()
	if !live && !left {
		return "", false, fmt.Errorf("job %s: %w", key, tranter.ErrNotFound)
	}
	return job.LogPath(jobDir(m, key)), live, nil
}

// Lag returns how many bytes of the logs of all jobs their coordinators have not confirmed yet.
func (m *Manager) Lag() int64 {
	m.mu.Lock()
	all := make([]*job.History, 0, len(m.running))
	for _, entry := range m.running {
		all = append(all, entry.history)
	}
	m.mu.Unlock()
	var lag int64
	for _, h := range all {
		lag += h.Lag()
	}
	return lag
}
