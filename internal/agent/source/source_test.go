package source_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/source"
)

// What an earlier job has left: changes of a tracked file, an untracked and an ignored file, and one in a directory of
// its own.
func TestStrategies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		strategy                            string
		tracked, untracked, ignored, object string // what is found afterwards
		log                                 []string
	}{
		{"clone", "two", "-", "-", "fresh", []string{"Fetching changes...", "Created fresh repository.", "as detached HEAD (ref is main)...", "Skipping Git submodules setup"}},
		{"fetch", "two", "-", "-", "kept", []string{"Fetching changes...", "as detached HEAD (ref is main)...", "Skipping Git submodules setup"}},
		{"none", "changed", "x", "x", "kept", []string{"Skipping Git repository setup"}},
		{"empty", "-", "-", "-", "none", []string{"Skipping Git repository setup"}},
	} {
		t.Run(tt.strategy, func(t *testing.T) {
			t.Parallel()
			bare, dir := filepath.Join(t.TempDir(), "p.git"), t.TempDir()
			work := newRepo(t, bare)
			newJob(t, dir).get(t, fetchOf("file://"+bare, head(t, work)))

			j := newJob(t, dir)
			j.write(t, "file", "changed")
			j.write(t, "sub/untracked", "x")
			j.write(t, "ignored.o", "x")
			j.write(t, ".git/mark", "kept")
			s := fetchOf("file://"+bare, commit(t, work, "echo two >file"))
			s.Strategy = tt.strategy
			j.get(t, s)

			got := []string{j.read(t, "file"), j.read(t, "sub/untracked"), j.read(t, "ignored.o")}
			if want := []string{tt.tracked, tt.untracked, tt.ignored}; strings.Join(got, ",") != strings.Join(want, ",") {
				t.Errorf("the project has %v, want %v", got, want)
			}
			kept := map[string]string{"kept": "kept", "fresh": "-", "none": "-"}[tt.object]
			if mark := j.read(t, ".git/mark"); mark != kept {
				t.Errorf("the repository's directory is not the one that was to be used: mark is %q", mark)
			}
			log, at := j.text(t), 0
			for _, line := range tt.log {
				i := strings.Index(log[at:], line)
				if i < 0 {
					t.Fatalf("%q is not in the log, or not in its place:\n%s", line, log)
				}
				at += i
			}
			if tt.object == "kept" && strings.Contains(log, "Created fresh") {
				t.Errorf("nothing was created:\n%s", log)
			}
		})
	}
}

func TestCheckoutNamesTheCommitShort(t *testing.T) {
	t.Parallel()
	bare := filepath.Join(t.TempDir(), "p.git")
	work := newRepo(t, bare)
	j, sha := newJob(t, t.TempDir()), head(t, work)
	j.get(t, fetchOf("file://"+bare, sha))
	if want := "Checking out " + sha[:8] + " as detached HEAD (ref is main)..."; !strings.Contains(j.text(t), want) {
		t.Errorf("no %q in:\n%s", want, j.text(t))
	}
	if branch, err := shell(t, j.project(), "git symbolic-ref -q HEAD"); err == nil {
		t.Errorf("HEAD is on branch %s", branch)
	}
}

func TestDepth(t *testing.T) {
	t.Parallel()
	bare, dir := filepath.Join(t.TempDir(), "p.git"), t.TempDir()
	work := newRepo(t, bare)
	old := head(t, work)
	for range 4 {
		commit(t, work, "date +%N >file")
	}
	count := func(j *job) string { return sh(t, j.project(), "git rev-list --count HEAD") }

	s := fetchOf("file://"+bare, head(t, work))
	s.Depth = 2
	j := newJob(t, dir)
	j.get(t, s)
	if n := count(j); n != "2" || !strings.Contains(j.text(t), "Fetching changes with git depth set to 2...") {
		t.Errorf("%s commits, want 2; log:\n%s", n, j.text(t))
	}

	s.SHA = old
	err := source.Get(t.Context(), newJob(t, t.TempDir()).env, s)
	if err == nil || !strings.Contains(err.Error(), "GIT_DEPTH") || !strings.Contains(err.Error(), old[:8]) {
		t.Errorf("a commit out of reach: %v; want the commit and the advice to set GIT_DEPTH", err)
	}

	j = newJob(t, dir)
	j.get(t, fetchOf("file://"+bare, head(t, work)))
	if n := count(j); n != "5" {
		t.Errorf("%s commits after a job without depth, want all 5", n)
	}
}

// The remote branch is rewritten and another is deleted, between two jobs in one working tree.
func TestReuseAfterHistoryWasRewritten(t *testing.T) {
	t.Parallel()
	bare, dir := filepath.Join(t.TempDir(), "p.git"), t.TempDir()
	work := newRepo(t, bare)
	commit(t, work, "echo two >file")
	sh(t, work, "git push -q origin HEAD:gone")
	s := fetchOf("file://"+bare, head(t, work))
	s.Refspecs = []string{"+refs/heads/*:refs/remotes/origin/*"}
	newJob(t, dir).get(t, s)

	sh(t, work, "git push -q origin :gone; git reset -q --hard HEAD~1")
	s.SHA = commit(t, work, "echo other >file; mkdir -p gone; echo x >gone/x; git checkout -q -b gone/deeper; git push -q origin gone/deeper; git checkout -q main")
	j := newJob(t, dir)
	j.get(t, s)
	if j.read(t, "file") != "other" || head(t, j.project()) != s.SHA {
		t.Errorf("file is %q at %s", j.read(t, "file"), head(t, j.project()))
	}
	if refs := sh(t, j.project(), "git for-each-ref --format='%(refname)'"); strings.Contains(refs+"\n", "origin/gone\n") {
		t.Errorf("the deleted branch is still there:\n%s", refs)
	}
}

// Starting programs is most of what a small job's sources cost.
func TestFewPrograms(t *testing.T) {
	t.Parallel()
	bare, dir := filepath.Join(t.TempDir(), "p.git"), t.TempDir()
	s := fetchOf("file://"+bare, head(t, newRepo(t, bare)))
	for i, most := range []int{5, 5, 5} {
		path, argv := recorder(t)
		newJob(t, dir, path).get(t, s)
		data, err := os.ReadFile(argv)
		if n := strings.Count(string(data), "\n"); err != nil || n > most {
			t.Errorf("job %d started git %d times, at most %d:\n%s", i, n, most, data)
		}
	}
	// A working tree that somebody else has made is set up once.
	other := filepath.Join(t.TempDir(), "p.git")
	s = fetchOf("file://"+other, commit(t, newRepo(t, other), "echo other >file"))
	j := newJob(t, dir)
	sh(t, j.project(), "git config --add remote.origin.fetch +refs/tags/*:refs/tags/*; git config --add include.path /elsewhere")
	j.get(t, s)
	if j.read(t, "file") != "other" || sh(t, j.project(), "git config --get-all remote.origin.fetch") != "+refs/heads/*:refs/remotes/origin/*" {
		t.Errorf("file %q; log:\n%s", j.read(t, "file"), j.text(t))
	}
	if paths := sh(t, j.project(), "git config --get-all include.path"); !strings.Contains(paths, "/elsewhere") || strings.Count(paths, "\n") != 1 {
		t.Errorf("include.path is %q", paths)
	}
}

func TestLeftoverLocks(t *testing.T) {
	t.Parallel()
	bare, dir := filepath.Join(t.TempDir(), "p.git"), t.TempDir()
	work := newRepo(t, bare)
	newJob(t, dir).get(t, fetchOf("file://"+bare, head(t, work)))
	j := newJob(t, dir)
	for _, name := range []string{"index.lock", "shallow.lock", "HEAD.lock", "config.lock", "refs/remotes/origin/main.lock", "refs/heads/a/b.lock"} {
		j.write(t, ".git/"+name, "")
	}
	j.write(t, ".git/hooks/post-checkout", "#!/bin/sh\necho pwned >hooked\n")
	s := fetchOf("file://"+bare, commit(t, work, "echo two >file"))
	s.CleanFlags = nil
	j.get(t, s)
	if j.read(t, "file") != "two" || strings.Contains(j.text(t), "starting over") {
		t.Errorf("file is %q; log:\n%s", j.read(t, "file"), j.text(t))
	}
	if j.read(t, "hooked") != "-" {
		t.Error("a hook that an earlier job has planted ran")
	}
}

// What an earlier job has put into the repository's settings does not reach the next one.
func TestCleanConfig(t *testing.T) {
	t.Parallel()
	for _, clean := range []bool{false, true} {
		bare, dir := filepath.Join(t.TempDir(), "p.git"), t.TempDir()
		work := newRepo(t, bare)
		newJob(t, dir).get(t, fetchOf("file://"+bare, head(t, work)))
		j := newJob(t, dir)
		j.write(t, ".git/hooks/reference-transaction", "#!/bin/sh\necho pwned >>"+filepath.Join(dir, "hooked")+"\n")
		sh(t, j.project(), "git config alias.planted status")
		s := fetchOf("file://"+bare, commit(t, work, "echo two >file"))
		s.CleanConfig = clean
		j.get(t, s)
		_, err := os.Stat(filepath.Join(dir, "hooked"))
		_, alias := shell(t, j.project(), "git config alias.planted")
		if hooked, planted := err == nil, alias == nil; hooked == clean || planted == clean {
			t.Errorf("clean_git_config=%v: hook ran %v, alias there %v", clean, hooked, planted)
		}
		if j.read(t, "file") != "two" {
			t.Errorf("file is %q", j.read(t, "file"))
		}
	}
}

func TestCleanFlags(t *testing.T) {
	t.Parallel()
	bare, dir := filepath.Join(t.TempDir(), "p.git"), t.TempDir()
	s := fetchOf("file://"+bare, head(t, newRepo(t, bare)))
	newJob(t, dir).get(t, s)
	for _, tt := range []struct {
		flags                 []string
		untracked, ignored, k string
	}{
		{nil, "x", "x", "x"},
		{[]string{"-ffd"}, "-", "x", "-"},
		{[]string{"-ffdx", "-e", "keep me*"}, "-", "-", "x"},
		{[]string{"-ffdx"}, "-", "-", "-"},
	} {
		j := newJob(t, dir)
		j.write(t, "untracked", "x")
		j.write(t, "a.o", "x")
		j.write(t, "keep me 1", "x")
		s.CleanFlags = tt.flags
		j.get(t, s)
		if u, i, k := j.read(t, "untracked"), j.read(t, "a.o"), j.read(t, "keep me 1"); u != tt.untracked || i != tt.ignored || k != tt.k {
			t.Errorf("%v: untracked %s, ignored %s, kept %s", tt.flags, u, i, k)
		}
	}
}

// A working tree that git can't use any more must not fail job after job.
func TestBrokenRepositoryIsReplaced(t *testing.T) {
	t.Parallel()
	bare := filepath.Join(t.TempDir(), "p.git")
	work := newRepo(t, bare)
	before, after := head(t, work), commit(t, work, "echo two >file")
	for name, harm := range map[string]string{
		"no HEAD":          "rm .git/HEAD",
		"no objects":       "rm -r .git/objects",
		"objects lost":     "find .git/objects -type f -exec rm -f {} +",
		"garbled config":   "echo '[[[' >.git/config",
		"garbled index":    "echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx >.git/index",
		"empty .git":       "rm -r .git; mkdir .git",
		".git is a file":   "rm -r .git; echo nothing >.git",
		"garbled refs":     "echo xxxx >.git/refs/remotes/origin/main",
		"refs are a file":  "rm -r .git/refs; echo >.git/refs",
		"read-only":        "mkdir d; echo >d/f; chmod -R a-w d",
		"unborn, no index": "rm .git/index",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			newJob(t, dir).get(t, fetchOf("file://"+bare, before))
			j := newJob(t, dir)
			sh(t, j.project(), harm)
			j.get(t, fetchOf("file://"+bare, after))
			if j.read(t, "file") != "two" || sh(t, j.project(), "git status --porcelain") != "" {
				t.Errorf("file is %q; log:\n%s", j.read(t, "file"), j.text(t))
			}
		})
	}
}

// A server that is away is no reason to throw away what is there.
func TestUnreachableServer(t *testing.T) {
	t.Parallel()
	r, dir := newRemote(t), t.TempDir()
	work := r.repo(t, "group/p.git")
	s := fetchOf(r.URL+"/group/p.git", head(t, work))
	newJob(t, dir).get(t, s)
	r.Close()
	j := newJob(t, dir)
	j.write(t, ".git/mark", "kept")
	err := source.Get(t.Context(), j.env, s)
	if err == nil || !strings.Contains(err.Error(), s.RepoURL) || !strings.Contains(err.Error(), "unable to access") {
		t.Errorf("error %v: want the address and what git said", err)
	}
	if j.read(t, ".git/mark") != "kept" {
		t.Error("the working tree is gone")
	}
}

func TestNoSuchBranchKeepsTheRepository(t *testing.T) {
	t.Parallel()
	bare, dir := filepath.Join(t.TempDir(), "p.git"), t.TempDir()
	s := fetchOf("file://"+bare, head(t, newRepo(t, bare)))
	newJob(t, dir).get(t, s)
	j := newJob(t, dir)
	j.write(t, ".git/mark", "kept")
	s.Refspecs = []string{"+refs/heads/nowhere:refs/remotes/origin/nowhere"}
	err := source.Get(t.Context(), j.env, s)
	if err == nil || !strings.Contains(err.Error(), "refs/heads/nowhere") || j.read(t, ".git/mark") != "kept" {
		t.Errorf("error %v, mark %q", err, j.read(t, ".git/mark"))
	}
}

// Builds may lie within a repository of the user's own, as when Tranter is tried out in one. It is never touched.
func TestOuterRepositoryIsSafe(t *testing.T) {
	t.Parallel()
	bare, dir := filepath.Join(t.TempDir(), "p.git"), t.TempDir()
	work := newRepo(t, bare)
	sh(t, dir, "git init -q -b mine .; echo mine >mine; git add mine; git commit -q -m mine; echo changed >mine; echo precious >untracked")
	step := &tranter.CleanupStep{WipeBuild: true, Strategy: "fetch", CleanFlags: []string{"-ffdx"}}
	for name, do := range map[string]func(j *job) error{
		"get":     func(j *job) error { return source.Get(t.Context(), j.env, fetchOf("file://"+bare, head(t, work))) },
		"clear":   func(j *job) error { return source.ClearWorktree(t.Context(), j.env) },
		"cleanup": func(j *job) error { _ = source.Cleanup(t.Context(), j.env, step); return nil },
	} {
		newJob(t, dir).get(t, fetchOf("file://"+bare, head(t, work)))
		j := newJob(t, dir)
		sh(t, j.project(), "rm -rf .git/objects .git/HEAD .git/refs")
		if err := do(j); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := sh(t, dir, "cat mine untracked; git log -1 --format=%s; git symbolic-ref --short HEAD"); got != "changed\nprecious\nmine\nmine" {
			t.Errorf("%s: the outer repository was changed: %q", name, got)
		}
	}
}

func TestHooks(t *testing.T) {
	t.Parallel()
	bare := filepath.Join(t.TempDir(), "p.git")
	s := fetchOf("file://"+bare, head(t, newRepo(t, bare)))
	s.PreScripts = []string{"echo before one; test ! -e project/.git", "echo before two"}
	s.PostScripts = []string{"echo after; cat file; pwd"}
	j := newJob(t, t.TempDir())
	j.get(t, s)
	log, at := j.text(t), 0
	for _, want := range []string{"before one", "before two", "Fetching changes", "Checking out", "after\none\n" + j.project()} {
		i := strings.Index(log[at:], want)
		if i < 0 {
			t.Fatalf("%q is not in the log, or not in its place:\n%s", want, log)
		}
		at += i
	}

	failed := errors.New("exit status 3")
	j = newJob(t, t.TempDir())
	j.env.Script = func(context.Context, string, []string) error { return failed }
	if err := source.Get(t.Context(), j.env, s); !errors.Is(err, failed) || !strings.Contains(err.Error(), "pre_get_sources_script") {
		t.Errorf("error %v", err)
	}
	if j.read(t, ".git/HEAD") != "-" {
		t.Error("the sources were fetched after a hook had failed")
	}
	s.Strategy = "none"
	if err := source.Get(t.Context(), j.env, s); err != nil {
		t.Errorf("strategy none runs hooks: %v", err)
	}
}

func TestSkipCheckout(t *testing.T) {
	t.Parallel()
	bare := filepath.Join(t.TempDir(), "p.git")
	s := fetchOf("file://"+bare, head(t, newRepo(t, bare)))
	s.SkipCheckout = true
	j := newJob(t, t.TempDir())
	j.get(t, s)
	if j.read(t, "file") != "-" || !strings.Contains(j.text(t), "Skipping Git checkout") || sh(t, j.project(), "git cat-file -t "+s.SHA) != "commit" {
		t.Errorf("file %q, log:\n%s", j.read(t, "file"), j.text(t))
	}
}

func TestObjectFormat(t *testing.T) {
	t.Parallel()
	bare, dir := filepath.Join(t.TempDir(), "p.git"), t.TempDir()
	newJob(t, dir).get(t, fetchOf("file://"+bare, head(t, newRepo(t, bare))))
	other := filepath.Join(t.TempDir(), "p.git")
	s := fetchOf("file://"+other, head(t, newRepo(t, other, "--object-format=sha256")))
	s.ObjectFormat = "sha256"
	j := newJob(t, dir) // where a repository of the other kind lies
	j.get(t, s)
	if len(head(t, j.project())) != 64 || j.read(t, "file") != "one" {
		t.Errorf("HEAD %s, log:\n%s", head(t, j.project()), j.text(t))
	}
}

func TestNativeClone(t *testing.T) {
	t.Parallel()
	bare := filepath.Join(t.TempDir(), "p.git")
	work := newRepo(t, bare)
	for range 3 {
		commit(t, work, "date +%N >other")
	}
	git := sh(t, "/", "command -v git")
	args := filepath.Join(t.TempDir(), "args")
	// The git of the test machine may be too old: it is given what it knows.
	path := withPrograms(t, map[string]string{"git": `
if [ "$1" = version ]; then echo "git version $FAKE_VERSION (test)"; exit; fi
echo "$*" >>` + args + `
for a; do shift; case "$a" in --revision) a=--branch;; refs/heads/main) a=main;; esac; set -- "$@" "$a"; done
exec ` + git + ` "$@"`})
	for _, tt := range []struct {
		version, strategy, ref, want string
	}{
		{"2.49.0", "clone", "main", "--depth 2 --branch main --quiet"},
		{"2.49.0", "clone", "refs/heads/main", "--depth 2 --revision refs/heads/main --quiet"},
		{"3.0", "clone", "main", "--branch main"},
		{"2.48.9", "clone", "main", "fetch origin"},
		{"2.49.0", "fetch", "main", "fetch origin"},
	} {
		s := fetchOf("file://"+bare, head(t, work))
		s.NativeClone, s.Strategy, s.Ref, s.Depth, s.CloneFlags = true, tt.strategy, tt.ref, 2, []string{"--quiet"}
		if err := os.WriteFile(args, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		j := newJob(t, t.TempDir(), path, "FAKE_VERSION="+tt.version)
		j.get(t, s)
		called, err := os.ReadFile(args)
		if err != nil || !strings.Contains(string(called), tt.want) {
			t.Errorf("%+v: git was called as\n%s", tt, called)
		}
		if head(t, j.project()) != s.SHA || sh(t, j.project(), "git rev-list --count HEAD; git remote get-url --all origin") != "2\nfile://"+bare {
			t.Errorf("%+v: another commit, depth or remote", tt)
		}
	}
}

// Large files come with the sources, unless the job says that it does not want them.
func TestLargeFiles(t *testing.T) {
	t.Parallel()
	bare := filepath.Join(t.TempDir(), "p.git")
	work := newRepo(t, bare)
	sh(t, work, `git lfs install --local --skip-smudge; git lfs track "*.bin"; echo large >file.bin`)
	publish := func(script string) string {
		commit(t, work, script) // and what git-lfs has to say
		return head(t, work)
	}
	s := fetchOf("file://"+bare, publish(":"))
	dir := t.TempDir()
	for range 2 { // the second time into the tree of the first
		j := newJob(t, dir)
		j.get(t, s)
		if got := j.read(t, "file.bin"); got != "large" {
			t.Errorf("the large file is %q\n%s", got, j.text(t))
		}
		s.SHA = publish("date +%N >other.bin")
	}
	s.SkipLFS = true
	j := newJob(t, t.TempDir(), "GIT_LFS_SKIP_SMUDGE=1")
	j.get(t, s)
	if got := j.read(t, "file.bin"); !strings.HasPrefix(got, "version https://git-lfs") {
		t.Errorf("the large file was fetched although the job says not to: %q", got)
	}
}

func TestSafeDirectoryIsAddedOnce(t *testing.T) {
	t.Parallel()
	bare, dir := filepath.Join(t.TempDir(), "p.git"), t.TempDir()
	s := fetchOf("file://"+bare, head(t, newRepo(t, bare)))
	s.SafeDirectory = true
	var j *job
	for range 2 {
		j = newJob(t, dir)
		j.get(t, s)
	}
	data, err := os.ReadFile(filepath.Join(j.home, ".gitconfig"))
	if err != nil || strings.Count(string(data), j.project()) != 1 {
		t.Errorf("the user's settings are %q, %v", data, err)
	}
}

func TestNoGit(t *testing.T) {
	t.Parallel()
	var config *tranter.ConfigError
	j := newJob(t, t.TempDir(), "PATH="+t.TempDir())
	err := source.Get(t.Context(), j.env, fetchOf("file:///nowhere", "1234567890"))
	if !errors.As(err, &config) || !strings.Contains(err.Error(), "install it") {
		t.Errorf("error %v", err)
	}
	if err := source.Get(t.Context(), j.env, &tranter.SourcesStep{Strategy: "none"}); err != nil {
		t.Errorf("strategy none needs no git: %v", err)
	}
}

// The cause of a context's end reaches the caller, who tells a timeout from a cancel by it.
func TestCancel(t *testing.T) {
	t.Parallel()
	r := newRemote(t)
	r.repo(t, "group/p.git")
	r.hang = make(chan struct{})
	defer close(r.hang)
	why := errors.New("enough")
	ctx, stop := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, why)
	defer stop()
	err := source.Get(ctx, newJob(t, t.TempDir()).env, fetchOf(r.URL+"/group/p.git", "1234567890"))
	if !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
}
