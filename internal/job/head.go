package job

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/joblog"
	"github.com/tranter-ci/tranter/internal/plan"
	"github.com/tranter-ci/tranter/internal/trace"
)

// spool is where a job's log is kept until it has arrived.
func spool(dir string) string { return filepath.Join(dir, "trace.log") }

// LogPath is where the log of a job is while the job runs, which has the given directory.
func LogPath(dir string) string { return spool(dir) }

// failedBeforePlan writes the header of a log that gets no other.
func (r *run) failedBeforePlan() {
	if r.Record.Head > 0 {
		return
	}
	l := joblog.New(r.early, plan.Format(r.Record.Job, r.Settings), time.Now)
	l.Plain("Running with tranter %s (%s)", r.Settings.Program.Version, r.Settings.Program.Commit)
	l.Plain("  on %s %s, system ID: %s", r.Settings.Name, r.Settings.ShortToken, r.Settings.SystemID)
	r.closeLog(l)
}

// head writes what the log begins with (runner contract, section 3.2, steps 2 to 4). Not before it is written is recorded
// what it is about: what a start that was interrupted on the way has written of it is not written again.
func (r *run) head(ctx context.Context) error {
	if r.Record.Head > 0 {
		return nil
	}
	l := joblog.New(r.early, r.plan.Format(), time.Now)
	for _, line := range r.plan.Header {
		l.Plain("%s", line)
	}
	if len(r.plan.Warnings) > 0 {
		l.Warning("%s", strings.Join(r.plan.Warnings, "; "))
	}
	r.closeLog(l)
	if _, err := r.early.Write(r.beforePrepare); err != nil {
		return fmt.Errorf("write the job's log: %w", err)
	}
	r.keep(ctx, func(rec *tranter.JobRecord) { rec.Head = r.trace.Size() })
	return nil
}

// after returns a writer for what stands in the log from the given size of its spool on. It may be written again, by a
// start that repeats what one before it was interrupted in: what is in the spool already stays as it is, because it may
// have been sent, and only what follows it is written.
func after(t *trace.Trace, dir string, size int64) io.Writer {
	w := &rewriter{to: t}
	f, err := os.Open(spool(dir))
	if err != nil {
		return w
	}
	defer f.Close()
	written, _ := io.ReadAll(io.NewSectionReader(f, size, max(0, t.Size()-size)))
	w.lines = bytes.Count(written, []byte{'\n'}) - failedTries(written)
	w.part = len(written) - 1 - bytes.LastIndexByte(written, '\n')
	return w
}

// failedTries returns how many lines of a log are about tries to prepare the job that have failed: the repetition begins
// with the first try, and has no need to say the same.
func failedTries(written []byte) int {
	end := bytes.LastIndex(written, []byte(retried))
	begin := bytes.Index(written, []byte(preparing))
	if begin < 0 || end < begin {
		return 0
	}
	return bytes.Count(written[begin:end], []byte{'\n'}) // the line of begin stays, that of end goes
}

// rewriter drops as many lines as were written before, then as many bytes as were written of the next one. Lines, not
// bytes, because a line may have another length now: another version tells its name.
type rewriter struct {
	to    io.Writer
	lines int
	part  int
}

// Write implements io.Writer.
func (w *rewriter) Write(p []byte) (int, error) {
	rest := p
	for w.lines > 0 {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return len(p), nil
		}
		rest = rest[end+1:]
		w.lines--
	}
	skip := min(w.part, len(rest))
	w.part -= skip
	if rest = rest[skip:]; len(rest) == 0 {
		return len(p), nil
	}
	if _, err := w.to.Write(rest); err != nil {
		return 0, err
	}
	return len(p), nil
}
