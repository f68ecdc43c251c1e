package apptainer

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/variables"
)

// Reference is what the session's Ref gives that has dir as SessionSpec.Dir.
func Reference(dir string) json.RawMessage {
	data, _ := json.Marshal(reference{Box: dir})
	return data
}

// Command returns the command that runs argv in the container of the session that ref names, or on the host if the job
// names no image. It is for who runs scripts by itself, as a custom executor does. What it starts, Remove ends.
func (e *Executor) Command(ctx context.Context, ref json.RawMessage, argv []string) (cmd *exec.Cmd, inside bool, err error) {
	s, err := e.reopen(ctx, ref)
	if err != nil {
		return nil, false, err
	}
	for _, img := range s.images { // it stays while it is used, as its mounts do
		defer img.Release()
	}
	mark := s.box(runMark)
	if err := os.MkdirAll(mark, 0o700); err != nil {
		return nil, false, fmt.Errorf("make the job's directory: %w", err)
	}
	made := invocation{Argv: argv, Env: append(slices.Clip(e.outside.Env), marker+"="+mark)}
	if s.state.Container != nil {
		if made, err = s.command(mark, argv); err != nil {
			return nil, false, err
		}
	}
	cmd = exec.CommandContext(ctx, made.Argv[0], made.Argv[1:]...) //nolint:gosec // the runtime of the configuration
	cmd.Env = made.Env
	cmd.Dir = s.dir
	tied(cmd)
	cmd.Cancel = func() error {
		terminate(cmd.Process.Pid)
		return nil
	}
	return cmd, s.state.Container != nil, nil
}

// Outside is the environment of what runs on the host for a job.
func (e *Executor) Outside() []string {
	return slices.Clone(e.outside.Env)
}

// Remove ends and removes the session that has dir as SessionSpec.Dir, as far as there is one.
func (e *Executor) Remove(ctx context.Context, dir string) error {
	s := &session{executor: e, dir: dir}
	_ = s.load() // there may be nothing, or half of it
	return s.Close(ctx)
}

var _ tranter.Sweeper = (*Executor)(nil)

// Describe is the configuration's description for a job with the given variables.
func (e *Executor) Describe(list []tranter.Variable) string {
	s := settings{job: variables.List(list), env: os.LookupEnv}
	return cut(strings.Map(printable, s.expand(e.options.Settings.Description)))
}
