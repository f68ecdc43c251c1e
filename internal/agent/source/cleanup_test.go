package source_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/source"
)

func TestCleanup(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	lib, work := r.repo(t, "group/lib.git"), r.repo(t, "group/p.git")
	s := fetchOf(r.URL+"/group/p.git", addSubmodule(t, work, lib, "../lib.git", "lib"))
	for _, tt := range []struct {
		step                 tranter.CleanupStep
		file, untracked, lib string
	}{
		{tranter.CleanupStep{Strategy: "fetch", CleanFlags: []string{"-ffdx"}}, "changed", "x", "-"},
		{tranter.CleanupStep{WipeBuild: true, Strategy: "fetch", CleanFlags: []string{"-ffdx"}}, "one", "-", "one"},
		{tranter.CleanupStep{WipeBuild: true, Strategy: "fetch"}, "one", "x", "-"},
		{tranter.CleanupStep{WipeBuild: true, Strategy: "clone"}, "-", "-", "-"},
		{tranter.CleanupStep{WipeBuild: true, Strategy: "empty"}, "-", "-", "-"},
		{tranter.CleanupStep{WipeBuild: true, Strategy: "none"}, "changed", "x", "-"},
	} {
		s.Submodules.Strategy = "none"
		if tt.lib != "-" {
			s.Submodules.Strategy = "normal"
		}
		j := newJob(t, t.TempDir())
		j.get(t, s)
		j.env.Phase.Variables = []tranter.Variable{{Key: "KUBECONFIG", Value: "secret", File: true}, {Key: "../../outside", File: true}}
		temp := j.env.Dirs().Temp
		outside := filepath.Join(filepath.Dir(j.env.Dirs().Builds), "builds", "outside")
		for _, f := range []string{filepath.Join(temp, "KUBECONFIG"), filepath.Join(temp, "gitlab_runner_env"), outside} {
			if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		j.write(t, "file", "changed")
		j.write(t, "untracked", "x")
		if tt.lib != "-" {
			j.write(t, "lib/file", "changed")
		}
		j.write(t, ".git/index.lock", "")
		if tt.step.WipeBuild {
			_ = os.Remove(filepath.Join(j.project(), ".git/index.lock"))
		}
		if err := source.Cleanup(t.Context(), j.env, &tt.step); err != nil {
			t.Errorf("%+v: %v", tt.step, err)
		}
		if f, u, l := j.read(t, "file"), j.read(t, "untracked"), j.read(t, "lib/file"); f != tt.file || u != tt.untracked || l != tt.lib {
			t.Errorf("%+v: file %q, untracked %q, lib %q", tt.step, f, u, l)
		}
		if j.read(t, ".git/index.lock") != "-" {
			t.Errorf("%+v: the lock is still there", tt.step)
		}
		if _, err := os.Stat(temp); !os.IsNotExist(err) {
			t.Errorf("%+v: the temporary directory is still there: %v", tt.step, err)
		}
		if _, err := os.Stat(outside); err != nil {
			t.Errorf("%+v: a file outside was removed: %v", tt.step, err)
		}
	}
}

func TestCleanupOfAJobThatNeverGotSources(t *testing.T) {
	t.Parallel()
	j := newJob(t, t.TempDir())
	for range 2 {
		if err := source.Cleanup(t.Context(), j.env, &tranter.CleanupStep{WipeBuild: true, Strategy: "fetch", CleanFlags: []string{"-ffdx"}}); err != nil {
			t.Error(err)
		}
	}
}

func TestClearWorktree(t *testing.T) {
	t.Parallel()
	bare, dir := filepath.Join(t.TempDir(), "p.git"), t.TempDir()
	s := fetchOf("file://"+bare, head(t, newRepo(t, bare)))
	j := newJob(t, dir)
	if err := source.ClearWorktree(t.Context(), j.env); err != nil {
		t.Errorf("with nothing there: %v", err)
	}
	j.get(t, s)
	j.write(t, "untracked", "x")
	j.write(t, "a.o", "x")
	if err := source.ClearWorktree(t.Context(), j.env); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(j.project())
	if err != nil || len(left) != 1 || left[0].Name() != ".git" {
		t.Errorf("left: %v, %v", left, err)
	}
	newJob(t, dir).get(t, s)
	if j.read(t, "file") != "one" {
		t.Errorf("file is %q", j.read(t, "file"))
	}
	if strings.Contains(j.text(t), "starting over") {
		t.Error("the repository was thrown away")
	}
}

// A job can make its .git lead to a repository elsewhere. The next job neither fails for it nor touches what is there.
func TestRepositoryElsewhere(t *testing.T) {
	t.Parallel()
	bare := filepath.Join(t.TempDir(), "p.git")
	work := newRepo(t, bare)
	before, after := head(t, work), commit(t, work, "echo two >file")
	for name, harm := range map[string]string{
		"by a file": "mv .git ../other; echo 'gitdir: ../other' >.git",
		"by a link": "mv .git ../other; ln -s ../other .git",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			newJob(t, dir).get(t, fetchOf("file://"+bare, before))
			j := newJob(t, dir)
			sh(t, j.project(), harm+"; git -C ../other config mark.of other; touch ../other/index.lock")
			s := fetchOf("file://"+bare, after)
			s.CleanConfig = true
			j.get(t, s)
			if j.read(t, "file") != "two" || sh(t, j.project(), "git status --porcelain") != "" {
				t.Errorf("file is %q; log:\n%s", j.read(t, "file"), j.text(t))
			}
			if got := sh(t, j.project(), "cat ../other/index.lock; git -C ../other rev-parse HEAD; git -C ../other config mark.of"); got != before+"\nother" {
				t.Errorf("the other repository is changed: %s", got)
			}
		})
	}
}
