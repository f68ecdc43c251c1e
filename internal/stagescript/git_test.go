package stagescript_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/stagescript"
)

// The sources come, and come anew for the next job, whatever the job before has done; nothing of the token is left in
// the repository or in a process list, and commands of the job's own can log in.
func TestSources(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		r := newRemote(t)
		work := r.repo(t, "group/project.git")
		first := sh(t, work, "git rev-parse HEAD")
		p.phase.Server.URL = r.URL
		out := p.must(r.sources("fetch", "group/project.git", first))
		for _, want := range []string{"Fetching changes with git depth set to 20...", "Created fresh repository.", "Checking out " + first[:8] + " as detached HEAD (ref is main)...", "Skipping Git submodules setup"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
		if got := read(t, p.project("file")); got != "one\n" {
			t.Errorf("file: %q", got)
		}
		second := commit(t, work, "echo two >file")
		for _, broken := range []string{"file", "left", "x.o"} {
			write(t, p.project(broken), "of the job before")
		}
		for _, lock := range []string{".git/index.lock", ".git/refs/heads/x.lock", ".git/hooks/post-checkout", ".git/config.lock"} {
			write(t, p.project(lock), "exit 1")
		}
		out = p.must(r.sources("fetch", "group/project.git", second))
		if got := read(t, p.project("file")); got != "two\n" || exists(p.project("left")) || exists(p.project("x.o")) || strings.Contains(out, "fresh") {
			t.Errorf("file: %q\n%s", got, out)
		}
		if out, code := p.run(script("git fetch -q origin main", "git remote get-url origin"), stagescript.Around{}); code != 0 || strings.Contains(out, token) {
			t.Errorf("the job's own git: exit code %d\n%s", code, out)
		}
		if strings.Contains(read(t, p.project(".git/config")), token) {
			t.Error("the token is in the repository's settings")
		}
		write(t, p.project("left"), "x")
		third := commit(t, work, "echo three >file")
		p.must(r.sources("clone", "group/project.git", third))
		if got := read(t, p.project("file")); got != "three\n" || exists(p.project("left")) {
			t.Errorf("after clone: %q", got)
		}
		p.must(tranter.Step{Name: "cleanup_file_variables", Cleanup: &tranter.CleanupStep{Strategy: "clone"}})
		if exists(p.phase.Dirs.Temp) {
			t.Error("the directory with the credentials is still there")
		}
		r.check(t)
	})
}

func TestSourcesThatCannotBeHad(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		r := newRemote(t)
		r.repo(t, "group/project.git")
		s := r.sources("fetch", "group/none.git", "")
		if out, code := p.run(s, stagescript.Around{}); code == 0 {
			t.Errorf("no failure:\n%s", out)
		}
		s = r.sources("fetch", "group/project.git", "")
		s.Sources.Password = "wrong"
		if out, code := p.run(s, stagescript.Around{}); code == 0 || strings.Contains(out, "wrong") {
			t.Errorf("no failure, or with the password:\n%s", out)
		}
		p.program("git", "echo 'the broken git of the job' >&2; exit 9")
		if out, code := p.run(s, stagescript.Around{}); code != 9 {
			t.Errorf("exit code %d\n%s", code, out)
		}
	})
}

// With the first try failed, the tree is made ready for another; a repository that is broken goes.
func TestClearWorktree(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		r := newRemote(t)
		work := r.repo(t, "group/project.git")
		s := r.sources("fetch", "group/project.git", sh(t, work, "git rev-parse HEAD"))
		if out, code := p.text(stagescript.Clear(&p.phase)); code != 0 {
			t.Errorf("of nothing: exit code %d\n%s", code, out)
		}
		p.must(s)
		write(t, p.project("left"), "x")
		if out, code := p.text(stagescript.Clear(&p.phase)); code != 0 || exists(p.project("left")) || exists(p.project("file")) || !exists(p.project(".git")) {
			t.Errorf("exit code %d, or files are left\n%s", code, out)
		}
		p.must(s)
		write(t, p.project(".git/HEAD"), "broken")
		if out, code := p.text(stagescript.Clear(&p.phase)); code != 0 || exists(p.project(".git")) {
			t.Errorf("exit code %d, or the broken repository is left\n%s", code, out)
		}
		p.must(s)
	})
}

// What hooks export holds for the fetch: they are often there to set git up.
func TestHooks(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		r := newRemote(t)
		work := r.repo(t, "group/project.git")
		s := r.sources("fetch", "group/project.git", sh(t, work, "git rev-parse HEAD"))
		s.Sources.PreScripts = []string{"echo \"it's pre\"\nexport SET_BY_HOOK=yes", "git config --global user.name hooked"}
		s.Sources.PostScripts = []string{`echo "post: $SET_BY_HOOK $(cat file)"`}
		if out := p.must(s); !strings.Contains(out, "\nit's pre\n") || !strings.Contains(out, "\npost: yes one\n") {
			t.Error(out)
		}
		s.Sources.PreScripts = []string{"(exit 5)"}
		if out, code := p.run(s, stagescript.Around{}); code != 5 {
			t.Errorf("exit code %d\n%s", code, out)
		}
		s.Sources.PreScripts = []string{"if true"}
		if out, code := p.run(s, stagescript.Around{}); code == 0 {
			t.Errorf("a hook that is no shell code:\n%s", out)
		}
	})
}

func TestSubmodules(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		r := newRemote(t)
		inner, sub, top := r.repo(t, "inner.git"), r.repo(t, "sub.git"), r.repo(t, "top.git")
		_ = inner
		add := func(work, what string) string {
			return commit(t, work, "git -c http.extraHeader='Authorization: Basic "+basic+"' -c protocol.file.allow=always submodule --quiet add '"+r.URL+"/"+what+"' 'a "+what+"'")
		}
		add(sub, "inner.git")
		sha := add(top, "sub.git")
		s := r.sources("fetch", "top.git", sha)
		s.Sources.Submodules = tranter.Submodule{Strategy: "recursive"}
		if out := p.must(s); !strings.Contains(out, "Updated submodules") || read(t, p.project("a sub.git/a inner.git/file")) != "one\n" {
			t.Errorf("no submodules:\n%s", out)
		}
		write(t, p.project("a sub.git/left"), "x")
		write(t, p.project("a sub.git/file"), "changed")
		p.must(s)
		if exists(p.project("a sub.git/left")) || read(t, p.project("a sub.git/file")) != "one\n" {
			t.Error("what a job has done in a submodule is left")
		}
		if out, code := p.run(script("cd 'a sub.git/a inner.git'", "git fetch -q origin main"), stagescript.Around{}); code != 0 {
			t.Errorf("a job can't log in from a submodule:\n%s", out)
		}
		s.Sources.Submodules = tranter.Submodule{Strategy: "normal", Paths: []string{":(exclude)a sub.git"}}
		if err := os.RemoveAll(p.phase.Dirs.Project); err != nil {
			t.Fatal(err)
		}
		p.must(s)
		if exists(p.project("a sub.git/file")) {
			t.Error("a submodule that was not asked for is here")
		}
		r.check(t)
	})
}

// basic is the login, for git commands of the tests' own.
const basic = "Z2l0bGFiLWNpLXRva2VuOmdsY2J0LTY0X3MzY3JldFRva2VuT2ZUaGVKb2I="

func TestCleanupOfTheWorkingTree(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		r := newRemote(t)
		work := r.repo(t, "group/project.git")
		p.must(r.sources("fetch", "group/project.git", sh(t, work, "git rev-parse HEAD")))
		write(t, p.project("left"), "x")
		write(t, p.project("file"), "changed")
		p.must(tranter.Step{Name: "cleanup_file_variables", Cleanup: &tranter.CleanupStep{Strategy: "fetch", CleanFlags: []string{"-ffdx"}}})
		if !exists(p.project("left")) {
			t.Error("cleaned without having been asked")
		}
		p.must(tranter.Step{Name: "cleanup_file_variables", Cleanup: &tranter.CleanupStep{Strategy: "fetch", CleanFlags: []string{"-ffdx"}, WipeBuild: true}})
		if exists(p.project("left")) || read(t, p.project("file")) != "one\n" {
			t.Error("the job's changes are left")
		}
		p.must(tranter.Step{Name: "cleanup_file_variables", Cleanup: &tranter.CleanupStep{Strategy: "clone", WipeBuild: true}})
		if exists(p.phase.Dirs.Project) {
			t.Error("the project is left")
		}
	})
}

func TestSafeDirectoryIsAddedOnce(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		r := newRemote(t)
		work := r.repo(t, "group/project.git")
		s := r.sources("fetch", "group/project.git", sh(t, work, "git rev-parse HEAD"))
		s.Sources.SafeDirectory = true
		p.must(s)
		p.must(s)
		if text := read(t, filepath.Join(p.dir, "home", ".gitconfig")); strings.Count(text, p.phase.Dirs.Project) != 1 {
			t.Error(text)
		}
	})
}
