package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
)

// blocking are the errors among problems that make a file unfit for being read as a list of runners, and for being
// changed. A runner whose executor is not built yet may well be registered, verified and removed.
func blocking(problems []config.Problem) problemList {
	var out problemList
	for _, p := range problems {
		if p.Severity == config.Error && !p.NotBuilt {
			out = append(out, p)
		}
	}
	return out
}

// runnersFile is a configuration file as a list of runners.
type runnersFile struct {
	path   string
	config config.Config // with the values that $VAR and token_file refer to
	faults map[int]error // by the index of a runner: why such a value can't be had
}

// readRunners reads the file at path, which may be missing if there may be no runners. A file with errors is an error
// that lists them; what $VAR and token_file refer to concerns only the runner that has them.
func readRunners(path string, mayBeMissing bool) (runnersFile, error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && mayBeMissing:
	case errors.Is(err, fs.ErrNotExist):
		return runnersFile{}, fmt.Errorf("there is no configuration %s: name another with --config", path)
	case err != nil:
		return runnersFile{}, fmt.Errorf("read the configuration: %w", err)
	}
	if _, err := parseWritten(path, data); err != nil {
		return runnersFile{}, err
	}
	f := runnersFile{path: path, faults: map[int]error{}}
	var problems []config.Problem
	f.config, problems = config.Parse(config.Source{Name: path, Data: data, Getenv: os.Getenv, ReadFile: os.ReadFile})
	for _, p := range blocking(problems) {
		for _, r := range slices.Backward(f.config.Runners) {
			if r.Line <= p.Line {
				f.faults[r.Index] = problemList{p}
				break
			}
		}
	}
	return f, nil
}

// parseWritten parses a file as it is written, without looking up what it refers to. A file with errors is an error.
func parseWritten(path string, data []byte) (config.Config, error) {
	c, problems := config.Parse(config.Source{Name: path, Data: data})
	if found := blocking(problems); len(found) > 0 {
		return c, fmt.Errorf("%w\nthe configuration has errors and is left as it is: correct them first", found)
	}
	return c, nil
}

// sameSection tells whether two runners, read at different times, are the same section of the file.
func sameSection(a, b config.Runner) bool {
	return a.Raw == b.Raw && a.Name == b.Name
}

// configEdit is a change of a configuration file. It gets the settings of the file as it is written now.
type configEdit func(*config.Editor, config.Config) error

// editConfig changes the file at path in one step: whoever reads it finds the old content or the new one. What the edit
// does not touch stays as it is, byte for byte. A file with errors is not touched, and no edit may bring one in.
func editConfig(ctx context.Context, path string, do configEdit) error {
	path, err := followLinks(path)
	if err != nil {
		return fmt.Errorf("change the configuration: %w", err)
	}
	unlock, err := lockDir(ctx, filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("change the configuration: %w", err)
	}
	defer unlock()
	old, changed, err := edited(path, do)
	if err != nil || bytes.Equal(old, changed) {
		return err
	}
	if err := replaceFile(path, changed); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}

// edited returns the content of the file at path before and after an edit. It writes nothing.
func edited(path string, do configEdit) (old, changed []byte, err error) {
	old, err = os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("read the configuration: %w", err)
	}
	c, err := parseWritten(path, old)
	if err != nil {
		return nil, nil, err
	}
	editor, err := config.Edit(old)
	if err == nil {
		err = do(editor, c)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("change %s: %w", path, err)
	}
	changed = editor.Bytes()
	if _, err := parseWritten(path, changed); err != nil {
		return nil, nil, fmt.Errorf("the changed configuration would not be right: %w", err)
	}
	return old, changed, nil
}

// removeSections removes the sections of runners from the file.
func removeSections(ctx context.Context, path string, runners []config.Runner) error {
	if len(runners) == 0 {
		return nil
	}
	return editConfig(ctx, path, func(e *config.Editor, c config.Config) error {
		for _, r := range slices.Backward(c.Runners) {
			gone := slices.ContainsFunc(runners, func(other config.Runner) bool { return sameSection(other, r) })
			if !gone {
				continue
			}
			if err := e.RemoveRunner(r.Index); err != nil {
				return err
			}
		}
		return nil
	})
}

// followLinks returns the file that a path stands for, so that a symbolic link stays one when its file is replaced.
func followLinks(path string) (string, error) {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	return target, err
}

// replaceFile writes a file of mode 0600 in one step, so that a crash leaves the old content or the new one. The owner
// of a file that is replaced stays.
func replaceFile(path string, data []byte) (err error) {
	old, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), "."+strings.TrimPrefix(filepath.Base(path), ".")+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if old != nil {
		if err = keepOwner(old, temp.Name()); err != nil {
			return err
		}
	}
	if err = os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// writableBeside tries whether replaceFile can write the file at path.
func writableBeside(path string) error {
	trial, err := os.CreateTemp(filepath.Dir(path), ".trial-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return errors.Join(trial.Close(), os.Remove(trial.Name()))
}

// tokenFilePath is where a runner's token_file is.
func tokenFilePath(path string, r config.Runner) string {
	if filepath.IsAbs(r.TokenFile) {
		return r.TokenFile
	}
	return filepath.Join(filepath.Dir(path), r.TokenFile)
}

// expanded tells whether a runner's token is written as a reference to the environment, where no new one can be put.
func expanded(r config.Runner) bool {
	return r.TokenFile == "" && strings.Contains(r.Raw.Token.Reveal(), "$")
}

// createdToken tells whether a token is that of a runner that was created in GitLab (contract 1.4).
func createdToken(t tranter.Secret) bool { return strings.HasPrefix(t.Reveal(), "glrt-") }
