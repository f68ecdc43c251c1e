// Package env is what a step of a phase sees of the environment that it works in: directories, variables, the log, and
// how to start a process that dies with the step.
//
// It decides nothing and knows no step; package agent fills it, the packages beside it use it.
package env

import (
	"context"
	"os/exec"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/shell"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/joblog"
)

// FileVariables is a file in the job's temporary directory: the names of the file variables there, one a line.
const FileVariables = "tranter-file-variables"

// Env is the environment of one phase. Its methods may be called by one step at a time.
type Env struct {
	Phase *tranter.Phase
	Log   *joblog.Log
	// Environ is the process environment for programs that the agent runs itself, such as git: KEY=VALUE, with the
	// job's variables and with what the job has written to GITLAB_ENV.
	Environ []string
	// Exec runs cmd, whose output the caller has set, in a process group of its own and waits for it. When ctx ends
	// the whole group is ended, first kindly, then by force. An exit code other than 0 is an *exec.ExitError.
	Exec func(ctx context.Context, cmd *exec.Cmd) error
	// Script runs commands in the job's shell, in dir, as a hook does, with its output in the log.
	Script func(ctx context.Context, dir string, commands []string) error
	// Steps tells of the job's steps that have ended so far; nil: nothing is known.
	Steps func() []tranter.StepRecord
}

// Dirs are the job's directories.
func (e *Env) Dirs() tranter.Dirs { return e.Phase.Dirs }

// Lookup returns the value that the environment has for key, the last one if there are several.
func (e *Env) Lookup(key string) (string, bool) {
	for _, kv := range slices.Backward(e.Environ) {
		if k, v, ok := strings.Cut(kv, "="); ok && k == key {
			return v, true
		}
	}
	return "", false
}

// Get returns what Lookup does, or "".
func (e *Env) Get(key string) string {
	v, _ := e.Lookup(key)
	return v
}

// Expand expands s by the rules of a shell ($VAR, ${VAR}, ${VAR:-word}); command substitution is an error (runner
// contract, section 5.2).
func (e *Env) Expand(s string) (string, error) {
	fields, err := shell.Expand(s, e.Get)
	return fields, err
}
