package blob

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

const (
	maxWait       = 5 * time.Second
	maxRetryAfter = time.Minute
	// maxAnswer bounds what is read of an answer that is not an archive.
	maxAnswer = 64 << 10
	// composing is how long a storage may take to put an archive together without a sign of life.
	composing = 5 * time.Minute
)

// answer is an error that the storage has answered with.
type answer struct {
	host  string
	code  int
	name  string // of the error, in the storage's words
	after time.Duration
}

func (a *answer) Error() string {
	text := fmt.Sprintf("the cache at %s answered %d %s", a.host, a.code, http.StatusText(a.code))
	if a.name != "" {
		text += " (" + a.name + ")"
	}
	return text
}

// Is gives answers the meaning that the callers know. A storage that lets nobody list says 403 for what is missing.
func (a *answer) Is(target error) bool {
	switch a.code {
	case http.StatusNotFound, http.StatusForbidden, http.StatusGone:
		return target == tranter.ErrNotFound
	case http.StatusRequestEntityTooLarge, http.StatusInsufficientStorage:
		return target == tranter.ErrTooLarge
	case http.StatusNotModified:
		return target == ErrNotModified
	case http.StatusPreconditionFailed:
		return target == errReplaced
	}
	return false
}

// passing says whether trying again may help.
func (a *answer) passing() bool {
	switch a.code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusConflict, http.StatusTooEarly:
		return true
	case http.StatusNotImplemented, http.StatusInsufficientStorage, http.StatusHTTPVersionNotSupported:
		return false
	}
	return a.code >= 500
}

// broken is an error of the network: it passes.
type broken struct{ error }

func (b broken) Unwrap() error { return b.error }

// errStalled ends a request that has not moved.
var errStalled = errors.New("nothing was transferred for too long")

// persist calls do until it succeeds or fails in a lasting way, or until nothing has moved for all of the patience. What
// do returns first is whether it got any further.
func (c *Client) persist(ctx context.Context, do func(context.Context) (bool, error)) error {
	wait, since := c.opt.Wait, time.Now()
	warned := false
	for {
		moved, err := do(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		pause, passing := passes(err)
		if !passing {
			return err
		}
		if moved {
			wait, since = c.opt.Wait, time.Now()
		}
		if c.tired.Load() || time.Since(since) > c.opt.Patience {
			if b := (broken{}); errors.As(err, &b) {
				c.tired.Store(true)
			}
			return err
		}
		if !warned && time.Since(since) > c.opt.Patience/4 {
			warned = true
			c.opt.Warn("%v; trying again", err)
		}
		if err := sleep(ctx, max(wait, pause)); err != nil {
			return err
		}
		wait = min(2*wait, maxWait)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// passes says whether trying again may help, and how long to wait at least.
func passes(err error) (time.Duration, bool) {
	if a, ok := errors.AsType[*answer](err); ok {
		return a.after, a.passing()
	}
	_, ok := errors.AsType[broken](err)
	return 0, ok
}

// reply is an answer whose body ends with its request's time. Call done.
type reply struct {
	*http.Response
	done func()
}

// request is one call.
type request struct {
	*tranter.SignedRequest
	header map[string]string // besides the signed ones
	body   []byte
	file   io.Reader // instead of body
	size   int64     // of file
	stall  time.Duration
	gate   *gate // set by send
}

// send makes a request. An answer that is not a success is an *answer.
func (c *Client) send(ctx context.Context, r request) (reply, error) {
	r.stall = cmp.Or(r.stall, c.opt.Stall)
	r.gate = &gate{}
	ctx, cancel := context.WithTimeout(ctx, c.opt.Timeout)
	limited, stalled := context.WithCancelCause(ctx)
	timer := time.AfterFunc(r.stall, func() { stalled(errStalled) })
	moving := func() { timer.Reset(r.stall) }
	done := func() {
		r.gate.close()
		timer.Stop()
		stalled(nil)
		cancel()
	}
	req, err := c.build(limited, r, moving)
	if err != nil {
		done()
		return reply{}, err
	}
	resp, err := c.http.Do(req) //nolint:bodyclose // the reply's done closes it
	if err != nil {
		err = c.clean(limited, req.URL.Host, err)
		done()
		return reply{}, err
	}
	moving()
	resp.Body = &body{ReadCloser: resp.Body, moved: moving, explain: func(err error) error { return c.clean(limited, req.URL.Host, err) }}
	out := reply{resp, func() {
		_ = resp.Body.Close()
		done()
	}}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		defer out.done()
		return reply{Response: resp}, refuse(resp, req.URL.Host)
	}
	return out, nil
}

// build makes the request. Its body can be sent again, should the storage redirect it.
func (c *Client) build(ctx context.Context, r request, moving func()) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL.Reveal(), nil)
	if err != nil {
		return nil, errors.New("the manager has signed a request for the cache that cannot be made") // err has the URL
	}
	for _, h := range []map[string]string{r.Header, r.header} {
		for k, v := range h {
			req.Header.Set(k, v)
		}
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
		req.Header.Del("Host")
	}
	req.Header.Del("Content-Length")
	switch {
	case r.file != nil:
		req.Body, req.ContentLength = io.NopCloser(&counted{r.file, moving}), r.size
	case len(r.body) > 0:
		req.ContentLength = int64(len(r.body))
		req.GetBody = func() (io.ReadCloser, error) {
			return io.NopCloser(&counted{&slice{r.gate, r.body}, moving}), nil
		}
		req.Body, err = req.GetBody()
	}
	return req, err
}

// gate is shut when a request is over. Go may go on reading a request's body after that, when the memory behind it has
// another use already.
type gate struct {
	mu   sync.Mutex
	shut bool
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
}

// slice reads from memory until its gate is shut.
type slice struct {
	gate *gate
	b    []byte
}

func (s *slice) Read(p []byte) (int, error) {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	if s.gate.shut {
		return 0, io.ErrClosedPipe
	}
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.b)
	s.b = s.b[n:]
	return n, nil
}

// counted tells when something was read.
type counted struct {
	io.Reader
	moved func()
}

func (c *counted) Read(p []byte) (int, error) {
	c.moved()
	return c.Reader.Read(p)
}

// body is an answer's body: it tells when it moves, and its errors are clean.
type body struct {
	io.ReadCloser
	moved   func()
	explain func(error) error
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.moved()
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.explain(err)
	}
	return n, err
}

// clean takes the URL, which is a secret, out of an error of the network, and says what has ended ctx.
func (c *Client) clean(ctx context.Context, host string, err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	switch cause := context.Cause(ctx); {
	case cause == nil:
	case errors.Is(cause, errStalled):
		err = cause
	case errors.Is(cause, context.DeadlineExceeded):
		err = fmt.Errorf("the request took longer than %v (CACHE_REQUEST_TIMEOUT)", c.opt.Timeout)
	}
	return fmt.Errorf("reach the cache at %s: %w", host, broken{err})
}

// refuse makes an error of an answer.
func refuse(resp *http.Response, host string) error {
	a := &answer{host: host, code: resp.StatusCode, after: retryAfter(resp.Header.Get("Retry-After"))}
	if text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)); err == nil {
		a.name = errorName(text)
	}
	return a
}

func retryAfter(text string) time.Duration {
	if s, err := strconv.Atoi(text); err == nil && s > 0 {
		return min(time.Duration(s)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(at), 0), maxRetryAfter)
	}
	return 0
}

// errorName finds the code in the XML that storages describe errors with. Nothing else of the text is used: some of
// them repeat the request in it.
func errorName(text []byte) string {
	var e struct {
		XMLName xml.Name
		Code    string `xml:"Code"`
	}
	if err := xml.Unmarshal(text, &e); err != nil || e.XMLName.Local != "Error" || len(e.Code) > 64 {
		return ""
	}
	for _, c := range e.Code {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return ""
		}
	}
	return e.Code
}

// finish makes a request whose answer is short, and returns that.
func (c *Client) finish(ctx context.Context, r request) (*http.Response, []byte, error) {
	resp, err := c.send(ctx, r)
	if err != nil {
		return resp.Response, nil, err
	}
	defer resp.done()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.Response, text, err
}
