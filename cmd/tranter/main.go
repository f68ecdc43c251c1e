// Command tranter runs GitLab CI jobs: the manager, the agent inside environments, and the local coordinator are all
// this one binary. Package main holds flags, wiring, signals and exit codes, one file per subcommand, and no decisions.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Set by the linker; see the Makefile.
var (
	version = "dev"
	commit  = "unknown" //nolint:gochecknoglobals // the linker sets variables only
	date    = "unknown" //nolint:gochecknoglobals // the linker sets variables only
)

// streams are the standard streams of a command, replaced by tests.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// exitError carries an exit code to main. With a nil Err nothing more is printed: the command has said it all.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() {
	if filepath.Base(os.Args[0]) == workerName {
		os.Exit(runWorker(context.Background(), os.Stderr))
	}
	os.Exit(run(context.Background(), os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}

// run carries out one command line and returns its exit code: 0, 1 for an error, or what the command asked for.
func run(ctx context.Context, args []string, s streams) int {
	err := execute(ctx, args, s)
	if err == nil {
		return 0
	}
	code := 1
	if exit, ok := errors.AsType[*exitError](err); ok {
		code = exit.code
		if exit.err == nil {
			return code
		}
	}
	fmt.Fprintf(s.err, "tranter: %v\n", err)
	return code
}

// execute carries out one command line. An agent starts with each phase of each job and is there as long as it: it does
// without the tree of commands, which takes half of its own memory.
func execute(ctx context.Context, args []string, s streams) error {
	if dir, ok := agentRun(args); ok {
		return runAgent(ctx, dir)
	}
	if len(args) > 1 && args[0] == "agent" && (args[1] == "serve" || args[1] == "connect") {
		return linkAgent(ctx, args[1], args[2:], s)
	}
	root := newRoot(s) //nolint:contextcheck // commands get ctx by ExecuteContext
	root.SetArgs(doubleDashes(root, args))
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	return root.ExecuteContext(ctx)
}
