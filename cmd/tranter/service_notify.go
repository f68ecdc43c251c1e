package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/manager"
)

const (
	notifyStarting = 50 * time.Millisecond // between two looks whether jobs are taken yet
	notifyInterval = 10 * time.Second      // between two signs of life
	proofLimit     = 30 * time.Second      // for a loop to answer
)

// notifier tells systemd how the manager stands (sd_notify(3)): that it takes jobs, how many there are, and that its loops
// are alive. A nil one tells nobody.
type notifier struct {
	socket   string
	watchdog bool
	environ  map[string]string // what systemd has said; for the program's next version
	every    time.Duration
}

// newNotifier reads what systemd says in the environment and takes it out of there, so that no job has it. It is nil where
// nobody wants to know.
func newNotifier() *notifier {
	n := &notifier{environ: map[string]string{}, every: notifyInterval}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if v, ok := os.LookupEnv(name); ok {
			n.environ[name] = v
			_ = os.Unsetenv(name)
		}
	}
	n.socket = n.environ["NOTIFY_SOCKET"]
	if n.socket == "" {
		return nil
	}
	usec, err := strconv.ParseInt(n.environ["WATCHDOG_USEC"], 10, 64)
	pid := n.environ["WATCHDOG_PID"]
	n.watchdog = err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid()))
	if n.watchdog {
		n.every = min(n.every, time.Duration(usec)*time.Microsecond/3)
	}
	return n
}

// handOver puts back what newNotifier has taken, for the program that this process becomes.
func (n *notifier) handOver() {
	if n == nil {
		return
	}
	for name, v := range n.environ {
		_ = os.Setenv(name, v)
	}
}

// send tells systemd. Nobody may listen any more: that changes nothing for jobs.
func (n *notifier) send(lines ...string) {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close() //nolint:errcheck // nobody may listen
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte(strings.Join(lines, "\n")))
}

// reloading says that the configuration is read; the returned function that it was.
func (n *notifier) reloading() func() {
	if n == nil {
		return func() {}
	}
	n.send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(monotonic().Microseconds(), 10))
	return func() { n.send("READY=1") }
}

// proof is what a look at the manager has shown.
type proof struct {
	state, text string
	err         error
}

// start tells systemd about d until the returned function is called, which waits for the end of that.
func (n *notifier) start(ctx context.Context, d *daemon) func() {
	if n == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var owned sync.WaitGroup
	owned.Go(func() { n.run(ctx, d) })
	return func() {
		cancel()
		owned.Wait()
	}
}

// run looks at the manager now and then. The sign of life is sent after a look that has got its answers, never without one:
// a manager whose loops hang is ended by systemd, and its jobs are taken up by the next.
func (n *notifier) run(ctx context.Context, d *daemon) {
	var told toldState
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		p := d.prove(ctx)
		if ctx.Err() != nil {
			return
		}
		if p.err != nil {
			d.log.Error("A loop of the manager does not answer; systemd starts another manager if that lasts", "error", p.err)
			timer.Reset(notifyStarting)
			continue
		}
		say := told.news(p)
		if n.watchdog {
			say = append(say, "WATCHDOG=1")
		}
		if len(say) > 0 {
			n.send(say...)
		}
		if told.ready {
			timer.Reset(n.every)
		} else {
			timer.Reset(notifyStarting)
		}
	}
}

// toldState is what systemd knows.
type toldState struct {
	ready, stopping bool
	text            string
}

// news returns what systemd does not know yet, in its words.
func (t *toldState) news(p proof) []string {
	var say []string
	if !t.ready && p.state != manager.Starting.String() {
		t.ready, say = true, append(say, "READY=1")
	}
	if !t.stopping && p.state == manager.Stopping.String() {
		t.stopping, say = true, append(say, "STOPPING=1")
	}
	if p.text != t.text {
		t.text, say = p.text, append(say, "STATUS="+p.text)
	}
	return say
}

// prove asks each loop for its state, which it tells only when it turns.
func (d *daemon) prove(ctx context.Context) proof {
	ctx, cancel := context.WithTimeout(ctx, proofLimit)
	defer cancel()
	s := d.Status() // hangs when the manager does
	p := proof{state: s.State, text: s.State + ": " + jobsOfManager(s)}
	if s.State != manager.Running.String() && s.State != manager.Draining.String() {
		return p // pools and clusters are not there yet, or not any more
	}
	pools, err := d.machines.each(ctx)
	if err == nil {
		machines, idle := 0, 0
		for _, pool := range pools {
			for _, m := range pool.Machines {
				machines++
				if m.State == fleet.Idle {
					idle++
				}
			}
		}
		if len(pools) > 0 {
			p.text += fmt.Sprintf(", %d machines, %d idle", machines, idle)
		}
		_, err = d.batches.each(ctx)
	}
	// Another error is the answer of a loop.
	if errors.Is(err, context.DeadlineExceeded) {
		p.err = err
	}
	return p
}

func jobsOfManager(s manager.Status) string {
	return fmt.Sprintf("%d of %d jobs, %d runners", len(s.Jobs), s.Concurrent, len(s.Runners))
}
