//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/lazy"
)

// Whom a call asks.
const (
	engineCalls = "engine"
	gitlabCalls = "gitlab"
)

// call is one HTTP request that the runner or a job has made.
type call struct {
	to, method, path string
	name             string // of what is created
	status           int
	began, answered  time.Time
	ended            time.Time // zero: it goes on
}

// timeline notes calls that go through it on their way to the engine and to the coordinator.
type timeline struct {
	mu    sync.Mutex // guards the calls too
	calls []*call
}

// serve listens in place of a server, and returns how to stop that.
func (t *timeline) serve(network, address, target, to string) (func() error, error) {
	listener, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	return t.serveOn(listener, network, target, to), nil
}

func (t *timeline) serveOn(listener net.Listener, network, target, to string) func() error {
	transport := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, target)
	}}
	silent := log.New(io.Discard, "", 0)
	proxy := &httputil.ReverseProxy{
		Transport: transport, ErrorLog: silent, FlushInterval: -1, // nothing is kept back
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "server", r.In.Host
		},
		ModifyResponse: func(answer *http.Response) error {
			if c, ok := answer.Request.Context().Value(callKey{}).(*call); ok {
				t.mu.Lock()
				c.answered, c.status = time.Now(), answer.StatusCode
				t.mu.Unlock()
			}
			return nil
		},
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, ErrorLog: silent, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{to: to, method: r.Method, path: r.URL.Path, name: r.URL.Query().Get("name"), began: time.Now()}
		t.mu.Lock()
		t.calls = append(t.calls, c)
		t.mu.Unlock()
		defer func() {
			t.mu.Lock()
			c.ended = time.Now()
			t.mu.Unlock()
		}()
		proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, c)))
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	return func() error {
		err := server.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		transport.CloseIdleConnections()
		return err
	}
}

type callKey struct{}

// since returns the calls from a time on, with those to the coordinator that were answered then: it holds requests for jobs.
func (t *timeline) since(from time.Time) []call {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []call
	for _, c := range t.calls {
		if !c.began.Before(from) || c.to == gitlabCalls && c.answered.After(from) {
			found = append(found, *c)
		}
	}
	slices.SortStableFunc(found, func(a, b call) int { return a.began.Compare(b.began) })
	return found
}

// trace is what one job has led to.
type trace struct {
	calls []call
	times coordinator.Times
}

// count notes the calls of some jobs, one after the other.
func (b *bench) count(ctx context.Context, sc scenario) (traces []trace, err error) {
	t := &timeline{}
	s, err := b.open(ctx, sc, t)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	const rest = 500 * time.Millisecond // for what comes after the containers are gone
	for i := range 2 + b.traceRun {
		from := time.Now()
		times, err := s.work(ctx, 1)
		if err == nil {
			err = settle(ctx, rest)
		}
		if err != nil {
			return nil, err
		}
		if i >= 2 { // the first make caches and the like
			traces = append(traces, trace{calls: t.since(from), times: times[0]})
		}
	}
	return traces, nil
}

// engine returns how many calls a job has made of the engine, and how many containers it has made and started.
func (t trace) engine() (calls, made, started int) {
	for _, c := range t.calls {
		if c.to != engineCalls {
			continue
		}
		calls++
		switch c.pattern() {
		case "POST containers/create":
			made++
		case "POST containers/{}/start":
			started++
		}
	}
	return calls, made, started
}

// countCells are those of the table.
func countCells(traces []trace) []string {
	if len(traces) == 0 {
		return []string{"-", "-"}
	}
	var calls, containers []string
	for _, t := range traces {
		n, made, started := t.engine()
		calls, containers = append(calls, fmt.Sprint(n)), append(containers, fmt.Sprintf("%d / %d", made, started))
	}
	return []string{strings.Join(slices.Compact(calls), ", "), strings.Join(slices.Compact(containers), ", ")}
}

var (
	version = lazy.Regexp(`^/v[0-9.]+/`)
	// ofSession is what the names of all of a job's containers begin with.
	ofSession = lazy.Regexp(`runner-[^/]*-[0-9a-f]{16}-`)
)

// route is a call's path without the API's version.
func (c call) route() string {
	if c.to == engineCalls {
		return version().ReplaceAllString(c.path, "")
	}
	return strings.TrimPrefix(c.path, "/api/v4/")
}

// short leaves out of a name what is the same in all of a job.
func short(name string) string { return ofSession().ReplaceAllString(name, "") }

// pattern is a call's method and path without names.
func (c call) pattern() string {
	parts := strings.Split(strings.TrimPrefix(c.route(), "/"), "/")
	const verbAt = 2 // names of images have slashes in them
	switch {
	case len(parts) > verbAt:
		parts = []string{parts[0], "{}", parts[len(parts)-1]}
	case len(parts) == verbAt && c.method != http.MethodPost && parts[1] != "json":
		parts[1] = "{}"
	}
	return c.method + " " + strings.Join(parts, "/")
}

// patterns counts a job's calls to the engine by pattern.
func (t trace) patterns() string {
	counts := map[string]int{}
	var order []string
	total := 0
	for _, c := range t.calls {
		if c.to != engineCalls {
			continue
		}
		p := c.pattern()
		if counts[p] == 0 {
			order = append(order, p)
		}
		counts[p]++
		total++
	}
	slices.SortStableFunc(order, func(a, b string) int { return cmp.Compare(counts[b], counts[a]) })
	for i, p := range order {
		order[i] = fmt.Sprintf("%d %s", counts[p], p)
	}
	return fmt.Sprintf("%d calls: %s", total, strings.Join(order, ", "))
}

// print lists the calls in order, with when each began and how long its answer took, in milliseconds.
func (t trace) print() {
	millis := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	final := millis(t.times.Finished.Sub(t.times.Started))
	said := false
	for _, c := range t.calls {
		at := millis(c.began.Sub(t.times.Started))
		if !said && at > final {
			fmt.Printf("%8.1f           -- final state at the coordinator --\n", final)
			said = true
		}
		note := ""
		switch {
		case c.answered.IsZero():
			note = "no answer yet"
		case c.status == http.StatusSwitchingProtocols && c.ended.IsZero():
			note = "stream, still open"
		case c.status == http.StatusSwitchingProtocols:
			note = fmt.Sprintf("stream, open for %.1f", millis(c.ended.Sub(c.answered)))
		case !c.ended.IsZero() && c.ended.Sub(c.answered) > time.Millisecond:
			note = fmt.Sprintf("body for %.1f", millis(c.ended.Sub(c.answered)))
		}
		took := 0.0
		if !c.answered.IsZero() {
			took = millis(c.answered.Sub(c.began))
		}
		fmt.Println(strings.TrimRight(fmt.Sprintf("%8.1f %8.1f  %-6s %-6s %s %d %s %s", at, took, c.to, c.method, short(c.route()), c.status, short(c.name), note), " "))
	}
	if !said {
		fmt.Printf("%8.1f           -- final state at the coordinator --\n", final)
	}
}
