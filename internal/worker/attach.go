package worker

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/tranter-ci/tranter"
)

// noJournal is an offset behind the end of each journal: it is not copied.
const noJournal = 1 << 60

// flushInterval is how long what a job has printed may stay on its node, on a network file system.
const flushInterval = time.Second

// attach returns the result of a phase when it has ended.
func (w *worker) attach(ctx context.Context, j *job, session tranter.Session, r request) (*tranter.PhaseResult, error) {
	if w.out.bulk() {
		return nil, w.out.stream(ctx, session, r)
	}
	name := filepath.Join(phaseDir(j.dir, r.Phase), "journal")
	flushing, stop := context.WithCancel(ctx)
	defer stop()
	w.tasks.Go(func() {
		tick := time.NewTicker(flushInterval)
		defer tick.Stop()
		for {
			select {
			case <-flushing.Done():
				return
			case <-tick.C:
				flush(name)
			}
		}
	})
	result, err := session.Attach(ctx, r.Phase, noJournal, discard{})
	flush(name)
	if err != nil {
		return nil, err
	}
	return &result, nil
}

// flush has a network file system write out what a file has got on this host: it does when somebody closes the file.
func flush(name string) {
	if f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|noTricks, 0); err == nil {
		_ = f.Close()
	}
}

// discard is a writer of nothing.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// phaseDir is where executors that run agents on this host have a phase.
func phaseDir(dir, id string) string { return filepath.Join(dir, "phase-"+id) }
