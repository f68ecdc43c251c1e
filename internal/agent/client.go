package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/tranter-ci/tranter"
)

// Identity is the system user as whom an agent runs.
type Identity struct {
	Name     string
	Home     string
	UID, GID uint32
	Groups   []uint32
}

// Launch says how to start an agent.
type Launch struct {
	Argv []string // the program that has the command "agent run DIR"
	Env  []string // its environment; jobs see it
	As   *Identity
	// Ended, if not nil, is told when an agent that Start has started ends: clean is true if it did so by itself and, as
	// far as that can be known on this system, nothing that it has started is left.
	Ended func(clean bool)
}

// Start puts the phase into dir, which it makes, and starts an agent on it that outlives this process. It returns once
// the agent is at work. Starting a phase again changes nothing. The returned function waits until the agent has ended
// if it is a child of this process; it must be called.
func Start(dir string, l Launch, p tranter.Phase) (wait func(), err error) {
	d := directory(dir)
	begun, err := Put(dir, p)
	if err != nil {
		return nil, err
	}
	if begun {
		return d.reap, nil
	}
	cmd, err := l.start(d)
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		awaitExit(cmd)
		err := cmd.Wait() // its result is in the directory
		if l.Ended != nil {
			l.Ended(err == nil && reapsAll && d.exists(resultFile))
		}
	}()
	if err := d.awaitStart(ended); err != nil {
		return nil, err
	}
	return func() { <-ended }, nil
}

// start starts an agent on the phase in d, which becomes its user's. What the agent itself has to say goes to a file
// there.
func (l Launch) start(d directory) (*exec.Cmd, error) {
	output, err := d.open(outputFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return nil, fmt.Errorf("write the agent's log: %w", err)
	}
	defer output.Close()
	dir := string(d)
	cmd := exec.Command(l.Argv[0], append(append([]string(nil), l.Argv[1:]...), "agent", "run", dir)...)
	cmd.Env = append(append([]string(nil), l.Env...), marker+"="+dir)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = output, output
	if err := detach(cmd, l.As); err != nil {
		return nil, err
	}
	if l.As != nil {
		if err := giveAway(dir, l.As); err != nil {
			return nil, err
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	return cmd, nil
}

// begun says whether an agent is or was at work.
func (d directory) begun() bool { return d.exists(journalFile) || d.exists(resultFile) }

// giveAway makes the phase's files those of the job's user.
func giveAway(dir string, as *Identity) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Lchown(filepath.Join(dir, e.Name()), int(as.UID), int(as.GID)); err != nil {
			return fmt.Errorf("give the phase to user %s: %w", as.Name, err)
		}
	}
	if err := os.Lchown(dir, int(as.UID), int(as.GID)); err != nil {
		return fmt.Errorf("give the phase to user %s: %w", as.Name, err)
	}
	return nil
}

// awaitStart waits until the agent has begun its journal, or has ended without.
func (d directory) awaitStart(ended <-chan struct{}) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for {
		if d.begun() {
			return nil
		}
		select {
		case <-ended:
			if d.begun() {
				return nil
			}
			// One that was started by somebody else a moment ago may be at it: ours went away then.
			if busy, err := d.running(); err == nil && busy {
				ended = nil
				continue
			}
			return fmt.Errorf("the agent did not start: %s", d.output())
		case <-limit.C:
			return errors.New("the agent did not start within 30 s")
		case <-tick.C:
		}
	}
}

// How often Attach looks at a journal: often while it grows, less often while it does not. A look may come late by a
// fiftieth of the time for which the phase has run, which nobody notices: short jobs end at once, long ones cost little.
const (
	attachFast  = 10 * time.Millisecond
	attachSlow  = 250 * time.Millisecond
	attachShare = 50
)

// Attach copies the journal of the phase in dir to w, from offset on and as it grows, until the phase has ended and all
// is copied. The error is tranter.ErrAgentLost if the agent has died without a result.
func Attach(ctx context.Context, dir string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	return AttachWoken(ctx, dir, offset, w, nil)
}

// AttachWoken does what Attach does, for who knows when the phase ends: it closes ended, and the end is seen at once.
func AttachWoken(ctx context.Context, dir string, offset int64, w io.Writer, ended <-chan struct{}) (tranter.PhaseResult, error) {
	d := directory(dir)
	var result tranter.PhaseResult
	journal, err := d.open(journalFile, os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return result, fmt.Errorf("phase in %s: %w", dir, tranter.ErrAgentLost)
	}
	if err != nil {
		return result, fmt.Errorf("read the journal: %w", err)
	}
	defer journal.Close()
	copier := journalCopier{journal: journal, offset: offset, dst: w}
	wait, began := attachFast, time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return result, context.Cause(ctx)
		case <-ended:
			ended = nil
		case <-timer.C:
		}
		// In this order: what was written before the agent ended is copied after that was seen.
		over, err := d.ended()
		if err != nil {
			return result, err
		}
		n, err := copier.copy()
		if err != nil {
			return result, fmt.Errorf("copy the journal: %w", err)
		}
		if over {
			return d.result()
		}
		if n > 0 {
			wait = attachFast
		} else {
			wait = min(2*wait, attachSlow, max(attachFast, time.Since(began)/attachShare))
		}
		timer.Reset(wait)
	}
}

// journalCopier copies what is new in a journal, in pieces that fit how much that is: a look at one that has not grown
// takes no memory, and neither does a job that is silent.
type journalCopier struct {
	journal *os.File
	offset  int64
	dst     io.Writer
	buf     []byte
}

const (
	copyLarge = 256 << 10
	copyKept  = 4 << 10 // of a buffer, while nothing comes
)

func (c *journalCopier) copy() (total int64, err error) {
	info, err := c.journal.Stat()
	if err != nil {
		return 0, err
	}
	for rest := info.Size() - c.offset; rest > 0; {
		size := min(rest, copyLarge)
		if int64(cap(c.buf)) < size {
			c.buf = make([]byte, max(size, copyKept))
		}
		n, err := c.journal.ReadAt(c.buf[:size], c.offset)
		if n > 0 {
			if _, err := c.dst.Write(c.buf[:n]); err != nil {
				return total, err
			}
			total, rest, c.offset = total+int64(n), rest-int64(n), c.offset+int64(n)
		}
		if errors.Is(err, io.EOF) { // it has become shorter
			break
		}
		if err != nil {
			return total, err
		}
	}
	if total == 0 && cap(c.buf) > copyKept {
		c.buf = nil
	}
	return total, nil
}

// ended says whether the journal is complete.
func (d directory) ended() (bool, error) {
	if d.exists(resultFile) {
		return true, nil
	}
	running, err := d.running()
	return !running, err
}

func (d directory) result() (tranter.PhaseResult, error) {
	var r tranter.PhaseResult
	err := d.readJSON(resultFile, &r)
	if err == nil && r.Format > tranter.PhaseFormat {
		return r, fmt.Errorf("%w that this version understands: it has format %d, known is %d", tranter.ErrAgentLost, r.Format, tranter.PhaseFormat)
	}
	if errors.Is(err, os.ErrNotExist) {
		err = tranter.ErrAgentLost
		if out := d.output(); out != "" {
			err = fmt.Errorf("%w; its last words: %s", tranter.ErrAgentLost, out)
		}
	}
	return r, err
}

// Cancel asks the agent to end the phase in dir: gracefully, with grace for the script to end and after_script
// following, or at once. A request to abort is not taken back by one to cancel.
func Cancel(dir string, abort bool, grace time.Duration) error {
	return directory(dir).cancel(cancelRequest{Abort: abort, Grace: grace})
}

// Interrupt does what Cancel does gracefully, for a reason of who runs the job, such as the end of its batch job: it has
// failed then, as interrupted, and nobody has cancelled it.
func Interrupt(dir string, grace time.Duration, reason string) error {
	return directory(dir).cancel(cancelRequest{Grace: grace, Interrupted: reason})
}

func (d directory) cancel(c cancelRequest) error {
	dir := string(d)
	var before cancelRequest
	if err := d.readJSON(cancelFile, &before); err == nil && (before.Abort || c.Interrupted != "") {
		return nil
	}
	if !d.exists(phaseFile) {
		return fmt.Errorf("cancel the phase in %s: %w", dir, tranter.ErrNotFound)
	}
	if err := d.writeJSON(cancelFile, c); err != nil {
		return fmt.Errorf("cancel the phase: %w", err)
	}
	wakeMarked(dir)
	return nil
}

// End kills what is left of the phase in dir: its agent, if it still runs, and processes of the job that have got away
// from it. It is for when nothing of the phase is wanted any more.
func End(dir string) error { return endMarked(dir) }

// Ended says whether the phase in dir has come to its end by itself.
func Ended(dir string) bool { return directory(dir).exists(resultFile) }

// ServeAttach writes the journal from offset on to w, then a line feed, the result as one line of JSON, and nothing
// else: what an executor reads that reaches the agent's machine by a connection.
func ServeAttach(ctx context.Context, dir string, offset int64, w io.Writer) error {
	result, err := Attach(ctx, dir, offset, w)
	if err != nil {
		return err
	}
	line, err := json.Marshal(result)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\n%s\n", line)
	return err
}

// marker is an environment variable of the agent and of all that it starts, so that leftovers are known.
const marker = "TRANTER_PHASE_DIR"

// SaveLastWords leaves in the phase's directory why its agent has ended without a result, for Attach to tell.
func SaveLastWords(dir, text string) error {
	d := directory(dir)
	if d.exists(resultFile) {
		return nil
	}
	f, err := d.open(outputFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND)
	if err != nil {
		return fmt.Errorf("write the agent's log: %w", err)
	}
	_, err = fmt.Fprintln(f, text)
	return errors.Join(err, f.Close())
}
