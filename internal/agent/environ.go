package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/env"
	"github.com/tranter-ci/tranter/internal/agent/script"
	"github.com/tranter-ci/tranter/internal/joblog"
)

// environment keeps up to date what the job's programs see of variables.
type environment struct {
	phase *tranter.Phase
	log   *joblog.Log
	env   *env.Env // whose Environ it sets
}

// gitlabEnv is the file in which a job sets variables for its later stages (runner contract, section 5.4).
func (e *environment) gitlabEnv() string {
	return filepath.Join(e.phase.Dirs.Temp, "gitlab_runner_env")
}

// refresh brings the environment for the next step up to date and writes file variables that are not there.
func (e *environment) refresh() error {
	environ, err := e.compose(e.fileVariable)
	if err != nil {
		return err
	}
	e.env.Environ = environ
	return nil
}

// compose returns the environment as it is now; file gives the path of a file variable.
func (e *environment) compose(file func(tranter.Variable) (string, error)) ([]string, error) {
	environ := e.plain()
	for _, v := range e.phase.Variables {
		value := v.Value
		if v.File {
			path, err := file(v)
			if err != nil {
				return nil, err
			}
			value = path
		}
		if !strings.ContainsRune(v.Key+value, 0) && v.Key != "" && !strings.Contains(v.Key, "=") {
			environ = append(environ, v.Key+"="+value)
		}
	}
	environ = append(environ, "GITLAB_ENV="+e.gitlabEnv())
	return append(environ, e.readGitlabEnv()...), nil
}

// fileVariable writes a file variable and returns its path.
func (e *environment) fileVariable(v tranter.Variable) (string, error) {
	if v.Key == "" || v.Key != filepath.Base(v.Key) || !filepath.IsLocal(v.Key) {
		return "", &tranter.ConfigError{Err: fmt.Errorf("the file variable %q can't be the name of a file", v.Key)}
	}
	path := filepath.Join(e.phase.Dirs.Temp, v.Key)
	if old, err := os.ReadFile(path); err == nil && string(old) == v.Value {
		return path, nil
	}
	if err := makeTemp(e.phase); err != nil {
		return "", fmt.Errorf("write the file variable %s: %w", v.Key, err)
	}
	_ = os.Remove(path) // it may be a link by now
	if err := e.listFileVariable(v.Key); err != nil {
		return "", fmt.Errorf("write the file variable %s: %w", v.Key, err)
	}
	if err := e.writeFile(path, v.Value); err != nil {
		return "", fmt.Errorf("write the file variable %s: %w", v.Key, err)
	}
	return path, nil
}

// writeFile writes a file for the job's programs.
func (e *environment) writeFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	e.share(f)
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// share lets the users of the job's other containers read and write a file. One that is another user's is shared already.
func (e *environment) share(f *os.File) {
	if shared(e.phase) {
		_ = f.Chmod(0o666)
	}
}

// shared says whether users of other containers have to use the job's files.
func shared(p *tranter.Phase) bool { return p.Container != nil && p.Container.Shared }

// listFileVariable keeps the name of a file variable, for a later job to remove the file if this agent is killed.
func (e *environment) listFileVariable(name string) error {
	list, err := os.OpenFile(filepath.Join(e.phase.Dirs.Temp, env.FileVariables), os.O_WRONLY|os.O_CREATE|os.O_APPEND|noTricks, 0o600)
	if err != nil {
		return err
	}
	e.share(list)
	_, err = list.WriteString(name + "\n")
	return errors.Join(err, list.Close())
}

// removeLeftFileVariables removes those of an earlier job whose agent was killed, so that this job can't read them.
func (e *environment) removeLeftFileVariables() error {
	list, err := os.ReadFile(filepath.Join(e.phase.Dirs.Temp, env.FileVariables))
	if err != nil {
		return nil //nolint:nilerr // there mostly is none
	}
	ours := func(name string) bool {
		return slices.ContainsFunc(e.phase.Variables, func(v tranter.Variable) bool { return v.File && v.Key == name })
	}
	var errs []error
	for name := range strings.FieldsFuncSeq(string(list), func(c rune) bool { return c == '\n' }) {
		if name != filepath.Base(name) || !filepath.IsLocal(name) || ours(name) {
			continue
		}
		if err := os.Remove(filepath.Join(e.phase.Dirs.Temp, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove a file variable of an earlier job: %w", err))
		}
	}
	return errors.Join(errs...)
}

// makeTemp makes the job's temporary directory and the directories above it. Others have no business in it, but for users
// of the job's other containers, who have to be able to write and to remove what is there.
func makeTemp(p *tranter.Phase) error {
	dir := p.Dirs.Temp
	if err := os.MkdirAll(filepath.Dir(dir), 0o777); err != nil { //nolint:gosec // as a shell would make it
		return err
	}
	err := os.Mkdir(dir, 0o700)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if !shared(p) {
		return nil
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() { // a job can have put a link there
		return fmt.Errorf("%s is not a directory any more: remove it from the builds volume", dir)
	}
	if info.Mode().Perm() != 0o777 {
		if err := os.Chmod(dir, 0o777); err != nil && !errors.Is(err, os.ErrPermission) { //nolint:gosec // see above
			return err
		}
	}
	return nil
}

// readGitlabEnv returns the KEY=VALUE lines that the job has written for its later stages.
func (e *environment) readGitlabEnv() []string {
	data, err := os.ReadFile(e.gitlabEnv())
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.SplitSeq(string(data), "\n") {
		line = strings.TrimSuffix(line, "\r")
		key, _, ok := strings.Cut(line, "=")
		if line == "" {
			continue
		}
		if !ok || !script.Exportable(key) || strings.ContainsRune(line, 0) {
			e.log.Warning("ignored a line of $GITLAB_ENV that is not KEY=VALUE")
			continue
		}
		out = append(out, line)
	}
	return out
}

// adopt takes into the step's environment what a hook has changed or added in its own, which left holds (runner contract,
// section 6.1: hooks and git are commands of one shell).
func (e *environment) adopt(left io.Reader) error {
	data, err := io.ReadAll(left)
	if err != nil {
		return fmt.Errorf("read what the hook exports: %w", err)
	}
	for kv := range strings.SplitSeq(string(data), "\x00") {
		key, value, _ := strings.Cut(kv, "=")
		if !script.Exportable(key) || slices.Contains([]string{"_", "PWD", "OLDPWD", "SHLVL"}, key) {
			continue
		}
		if old, known := e.env.Lookup(key); !known || old != value {
			e.env.Environ = append(e.env.Environ, kv)
		}
	}
	return nil
}

// plain returns the environment that the agent itself was given. In a container it may have variables of ours.
func (e *environment) plain() []string {
	environ := os.Environ()
	if e.phase.Container != nil {
		environ = slices.DeleteFunc(environ, func(kv string) bool { return strings.HasPrefix(kv, "TRANTER_") })
	}
	return environ
}

// scriptEnviron returns the environment that a shell starts with: the agent's own, and the job's variables whose names
// no script can export.
func (e *environment) scriptEnviron() []string {
	environ := e.plain()
	for _, kv := range e.env.Environ[len(environ):] {
		if key, _, _ := strings.Cut(kv, "="); !script.Exportable(key) {
			environ = append(environ, kv)
		}
	}
	return environ
}

// exports returns what a script exports: all variables of the step's environment that are not the agent's own, the last
// of each, in order.
func (e *environment) exports() []script.Variable {
	all := e.env.Environ[len(e.plain()):]
	last := make(map[string]int, len(all))
	for i, kv := range all {
		key, _, _ := strings.Cut(kv, "=")
		last[key] = i
	}
	out := make([]script.Variable, 0, len(last))
	for i, kv := range all {
		if key, value, _ := strings.Cut(kv, "="); last[key] == i {
			out = append(out, script.Variable{Key: key, Value: value})
		}
	}
	return out
}
