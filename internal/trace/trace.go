// Package trace brings one job's log to its coordinator: a spool on disk, chunks from where the coordinator has got to,
// a sign of life when there is nothing to send, and at the end the job's final state.
//
// It does not format or mask; the bytes come as they are to be seen. What the coordinator asks for in its answers, to
// cancel or to abort, comes out of Stops. Package job owns a Trace.
package trace

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tranter-ci/tranter"
)

// Reporter is the part of a coordinator that a trace needs.
type Reporter interface {
	Append(ctx context.Context, job tranter.JobRef, offset int64, log []byte) (tranter.Answer, error)
	Update(ctx context.Context, job tranter.JobRef, u tranter.Update) (tranter.Answer, error)
}

// Options say where a log comes from and goes to. The zero times are the stock runner's: a report each 3 s, a sign of
// life after 30 s (runner contract, section 1.8).
type Options struct {
	Reporter Reporter
	Job      tranter.JobRef
	Path     string // of the spool
	Log      *slog.Logger
	Interval time.Duration
	// ForceSend is the time without a report after which one is sent anyway. Dynamic: four times the interval that
	// the coordinator asks for.
	ForceSend time.Duration
	Dynamic   bool
	// Tries of the final report that follow each other quickly; after them it goes on slowly. 0: 10.
	Tries int
	// Reserve is for how many bytes of log room is taken on the disk at once, so that a job that fills the disk can still
	// say so.
	Reserve int64
}

const (
	maxChunk         = 1 << 20
	defaultInterval  = 3 * time.Second
	maxInterval      = 15 * time.Minute
	defaultForceSend = 30 * time.Second
	maxForceSend     = 30 * time.Minute
	callLimit        = 5 * time.Minute // of one report; more than any answer takes
	quickBackoff     = time.Minute
	slowBackoff      = 2 * time.Minute
	onItsWay         = 500 * time.Millisecond // more than a line takes from the job's journal to the spool
)

// Trace is one job's log on its way. Write, Size and Lag may be called while Run runs; the others belong to one owner.
type Trace struct {
	o     Options
	stops chan tranter.Stop

	mu   sync.Mutex // guards what Write changes
	file *os.File
	size atomic.Int64 // may be read without mu: a disk that hangs keeps nobody from it
	crc  uint32

	sent     int64        // what the coordinator has, as far as is known
	arrived  atomic.Int64 // sent, for others
	known    bool         // sent is what the coordinator said
	reported time.Time
	interval time.Duration
	stop     tranter.Stop // the most that was asked for
	gone     bool
}

// Open makes the spool, or takes up one that is there: its content is what has been written so far, and the coordinator
// tells how much of it has arrived.
func Open(o Options) (*Trace, error) {
	if o.Interval <= 0 {
		o.Interval = defaultInterval
	}
	if o.ForceSend <= 0 {
		o.ForceSend = defaultForceSend
	}
	if o.Tries <= 0 {
		o.Tries = 10
	}
	f, err := os.OpenFile(o.Path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log's spool: %w", err)
	}
	sum := crc32.NewIEEE()
	size, err := io.Copy(sum, f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("read the log's spool: %w", err)
	}
	if size == 0 {
		reserve(f, o.Reserve)
	}
	t := &Trace{o: o, file: f, crc: sum.Sum32(), known: size == 0, interval: o.Interval, stops: make(chan tranter.Stop, 2), reported: time.Now()}
	t.size.Store(size)
	return t, nil
}

// Write appends to the spool. It never waits for the network. A write that fails leaves the spool as it was.
func (t *Trace) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	size := t.size.Load()
	if _, err := t.file.WriteAt(p, size); err != nil {
		return 0, errors.Join(fmt.Errorf("write the log's spool: %w", err), t.file.Truncate(size))
	}
	t.size.Store(size + int64(len(p)))
	t.crc = crc32.Update(t.crc, crc32.IEEETable, p)
	return len(p), nil
}

// Size returns how many bytes were written.
func (t *Trace) Size() int64 { return t.size.Load() }

// Lag returns how many of those the coordinator has not confirmed.
func (t *Trace) Lag() int64 { return max(0, t.Size()-t.arrived.Load()) }

// Stops gives what the coordinator asks for: at most one cancel, then at most one abort.
func (t *Trace) Stops() <-chan tranter.Stop { return t.stops }

// Run reports at the interval that the coordinator asks for, until ctx ends.
func (t *Trace) Run(ctx context.Context) {
	first := t.interval
	if !t.known { // a restart: somebody may be waiting, and the coordinator may have asked for something meanwhile
		first = 0
	}
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(t.tick(ctx))
	}
}

// tick reports and returns the time until the next report. An answer that asks for shorter intervals says that somebody
// watches the log: what has come meanwhile is sent at once, and soon after it what was on its way from the job then.
func (t *Trace) tick(ctx context.Context) time.Duration {
	before := t.interval
	t.report(ctx)
	if t.interval >= before {
		return t.interval
	}
	t.report(ctx)
	return min(t.interval, onItsWay)
}

// report sends what is new, or a sign of life if there has been nothing for long.
func (t *Trace) report(ctx context.Context) {
	if t.gone {
		return
	}
	if err := t.send(ctx); err != nil {
		if ctx.Err() == nil {
			t.o.Log.Warn("The job's log could not be sent; it will be tried again", "job", t.o.Job.ID, "error", err)
		}
		return
	}
	if t.gone || time.Since(t.reported) < t.forceSend() {
		return
	}
	if _, err := t.update(ctx, tranter.Update{State: tranter.JobRunning}); err != nil && ctx.Err() == nil {
		t.o.Log.Warn("The server could not be told that the job runs", "job", t.o.Job.ID, "error", err)
	}
}

func (t *Trace) forceSend() time.Duration {
	if !t.o.Dynamic {
		return t.o.ForceSend
	}
	return min(max(4*t.interval, t.o.ForceSend), maxForceSend)
}

// send sends chunks until the coordinator has all that was written when it began, or does not go on.
func (t *Trace) send(ctx context.Context) error {
	end := t.Size()
	var buf []byte // for all chunks: one that was taken is not read any more
	for corrections := 0; t.sent < end && !t.gone; {
		limit := int64(maxChunk)
		if !t.known {
			limit = 1 // after a restart: the answer says how far the coordinator is
		}
		limit = min(limit, end-t.sent)
		if int64(cap(buf)) < limit {
			buf = make([]byte, limit)
		}
		chunk := buf[:limit]
		if _, err := t.file.ReadAt(chunk, t.sent); err != nil {
			return fmt.Errorf("read the log's spool: %w", err)
		}
		call, cancel := context.WithTimeout(ctx, callLimit)
		answer, err := t.o.Reporter.Append(call, t.o.Job, t.sent, chunk)
		cancel()
		if err != nil {
			return err
		}
		if answer.Next != t.sent+int64(len(chunk)) {
			buf = nil // the server may have answered before the chunk was sent to its end
			if corrections++; corrections > 3 {
				return fmt.Errorf("the server and we do not agree where the log goes on: at byte %d or %d", answer.Next, t.sent)
			}
		}
		t.known = true
		t.sent = min(max(answer.Next, 0), end)
		t.arrived.Store(t.sent)
		t.heed(answer)
	}
	return nil
}

// update reports a state with the log's checksum.
func (t *Trace) update(ctx context.Context, u tranter.Update) (tranter.Answer, error) {
	t.mu.Lock()
	u.LogBytes, u.Checksum = t.size.Load(), fmt.Sprintf("crc32:%08x", t.crc)
	t.mu.Unlock()
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	answer, err := t.o.Reporter.Update(call, t.o.Job, u)
	if err == nil {
		t.heed(answer)
	}
	return answer, err
}

// heed takes from an answer what it asks for.
func (t *Trace) heed(a tranter.Answer) {
	t.reported = time.Now()
	if a.Interval > 0 {
		t.interval = min(a.Interval, maxInterval)
	}
	if a.Verdict == tranter.Gone {
		t.gone = true
		a.Stop = tranter.StopAbort
	}
	if a.Stop > t.stop {
		t.stop = a.Stop
		t.stops <- a.Stop // never blocks: it has room for both
	}
}

// Finish sends the rest of the log, then the final state, until the coordinator has accepted it or does not want the
// job any more. Only the end of ctx makes it give up; the error is then that of the last try, and Finish may be called
// again, also on a Trace that was opened later. Run must have returned.
func (t *Trace) Finish(ctx context.Context, r tranter.Result, known []tranter.FailureReason) error {
	u := tranter.Update{State: r.State, ExitCode: r.ExitCode}
	if r.State == tranter.JobFailed {
		u.Reason = r.Reason.For(known)
	}
	t.interval = t.o.Interval
	t.gone = false
	for try := 1; ; try++ {
		wait := t.interval
		verdict, err := t.finishOnce(ctx, u)
		switch {
		case err == nil && (verdict == tranter.Accepted || verdict == tranter.Gone):
			return nil
		case err == nil && verdict == tranter.Resend:
			t.sent, t.known = 0, true
			t.arrived.Store(0)
		case err != nil:
			if ctx.Err() != nil {
				return fmt.Errorf("report how job %d ended: %w", t.o.Job.ID, err)
			}
			wait = t.backoff(try)
			t.o.Log.Warn("The server could not be told how the job ended; it will be tried again", "job", t.o.Job.ID, "in", wait, "error", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("report how job %d ended: %w", t.o.Job.ID, context.Cause(ctx))
		case <-timer.C:
		}
	}
}

func (t *Trace) finishOnce(ctx context.Context, u tranter.Update) (tranter.Verdict, error) {
	// A coordinator that does not find the job takes no more of its log; what it makes of the state is the end.
	if err := t.send(ctx); err != nil && !errors.Is(err, tranter.ErrNotFound) {
		return 0, err
	}
	answer, err := t.update(ctx, u)
	return answer.Verdict, err
}

func (t *Trace) backoff(try int) time.Duration {
	if try > t.o.Tries {
		return slowBackoff
	}
	return min(time.Second<<min(try-1, 10), quickBackoff)
}

// Close closes the spool, which stays.
func (t *Trace) Close() error { return t.file.Close() }

// Remove closes and deletes the spool.
func (t *Trace) Remove() error {
	return errors.Join(t.file.Close(), os.Remove(t.o.Path))
}
