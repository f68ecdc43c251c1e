package source

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/env"
)

// git runs git for one job.
type git struct {
	env     *env.Env
	project string
	program string
	environ []string
	hide    []string // what no error may show
}

func newGit(e *env.Env) (*git, error) {
	program, err := find(e.Get("PATH"), "git")
	if err != nil {
		return nil, &tranter.ConfigError{Err: errors.New("git is not installed where the job runs: install it, or set GIT_STRATEGY to none")}
	}
	g := &git{env: e, project: e.Dirs().Project, program: program}
	for _, kv := range e.Environ {
		// Git must work on the project's repository, not on one that a caller of ours was busy with.
		switch key, _, _ := strings.Cut(kv, "="); key {
		case "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX":
		default:
			g.environ = append(g.environ, kv)
		}
	}
	g.environ = append(g.environ,
		"GIT_TERMINAL_PROMPT=0", "GCM_INTERACTIVE=Never",
		// With the project's repository missing or broken, one further up must not be taken for it.
		"GIT_CEILING_DIRECTORIES="+filepath.Dir(g.project))
	return g, nil
}

// find looks a program up in the job's PATH.
func find(path, name string) (string, error) {
	if path == "" {
		return exec.LookPath(name)
	}
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			continue
		}
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return filepath.Abs(p)
		}
	}
	return "", exec.ErrNotFound
}

// gitError is git having failed.
type gitError struct {
	doing string
	said  string // the last of its messages
	err   error
}

func (e *gitError) Error() string {
	if e.said == "" {
		return e.doing + ": git failed: " + e.err.Error()
	}
	return e.doing + ": git failed: " + e.said + " (" + e.err.Error() + ")"
}

func (e *gitError) Unwrap() error { return e.err }

// in runs git in dir with its output in the log. The error, when git fails, is a *gitError.
func (g *git) in(ctx context.Context, dir, doing string, args ...string) error {
	stdout, stderr := g.env.Log.Stdout(), g.env.Log.Stderr()
	defer stdout.Close()
	defer stderr.Close()
	last := &tail{}
	cmd := g.command(dir, args)
	cmd.Stdout, cmd.Stderr = stdout, io.MultiWriter(stderr, last)
	return g.judge(g.env.Exec(ctx, cmd), doing, last)
}

// output runs git in dir, "" for anywhere, and returns its standard output.
func (g *git) output(ctx context.Context, dir string, args ...string) (string, error) {
	if dir == "" {
		dir = filepath.Dir(g.project)
	}
	var stdout bytes.Buffer
	last := &tail{}
	cmd := g.command(dir, args)
	cmd.Stdout, cmd.Stderr = &stdout, last
	err := g.env.Exec(ctx, cmd)
	return stdout.String(), g.judge(err, "git "+args[0], last)
}

func (g *git) command(dir string, args []string) *exec.Cmd {
	cmd := exec.Command(g.program, args...) //nolint:noctx // Exec ends the whole process group with ctx
	cmd.Dir, cmd.Env = dir, g.environ
	return cmd
}

func (g *git) judge(err error, doing string, last *tail) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return &gitError{doing: doing, said: g.clean(last.messages()), err: exit}
	}
	return err
}

var userInfo = regexp.MustCompile(`://[^/@\s']*@`)

// clean returns text without credentials.
func (g *git) clean(text string) string {
	text = userInfo.ReplaceAllString(text, "://")
	for _, h := range g.hide {
		if h != "" {
			text = strings.ReplaceAll(text, h, "[MASKED]")
		}
	}
	return text
}

// tail keeps the end of what is written to it.
type tail struct{ data []byte }

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p[max(0, len(p)-tailSize):]...)
	t.data = t.data[max(0, len(t.data)-tailSize):]
	return len(p), nil
}

// messages returns git's errors, or else the last line, as one line.
func (t *tail) messages() string {
	var found []string
	last := ""
	for line := range strings.Lines(string(t.data)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		last = line
		if strings.HasPrefix(line, "fatal: ") || strings.HasPrefix(line, "error: ") || strings.HasPrefix(line, "remote: ") {
			found = append(found, line)
		}
	}
	if len(found) == 0 {
		return last
	}
	return strings.Join(found[max(0, len(found)-3):], "; ")
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
