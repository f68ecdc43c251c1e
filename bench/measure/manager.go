//go:build linux

package measure

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Manager is the built program as a runner ("tranter run"), with what it logs as JSON.
type Manager struct {
	Log Log

	cmd    *exec.Cmd
	over   bool
	ended  chan error
	cpu    time.Duration // of the manager and what it had started, once it has ended
	memory float64       // most of the manager, MB
}

// Start starts a manager with the given arguments, and additions to the environment.
func Start(program string, args, environment []string) (*Manager, error) {
	m := &Manager{ended: make(chan error, 1)}
	m.cmd = exec.Command(program, args...)
	m.cmd.Env = append(os.Environ(), environment...)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this process, which stops it
	out, err := m.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	m.cmd.Stdout = os.Stderr
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		m.Log.read(out)
		m.ended <- m.cmd.Wait()
	}()
	return m, nil
}

// Stop ends the manager. A second call does nothing.
func (m *Manager) Stop() error {
	if m == nil || m.over {
		return nil
	}
	m.over = true
	m.memory = float64(MemoryOf(m.cmd.Process.Pid).Peak) / 1e6
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	const patience = 30 * time.Second
	timer := time.AfterFunc(patience, func() { _ = m.cmd.Process.Kill() })
	err := <-m.ended
	timer.Stop()
	if p := m.cmd.ProcessState; p != nil {
		m.cpu = p.UserTime() + p.SystemTime()
	}
	if err != nil {
		return fmt.Errorf("the manager: %w\n%s", err, m.Log.String())
	}
	return nil
}

// Taken says what a manager has taken that has ended.
func (m *Manager) Taken() string {
	return fmt.Sprintf("CPU %.2f s, peak RSS %.0f MB", m.cpu.Seconds(), m.memory)
}

// Busy is the processor time so far of the manager and of those that it has started and that have ended.
func (m *Manager) Busy() time.Duration { return Busy(m.cmd.Process.Pid) }

// Busy is the processor time so far of a process, and of its children that have ended; 0 for one that is gone.
func Busy(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	const tick = 10 * time.Millisecond
	var ticks int64
	for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
		n, _ := strconv.ParseInt(string(fields[i]), 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * tick
}

// Await waits until the manager has logged a message so many times, and returns those lines.
func (m *Manager) Await(ctx context.Context, message string, count int) ([]Line, error) {
	const limit = 3 * time.Minute
	ctx, stop := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not logged %d times within %v: %s", count, limit, message))
	defer stop()
	for {
		if found := m.Log.With(message); len(found) >= count {
			return found, nil
		}
		select {
		case err := <-m.ended:
			m.ended <- err
			return nil, fmt.Errorf("the manager has ended: %w\n%s", err, m.Log.String())
		default:
		}
		if err := Pause(ctx, 5*time.Millisecond); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, m.Log.String())
		}
	}
}

// Log is what a manager has logged.
type Log struct {
	mu    sync.Mutex
	lines []Line
	text  bytes.Buffer
}

// Line is one that a manager has logged.
type Line struct {
	At      time.Time `json:"time"`
	Message string    `json:"msg"`
	Machine string    `json:"machine"`
	Steps   string    `json:"steps"`
}

// read takes the log until its end.
func (l *Log) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var parsed Line
		err := json.Unmarshal(lines.Bytes(), &parsed)
		l.mu.Lock()
		l.text.Write(append(lines.Bytes(), '\n'))
		if err == nil {
			l.lines = append(l.lines, parsed)
		}
		l.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, r) // of a line that is too long
}

// With returns the lines of a message.
func (l *Log) With(message string) []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []Line
	for _, one := range l.lines {
		if one.Message == message {
			found = append(found, one)
		}
	}
	return found
}

// String is all that was logged.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
