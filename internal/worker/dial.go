package worker

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// dialer is the way over connections that the worker makes.
type dialer struct {
	worker *worker

	mu   sync.Mutex
	conn *conn // for requests
}

func newDialer(w *worker) *dialer { return &dialer{worker: w} }

func (*dialer) bulk() bool { return true }

// How long the worker waits before it connects again, if the manager was not there.
const (
	dialFirst = 50 * time.Millisecond
	dialMost  = 3 * time.Second
)

// backoff is the time between tries.
type backoff struct{ next time.Duration }

// wait waits, longer each time. It says whether ctx goes on.
func (b *backoff) wait(ctx context.Context) bool {
	b.next = min(max(dialFirst, 2*b.next), dialMost)
	timer := time.NewTimer(b.next/2 + rand.N(b.next)) //nolint:gosec // it only spreads the load
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (d *dialer) run(ctx context.Context) error {
	var tries backoff
	for {
		if c, _, err := d.connect(ctx, hello{Sign: d.worker.shown()}); err != nil {
			d.worker.log.Debug("The manager can't be reached", "error", err)
		} else {
			tries = backoff{}
			d.take(ctx, c)
		}
		if !tries.wait(ctx) {
			return nil
		}
	}
}

// shown returns the worker's sign.
func (w *worker) shown() *sign {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sign
	return &s
}

// connect connects to the manager, which is known by its certificate, and says who we are.
func (d *dialer) connect(ctx context.Context, is hello) (*conn, welcome, error) {
	var w welcome
	key, err := d.worker.folder.read(keyFile, maxHello)
	if err != nil {
		return nil, w, fmt.Errorf("read the allocation's key: %w", err)
	}
	is.Name, is.Key = d.worker.Name, string(key)
	ctx, stop := context.WithTimeout(ctx, introduceTime)
	defer stop()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", d.worker.Connect)
	if err != nil {
		return nil, w, err
	}
	// The certificate is nobody's but the manager's: it is compared as a whole.
	secure := tls.Client(raw, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, VerifyConnection: d.verify}) //nolint:gosec // see verify
	c := newConn(secure)
	if err = secure.HandshakeContext(ctx); err == nil {
		_ = c.SetDeadline(time.Now().Add(introduceTime))
		if !c.send(is) {
			err = errCut
		}
	}
	var line []byte
	if err == nil {
		_ = c.SetReadDeadline(time.Time{})
		// One that is for a journal waits until the journal is wanted.
		defer context.AfterFunc(ctx, c.close)()
		line, err = c.line(maxHello)
	}
	if err == nil {
		err = json.Unmarshal(line, &w)
	}
	if err != nil {
		c.close()
		return nil, w, err
	}
	_ = c.SetDeadline(time.Time{})
	return c, w, nil
}

func (d *dialer) verify(s tls.ConnectionState) error {
	want, err := hex.DecodeString(d.worker.Fingerprint)
	if err != nil || len(s.PeerCertificates) == 0 {
		return errors.New("it has no certificate, or ours is malformed")
	}
	sum := sha256.Sum256(s.PeerCertificates[0].Raw)
	if subtle.ConstantTimeCompare(sum[:], want) != 1 {
		return errors.New("it is not the manager: its certificate is another one")
	}
	return nil
}

// take takes requests until the connection ends.
func (d *dialer) take(ctx context.Context, c *conn) {
	defer c.close()
	defer context.AfterFunc(ctx, c.close)()
	d.mu.Lock()
	d.conn = c
	d.mu.Unlock()
	d.worker.seen()
	err := c.read(maxRequest, func(line []byte) {
		var r request
		if json.Unmarshal(line, &r) == nil {
			r.Apart = false
			d.worker.seen()
			d.worker.handle(ctx, r)
		}
	})
	d.worker.log.Debug("The connection to the manager has ended", "error", err)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == c {
		d.conn = nil
	}
}

// send sends an answer. Without a connection it is lost: the manager will ask again.
func (d *dialer) send(a answer) {
	d.mu.Lock()
	c := d.conn
	d.mu.Unlock()
	if c != nil {
		c.send(a)
	}
}

// errStreamed means that the answer went another way, or is not wanted any more.
var errStreamed = errors.New("the answer went another way")

// stream sends the journal of a phase as it grows, and its result, until the manager has it all.
func (d *dialer) stream(ctx context.Context, session tranter.Session, r request) error {
	var tries backoff
	for {
		c, w, err := d.connect(ctx, hello{Attach: r.ID})
		switch {
		case err == nil && !w.OK:
			c.close()
			return errStreamed
		case err == nil:
			tries = backoff{}
			if d.copy(ctx, session, r.Phase, w.Offset, c) {
				return errStreamed
			}
		}
		if !tries.wait(ctx) {
			return context.Cause(ctx)
		}
	}
}

// copy sends what there is from offset on, and says whether the manager has all of it.
func (d *dialer) copy(ctx context.Context, session tranter.Session, phase string, offset int64, c *conn) bool {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	acknowledged := make(chan bool, 1)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer c.close()
	reading.Go(func() { // one byte comes, or the connection ends
		_, err := c.in.ReadByte()
		acknowledged <- err == nil
		if err != nil {
			stop(errCut)
		}
	})
	defer context.AfterFunc(ctx, c.close)()
	out := &outgoing{c: bufio.NewWriterSize(c, maxFrame+4)}
	result, err := session.Attach(ctx, phase, offset, out)
	if out.err != nil || ctx.Err() != nil {
		return false
	}
	end := outcome{Error: failureOf(err)}
	if err == nil {
		end.Result = &result
	}
	if out.end(end) != nil {
		return false
	}
	select {
	case ok := <-acknowledged:
		return ok
	case <-time.After(silence):
		return false
	}
}
