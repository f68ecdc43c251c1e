package provision

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/remote"
)

// work is one run of a script on a machine.
type work struct {
	name, login string
	marker      string
	script      string
	credentials *credentials // nil without TLS
	server      serverPair
	report      func(tranter.Timing)
	// asked answers the script's questions.
	asked func(ctx context.Context, e event) string
	// told hears facts of the machine.
	told func(ctx context.Context, e event) error
	log  *slog.Logger

	said    noise
	facts   int             // told so far
	ended   map[string]bool // steps
	step    string          // the last that has ended
	since   time.Time
	started bool
}

// endGrace is how long a script that has failed may take to end: its last words may come after its verdict.
const endGrace = 2 * time.Second

// doneGrace is the same for one that is done. Its session is broken off then.
const doneGrace = 100 * time.Millisecond

// runner is what runs commands on a machine.
type runner interface {
	Run(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) error
}

// run runs the script as root. A script that has said that it is done is not waited for: what it has started may hold the
// session open.
func (w *work) run(ctx context.Context, on runner) error {
	ctx, cancel := context.WithCancel(ctx)
	events, ended := make(chan event), make(chan error, 1)
	w.said.log, w.since, w.ended = w.log, time.Now(), map[string]bool{}
	stdin := &inbox{queue: make(chan string, maxAnswers)}
	stdin.queue <- w.script
	out := &lines{limit: maxLine, each: func(line string) error {
		e, ours := parseLine(line, w.marker)
		if !ours {
			return nil
		}
		select {
		case events <- e:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	go func() {
		ended <- on.Run(ctx, asRoot(len(w.script)), stdin, out, &lines{limit: maxText * 4, each: w.said.add})
	}()
	over, err := w.listen(ctx, events, ended, stdin)
	cancel()
	close(stdin.queue)
	if !over {
		<-ended //nolint:errcheck // what counts was said before
	}
	return err
}

// maxAnswers is how many answers may wait; a script waits for each.
const maxAnswers = 8

// inbox is a standard input that is written as answers come.
type inbox struct {
	queue chan string
	rest  string
}

func (b *inbox) Read(p []byte) (int, error) {
	if b.rest == "" {
		text, more := <-b.queue
		if !more {
			return 0, io.EOF
		}
		b.rest = text
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// listen hears the script until its end; over says whether its session has ended.
func (w *work) listen(ctx context.Context, events <-chan event, ended <-chan error, stdin *inbox) (over bool, err error) {
	for {
		select {
		case err := <-ended:
			return true, w.verdict(ctx, err)
		case e := <-events:
			if e.verb == "done" {
				return ends(ended, doneGrace), nil
			}
			if err := w.hear(ctx, e, stdin); err != nil {
				return w.lastWords(err, ended)
			}
		}
	}
}

// lastWords waits for the end of a script that has failed, and puts what it has said into the error.
func (w *work) lastWords(err error, ended <-chan error) (over bool, _ error) {
	failed, ok := errors.AsType[*StepError](err)
	if !ok {
		return false, err
	}
	over = ends(ended, endGrace)
	failed.Output = w.said.last()
	return over, err
}

// ends waits a while for the end of a session; whatever that says, the script has said how it went.
func ends(ended <-chan error, grace time.Duration) bool {
	limit := time.NewTimer(grace)
	defer limit.Stop()
	select {
	case <-ended: //nolint:errcheck // see above
		return true
	case <-limit.C:
		return false
	}
}

// hear acts upon one line of the script's.
func (w *work) hear(ctx context.Context, e event, stdin *inbox) error {
	switch e.verb {
	case "start":
		w.started = true
	case "step":
		w.finished(e.name)
	case "fact":
		if w.facts++; w.facts <= maxLogged {
			w.log.DebugContext(ctx, "a fact of the machine", "name", e.name, "value", clean(e.text, maxText))
		}
		return w.told(ctx, e)
	case "ask":
		answer := w.asked(ctx, e)
		if ctx.Err() != nil {
			return w.verdict(ctx, ctx.Err())
		}
		select {
		case stdin.queue <- answer + "\n":
		default:
			return &StepError{Machine: w.name, Step: e.name, Reason: "it asks too much"}
		}
	case "held":
		n, _ := strconv.ParseUint(clean(e.text, 9), 10, 32)
		return &HeldError{Machine: w.name, Owner: e.name, For: time.Duration(n) * time.Second}
	case "fail":
		return &StepError{Machine: w.name, Step: e.name, Reason: clean(e.text, maxText)}
	case "refuse":
		return &tranter.ConfigError{Err: &StepError{Machine: w.name, Step: e.name, Reason: clean(e.text, maxText)}}
	}
	return nil
}

// finished reports a step. Only those that we know, once each and in any order.
func (w *work) finished(name string) {
	if w.ended[name] { // or a machine could tell of steps until our memory is full
		return
	}
	switch name {
	case "deadline", "before", "install", "configure", "engine", "after", "ready", "gpu":
	default:
		return
	}
	now := time.Now()
	w.report(tranter.Timing{Step: name, Took: now.Sub(w.since)})
	w.since, w.step, w.ended[name] = now, name, true
}

// verdict says what the end of a script means that has not said how it went.
func (w *work) verdict(ctx context.Context, err error) error {
	after := "the login"
	if w.step != "" {
		after = w.step
	}
	said := w.said.last()
	exit, failed := errors.AsType[*remote.ExitError](err)
	switch {
	case ctx.Err() != nil:
		e := &StepError{Machine: w.name, Step: "after " + after, Reason: "it was not over in time", Output: said}
		return fmt.Errorf("%w (%w)", e, ctx.Err())
	case failed && !w.started:
		return &tranter.ConfigError{Err: fmt.Errorf("prepare machine %s: the user %s cannot become root (%w): %s. Log in as root, or let the user run everything by sudo without a password", w.name, w.login, exit, said)}
	case err == nil || failed:
		return &StepError{Machine: w.name, Step: "after " + after, Reason: "the script ended without a word", Output: said}
	}
	return fmt.Errorf("prepare machine %s: after %s: %w", w.name, after, err)
}

// decodeDaemon returns the daemon.json that is in a question.
func decodeDaemon(text string) ([]byte, error) {
	existing, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("it did not arrive whole")
	}
	return existing, nil
}
