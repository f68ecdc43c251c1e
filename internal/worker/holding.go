package worker

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// holding is what the manager knows about one allocation.
type holding struct {
	office *Office
	name   string
	gone   chan struct{} // closed when the allocation is lost

	mu     sync.Mutex
	folder *folder // opened when it is needed
	calls  []*call
	lost   error
	begun  bool   // something was written to the requests
	ending string // why the worker was told to end
	conn   *conn  // of the worker, if there are connections
	told   told

	reading sync.Mutex
	offset  int64 // in the answers
	lines   lines
	buf     []byte
}

// told is what was made known of the worker's signs.
type told struct {
	last  sign
	at    time.Time // of the last Sign
	first bool
	ended bool
}

func newHolding(o *Office, name string) *holding {
	return &holding{office: o, name: name, gone: make(chan struct{}), lines: lines{most: maxAnswer}}
}

// in returns the allocation's directory. Whose it is the directory itself tells: it lies in one that is ours.
func (h *holding) in() (folder, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.folder != nil {
		return *h.folder, nil
	}
	name := filepath.Join(allocationsDir, h.name)
	info, err := h.office.root.Lstat(name)
	if err != nil {
		return folder{}, err
	}
	root, err := h.office.root.OpenRoot(name)
	if err != nil {
		return folder{}, err
	}
	f := folder{root: root}
	if uid, gid, ok := owner(info); ok && uid != uint32(max(0, os.Geteuid())) {
		f.as = &tranter.Account{UID: uid, GID: gid}
	}
	h.folder = &f
	return f, nil
}

func (h *holding) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.folder != nil {
		_ = h.folder.root.Close()
		h.folder = nil
	}
}

// lose makes the allocation one that is gone.
func (h *holding) lose(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost != nil {
		return
	}
	if cause == nil {
		cause = errors.New("it is gone")
	}
	h.lost = fmt.Errorf("%w: allocation %s: %w", tranter.ErrMachineLost, h.name, cause)
	close(h.gone)
	if h.conn != nil {
		h.conn.close()
	}
}

func (h *holding) loss() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lost
}

// call is a request that somebody waits for.
type call struct {
	request request
	body    []byte
	more    []*call            // further requests about it
	each    func(answer) error // for answers before the last; nil: there are none
	look    func() (moved bool, err error)
	conns   chan *conn    // connections for what comes back in bulk
	over    chan struct{} // closed when nobody waits for conns any more
	wake    chan struct{}

	unsent bool // it can't have reached the worker

	mu      sync.Mutex
	came    []answer
	size    int // of their texts, bytes
	offered int // connections that wait in conns
}

func newCall(r request, body any) (*call, error) {
	c := &call{request: r, wake: make(chan struct{}, 1), conns: make(chan *conn), over: make(chan struct{})}
	c.request.ID = rand.Text()
	if body != nil {
		var err error
		if c.body, err = json.Marshal(body); err != nil {
			return nil, err
		}
		if len(c.body) > maxRequest/2 {
			return nil, fmt.Errorf("the request is too large: %d bytes", len(c.body))
		}
	}
	return c, nil
}

// maxCame bounds what waits to be taken of the answers to one call, in bytes: as much as an executor may say, with a repetition.
const maxCame = 3 * maxLog

// deliver hands an answer to who waits for it. What nobody takes, or what is more than a worker has to say, is dropped: what
// runs there may be anybody's.
func (c *call) deliver(a answer) {
	c.mu.Lock()
	const least = 256 // what an answer takes besides its text
	size := least + len(a.Log)
	if a.Settle != nil || a.Error != nil || a.Result != nil {
		size += maxAnswer / 8
	}
	if !a.Done && (c.each == nil || c.size+size > maxCame) || len(c.came) > 0 && c.came[len(c.came)-1].Done {
		c.mu.Unlock()
		return
	}
	c.size += size
	c.came = append(c.came, a)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *call) take() []answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	came := c.came
	c.came, c.size = nil, 0
	return came
}

// offer says whether one more connection may wait to be taken. The caller says when it does not any more.
func (c *call) offer() (withdraw func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const most = 3 // a worker has one, and those that are broken
	if c.offered >= most {
		return nil, false
	}
	c.offered++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.offered--
	}, true
}

// drain hands out what has come, and returns the last answer if it is there.
func (c *call) drain() (*answer, error) {
	for _, a := range c.take() {
		if c.each != nil && !a.Done {
			if err := c.each(a); err != nil {
				return nil, err
			}
		}
		if a.Done {
			return &a, nil
		}
	}
	return nil, nil
}

// How often answers are looked for in the directory: often at first, and not less often than what has lasted for long can
// wait. With many calls under way each looks less often.
const (
	lookFast  = 5 * time.Millisecond
	lookSlow  = 250 * time.Millisecond
	lookShare = 50
	lookMany  = 100                    // calls, from which on they look less often
	lookEach  = 200 * time.Microsecond // between two looks of all that follow a journal
	lookLimit = 3 * time.Second
)

// ask makes a request and waits for the last answer to it. What becomes of it when ctx ends is the caller's matter.
func (h *holding) ask(ctx context.Context, c *call) (*answer, error) {
	if err := h.make(c); err != nil {
		c.unsent = true
		return nil, err
	}
	defer h.unregister(c)
	wait, since := lookFast, time.Now()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		over := false
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-h.gone: // what was said before is taken
			over = true
		case <-c.wake:
		case <-timer.C:
			wait = max(h.fastest(c), min(wait*3/2, h.slowest(), time.Since(since)/lookShare))
		}
		last, moved, err := h.news(c)
		switch {
		case last != nil || err != nil:
			return last, err
		case over:
			return nil, h.loss()
		case moved:
			wait = h.fastest(c)
		}
		timer.Reset(wait)
	}
}

// make makes a request.
func (h *holding) make(c *call) error {
	if err := h.register(c); err != nil {
		return err
	}
	if err := h.send(c); err != nil {
		h.unregister(c)
		return h.fault(err)
	}
	return nil
}

// news looks what has come for a call. last is the last answer, moved says whether there is more to come soon.
func (h *holding) news(c *call) (last *answer, moved bool, err error) {
	if err := h.poll(); err != nil {
		return nil, false, h.fault(err)
	}
	if c.look != nil {
		if moved, err = c.look(); err != nil {
			return nil, moved, err
		}
	}
	last, err = c.drain()
	return last, moved, err
}

// fault returns that the allocation is lost, if that is why something did not work.
func (h *holding) fault(err error) error {
	if lost := h.loss(); lost != nil {
		return lost
	}
	return fmt.Errorf("reach the worker of allocation %s: %w", h.name, err)
}

// slowest is the longest time between two looks.
func (h *holding) slowest() time.Duration {
	if h.office.listen != nil {
		return lookLimit
	}
	n := h.office.calls()
	return min(lookSlow*time.Duration(max(1, n/lookMany)), lookLimit)
}

// fastest is the shortest time between two looks.
func (h *holding) fastest(c *call) time.Duration {
	if c.request.Op != opAttach {
		return lookFast
	}
	return max(lookFast, lookEach*time.Duration(h.office.calls()))
}

func (h *holding) register(c *call) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost != nil {
		return h.lost
	}
	h.calls = append(h.calls, c)
	h.office.underWay.Add(1)
	return nil
}

func (h *holding) unregister(c *call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = slices.DeleteFunc(h.calls, func(x *call) bool { return x == c })
	h.office.underWay.Add(-1)
}

func (h *holding) find(id string) *call {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.calls {
		if c.request.ID == id {
			return c
		}
	}
	return nil
}

// send sends a request. One that goes over a connection is sent again on the next one.
func (h *holding) send(c *call) error {
	if h.office.listen != nil {
		h.mu.Lock()
		conn := h.conn
		h.mu.Unlock()
		if conn != nil {
			h.sendOn(conn, c)
		}
		return nil
	}
	f, err := h.in()
	if err != nil {
		return err
	}
	r := c.request
	if c.body != nil {
		r.Apart = true
		if err := f.give(path.Join(bodiesDir, r.ID), c.body, false); err != nil {
			return fmt.Errorf("write the body of a request: %w", err)
		}
	}
	return h.write(f, r)
}

// write adds a line to the requests. The first one begins with a line feed: a manager before may have been killed in a line.
func (h *holding) write(f folder, r request) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.begun {
		line = append([]byte{'\n'}, line...)
	}
	if err := f.append(requestsFile, append(line, '\n')); err != nil {
		return fmt.Errorf("write a request: %w", err)
	}
	h.begun = true
	return nil
}

// post sends a request that has no answer.
func (h *holding) post(r request) error {
	if lost := h.loss(); lost != nil {
		return lost
	}
	return h.send(&call{request: r})
}

// tell tells the worker to end.
func (h *holding) tell(reason string) error {
	h.mu.Lock()
	h.ending = reason
	h.mu.Unlock()
	return h.post(request{Op: opEnd, Reason: reason})
}

// answersAtOnce bounds what is read of answers in one go.
const answersAtOnce = 256 << 10

// poll takes what is new in the answers, for whoever waits for it.
func (h *holding) poll() error {
	if h.office.listen != nil {
		return nil
	}
	if !h.reading.TryLock() {
		return nil // somebody else looks
	}
	defer h.reading.Unlock()
	f, err := h.in()
	if err != nil {
		return err
	}
	size, err := f.size(answersFile)
	if err != nil {
		return err
	}
	for more := true; more && size > h.offset; {
		if more, err = h.read(f); err != nil {
			return err
		}
	}
	if len(h.buf) > 4<<10 {
		h.buf = nil
	}
	return nil
}

// read takes some of what is new.
func (h *holding) read(f folder) (more bool, err error) {
	if h.buf == nil {
		h.buf = make([]byte, 4<<10)
	}
	n, err := f.readFrom(answersFile, h.offset, h.buf)
	if err != nil {
		return false, err
	}
	n = beforeNUL(h.buf[:n])
	h.offset += int64(n)
	if err := h.lines.add(h.buf[:n], h.dispatch); err != nil {
		h.lose(fmt.Errorf("its worker does not keep to the rules: %w", err))
		return false, err
	}
	if n == len(h.buf) && n < answersAtOnce {
		h.buf = make([]byte, 4*n)
	}
	return n > 0, nil
}

// beforeNUL returns how many bytes stand before the first that is zero: on network file systems a file may be longer for a
// moment than what has arrived of it.
func beforeNUL(p []byte) int {
	if i := bytes.IndexByte(p, 0); i >= 0 {
		return i
	}
	return len(p)
}

// dispatch gives an answer to who waits for it.
func (h *holding) dispatch(line []byte) {
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return
	}
	if c := h.find(a.Re); a.Re != "" && c != nil {
		c.deliver(a)
	}
}
