package link

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// Client talks to the agent at the other end of a stream. All calls may come from several goroutines; one attachment goes
// on at a time, others wait. A call whose context ends does not take back what the agent has begun. When the stream has
// ended, all calls return an ErrBroken.
type Client struct {
	stdin  io.WriteCloser
	closes []io.Closer
	nonce  string

	requests  chan []byte
	attaching chan struct{} // holds a token while there is an attachment
	broken    chan struct{}
	owned     sync.WaitGroup
	close     func() error

	mu            sync.Mutex
	count         int
	pending       map[string]chan event
	sink          *sink // who is attached
	journalsEnded bool
	words         lastBytes
	bye           bool
	cause         error
}

// New starts to talk over the streams of an agent. The stream has ended when stderr has.
func New(stdin io.WriteCloser, stdout, stderr io.Reader) *Client {
	c := &Client{
		stdin: stdin, nonce: rand.Text(), requests: make(chan []byte), attaching: make(chan struct{}, 1), broken: make(chan struct{}),
		pending: map[string]chan event{}, words: lastBytes{max: maxWords},
	}
	for _, r := range []io.Reader{stdout, stderr} {
		if closer, ok := r.(io.Closer); ok {
			c.closes = append(c.closes, closer)
		}
	}
	c.close = sync.OnceValue(c.end)
	c.owned.Go(c.send)
	c.owned.Go(func() { c.readEvents(stderr) })
	c.owned.Go(func() { c.readJournals(stdout) })
	return c
}

// Close ends the stream, closing stdin and, where they can be closed, the other two, and waits until nothing of the client
// is left. Streams that can't be closed have to end by themselves. The agent goes on.
func (c *Client) Close() error { return c.close() }

func (c *Client) end() error {
	c.fail(fmt.Errorf("%w: it was closed", ErrBroken))
	err := c.stdin.Close()
	for _, closer := range c.closes {
		_ = closer.Close() // what is not read any more need not end well
	}
	c.owned.Wait()
	return err
}

// fail ends all calls. The first error counts; nil is that the stream has ended.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return
	}
	words := strings.TrimSpace(c.words.String())
	switch {
	case err != nil:
		c.cause = err
	case c.bye, words != "":
		c.cause = &EndedError{Said: words}
	default:
		c.cause = ErrBroken
	}
	close(c.broken)
}

func (c *Client) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// send writes the requests.
func (c *Client) send() {
	for {
		select {
		case <-c.broken:
			return
		case line := <-c.requests:
			if _, err := c.stdin.Write(line); err != nil {
				// What the process has said before its end is about to be read, and tells more.
				limit := time.NewTimer(time.Second)
				defer limit.Stop()
				select {
				case <-c.broken:
				case <-limit.C:
					c.fail(fmt.Errorf("%w: %w", ErrBroken, err))
				}
				return
			}
		}
	}
}

// readEvents hands out the answers.
func (c *Client) readEvents(stderr io.Reader) {
	lines := newLineReader(stderr, maxEvent)
	for {
		line, whole, err := lines.next()
		if err != nil {
			c.fail(nil)
			return
		}
		e, ok := parseEvent(line)
		c.mu.Lock()
		switch answer := c.pending[e.ID]; {
		case !ok || !whole:
			c.words.add(line)
			c.words.add([]byte{'\n'})
		case e.Bye:
			c.bye = true
		case answer != nil:
			delete(c.pending, e.ID)
			answer <- e
		}
		c.mu.Unlock()
	}
}

// readJournals hands the bytes of journals to who is attached.
func (c *Client) readJournals(stdout io.Reader) {
	buf := make([]byte, 64<<10)
	for {
		n, err := stdout.Read(buf)
		c.mu.Lock()
		s := c.sink
		c.mu.Unlock()
		if s != nil {
			s.take(buf[:n])
		}
		if err != nil {
			break
		}
	}
	c.mu.Lock()
	s := c.sink
	c.journalsEnded = true
	c.mu.Unlock()
	if s != nil {
		s.end()
	}
}

// ask sends a request. The channel gets the answer.
func (c *Client) ask(ctx context.Context, r *request) (chan event, error) {
	answer := make(chan event, 1)
	c.mu.Lock()
	c.count++
	r.ID = c.nonce + "-" + strconv.Itoa(c.count)
	c.pending[r.ID] = answer
	c.mu.Unlock()
	line, err := json.Marshal(r)
	if err != nil {
		c.forget(r.ID)
		return nil, err
	}
	select {
	case c.requests <- append(line, '\n'):
		return answer, nil
	case <-ctx.Done():
		c.forget(r.ID)
		return nil, context.Cause(ctx)
	case <-c.broken:
		c.forget(r.ID)
		return nil, c.failure()
	}
}

func (c *Client) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
}

// await waits for the answer to r.
func (c *Client) await(ctx context.Context, r *request, answer chan event) (event, error) {
	select {
	case e := <-answer:
		return e, e.Error.err()
	case <-ctx.Done():
		c.forget(r.ID)
		return event{}, context.Cause(ctx)
	case <-c.broken:
	}
	select { // it may have come just before
	case e := <-answer:
		return e, e.Error.err()
	default:
		return event{}, c.failure()
	}
}

func (c *Client) call(ctx context.Context, what string, r request) (event, error) {
	answer, err := c.ask(ctx, &r)
	if err != nil {
		return event{}, fmt.Errorf("%s: %w", what, err)
	}
	e, err := c.await(ctx, &r, answer)
	if err != nil {
		return e, fmt.Errorf("%s: %w", what, err)
	}
	return e, nil
}

// Enter is the first request. It runs the image's entrypoint with environ, if there is one and it was not run yet, and
// waits until that has brought the process to life that carries out phases; the error is *EntrypointError if it has ended
// instead. How long it is waited for is ctx's matter. It may be repeated.
func (c *Client) Enter(ctx context.Context, environ []string) (Hello, error) {
	e, err := c.call(ctx, "reach the agent", request{Op: opEnter, Environ: environ})
	if err != nil || e.Hello == nil {
		return Hello{}, err
	}
	return *e.Hello, nil
}

// Start puts the agent to work on a phase, as a tranter.Session does.
func (c *Client) Start(ctx context.Context, p tranter.Phase) error {
	_, err := c.call(ctx, "start phase "+p.ID, request{Op: opStart, Phase: &p})
	return err
}

// Cancel tells the agent to end the phase, as a tranter.Session does. The error is tranter.ErrNotFound if there is none.
func (c *Client) Cancel(ctx context.Context, phaseID string, abort bool, grace time.Duration) error {
	_, err := c.call(ctx, "cancel phase "+phaseID, request{Op: opCancel, PhaseID: phaseID, Abort: abort, Grace: grace})
	return err
}

// Probe tries to reach all targets at the same time, again and again, until each has answered or the limit is over. What
// it returns is in the order of targets.
func (c *Client) Probe(ctx context.Context, targets []Target, limit time.Duration) ([]Probed, error) {
	e, err := c.call(ctx, "look for the services", request{Op: opProbe, Targets: targets, Limit: limit})
	return e.Probed, err
}

// Note writes a line into the journal of the phase that runs, masked as the job's output is. It is an error that none
// runs.
func (c *Client) Note(ctx context.Context, line string) error {
	_, err := c.call(ctx, "write into the job's log", request{Op: opNote, Line: line})
	return err
}

// Hosts adds lines to the container's hosts file: names of services that were not there when it was made.
func (c *Client) Hosts(ctx context.Context, lines []string) error {
	_, err := c.call(ctx, "name the services", request{Op: opHosts, Hosts: lines})
	return err
}

// Own gives paths, and all that is below them, to a user and a group; links are not followed. Paths that are not there
// are left out.
func (c *Client) Own(ctx context.Context, paths []string, uid, gid int) error {
	_, err := c.call(ctx, "change the owner of the job's files", request{Op: opOwn, Paths: paths, UID: uid, GID: gid})
	return err
}

// stop ends all phases in an orderly way and returns when they have ended.
func (c *Client) stop(ctx context.Context) error {
	_, err := c.call(ctx, "end the phases", request{Op: opStop})
	return err
}

// Attach copies the journal of a phase to w, as a tranter.Session does. The connection stays usable after an error of w
// and after the end of ctx. The error is tranter.ErrAgentLost if the agent says that the phase's agent has died.
func (c *Client) Attach(ctx context.Context, phaseID string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	result, err := c.attach(ctx, request{Op: opAttach, PhaseID: phaseID, Offset: offset}, w)
	if err != nil {
		return result, fmt.Errorf("follow phase %s: %w", phaseID, err)
	}
	return result, nil
}

func (c *Client) attach(ctx context.Context, r request, w io.Writer) (result tranter.PhaseResult, err error) {
	select {
	case c.attaching <- struct{}{}:
		defer func() { <-c.attaching }()
	case <-ctx.Done():
		return result, context.Cause(ctx)
	case <-c.broken:
		return result, c.failure()
	}
	r.Mark = rand.Text() // begins the journal on the channel for journals
	s := newSink(w, mark(r.Mark))
	if !c.hold(s) {
		return result, fmt.Errorf("%w: the channel for journals has ended", ErrBroken)
	}
	defer c.release(s)
	answer, err := c.ask(ctx, &r)
	if err != nil {
		return result, err
	}
	watch, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s.onFailure(stop)
	e, err := c.await(watch, &r, answer)
	if err == nil {
		err = c.complete(ctx, s, e.Sent)
	}
	if err != nil {
		c.detach(ctx, r.ID)
		return result, err
	}
	if e.Result == nil {
		return result, fmt.Errorf("%w: the answer has no result", ErrBroken)
	}
	return *e.Result, nil
}

// hold makes s the one that gets what comes of journals.
func (c *Client) hold(s *sink) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sink = s
	return !c.journalsEnded
}

// release makes sure that s gets nothing any more.
func (c *Client) release(s *sink) {
	c.mu.Lock()
	c.sink = nil
	c.mu.Unlock()
	s.abandon()
}

// complete waits until all of a journal has come, of which there are sent bytes.
func (c *Client) complete(ctx context.Context, s *sink, sent int64) error {
	select {
	case <-s.expect(sent):
		return s.outcome()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// detach takes back a request to attach, if it can.
func (c *Client) detach(ctx context.Context, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil { // nobody would wait for it
		return
	}
	ctx = context.WithoutCancel(ctx)
	c.owned.Go(func() {
		r := request{Op: opDetach, Of: id}
		if answer, err := c.ask(ctx, &r); err == nil {
			_, _ = c.await(ctx, &r, answer)
		}
	})
}
