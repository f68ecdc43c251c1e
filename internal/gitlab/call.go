package gitlab

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

const (
	jobHeader    = "JOB-TOKEN"
	runnerHeader = "RUNNER-TOKEN"

	callTimeout = 2 * time.Minute // for one try of a call that a server answers at once
	// requestTimeout is more than a server holds a request (50 s by default), and not much more: while one is waited for
	// that a dead proxy has swallowed, its runner gets no jobs.
	requestTimeout = 3 * time.Minute
	streamTimeout  = time.Hour

	maxAnswer  = 64 << 20 // of what is wanted
	maxRefusal = 64 << 10 // of what is not
)

// wire makes calls of a server. It knows HTTP, and of GitLab only what is the same for all endpoints.
type wire struct {
	base      *url.URL // ends in /api/v4/
	transport *transport
	userAgent string
	unit      time.Duration // before the first retry; it doubles
	pause     func(context.Context, time.Duration) error
	log       *slog.Logger
	observe   func(Call) // nil: nobody
}

// call is one call of an endpoint, of one or more tries.
type call struct {
	what   string // for errors, such as "request a job"
	method string
	url    *url.URL
	header http.Header

	tokenHeader string
	token       tranter.Secret

	body     func() (body, error) // nil: none
	want     int                  // the status of an answer that is read in full
	json     bool                 // the answer wanted is JSON
	stream   bool                 // the answer wanted is not read
	redirect bool                 // redirects are followed, as far as that is safe
	once     bool                 // is only repeated when the server has surely not carried it out
	limit    int64                // bytes of the answer wanted; 0: as usual

	timeout  time.Duration // of one try
	headers  time.Duration // until an answer begins; 0: as usual
	linger   time.Duration // for which a try goes on after its context has ended
	patience time.Duration // the longest wait before another try
}

// body is the content of one try. Each try of a call gets the same bytes, also when net/http asks for them again.
type body struct {
	reader io.ReadCloser
	kind   string
	length int64 // -1: not known
}

// answer is what a server answered.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	bodyErr error         // the body could not be read in full
	stream  io.ReadCloser // of a call that wants one
	tls     *tls.ConnectionState
	id      string // correlation id
}

// newCall prepares a call below the server's API.
func (w *wire) newCall(what, method, path string) *call {
	return &call{
		what: what, method: method, url: w.base.JoinPath(path), header: http.Header{}, redirect: true,
		timeout: callTimeout, patience: longPatience,
	}
}

// runnerCall is a call with a runner's token, in the header and by the caller in the body.
func (c *Client) runnerCall(what, method, path string, content any) (*call, error) {
	q := c.newCall(what, method, path)
	q.tokenHeader, q.token, q.json = runnerHeader, c.o.Token, true
	return q, q.setJSON(content)
}

// jobCall is a call with a job's token.
func (w *wire) jobCall(what, method string, job tranter.JobRef, path string) *call {
	q := w.newCall(what, method, fmt.Sprintf("jobs/%d%s", job.ID, path))
	q.tokenHeader, q.token = jobHeader, job.Token
	return q
}

func (q *call) setJSON(content any) error {
	data, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("%s: %w", q.what, err)
	}
	q.setBody(data, "application/json")
	return nil
}

func (q *call) setBody(data []byte, kind string) {
	q.body = func() (body, error) {
		return body{reader: io.NopCloser(bytes.NewReader(data)), kind: kind, length: int64(len(data))}, nil
	}
}

// try makes a call once. An error means that there is no answer.
func (w *wire) try(ctx context.Context, q *call, id string) (*answer, error) {
	call, release := linger(ctx, q.linger, q.timeout)
	began := time.Now()
	a, err := w.send(call, q, id)
	w.observed(q, began, a)
	if err != nil {
		if errors.Is(call.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %s", q.timeout)
		}
		release()
		return nil, q.failure(ctx, err)
	}
	if a.stream != nil {
		a.stream = &stream{ReadCloser: a.stream, release: release}
		return a, nil
	}
	release()
	return a, nil
}

// stream is a body that ends its call's context when it is closed.
type stream struct {
	io.ReadCloser
	release func()
}

// Close ends the call.
func (s *stream) Close() error {
	defer s.release()
	return s.ReadCloser.Close()
}

// linger returns a context with a limit of its own that goes on after ctx has ended until grace has passed since now,
// and for a fifth of it at least: a server that has not answered for long is waiting for something to happen, and will
// hardly be answering at that very moment. The function must be called in the end.
func linger(ctx context.Context, grace, limit time.Duration) (context.Context, context.CancelFunc) {
	if grace <= 0 {
		return context.WithTimeout(ctx, limit)
	}
	began := time.Now()
	longer, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-longer.Done():
			return
		case <-ctx.Done():
		}
		timer := time.NewTimer(max(grace-time.Since(began), grace/5))
		defer timer.Stop()
		select {
		case <-longer.Done():
		case <-timer.C:
			cancel()
		}
	})
	return longer, func() {
		cancel()
		watch.Wait()
	}
}

func (w *wire) send(ctx context.Context, q *call, id string) (*answer, error) {
	client, done, err := w.httpClient(q)
	if err != nil {
		return nil, err
	}
	defer done()
	r, err := w.build(ctx, q)
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-Request-Id", id)
	resp, err := client.Do(r)
	if err != nil {
		return nil, withoutURL(err)
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, tls: resp.TLS, id: id}
	if theirs := resp.Header.Get("X-Request-Id"); theirs != "" {
		a.id = theirs
	}
	if q.stream && a.status == q.want {
		a.stream = resp.Body
		return a, nil
	}
	defer resp.Body.Close()
	limit := int64(maxRefusal)
	if a.status == q.want {
		limit = cmp.Or(q.limit, maxAnswer)
	}
	a.body, a.bodyErr = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if int64(len(a.body)) > limit {
		a.body, a.bodyErr = a.body[:limit], errors.New("the answer is too long")
	}
	return a, nil
}

func (w *wire) build(ctx context.Context, q *call) (*http.Request, error) {
	content := body{length: 0}
	if q.body != nil {
		var err error
		if content, err = q.body(); err != nil {
			return nil, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, q.method, q.url.String(), nil)
	if err != nil {
		return nil, errors.Join(withoutURL(err), content.close())
	}
	if content.reader != nil {
		r.Body, r.ContentLength = content.reader, content.length
		r.Header.Set("Content-Type", content.kind)
		r.GetBody = func() (io.ReadCloser, error) {
			again, err := q.body()
			return again.reader, err
		}
	}
	maps.Copy(r.Header, q.header)
	r.Header.Set("User-Agent", w.userAgent)
	if q.json {
		r.Header.Set("Accept", "application/json")
	}
	if q.token != "" {
		r.Header.Set(q.tokenHeader, q.token.Reveal())
	}
	return r, nil
}

func (b body) close() error {
	if b.reader == nil {
		return nil
	}
	return b.reader.Close()
}

// httpClient returns the client for a call, and what to do when an answer has begun.
func (w *wire) httpClient(q *call) (*http.Client, func(), error) {
	rt, err := w.transport.get()
	if err != nil {
		return nil, nil, err
	}
	client := &http.Client{Transport: rt, CheckRedirect: w.follow(q)}
	if q.headers == 0 || q.headers == headerTimeout {
		return client, func() {}, nil
	}
	own := rt.Clone()
	own.ResponseHeaderTimeout = q.headers
	own.DisableKeepAlives = true // nobody uses its connections again
	client.Transport = own
	return client, own.CloseIdleConnections, nil
}

// follow tells net/http which redirects to follow by itself. It would send our tokens along and turn a POST into a GET,
// so it is only what leads to the same server with the same method.
func (w *wire) follow(q *call) func(*http.Request, []*http.Request) error {
	return func(next *http.Request, before []*http.Request) error {
		if !q.redirect || len(before) >= 10 || next.Method != q.method || !w.trusted(next.URL) {
			return http.ErrUseLastResponse
		}
		return nil
	}
}

// trusted says whether an address is that of the configured server: the same, or the same host with TLS.
func (w *wire) trusted(u *url.URL) bool {
	if !strings.EqualFold(u.Hostname(), w.base.Hostname()) {
		return false
	}
	return u.Scheme == w.base.Scheme && port(u) == port(w.base) || w.base.Scheme == "http" && u.Scheme == "https"
}

func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// decode reads the JSON of the answer that was wanted.
func (a *answer) decode(v any) error {
	kind, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	switch {
	case a.bodyErr != nil:
		return fmt.Errorf("read the answer: %w", withoutURL(a.bodyErr))
	case err != nil || kind != "application/json":
		return fmt.Errorf("the answer is of type %q, not application/json", a.header.Get("Content-Type"))
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	return nil
}

// newID makes a correlation id.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}
