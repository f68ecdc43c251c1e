package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// Options say how a coordinator works. Only Dir is needed.
type Options struct {
	Dir          string         // the state directory; made if it is not there
	URL          string         // under which runners and jobs reach it; empty: of the listener, or as the runner calls it
	AdminToken   tranter.Secret // for the management API; empty: one is made, and kept in the state directory
	Registration tranter.Secret // for POST /runners of old runners; empty: not allowed
	Log          *slog.Logger
	Now          func() time.Time

	LongPoll       time.Duration // how long a request for a job may wait; 0: 50 s, negative: not at all
	LostAfter      time.Duration // a running job whose runner is silent for so long has failed; 0: 10 min
	SweepEvery     time.Duration // how often time is looked at; 0: 1 s
	UpdateInterval time.Duration // how often a runner is told to report; 0: 3 s
	JobTimeout     time.Duration // of jobs without one; 0: 1 h
	MaxLog         int64         // bytes; 0: 100 MiB
	MaxArtifact    int64         // bytes; 0: no limit
	// NewPipeline makes and starts a pipeline for POST /projects/:id/pipeline. Its error is shown. nil: not possible.
	NewPipeline func(ctx context.Context, p Project, ref string, vars []tranter.Variable) (int64, error)

	VerifyLog bool // demand a log again when its checksum is wrong (status 412), instead of only noting it
}

func (o *Options) complete() {
	o.Now = orNow(o.Now)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.LongPoll = cmp.Or(o.LongPoll, 50*time.Second)
	o.LostAfter = cmp.Or(o.LostAfter, 10*time.Minute)
	o.SweepEvery = cmp.Or(o.SweepEvery, time.Second)
	o.UpdateInterval = cmp.Or(o.UpdateInterval, 3*time.Second)
	o.JobTimeout = cmp.Or(o.JobTimeout, time.Hour)
	o.MaxLog = cmp.Or(o.MaxLog, 100<<20)
	o.URL = strings.TrimRight(o.URL, "/")
}

func orNow(now func() time.Time) func() time.Time {
	if now == nil {
		return time.Now
	}
	return now
}

// Errors that callers decide on.
var (
	ErrNotFound    = errors.New("not found")
	ErrNotPossible = errors.New("not possible in the state that it is in")
)

func notFound(what string, id int64) error { return fmt.Errorf("%s %d: %w", what, id, ErrNotFound) }

// Coordinator is a local GitLab. It is safe for concurrent use.
type Coordinator struct {
	views // what can be looked at
	estate
	options Options
	disk    *disk
	handler http.Handler

	closing chan struct{} // closed when it shuts down
	once    sync.Once
	workers sync.WaitGroup

	address

	repoMu sync.Mutex // one at a time changes repositories
}

// Open takes the state directory and goes on where it was left. ErrInUse means that another process has it.
func Open(o Options) (*Coordinator, error) {
	o.complete()
	d, err := openDisk(o.Dir, o.Now())
	if err != nil {
		return nil, fmt.Errorf("open coordinator: %w", err)
	}
	b, err := openBook(d, o.Now, o.Log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open coordinator: %w", err), d.Close())
	}
	c := &Coordinator{views: views{book: b}, estate: estate{of: b}, options: o, disk: d, closing: make(chan struct{}), address: address{url: o.URL}}
	if err := c.introduce(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	c.handler = c.routes()
	c.workers.Go(c.sweep)
	return c, nil
}

// introduce gives a new server what it is known by.
func (c *Coordinator) introduce() error {
	s := &c.book.settings
	if s.Instance == "" {
		s.Instance = newUUID()
	}
	switch {
	case c.options.AdminToken != "":
		s.AdminToken = c.options.AdminToken
	case s.AdminToken == "":
		s.AdminToken = tranter.Secret("glpat-" + randomHex(10))
	}
	if err := c.book.saveSettings(); err != nil {
		return fmt.Errorf("open coordinator: %w", err)
	}
	return nil
}

// AdminToken returns the token for the management API.
func (c *Coordinator) AdminToken() tranter.Secret { return c.book.settings.AdminToken }

// Close stops what runs in the background and gives the state directory free. Jobs that runners have go on there.
func (c *Coordinator) Close() error {
	c.stop()
	c.workers.Wait()
	c.book.mu.Lock()
	defer c.book.mu.Unlock()
	if err := c.disk.Close(); err != nil {
		return fmt.Errorf("close coordinator: %w", err)
	}
	return nil
}

func (c *Coordinator) stop() { c.once.Do(func() { close(c.closing) }) }

// Handler serves the API and the repositories.
func (c *Coordinator) Handler() http.Handler { return c.handler }

// Serve answers requests on the listener until ctx ends, and closes it. Requests under way get a few seconds.
func (c *Coordinator) Serve(ctx context.Context, l net.Listener) error {
	c.adopt(l.Addr())
	unused := &fresh{conns: map[net.Conn]bool{}}
	server := &http.Server{
		Handler: c.handler, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute, ConnState: unused.note,
		ErrorLog: slog.NewLogLogger(c.options.Log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	c.stop() // held requests end
	unused.close()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := server.Shutdown(grace)
	if err != nil {
		err = server.Close()
	}
	if ended := <-failed; err == nil && !errors.Is(ended, http.ErrServerClosed) {
		err = ended
	}
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// address is where a coordinator is reached.
type address struct {
	mu  sync.Mutex
	url string
}

// adopt makes the listener's address the coordinator's, if it has none. One that listens everywhere has many: then each
// runner is given the one that it has called.
func (a *address) adopt(l net.Addr) {
	if tcp, ok := l.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.url == "" {
		a.url = "http://" + l.String()
	}
}

// URL is the address of the coordinator, or "" when none was given and there is none yet, or more than one.
func (a *address) URL() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.url
}

// base is the address to give to whoever sent the request.
func (a *address) base(r *http.Request) string {
	if u := a.URL(); u != "" {
		return u
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// sweep looks at what happens by the clock alone: delayed jobs, timeouts, silent runners.
func (c *Coordinator) sweep() {
	ticker := time.NewTicker(c.options.SweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-c.closing:
			return
		case <-ticker.C:
			c.book.sweep(c.options.LostAfter)
		}
	}
}

// sweep needs the lock not to be held.
func (b *book) sweep(lostAfter time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	for j := range b.active {
		silent := now.Sub(j.contact) >= lostAfter
		switch {
		case j.Status == Scheduled:
			if !j.Due.After(now) {
				b.touch(j)
			}
		case silent && j.Status == Canceling:
			b.lose(j, noUpdatesCanceling, "the runner was silent for "+lostAfter.String())
		case silent:
			b.lose(j, noUpdatesRunning, "the runner was silent for "+lostAfter.String())
		case now.Sub(j.Times.Started) >= j.Hold.Timeout+lostAfter:
			b.lose(j, serverTimeoutRunning, "the job ran longer than its timeout of "+j.Hold.Timeout.String())
		}
	}
	if len(b.dirty) > 0 || len(b.unsaved) > 0 {
		_ = b.settle() // logged, and tried again with the next sweep
	}
}

// lose ends a job without its runner.
func (b *book) lose(j *job, reason tranter.FailureReason, problem string) {
	if j.Status != Canceling {
		b.fail(j, reason, problem)
		return
	}
	j.Reason, j.Problem = reason, problem
	b.move(j, Canceled)
}
