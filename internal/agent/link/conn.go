package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/tranter-ci/tranter"
)

// handler is what a connection leads to.
type handler struct {
	enter  func(ctx context.Context, environ []string) (Hello, error)
	phases func(ctx context.Context) (phases, error)
}

// conn is the agent's end of one stream.
type conn struct {
	handler
	requests *lineReader
	stdout   io.Writer
	owned    sync.WaitGroup
	attached chan struct{} // holds a token while a journal is copied
	attaches map[string]context.CancelFunc
	mu       sync.Mutex // of attaches

	events sync.Mutex // of stderr
	stderr io.Writer
}

func newConn(h handler, stdin io.Reader, stdout, stderr io.Writer) *conn {
	return &conn{
		handler: h, requests: newLineReader(stdin, maxRequest), stdout: stdout, stderr: stderr,
		attached: make(chan struct{}, 1), attaches: map[string]context.CancelFunc{},
	}
}

// read answers requests until there are no more. Those that are begun go on until ctx ends; wait waits for them.
func (c *conn) read(ctx context.Context) {
	for {
		line, whole, err := c.requests.next()
		if err != nil {
			return
		}
		if len(line) == 0 {
			continue
		}
		r, err := parseRequest(line)
		switch {
		case !whole:
			c.say(fmt.Sprintf("a request of more than %d MiB was dropped", maxRequest>>20))
		case err != nil:
			c.say(err.Error())
		case r.Op == opAttach: // known before a request can take it back
			c.attach(ctx, r)
		case r.Op == opDetach, r.Op == opNote: // in their order
			c.answer(ctx, r)
		default:
			c.owned.Go(func() { c.answer(ctx, r) })
		}
	}
}

func (c *conn) wait() { c.owned.Wait() }

// say tells something that is no answer.
func (c *conn) say(text string) {
	c.events.Lock()
	defer c.events.Unlock()
	_, _ = fmt.Fprintln(c.stderr, "tranter agent:", tail(text, maxText)) // who is gone misses nothing
}

func (c *conn) emit(e event) {
	e.Link = protocol
	line, err := json.Marshal(e)
	if err != nil || len(line) > maxEvent-1 {
		line, _ = json.Marshal(event{Link: protocol, ID: e.ID, Error: &fault{Text: "the answer is too long"}})
	}
	c.events.Lock()
	defer c.events.Unlock()
	_, _ = c.stderr.Write(append(line, '\n')) // who is gone makes a new connection
}

// answer carries out a request.
func (c *conn) answer(ctx context.Context, r request) {
	e, err := c.do(ctx, r)
	e.ID, e.Error = r.ID, faultOf(err)
	c.emit(e)
}

func (c *conn) do(ctx context.Context, r request) (event, error) {
	switch r.Op {
	case opEnter:
		hello, err := c.enter(ctx, r.Environ)
		if err != nil {
			return event{}, err
		}
		return event{Hello: &hello}, nil
	case opProbe:
		return event{Probed: probe(ctx, r.Targets, r.Limit)}, nil
	case opHosts:
		return event{}, addHosts(hostsFile, r.Hosts)
	case opOwn:
		return event{}, own(ctx, r.Paths, r.UID, r.GID)
	case opDetach:
		c.mu.Lock()
		defer c.mu.Unlock()
		if stop := c.attaches[r.Of]; stop != nil {
			stop()
		}
		return event{}, nil
	}
	return event{}, c.ofPhase(ctx, r)
}

// ofPhase carries out a request that is about a phase.
func (c *conn) ofPhase(ctx context.Context, r request) error {
	p, err := c.phases(ctx)
	if err != nil {
		return err
	}
	switch r.Op {
	case opStart:
		if r.Phase == nil {
			return errors.New("a request to start nothing")
		}
		return p.Start(ctx, *r.Phase)
	case opCancel:
		return p.Cancel(ctx, r.PhaseID, r.Abort, r.Grace)
	case opNote:
		return p.Note(ctx, r.Line)
	case opStop:
		return p.stop(ctx)
	}
	return fmt.Errorf("the agent does not know the request %.20q: it is of another version of tranter", r.Op)
}

// attach copies a journal to stdout when no other is copied any more.
func (c *conn) attach(ctx context.Context, r request) {
	ctx, stop := context.WithCancel(ctx)
	c.mu.Lock()
	c.attaches[r.ID] = stop
	c.mu.Unlock()
	c.owned.Go(func() {
		defer stop()
		result, sent, err := c.copy(ctx, r)
		c.mu.Lock()
		delete(c.attaches, r.ID)
		c.mu.Unlock()
		e := event{ID: r.ID, Sent: sent, Error: faultOf(err)}
		if err == nil {
			e.Result = &result
		}
		c.emit(e)
	})
}

func (c *conn) copy(ctx context.Context, r request) (result tranter.PhaseResult, sent int64, err error) {
	select {
	case c.attached <- struct{}{}:
		defer func() { <-c.attached }()
	case <-ctx.Done():
		return result, 0, context.Cause(ctx)
	}
	p, err := c.phases(ctx)
	if err != nil {
		return result, 0, err
	}
	if r.Offset < 0 || r.Mark == "" {
		return result, 0, errors.New("a request to attach without a mark, or to before the beginning")
	}
	if _, err := c.stdout.Write(mark(r.Mark)); err != nil {
		return result, 0, err
	}
	counted := &countingWriter{dst: c.stdout}
	result, err = p.Attach(ctx, r.PhaseID, r.Offset, counted)
	return result, counted.count, err
}

type countingWriter struct {
	dst   io.Writer
	count int64
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.dst.Write(p)
	w.count += int64(n)
	return n, err
}
