//go:build unix

package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/tranter-ci/tranter"
)

const (
	// The size of a terminal whose user's window is not known: GitLab's page does not tell.
	defaultColumns, defaultRows = 120, 32
	// lastOutput is how long what a shell has printed is still read after its end, while others hold the terminal.
	lastOutput = 200 * time.Millisecond
	// endRepeat is how often a shell is told that there is no more input: a program in between may have taken it.
	endRepeat = 300 * time.Millisecond
	endOfFile = 4 // Ctrl-D
)

// interruptible returns f such that a Read of it ends with its Close.
func interruptible(f *os.File) (*os.File, error) {
	fd := f.Fd()
	if err := unix.SetNonblock(int(fd), true); err != nil { //nolint:gosec // it is a small number
		return nil, fmt.Errorf("read the terminal's input: %w", err)
	}
	return os.NewFile(fd, f.Name()), nil
}

// pollable returns f, which is closed, such that its reads and writes end with its Close, and at a deadline.
func pollable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "terminal"), nil //nolint:gosec // it is a small number
}

// shellTerminal is a shell in a pseudo terminal.
type shellTerminal struct {
	file  *os.File // the master's side
	cmd   *exec.Cmd
	ended chan struct{}
	owned sync.WaitGroup
	close func() error
	stop  chan struct{} // closed by Close
	eof   sync.Once
}

func startTerminal(cmd *exec.Cmd) (tranter.Terminal, error) {
	file, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: defaultColumns, Rows: defaultRows})
	if err != nil {
		return nil, fmt.Errorf("start %s in a terminal: %w", cmd.Path, err)
	}
	file, err = pollable(file)
	if err != nil {
		_ = cmd.Process.Kill()
		return nil, errors.Join(fmt.Errorf("start %s in a terminal: %w", cmd.Path, err), cmd.Wait())
	}
	t := &shellTerminal{file: file, cmd: cmd, ended: make(chan struct{}), stop: make(chan struct{})}
	t.close = sync.OnceValue(t.end)
	t.owned.Go(func() {
		defer close(t.ended)
		_ = cmd.Wait()
		_ = file.SetReadDeadline(time.Now().Add(lastOutput))
	})
	return t, nil
}

// Read gives io.EOF once the shell has ended.
func (t *shellTerminal) Read(p []byte) (int, error) {
	n, err := t.file.Read(p)
	switch {
	case n > 0:
		return n, nil
	case errors.Is(err, unix.EIO), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, os.ErrClosed):
		<-t.ended
		return 0, io.EOF
	}
	return n, err
}

// Write types p.
func (t *shellTerminal) Write(p []byte) (int, error) { return t.file.Write(p) }

// Resize sets the size of the window.
func (t *shellTerminal) Resize(columns, rows uint16) error {
	conn, err := t.file.SyscallConn()
	if err != nil {
		return err
	}
	size := unix.Winsize{Col: columns, Row: rows}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &size) }) //nolint:gosec // it is a small number
	return errors.Join(err, failed)
}

// CloseWrite types the end of input until the shell has minded it.
func (t *shellTerminal) CloseWrite() error {
	t.eof.Do(func() { t.owned.Go(t.typeEnd) })
	return nil
}

func (t *shellTerminal) typeEnd() {
	tick := time.NewTicker(endRepeat)
	defer tick.Stop()
	for {
		if _, err := t.file.Write([]byte{endOfFile}); err != nil {
			return
		}
		select {
		case <-t.ended:
			return
		case <-t.stop:
			return
		case <-tick.C:
		}
	}
}

// ExitCode is that of the shell, or 128 and the number of the signal that has ended it, as shells have it.
func (t *shellTerminal) ExitCode() (int, bool) {
	select {
	case <-t.ended:
	default:
		return 0, false
	}
	if status, ok := t.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), true
	}
	return t.cmd.ProcessState.ExitCode(), true
}

// Close hangs up, as a window that is closed does, and waits until the shell has ended.
func (t *shellTerminal) Close() error { return t.close() }

func (t *shellTerminal) end() error {
	close(t.stop)
	err := t.file.Close()
	limit := time.NewTimer(hangUpGrace)
	defer limit.Stop()
	select {
	case <-t.ended:
	case <-limit.C:
		killGroup(t.cmd)
	}
	t.owned.Wait()
	return err
}
