// Package agent works through a phase of a job inside its environment, on its own: it needs no manager while it does.
// Everything it has to say is in the phase's directory: the journal, which is the log, and the result.
//
// Run is the agent itself, the program "tranter agent run DIR". Start, Attach and Cancel are the other end, used by
// executors. It knows neither GitLab nor executors; what a step does is in the packages below it.
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
	"github.com/tranter-ci/tranter/internal/filelock"
)

// Work is what the agent is given by the program around it.
type Work struct {
	// Artifacts connects to the job's coordinator. It is called when a step needs it first.
	Artifacts func(tranter.Server) (transfer.Artifacts, error)
	// Begun, if not nil, is called once when the agent is at work, with a function that writes a line into the phase's
	// log until Run returns.
	Begun func(note func(line string))
}

// Put puts the phase into dir, which it makes, for Run to carry it out. It says whether an agent is or was at work on it
// before; then nothing is changed.
func Put(dir string, p tranter.Phase) (begun bool, err error) {
	d := directory(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, fmt.Errorf("make the phase's directory: %w", err)
	}
	if d.exists(phaseFile) && d.begun() {
		return true, nil
	}
	if err := d.writeJSON(phaseFile, writtenPhase{Format: tranter.PhaseFormat, Phase: p}); err != nil {
		return false, fmt.Errorf("write the phase: %w", err)
	}
	return false, nil
}

// Run carries out the phase that lies in dir and leaves its result there. It returns nil at once if the phase has a
// result or another agent is at work on it, and an error if an agent before it died on the way: the phase's scripts
// may have run and are not run twice.
func Run(ctx context.Context, dir string, w Work) error {
	d := directory(dir)
	lock, err := d.lock()
	switch {
	case errors.Is(err, filelock.ErrLocked):
		return nil
	case err != nil:
		return err
	}
	defer lock.Close()
	if _, err := os.Stat(d.file(resultFile)); err == nil {
		return nil
	}
	if _, err := lock.WriteString(strconv.Itoa(os.Getpid())); err != nil {
		return fmt.Errorf("write the process id: %w", err)
	}
	phase, err := d.readPhase()
	if err != nil {
		return err
	}
	journal, err := os.OpenFile(d.file(journalFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("phase %s of job %d: %w", phase.ID, phase.JobID, tranter.ErrAgentLost)
	}
	if err != nil {
		return fmt.Errorf("open the journal: %w", err)
	}
	defer journal.Close()
	// A full disk must not keep the result from being told: its room is taken now.
	if err := d.reserve(); err != nil {
		return err
	}
	// What this process has below it already is not the phase's: an image's entrypoint may have started it.
	spared := others()
	if err := becomeReaper(); err != nil {
		return err
	}
	// What stops the agent, such as its machine's shutdown, ends the job in an orderly way.
	signals, release := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer release()
	ctx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	defer context.AfterFunc(signals, func() { stop(errStopped) })()
	r := newRun(d, phase, journal, w)
	r.spared = spared
	if w.Begun != nil {
		w.Begun(func(line string) { r.log.Plain("%s", line) })
	}
	measured := measure(ctx, phase.Dirs.Builds, spared)
	result := r.all(ctx)
	measured.end(&result)
	return d.writeResult(result)
}

// pollInterval is how often the agent looks for a request to cancel.
const pollInterval = 200 * time.Millisecond
