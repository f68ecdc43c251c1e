package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
)

// WorkEnv is the environment variable that tells a worker the root directory.
const WorkEnv = "TRANTER_WORK"

const (
	// lastOutput is how long the output of an entrypoint is still read after its end, while others hold its pipe.
	lastOutput = 500 * time.Millisecond
	// endLimit is what phases get to end that run in a worker.
	endLimit = 30 * time.Second
)

// entrance is an image's entrypoint and the worker that it brings to life, which carries out the phases.
type entrance struct {
	Serving
	ctx   context.Context //nolint:containedctx // the entrypoint outlives the request that starts it
	leave context.CancelFunc
	owned sync.WaitGroup
	out   printed
	ready chan struct{} // closed when the worker has reported, or will not

	mu      sync.Mutex
	begun   bool
	settled bool
	met     bool // the worker has connected
	pid     int
	process *os.Process
	worker  *Client
	hello   Hello
	err     error
}

func newEntrance(ctx context.Context, s Serving) *entrance {
	e := &entrance{Serving: s, ready: make(chan struct{})}
	e.out.done = make(chan struct{})
	e.ctx, e.leave = context.WithCancel(context.WithoutCancel(ctx))
	return e
}

// enter runs the entrypoint, if that was not done yet, and waits for the worker.
func (e *entrance) enter(ctx context.Context, environ []string) (Hello, error) {
	e.mu.Lock()
	if !e.begun {
		e.begun = true
		if err := e.begin(environ); err != nil {
			e.settleLocked(nil, Hello{}, err)
		}
	}
	e.mu.Unlock()
	select {
	case <-e.ready:
		return e.hello, e.err
	case <-ctx.Done():
		return Hello{}, context.Cause(ctx)
	}
}

// settleLocked keeps how it went with the entrypoint.
func (e *entrance) settleLocked(worker *Client, h Hello, err error) {
	if e.settled {
		return
	}
	e.settled, e.worker, e.hello, e.err = true, worker, h, err
	close(e.ready)
}

// begin starts the entrypoint.
func (e *entrance) begin(environ []string) error {
	path := filepath.Join(e.Root, workSocket)
	_ = os.Remove(path) // of an agent that was killed
	socket, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("wait for the worker: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // the entrypoint may have changed the user
		return errors.Join(fmt.Errorf("wait for the worker: %w", err), socket.Close())
	}
	e.owned.Go(func() { e.meet(socket) })
	context.AfterFunc(e.ctx, func() { _ = socket.Close() })
	if err := e.launch(append(os.Environ(), environ...)); err != nil {
		return errors.Join(&EntrypointError{Said: err.Error(), Exit: -1}, socket.Close())
	}
	return nil
}

// launch starts the entrypoint's process.
func (e *entrance) launch(environ []string) error {
	worker := e.Worker
	if worker == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		worker = filepath.Join(filepath.Dir(self), "tranter-work")
	}
	environ = append(environ, WorkEnv+"="+e.Root)
	program, err := lookPath(e.Entrypoint[0], environ)
	if err != nil {
		return err
	}
	output, inside, err := os.Pipe()
	if err != nil {
		return err
	}
	defer inside.Close()
	cmd := &exec.Cmd{Path: program, Args: append(append([]string(nil), e.Entrypoint...), worker), Env: environ, Stdout: inside, Stderr: inside}
	if err := cmd.Start(); err != nil {
		return errors.Join(agent.ExplainStart(err), output.Close())
	}
	e.pid, e.process = cmd.Process.Pid, cmd.Process
	e.owned.Go(func() {
		defer output.Close()
		e.out.read(output)
	})
	context.AfterFunc(e.ctx, func() { _ = output.Close() })
	return nil
}

// lookPath looks for a program where the given environment says.
func lookPath(name string, environ []string) (string, error) {
	if strings.ContainsRune(name, filepath.Separator) {
		return name, nil
	}
	path := ""
	for _, kv := range environ {
		if value, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = value
		}
	}
	for _, dir := range filepath.SplitList(path) {
		full := filepath.Join(dir, name)
		if info, err := os.Stat(full); filepath.IsAbs(full) && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return full, nil
		}
	}
	return "", fmt.Errorf("%s is not in the PATH (%s)", name, path)
}

// meet waits for the worker to connect.
func (e *entrance) meet(socket net.Listener) {
	c, err := socket.Accept()
	_ = socket.Close() // there is one only
	if err != nil {
		return
	}
	e.mu.Lock()
	e.met = true
	e.mu.Unlock()
	context.AfterFunc(e.ctx, func() { _ = c.Close() })
	outRead, outWrite := io.Pipe()
	errRead, errWrite := io.Pipe()
	e.owned.Go(func() {
		_ = unframe(c, outWrite, errWrite) // the client finds the end
		_ = errors.Join(c.Close(), outWrite.Close(), errWrite.Close())
	})
	worker := New(c, outRead, errRead)
	hello, err := worker.Enter(e.ctx, nil)
	if err != nil {
		err = errors.Join(fmt.Errorf("the worker does not answer: %w", err), worker.Close())
		worker = nil
	}
	hello.Said = e.out.tell()
	e.mu.Lock()
	e.settleLocked(worker, hello, err)
	late := worker != nil && e.worker != worker
	e.mu.Unlock()
	if late {
		_ = worker.Close()
	}
}

// reap takes the exit states of all processes that come to this one.
func (e *entrance) reap() {
	e.mu.Lock()
	pid := e.pid
	e.mu.Unlock()
	// The process may have ended before its id was known here: then the lock was held, and this came later.
	if code, ended := waitAll(pid); ended {
		e.owned.Go(func() { e.exited(code) })
	}
}

// exited takes notice of the end of the entrypoint's process, which is a worker by then, has one, or is of no use.
func (e *entrance) exited(code int) {
	limit := time.NewTimer(lastOutput)
	defer limit.Stop()
	select {
	case <-e.out.done:
	case <-limit.C:
	case <-e.ctx.Done():
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pid = 0
	if !e.met {
		e.settleLocked(nil, Hello{}, &EntrypointError{Said: strings.TrimSpace(e.out.tell()), Exit: code})
	}
}

// phases returns what carries out phases once the worker is there.
func (e *entrance) phases() (phases, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case !e.settled:
		return nil, errors.New("the image's entrypoint has not run yet")
	case e.err != nil:
		return nil, e.err
	}
	return e, nil
}

// Start has the worker begin a phase. What the entrypoint has said since it was told goes first.
func (e *entrance) Start(ctx context.Context, p tranter.Phase) error {
	if err := e.worker.Start(ctx, p); err != nil {
		return err
	}
	e.out.follow(func(line string) {
		_ = e.worker.Note(e.ctx, line) // without a worker there is no log
	})
	return nil
}

// Attach copies a journal from the worker. When that is gone the phase may have ended before.
func (e *entrance) Attach(ctx context.Context, phaseID string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	counted := &countingWriter{dst: w}
	result, err := e.worker.Attach(ctx, phaseID, offset, counted)
	if !errors.Is(err, ErrBroken) {
		return result, err
	}
	dir, failed := phaseDir(e.Root, phaseID)
	if failed != nil {
		return result, failed
	}
	result, failed = agent.Attach(ctx, dir, offset+counted.count, w)
	if failed == nil || ctx.Err() != nil {
		return result, failed
	}
	return result, fmt.Errorf("%w: %w", tranter.ErrAgentLost, err)
}

// Cancel has the worker end a phase, after waking what the job may have stopped.
func (e *entrance) Cancel(ctx context.Context, phaseID string, abort bool, grace time.Duration) error {
	agent.Wake()
	return e.worker.Cancel(ctx, phaseID, abort, grace)
}

// Note writes into the journal of the phase that runs.
func (e *entrance) Note(ctx context.Context, line string) error { return e.worker.Note(ctx, line) }

// stop ends the worker's phases.
func (e *entrance) stop(ctx context.Context) error { return e.worker.stop(ctx) }

// end ends the phases and what the entrypoint has started.
func (e *entrance) end() error {
	e.mu.Lock()
	worker := e.worker
	e.settleLocked(nil, Hello{}, errors.New("the agent is about to end"))
	e.mu.Unlock()
	var err error
	if worker != nil {
		ctx, stop := context.WithTimeoutCause(e.ctx, endLimit, errors.New("the worker does not end its phase"))
		if err = worker.stop(ctx); errors.Is(err, ErrBroken) {
			err = nil // it has ended before
		}
		stop()
	}
	return err
}

// close ends the worker, and the entrypoint's process if that is another one.
func (e *entrance) close() {
	e.leave()
	e.mu.Lock()
	worker, process := e.worker, e.process
	ended := e.pid == 0
	e.mu.Unlock()
	if worker != nil {
		_ = worker.Close()
	}
	if process != nil && !ended {
		_ = process.Kill()
	}
	e.owned.Wait()
}
