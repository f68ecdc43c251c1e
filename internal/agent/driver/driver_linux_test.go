package driver_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/driver"
)

func TestEndKindlyOrByForce(t *testing.T) {
	t.Parallel()
	over := errors.New("over")
	for name, c := range map[string]struct {
		script string
		grace  time.Duration
		least  time.Duration
	}{
		"kindly":   {`trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.01; done`, time.Minute, 0},
		"by force": {`trap 'echo asked' TERM; echo ready; while :; do sleep 0.01; done`, 300 * time.Millisecond, 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			var began time.Time
			out := &watched{text: "ready", seen: func() { began = time.Now(); cancel(over) }}
			err := driver.Run(ctx, driver.Program{Path: "bash", Args: []string{"-c", c.script}, Stdout: out, Stderr: out, Grace: c.grace})
			if took := time.Since(began); !errors.Is(err, over) || took < c.least || took > 20*time.Second {
				t.Errorf("after %v: %v", took, err)
			}
			if !strings.Contains(out.String(), "asked") {
				t.Errorf("it was not asked to end: %q", out.String())
			}
		})
	}
}

// watched tells when a text was written to it.
type watched struct {
	buffer bytes.Buffer // not embedded: its ReadFrom would go round Write

	text string
	seen func()
}

func (w *watched) Write(p []byte) (int, error) {
	before := strings.Contains(w.String(), w.text)
	n, err := w.buffer.Write(p)
	if !before && strings.Contains(w.String(), w.text) {
		w.seen()
	}
	return n, err
}

func (w *watched) String() string { return w.buffer.String() }

func TestNothingStartsTooLate(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	cancel(over)
	file := filepath.Join(t.TempDir(), "ran")
	if err := driver.Run(ctx, driver.Program{Path: "touch", Args: []string{file}}); !errors.Is(err, over) {
		t.Error(err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("it has run")
	}
}

// The exit code's file may be anything, and is read as what a driver means it to be.
func TestExitCodeFile(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": -1, "0": 0, " 12 \r\n": 12, "137\nrest": 137, "1.5": -1, strings.Repeat("9", 1000): -1} {
		file := filepath.Join(t.TempDir(), "code")
		err := driver.Run(t.Context(), driver.Program{
			Path: "sh", Args: []string{"-c", `printf '%s' "$TEXT" >"$FILE"; exit 1`}, Env: append(os.Environ(), "TEXT="+text, "FILE="+file), Exit: file,
		})
		build, ok := errors.AsType[*tranter.BuildError](err)
		if ok != (want >= 0) || ok && build.ExitCode != want {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func TestStrayProgramIsEnded(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", `trap '' TERM; while :; do sleep 0.01; done`)
	cmd.Env = append(os.Environ(), "TMPDIR=/the/one")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	driver.EndStray(t.Context(), cmd.Process.Pid, "TMPDIR=/the/other", 10*time.Millisecond)
	select {
	case <-ended:
		t.Fatal("another process was ended")
	case <-time.After(100 * time.Millisecond):
	}
	driver.EndStray(t.Context(), cmd.Process.Pid, "TMPDIR=/the/one", 100*time.Millisecond)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("it still runs")
	}
}
