// Package gitlab is the client of a GitLab server's Runner API (runner contract, sections 1.1 to 1.11): it asks for jobs,
// sends logs, states and artifacts, and registers runners. A Client fills tranter.Coordinator for one runner.
//
// It retries what a server asks to have retried; a connection that fails is left to its callers. It does not decide when
// to ask or what to do with an answer. Tokens go to the configured server only, and appear in no error and no log line.
// It is called by cmd/tranter, which passes it to the engines and to the agent.
package gitlab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// Options say which server to talk to, and as whom. Only URL is needed.
type Options struct {
	URL      string // of the server; a trailing /ci is dropped
	Token    tranter.Secret
	SystemID string
	Version  Program
	// Runner is what is told about the runner before it has asked for a job: by Verify, from which the server learns what
	// the runner can do for the next 40 minutes.
	Runner tranter.Request

	TLSCAFile   string // PEM, in addition to the system's certificate authorities
	TLSCAPEM    string // the same as text; goes before TLSCAFile
	TLSCertFile string
	TLSKeyFile  string
	CertDir     string // HOST.crt, HOST.auth.crt and HOST.auth.key in it are used for files that are not named

	ConnectionMaxAge time.Duration // connections are not used for longer; 0: no limit
	// Drain is how long after it was made the answer to a request for a job is waited for although the request's context
	// has ended, because it may carry a job; a fifth of it is waited for in any case. 0: 5 s.
	Drain   time.Duration
	Backoff time.Duration                         // before the first retry; it doubles. 0: 100 ms
	Proxy   func(*http.Request) (*url.URL, error) // nil: HTTP_PROXY, HTTPS_PROXY and NO_PROXY
	Log     *slog.Logger
	Observe func(Call) // is told of each try of a call, as it ends, from the call's goroutine; nil: nobody
}

// Client talks to one server as one runner. It is safe for concurrent use.
type Client struct {
	wire
	o Options

	mu         sync.Mutex
	lastUpdate string // value of the server's queue for this runner, as far as is known
	about      info   // what the last request for a job told
}

var _ tranter.Coordinator = (*Client)(nil)

const (
	defaultDrain   = 5 * time.Second
	defaultBackoff = 100 * time.Millisecond
)

// New makes a client. It does not connect; files are read when they are needed, and again when they have changed.
func New(o Options) (*Client, error) {
	base, err := apiURL(o.URL)
	if err != nil {
		return nil, fmt.Errorf("server URL: %w", err)
	}
	o.Drain = cmp.Or(o.Drain, defaultDrain)
	o.Backoff = cmp.Or(o.Backoff, defaultBackoff)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	c := &Client{o: o, wire: wire{
		base: base, transport: newTransport(o, base.Hostname()), userAgent: o.Version.userAgent(), unit: o.Backoff, pause: pause, log: o.Log, observe: o.Observe,
	}}
	c.about = c.info(o.Runner)
	return c, nil
}

// apiURL returns the address below which the endpoints lie (runner contract, section 1.1).
func apiURL(text string) (*url.URL, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, errors.New("it is missing; give one such as https://gitlab.example.com")
	}
	u, err := url.Parse(strings.TrimSuffix(strings.TrimRight(text, "/"), "/ci"))
	if err != nil {
		return nil, fmt.Errorf("it can't be read: %w", withoutURL(err))
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%s does not begin with http:// or https://", u.Redacted())
	case u.Hostname() == "":
		return nil, fmt.Errorf("%s names no host", u.Redacted())
	}
	u.RawQuery, u.Fragment = "", ""
	return u.JoinPath("api/v4/"), nil
}

// pause waits, or returns why ctx has ended.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
