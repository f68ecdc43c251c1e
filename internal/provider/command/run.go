package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// The exit codes by which a program says how it has failed. All others are failures that may pass.
const (
	exitNotFound  = 3
	exitCapacity  = 4
	exitRejected  = 5
	exitThrottled = 6
)

const (
	// grace is what a program has to end after SIGTERM, and output that others hold to be closed.
	grace = 5 * time.Second
	// maxOutput bounds what a program may answer: ten thousand machines fit.
	maxOutput = 16 << 20
	maxValues = 1000 // JSON values in it
	// shown is how much of an answer that is not understood is shown.
	shown = 200
)

var errNotFound = errors.New("there is no such machine")

// ending is how a program has ended well.
type ending struct {
	program, stdout, stderr string
}

// said quotes the program for an error.
func (e ending) said() string {
	text := ""
	if e.stdout != "" {
		text = fmt.Sprintf(", got %.*q", shown, e.stdout)
	}
	if e.stderr != "" {
		text += " (it says: " + e.stderr + ")"
	}
	return text
}

// run runs the program for a request and hands each JSON value that it prints to take, at once; take nil: output does not
// matter.
func (p *Provider) run(ctx context.Context, r request, take func(json.RawMessage) error) (ending, error) {
	argv := p.programs[r.Action]
	name := filepath.Base(argv[0])
	r.Version = version
	input, err := json.Marshal(r)
	if err != nil {
		return ending{}, fmt.Errorf("write the request to %s: %w", name, err)
	}
	ctx, stop := context.WithTimeoutCause(ctx, p.timeout, fmt.Errorf("%s took longer than %s", name, p.timeout))
	defer stop()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)

	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Stdin, cmd.WaitDelay = p.env, bytes.NewReader(append(input, '\n')), grace
	cmd.Cancel = func() error { return terminateGroup(cmd) }
	ownGroup(cmd)
	mask := p.masker(r)
	says := &sayings{
		mask: mask,
		log: func(line string) {
			p.log.InfoContext(ctx, "a machine's program says", "machine", r.Name, "action", r.Action, "text", line)
		},
	}
	reader, writer := io.Pipe()
	out := &output{to: writer}
	cmd.Stdout, cmd.Stderr = out, says
	if err := cmd.Start(); err != nil {
		return ending{}, fmt.Errorf("start the program for %s: %w (%w)", r.Action, err, tranter.ErrRejected)
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		if ctx.Err() != nil {
			killGroup(cmd)
		}
		_ = writer.Close()
		ended <- err
	}()
	answers := replies{take: take}
	bad := answers.read(reader)
	if errors.Is(bad, errOutput) { // all others may end by themselves: what they have begun is best ended well
		giveUp(fmt.Errorf("%s: %w", name, bad))
	}
	_ = reader.Close() // nobody waits to be read
	exit := <-ended
	says.flush()
	end := ending{program: name, stdout: mask(out.begun()), stderr: says.tail()}
	return end, end.judge(ctx, exit, bad, answers.retry)
}

// judge says how a run has ended.
func (e ending) judge(ctx context.Context, exit, bad error, retry time.Duration) error {
	if errors.Is(exit, exec.ErrWaitDelay) {
		exit = nil // a process that it has left holds its output
	}
	failed, ok := errors.AsType[*exec.ExitError](exit)
	switch {
	case exit == nil && bad == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%w%s", context.Cause(ctx), ending{stderr: e.stderr}.said())
	case exit == nil:
		return fmt.Errorf("%s: %w%s", e.program, bad, e.said())
	case !ok:
		return fmt.Errorf("run %s: %w", e.program, exit)
	}
	return e.failure(failed, retry)
}

func (e ending) failure(failed *exec.ExitError, retry time.Duration) error {
	said := ending{stderr: e.stderr}.said()
	switch failed.ExitCode() {
	case exitNotFound:
		return fmt.Errorf("%s: %w%s", e.program, errNotFound, said)
	case exitCapacity:
		return fmt.Errorf("%s: %w%s", e.program, tranter.ErrNoCapacity, said)
	case exitRejected:
		return fmt.Errorf("%s: %w%s", e.program, tranter.ErrRejected, said)
	case exitThrottled:
		return &tranter.ThrottledError{RetryAfter: retry, Err: fmt.Errorf("%s: the provider wants to be asked less often%s", e.program, said)}
	}
	return fmt.Errorf("%s has failed (%w)%s", e.program, failed, said)
}

// replies are the JSON values that a program prints.
type replies struct {
	take  func(json.RawMessage) error
	retry time.Duration // the last retry_after
}

// read takes values until the output ends. After an error the rest is read and thrown away, so that the program can end.
func (r *replies) read(from io.Reader) error {
	d := json.NewDecoder(from)
	err := error(nil)
	for n := 0; err == nil; n++ {
		var value json.RawMessage
		if n == maxValues {
			err = errOutput
		} else if err = d.Decode(&value); err == nil {
			err = r.reply(value)
		} else if !errors.Is(err, io.EOF) && !errors.Is(err, errOutput) {
			err = fmt.Errorf("understand the answer: it is no JSON: %w", err)
		}
	}
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	if r.take == nil && !errors.Is(err, errOutput) {
		err = nil
	}
	if errors.Is(err, errOutput) {
		return err
	}
	if _, long := io.Copy(io.Discard, from); errors.Is(long, errOutput) {
		return long
	}
	return err
}

func (r *replies) reply(value json.RawMessage) error {
	if len(value) == 0 || value[0] != '{' {
		return errors.New("understand the answer: it is no JSON object")
	}
	var throttled struct {
		RetryAfter *float64 `json:"retry_after"`
	}
	if err := json.Unmarshal(value, &throttled); err == nil && throttled.RetryAfter != nil {
		r.retry = seconds(*throttled.RetryAfter)
		return nil
	}
	if r.take == nil {
		return nil
	}
	return r.take(value)
}

const longestRetry = 24 * time.Hour

func seconds(s float64) time.Duration {
	if math.IsNaN(s) || s <= 0 {
		return 0
	}
	return time.Duration(min(s, longestRetry.Seconds()) * float64(time.Second))
}

var errOutput = fmt.Errorf("it printed more than %d MiB, or %d answers", maxOutput>>20, maxValues)

// output passes a program's output on, keeps its beginning, and ends it when it is too long.
type output struct {
	to    *io.PipeWriter
	first []byte
	n     int
}

func (o *output) Write(p []byte) (int, error) {
	if room := 2*shown - len(o.first); room > 0 {
		o.first = append(o.first, p[:min(room, len(p))]...)
	}
	if o.n += len(p); o.n > maxOutput {
		_ = o.to.CloseWithError(errOutput)
		return len(p), nil // thrown away: it must be able to end
	}
	return o.to.Write(p)
}

// begun is the beginning of the output, longer than is shown so that secrets in it are found.
func (o *output) begun() string { return strings.TrimSpace(string(o.first)) }
