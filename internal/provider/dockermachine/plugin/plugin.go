// Package plugin speaks the protocol of Docker Machine's driver plugins (docker-machine, section 1): it finds a driver's
// program, starts it, and calls what the driver can do over net/rpc.
//
// One process is one machine. Nothing here knows what a machine is for, and nothing that a plugin does, says or fails to say
// blocks or breaks the caller: calls end with their context or with the process, and Close leaves no process behind.
package plugin

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/rpc"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options say which plugin is started.
type Options struct {
	Driver      string   // a driver's name, or the path of its program
	Machine     string   // name of the machine, for the log
	Environment []string // NAME=VALUE, added to that of this process without GitLab's tokens, for the child only
	Log         *slog.Logger
	Debug       bool // what the plugin prints to its standard error is logged as well

	every, patience time.Duration // of heartbeats; 0: as the protocol has them
}

const (
	apiVersion     = 1
	handshakeLimit = 10 * time.Second
	heartbeatEvery = 5 * time.Second
	// heartbeatLimit is how long a plugin that answers nothing at all is borne with. One that works answers at once.
	heartbeatLimit = 30 * time.Second
	// kindLimit is the time from the call of Close to SIGKILL.
	kindLimit = time.Second
	// killLimit is how long a killed process is waited for.
	killLimit = 10 * time.Second
	// endLimit is the time from the end of a connection to that of its process, which closes it by ending.
	endLimit = 200 * time.Millisecond
	// drainLimit is how long the output is still read once the process has ended.
	drainLimit = time.Second
)

// Process is a plugin that runs. Its methods may be called at the same time.
type Process struct {
	name     string
	log      *slog.Logger
	debug    bool
	cmd      *exec.Cmd
	client   *rpc.Client
	service  string
	patience time.Duration // with a plugin that answers nothing at all
	address  chan string   // takes the first line of output
	exited   chan struct{} // closed when the process has ended
	ended    chan struct{} // closed when its output is read too
	beating  chan struct{} // closed when no heartbeat will come any more
	how      error         // of the process, once exited
	blame    atomic.Pointer[string]
	hidden   atomic.Pointer[strings.Replacer]
	words    lastWords
}

// EndedError means that the process of a plugin has ended, or had to be ended, before a call was answered.
type EndedError struct {
	Driver string
	How    string // such as "exit status 1"
	Words  string // the last that it has printed to its standard error; may be empty
}

func (e *EndedError) Error() string {
	text := fmt.Sprintf("the process of driver %s has ended (%s)", e.Driver, e.How)
	if e.Words != "" {
		text += "; its last words: " + e.Words
	}
	return text
}

// Start starts the plugin of a driver and returns once it answers. It takes ten seconds at most.
func Start(ctx context.Context, o Options) (*Process, error) {
	register()
	environment := append(withoutGitLab(os.Environ()), o.Environment...)
	found, err := Find(o.Driver, environment)
	if err != nil {
		return nil, err
	}
	p := &Process{
		name: found.Name, log: o.Log, debug: o.Debug, service: serviceName,
		patience: cmp.Or(o.patience, heartbeatLimit),
		address:  make(chan string, 1), exited: make(chan struct{}), ended: make(chan struct{}), beating: make(chan struct{}),
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.log = p.log.With("driver", found.Name, "machine", o.Machine)
	p.cmd = exec.Command(found.Path) //nolint:noctx // Close ends its whole group
	p.cmd.Env = append(environment, "MACHINE_PLUGIN_TOKEN=42", "MACHINE_PLUGIN_DRIVER_NAME="+found.Name)
	ownGroup(p.cmd)
	started := make(chan error, 1)
	go p.run(started) // Close waits for it
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start driver %s: %w", found.Name, err)
	}
	limited, cancel := context.WithTimeoutCause(ctx, handshakeLimit,
		fmt.Errorf("it has not said in %v where it listens, or does not answer there", handshakeLimit))
	defer cancel()
	if err := p.greet(limited); err != nil {
		close(p.beating) // none has begun
		return nil, errors.Join(fmt.Errorf("start driver %s (%s): %w", found.Name, found.Path, err), p.Close())
	}
	go p.beat(cmp.Or(o.every, heartbeatEvery)) // Close waits for it
	return p, nil
}

// run starts the process, reads what it prints and takes its end. It keeps its thread, at whose end the kernel would
// think this process dead and end the child.
func (p *Process) run(started chan<- error) {
	defer close(p.ended)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var readers sync.WaitGroup
	var ours, theirs []*os.File
	for _, stream := range []struct {
		to   *io.Writer
		line func(string)
	}{{&p.cmd.Stdout, p.stdout()}, {&p.cmd.Stderr, p.stderr}} {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(append(ours, theirs...))
			close(p.exited)
			started <- err
			return
		}
		ours, theirs = append(ours, r), append(theirs, w)
		*stream.to = w
		readers.Go(func() { drain(r, stream.line) })
	}
	err := p.cmd.Start()
	closeAll(theirs)
	if err != nil {
		readers.Wait()
		closeAll(ours)
		close(p.exited)
		started <- err
		return
	}
	started <- nil
	p.how = p.cmd.Wait()
	killGroup(p.cmd) // what it has left running goes with it
	close(p.exited)
	limit := time.AfterFunc(drainLimit, func() { closeAll(ours) })
	readers.Wait()
	limit.Stop()
	closeAll(ours)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// greet is the handshake (docker-machine, section 1.3).
func (p *Process) greet(ctx context.Context) error {
	var line string
	select {
	case line = <-p.address:
	case <-p.exited:
		return p.endedError(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	at, err := netip.ParseAddrPort(line)
	if err != nil || !at.Addr().IsLoopback() || at.Port() == 0 {
		return fmt.Errorf("the first line it prints has to be the local address where it listens, such as 127.0.0.1:40123; it is %.100q", line)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return fmt.Errorf("connect to it: %w", err)
	}
	limit, _ := ctx.Deadline()
	_ = conn.SetDeadline(limit)
	in := &meter{r: conn, left: maxMessage}
	buffered := bufio.NewReader(in)
	if err := connect(conn, buffered); err != nil {
		_ = conn.Close()
		return err
	}
	_ = conn.SetDeadline(time.Time{})
	p.client = newClient(conn, buffered, in, p.patience)
	return p.checkVersion(ctx)
}

func connect(conn net.Conn, in *bufio.Reader) error {
	if _, err := io.WriteString(conn, "CONNECT "+rpc.DefaultRPCPath+" HTTP/1.0\n\n"); err != nil {
		return fmt.Errorf("connect to it: %w", err)
	}
	answer, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // it has none: the connection goes on
	if err != nil {
		return fmt.Errorf("what listens where it says does not speak its protocol: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("what listens where it says does not speak its protocol: it answers %.100q", answer.Status)
	}
	return nil
}

func (p *Process) checkVersion(ctx context.Context) error {
	version, err := call[int](ctx, p, "GetVersion", struct{}{})
	if _, refused := errors.AsType[*DriverError](err); refused {
		p.service = oldServiceName
		version, err = call[int](ctx, p, "GetVersion", struct{}{})
	}
	if err != nil {
		return err
	}
	if version != apiVersion {
		return fmt.Errorf("it speaks version %d of the plugin protocol; only version %d is known", version, apiVersion)
	}
	return nil
}

// beat tells the plugin that somebody still looks after it: without that it ends itself after ten seconds, whatever it does
// (docker-machine, section 1.6). One that does not answer any more is ended.
func (p *Process) beat(every time.Duration) {
	defer close(p.beating)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-p.exited:
			return
		case <-tick.C:
		}
		limit := time.NewTimer(p.patience)
		sent := p.client.Go(p.service+".Heartbeat", struct{}{}, nil, make(chan *rpc.Call, 1))
		select {
		case <-p.exited:
		case done := <-sent.Done:
			if _, answered := errors.AsType[rpc.ServerError](done.Error); done.Error != nil && !answered {
				p.kill("its connection is broken")
			}
		case <-limit.C:
			p.kill(fmt.Sprintf("it has not answered for %v", p.patience))
		}
		limit.Stop()
	}
}

// kill ends a process that is of no use any more.
func (p *Process) kill(why string) {
	select {
	case <-p.exited:
	default:
		p.blame.CompareAndSwap(nil, &why)
		killGroup(p.cmd)
	}
}

// Close ends the plugin, kindly if it lets itself be ended so, and waits until nothing is left of it.
func (p *Process) Close() error {
	if p.client != nil {
		p.client.Go(p.service+".Close", struct{}{}, nil, make(chan *rpc.Call, 1)) // the answer may be lost: its end is one
		waitFor(p.exited, kindLimit)
	}
	p.kill("it was closed")
	gone := waitFor(p.ended, killLimit)
	if p.client != nil {
		_ = p.client.Close()
	}
	if !gone {
		return fmt.Errorf("the process of driver %s (%d) can't be killed", p.name, p.cmd.Process.Pid)
	}
	<-p.beating
	return nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.exited }

// Hide keeps texts out of the log and out of the errors of drivers from now on.
func (p *Process) Hide(secrets []string) {
	var pairs []string
	// The longest first: of two that begin alike, no rest is left.
	for _, s := range slices.SortedFunc(slices.Values(secrets), func(a, b string) int { return cmp.Compare(len(b), len(a)) }) {
		if s != "" {
			pairs = append(pairs, s, "[hidden]")
		}
	}
	p.hidden.Store(strings.NewReplacer(pairs...))
}

func (p *Process) clean(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if r := p.hidden.Load(); r != nil {
		return r.Replace(text)
	}
	return text
}

// endedError says how the process has ended. It waits a moment for that to be known.
func (p *Process) endedError(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
	defer cancel()
	select {
	case <-p.ended:
	case <-waiting.Done():
	}
	words := p.clean(p.words.text()) // before it is cut: no part of a secret is left
	e := &EndedError{Driver: p.name, How: "its connection is broken", Words: strings.ToValidUTF8(words[:min(len(words), maxWords)], "")}
	select {
	case <-p.exited:
		e.How = "exit status 0"
		if p.how != nil {
			e.How = p.how.Error()
		}
	default:
	}
	if why := p.blame.Load(); why != nil {
		e.How = *why
	}
	return e
}

func waitFor(done <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
