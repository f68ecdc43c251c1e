// Package tracing sends a trace of each job that has ended to a collector, by OTLP over HTTP: how long it waited, for what, and each
// stage and step with its real times. The ids come from the job's key, so that what is sent twice is the same trace.
//
// It speaks the protocol itself, with the messages of OpenTelemetry: its exporter would bring gRPC into the program. No job waits for
// it: what can't be sent in time is dropped, counted and logged.
package tracing

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/tranter-ci/tranter"
)

// Options say where traces are sent. Only Endpoint is needed.
type Options struct {
	Endpoint    string                    // such as http://127.0.0.1:4318; /v1/traces is added where it has no path
	Headers     map[string]tranter.Secret // of each request
	ServiceName string                    // empty: tranter
	Sample      float64                   // share of the jobs that are traced, 0 to 1
	CA          []byte                    // PEM of the endpoint's certificate authorities; empty: the system's
	Version     string                    // of the program
	Log         *slog.Logger              // nil: nothing is logged
	Room        int                       // for jobs whose traces wait to be sent; 0: 2000
	Patience    time.Duration             // for how long a batch is tried again; 0: 5 min
	Transport   http.RoundTripper         // in place of one of its own; nil: usual
}

const (
	defaultRoom     = 2000
	defaultPatience = 5 * time.Minute
	batchJobs       = 64
	batchWait       = 2 * time.Second // that the first job of a batch waits for others
	tryLimit        = 10 * time.Second
	firstPause      = time.Second
	longestPause    = time.Minute
	quiet           = time.Minute // between two lines of the log about the same trouble
)

// Tracer sends traces. It is safe for concurrent use.
type Tracer struct {
	o      Options
	url    string
	client *http.Client
	queue  chan []*tracepb.Span
	done   chan struct{} // closed when nothing is sent any more
	end    context.CancelFunc
	hurry  chan struct{} // closed by Close
	once   sync.Once

	dropped atomic.Int64
	mu      sync.Mutex
	told    time.Time
}

// New makes a tracer, which sends until it is closed or ctx ends. It does not connect.
func New(ctx context.Context, o Options) (*Tracer, error) {
	at, err := address(o.Endpoint)
	if err != nil {
		return nil, err
	}
	transport, closeAll, err := transportOf(o)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Room, o.Patience, o.ServiceName = cmp.Or(o.Room, defaultRoom), cmp.Or(o.Patience, defaultPatience), cmp.Or(o.ServiceName, "tranter")
	t := &Tracer{o: o, url: at, queue: make(chan []*tracepb.Span, o.Room), done: make(chan struct{}), hurry: make(chan struct{})}
	// Redirects would take the headers, which are secret, elsewhere.
	t.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ctx, t.end = context.WithCancel(ctx)
	go func() {
		defer close(t.done)
		defer closeAll()
		t.run(ctx)
	}()
	return t, nil
}

// transportOf returns how requests are made, and what to do in the end.
func transportOf(o Options) (http.RoundTripper, func(), error) {
	if o.Transport != nil {
		return o.Transport, func() {}, nil
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: tryLimit, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 1,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if len(o.CA) > 0 {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(o.CA) {
			return nil, nil, errors.New("tracing: ca_file holds no certificate in PEM form")
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return transport, transport.CloseIdleConnections, nil
}

// address returns where traces are sent to.
func address(endpoint string) (string, error) {
	u, err := url.Parse(strings.TrimSpace(endpoint))
	switch {
	case err != nil:
		return "", errors.New("tracing: endpoint is no URL; give one such as http://127.0.0.1:4318")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return "", fmt.Errorf("tracing: endpoint %q has to begin with http:// or https:// and a host, such as http://127.0.0.1:4318", u.Redacted())
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}

// Job has the trace of a job that has ended sent. It never waits.
func (t *Tracer) Job(j tranter.JobHistory) {
	if !sampled(j.Key, t.o.Sample) {
		return
	}
	select {
	case <-t.hurry:
		t.drop(1)
	default:
		select {
		case t.queue <- spansOf(&j):
		default:
			t.drop(1)
		}
	}
}

// Dropped returns how many jobs' traces were given up since the start.
func (t *Tracer) Dropped() int64 { return t.dropped.Load() }

// Close sends what is left, until ctx ends. Later jobs are dropped.
func (t *Tracer) Close(ctx context.Context) error {
	t.once.Do(func() { close(t.hurry) })
	defer t.end()
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
	}
	left := len(t.queue)
	t.end()
	<-t.done
	return fmt.Errorf("send the last traces: %w; traces of about %d jobs are lost", context.Cause(ctx), left+1)
}

// sampled says whether a job is traced: for the same key always the same.
func sampled(key string, share float64) bool {
	if share >= 1 {
		return true
	}
	sum := sha256.Sum256([]byte("sample " + key))
	return float64(binary.BigEndian.Uint64(sum[:])>>11)/(1<<53) < share
}

// drop counts traces that are given up, and logs that, once a minute.
func (t *Tracer) drop(n int) {
	t.dropped.Add(int64(n))
	t.complain("Traces of jobs are lost: they can't be sent as fast as they come", nil)
}

func (t *Tracer) complain(what string, err error) {
	t.mu.Lock()
	still := !t.told.IsZero() && time.Since(t.told) < quiet
	if !still {
		t.told = time.Now()
	}
	t.mu.Unlock()
	if still {
		return
	}
	attrs := []any{"lost_since_start", t.dropped.Load()}
	if err != nil {
		attrs = append(attrs, "error", err)
	}
	t.o.Log.Warn(what, attrs...) //nolint:sloglint // one of the fixed texts above and below
}

// run sends batches until ctx ends, or after Close until there are no more.
func (t *Tracer) run(ctx context.Context) {
	for {
		var first []*tracepb.Span
		select {
		case first = <-t.queue:
		default:
			select {
			case <-ctx.Done():
				return
			case first = <-t.queue:
			case <-t.hurry:
				if len(t.queue) == 0 {
					return
				}
				continue
			}
		}
		spans, jobs := t.gather(ctx, first)
		if err := t.send(ctx, spans); err != nil {
			t.dropped.Add(int64(jobs))
			t.complain("Traces of jobs can't be sent, and are lost", err)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// gather waits a little for more jobs.
func (t *Tracer) gather(ctx context.Context, spans []*tracepb.Span) (all []*tracepb.Span, jobs int) {
	timer := time.NewTimer(batchWait)
	defer timer.Stop()
	for jobs = 1; jobs < batchJobs; jobs++ {
		select {
		case more := <-t.queue:
			spans = append(spans, more...)
			continue
		default:
		}
		select {
		case more := <-t.queue:
			spans = append(spans, more...)
		case <-t.hurry:
			return spans, jobs
		case <-ctx.Done():
			return spans, jobs
		case <-timer.C:
			return spans, jobs
		}
	}
	return spans, jobs
}

// send sends a batch, and tries again what may pass.
func (t *Tracer) send(ctx context.Context, spans []*tracepb.Span) error {
	body, err := t.encode(spans)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(ctx, t.o.Patience)
	defer stop()
	pause := firstPause
	for {
		wish, err := t.try(ctx, body)
		var passing *passingError
		if err == nil || !errors.As(err, &passing) {
			return err
		}
		timer := time.NewTimer(max(pause, wish))
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
		pause = min(2*pause, longestPause)
	}
}

// encode makes the body of a request.
func (t *Tracer) encode(spans []*tracepb.Span) ([]byte, error) {
	// TracesData is on the wire what the service's request is; the latter's package brings gRPC along.
	data, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource:   resource(t.o.ServiceName, t.o.Version),
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: scope(t.o.Version), Spans: spans}},
	}}})
	if err != nil {
		return nil, fmt.Errorf("encode traces: %w", err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		return nil, fmt.Errorf("compress traces: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress traces: %w", err)
	}
	return b.Bytes(), nil
}
