package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/filelock"
)

const (
	lockLimit = 5 * time.Second
	killAfter = 2 * time.Second // between the polite end of a command and the other one
	pace      = 50 * time.Millisecond
	// mostKept is how large a file with output may grow before what is old in it goes.
	mostKept = 256 << 10
	keptThen = 16 << 10
)

// Run is the process that runs the command of the launch in dir: "agent launch DIR". It returns nil at once if that was begun
// before. It stays as long as anything of what the command has started and lets it write into our files.
func Run(ctx context.Context, dir string) error {
	d := directory(dir)
	lock, err := d.awaitLock(ctx)
	if err != nil || lock == nil {
		return err
	}
	defer lock.Close()
	var it intent
	if err := d.read(intentFile, &it); err != nil {
		return err
	}
	err = d.claim(begunFile, begun{At: time.Now(), PID: os.Getpid()})
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("note that the command is begun: %w", err)
	}
	r := &running{d: d, it: it}
	defer r.close()
	if d.has(cancelFile) {
		return d.write(exitFile, ended{At: time.Now(), ExitCode: -1, Stopped: true})
	}
	if err := r.start(lock); err != nil {
		return d.write(exitFile, ended{At: time.Now(), ExitCode: -1, Error: err.Error()})
	}
	e := r.wait()
	if err := d.write(exitFile, e); err != nil {
		return fmt.Errorf("note how the command has ended: %w", err)
	}
	r.linger()
	return nil
}

// awaitLock takes the lock of the launch, which somebody may hold who looks at it. It returns nil if the launch was begun.
func (d directory) awaitLock(ctx context.Context) (*os.File, error) {
	ctx, stop := context.WithTimeout(ctx, lockLimit)
	defer stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if d.has(begunFile) {
			return nil, nil
		}
		lock, err := d.lock()
		if err == nil || !errors.Is(err, filelock.ErrLocked) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another process has held the launch for %v", lockLimit)
		case <-tick.C:
		}
	}
}

// running is a command that runs.
type running struct {
	d           directory
	it          intent
	cmd         *exec.Cmd
	out, errOut *os.File
}

// start starts the command. Its output goes straight into files: it lives on if this process does not. It inherits the
// lock, so that it is known to run then.
func (r *running) start(lock *os.File) error {
	c := r.it.Command
	stdin, err := r.d.stdin(c.Stdin)
	if err != nil {
		return fmt.Errorf("its standard input: %w", err)
	}
	defer stdin.Close()
	const flags = os.O_CREATE | os.O_RDWR | os.O_APPEND
	if r.out, err = os.OpenFile(r.d.file(stdoutFile), flags, 0o600); err != nil {
		return err
	}
	if r.errOut, err = os.OpenFile(r.d.file(stderrFile), flags, 0o600); err != nil {
		return err
	}
	r.cmd = exec.Command(c.Executable, c.Args...)
	r.cmd.Env = append(batch.Client{}.Environ(r.it.As), c.Environment...)
	r.cmd.Dir = c.Workdir
	if r.cmd.Dir == "" && r.it.As != nil {
		r.cmd.Dir = r.it.As.Home
	}
	if r.cmd.Dir == "" {
		r.cmd.Dir, _ = os.UserHomeDir()
	}
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = stdin, r.out, r.errOut
	inherit(r.cmd, lock)
	if err := own(r.cmd, r.it.As); err != nil {
		return err
	}
	if err := r.cmd.Start(); err != nil {
		return err
	}
	pid := r.cmd.Process.Pid
	_ = r.d.write(processFile, process{PID: pid, Start: startOf(pid)}) // only for ending it without us
	return nil
}

// stdin returns a file with text to read, without a name.
func (d directory) stdin(text string) (*os.File, error) {
	f, err := os.CreateTemp(string(d), ".stdin.*")
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(f, text)
	err = errors.Join(err, os.Remove(f.Name()))
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// wait waits until the command ends, and sees to it that it does when it has to.
func (r *running) wait() ended {
	done := make(chan error, 1)
	go func() { done <- r.cmd.Wait() }()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	var timeout, kill <-chan time.Time
	if r.it.Command.Timeout > 0 {
		timer := time.NewTimer(r.it.Command.Timeout)
		defer timer.Stop()
		timeout = timer.C
	}
	var e ended
	for {
		select {
		case err := <-done:
			return r.outcome(e, err)
		case <-timeout:
			e.TimedOut = true
		case <-kill:
			killGroup(r.cmd)
		case <-tick.C:
			r.bound()
			if r.d.has(cancelFile) {
				e.Stopped = true
			}
		}
		if (e.TimedOut || e.Stopped) && kill == nil {
			terminateGroup(r.cmd)
			timer := time.NewTimer(killAfter)
			defer timer.Stop()
			kill = timer.C
		}
	}
}

// outcome completes what is known of an ended command. What it leaves behind when it was told to end goes too.
func (r *running) outcome(e ended, err error) ended {
	e.At = time.Now()
	e.Stopped = e.Stopped || r.d.has(cancelFile)
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case ok:
		e.ExitCode, e.Signal = exit.ExitCode(), signalOf(exit)
	case err != nil:
		e.ExitCode, e.Error = -1, err.Error()
	}
	if e.TimedOut || e.Stopped {
		killGroup(r.cmd)
	}
	r.bound()
	return e
}

// linger bounds what is written by what the command has left behind in its group, until that ends or is cancelled.
func (r *running) linger() {
	tick := time.NewTicker(10 * pace)
	defer tick.Stop()
	for groupLives(r.cmd) {
		r.bound()
		if r.d.has(cancelFile) {
			killGroup(r.cmd)
		}
		<-tick.C
	}
}

// bound keeps the files with the output from growing, and a job that is named in what goes.
func (r *running) bound() {
	for _, f := range []*os.File{r.out, r.errOut} {
		if size := sizeOf(f); size > mostKept {
			r.shorten(f, size)
		}
	}
}

// shorten leaves the end of a file. What is written to it meanwhile is looked at too: only what comes between the last look
// and the cut, moments later, is lost.
func (r *running) shorten(f *os.File, size int64) {
	const looks = 10
	from := int64(0)
	for range looks {
		if h, ok := recognise(r.it.Command.Executable, io.NewSectionReader(f, from, size-from)); ok {
			_ = r.d.write(foundFile, h) // a second chance only: it is in the output too, if it comes at its end
		}
		from = max(0, size-mostLine) // a line may have been cut there
		now := sizeOf(f)
		if now == size {
			break
		}
		size = now
	}
	end := make([]byte, keptThen)
	n, _ := f.ReadAt(end, size-keptThen)
	_ = f.Truncate(0)
	if _, rest, whole := strings.Cut(string(end[:n]), "\n"); whole {
		_, _ = io.WriteString(f, rest)
	}
}

func sizeOf(f *os.File) int64 {
	st, err := f.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}

func (r *running) close() {
	for _, f := range []*os.File{r.out, r.errOut} {
		if f != nil {
			_ = f.Close()
		}
	}
}
