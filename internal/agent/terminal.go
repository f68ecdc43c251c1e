package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/joblog"
	"github.com/tranter-ci/tranter/internal/terminal"
)

const (
	readyInterval = 50 * time.Millisecond
	// hangUpGrace is what a shell, and the program that holds it, get to end once their user is gone.
	hangUpGrace = 2 * time.Second
	// longestVariable is what the system takes as one variable of an environment.
	longestVariable = 128<<10 - 1
)

// noteReady tells those who wait for a terminal that they can have one: the job is past getting its sources.
func noteReady(r *run, s *tranter.Step) {
	if r.ready || s.Prepare != nil || s.Sources != nil {
		return
	}
	r.ready = true
	if os.Link(r.dir.file(lockFile), r.dir.file(readyFile)) == nil { // another name for a file costs less than another file
		return
	}
	f, err := r.dir.open(readyFile, os.O_CREATE|os.O_WRONLY)
	if err != nil {
		r.log.Warning("interactive terminals can't be opened: %v", err)
		return
	}
	_ = f.Close()
}

// Terminal holds an interactive terminal beside the phase that lies in dir, as package terminal says, from in to out: the
// job's shell in the project directory, with the job's variables. It waits until the job's sources are there, and ends
// with the shell, or when in ends. That there is no terminal is told on out; the error is about the telling.
func Terminal(ctx context.Context, dir string, in *os.File, out io.Writer) error {
	in, err := interruptible(in)
	if err != nil {
		return err
	}
	t, err := openTerminal(ctx, directory(dir))
	if err != nil {
		return terminal.Fail(out, err)
	}
	return terminal.Serve(in, out, t, func() { _ = in.Close() })
}

func openTerminal(ctx context.Context, d directory) (tranter.Terminal, error) {
	phase, err := d.readPhase()
	if err != nil {
		return nil, err
	}
	if err := d.awaitReady(ctx); err != nil {
		return nil, err
	}
	cmd, err := shellCommand(phase)
	if err != nil {
		return nil, err
	}
	return startTerminal(cmd)
}

// awaitReady waits until the job's sources are there.
func (d directory) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	for parent := os.Getppid(); ; {
		switch {
		case d.exists(resultFile), !d.exists(phaseFile):
			return tranter.ErrJobEnded
		case d.exists(readyFile):
			return nil
		case os.Getppid() != parent:
			return errors.New("the manager is gone")
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// shellCommand is the job's shell for a user to type into.
func shellCommand(p *tranter.Phase) (*exec.Cmd, error) {
	program := ""
	for _, name := range []string{p.Shell, "bash", "sh"} {
		if found, err := findShell(p, name); err == nil && program == "" {
			program = found
		}
	}
	if program == "" && p.Container != nil {
		return nil, errNoShell
	}
	if program == "" {
		return nil, fmt.Errorf("no shell: neither %s nor bash nor sh is installed", p.Shell)
	}
	cmd := exec.Command(program)
	if name := filepath.Base(program); p.Login && (name == "bash" || name == "sh") {
		cmd.Args = append(cmd.Args, "-l")
	}
	cmd.Dir = p.Dirs.Project
	if info, err := os.Stat(cmd.Dir); err != nil || !info.IsDir() { // a job without sources may have none
		cmd.Dir = p.Dirs.Builds
	}
	// What is typed may be secret, and the history may be that of somebody who uses this host.
	cmd.Env = append([]string{"TERM=xterm-256color", "HISTFILE=/dev/null"}, terminalEnviron(p)...)
	return cmd, nil
}

// terminalEnviron is what the job's scripts see of variables. File variables are where the job has written them.
func terminalEnviron(p *tranter.Phase) []string {
	e := environment{phase: p, log: joblog.New(io.Discard, tranter.LogFormat{}, time.Now)}
	all, _ := e.compose(func(v tranter.Variable) (string, error) { return filepath.Join(p.Dirs.Temp, filepath.Base(v.Key)), nil })
	environ := all[:0]
	for _, kv := range all {
		// The agent's own terminal, if it has one, is not the user's; and a shell that doesn't start is worth less than one
		// without a variable.
		if !strings.HasPrefix(kv, "TERM=") && len(kv) < longestVariable {
			environ = append(environ, kv)
		}
	}
	return environ
}

// OpenTerminal opens a terminal beside the phase in dir, by starting "agent terminal DIR" as l says. It waits as Terminal
// does. Close of what it returns ends the terminal and waits for that program.
func OpenTerminal(ctx context.Context, dir string, l Launch) (tranter.Terminal, error) {
	d := directory(dir)
	if !d.exists(phaseFile) || d.exists(resultFile) {
		return nil, tranter.ErrJobEnded
	}
	inside, input, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	output, outside, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, inside.Close(), input.Close())
	}
	cmd := exec.Command(l.Argv[0], append(append([]string(nil), l.Argv[1:]...), "agent", "terminal", dir)...)
	cmd.Env = append(append([]string(nil), l.Env...), marker+"="+dir)
	cmd.Dir = dir
	cmd.Stdin, cmd.Stdout = inside, outside
	if err = detach(cmd, l.As); err == nil {
		err = cmd.Start()
	}
	err = errors.Join(err, inside.Close(), outside.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a terminal: %w", err), input.Close(), output.Close())
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // how the shell ended comes on the stream
	}()
	return terminal.Connect(ctx, output, input, func() error {
		err := input.Close()
		limit := time.NewTimer(2 * hangUpGrace)
		defer limit.Stop()
		select {
		case <-ended:
		case <-limit.C:
			_ = cmd.Process.Kill()
			<-ended
		}
		return errors.Join(err, output.Close())
	})
}
