// Package source gets a job's sources with the git command line, and tidies up after it (runner contract, section 6).
//
// Credentials are neither in the arguments of a program nor in the repository: a credential helper, named in a file of
// settings that the repository includes, reads them from a file that only the job's user can read. Both files go when
// the job ends. What to do is decided elsewhere and comes as a SourcesStep. Package agent calls it.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/env"
)

// getter gets the sources of one job.
type getter struct {
	*git
	step    *tranter.SourcesStep
	existed bool // there is a working tree of an earlier job
	lfs     bool // large files are to be fetched, and can be

	template     string  // what the settings of a new repository begin with
	userSettings *string // see readUserSettings; nil: not read yet
}

// Get brings the working tree to the state that the step asks for. An error says what could not be done and what git
// said to it; that of a hook is the hook's.
func Get(ctx context.Context, e *env.Env, s *tranter.SourcesStep) error {
	switch s.Strategy {
	case "none":
		e.Log.Info("Skipping Git repository setup")
		return makeProject(e)
	case "empty":
		e.Log.Info("Skipping Git repository setup, the project directory starts empty")
		if err := removeTree(e.Dirs().Project); err != nil {
			return fmt.Errorf("empty the project directory: %w", err)
		}
		return makeProject(e)
	}
	if err := hooks(ctx, e, "pre_get_sources_script", filepath.Dir(e.Dirs().Project), s.PreScripts); err != nil {
		return err
	}
	program, err := newGit(e) // with what the hooks export
	if err != nil {
		return err
	}
	program.hide = []string{s.Password.Reveal(), e.Phase.JobToken.Reveal()}
	g := &getter{git: program, step: s}
	if !s.SkipLFS {
		g.environ = append(g.environ, "GIT_LFS_SKIP_SMUDGE=1") // they are pulled all together at the end
		_, missing := find(e.Get("PATH"), "git-lfs")
		g.lfs = missing == nil
	}
	if err := g.get(ctx); err != nil {
		return err
	}
	return hooks(ctx, e, "post_get_sources_script", e.Dirs().Project, s.PostScripts)
}

func makeProject(e *env.Env) error {
	if err := os.MkdirAll(e.Dirs().Project, 0o777); err != nil { //nolint:gosec // as a shell would make it
		return fmt.Errorf("make the project directory: %w", err)
	}
	return nil
}

// hooks runs the commands in one shell.
func hooks(ctx context.Context, e *env.Env, name, dir string, commands []string) error {
	if len(commands) == 0 {
		return nil
	}
	if err := e.Script(ctx, dir, commands); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// get does everything between the hooks (runner contract, section 6.3).
func (g *getter) get(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(g.project), 0o777); err != nil { //nolint:gosec // as a shell would make it
		return fmt.Errorf("make the builds directory: %w", err)
	}
	if g.step.Strategy == "clone" {
		if err := removeTree(g.project); err != nil {
			return fmt.Errorf("remove the project directory before cloning: %w", err)
		}
	}
	if err := removeForeign(g.project); err != nil {
		return err
	}
	g.existed = exists(filepath.Join(g.project, ".git"))
	if err := removeLocks(g.project, g.submodules()); err != nil {
		return err
	}
	if err := g.writeSettings(ctx); err != nil {
		return err
	}
	if g.step.CleanConfig {
		if err := removeConfig(g.project, g.submodules(), (native{g}).configUntouched()); err != nil {
			return err
		}
	}
	if d := g.step.Depth; d > 0 {
		g.env.Log.Info("Fetching changes with git depth set to %d...", d)
	} else {
		g.env.Log.Info("Fetching changes...")
	}
	if err := g.repository(ctx); err != nil {
		return err
	}
	if !g.submodules() {
		g.env.Log.Info("Skipping Git submodules setup")
		return nil
	}
	return modules{g}.update(ctx)
}

func (g *getter) submodules() bool {
	return g.step.Submodules.Strategy == "normal" || g.step.Submodules.Strategy == "recursive"
}

// repository brings the main repository up to date. One of an earlier job that git can't work with is thrown away.
func (g *getter) repository(ctx context.Context) error {
	err := g.update(ctx)
	if err == nil || !g.existed || ctx.Err() != nil || !g.oursToBlame(ctx, err) {
		return err
	}
	g.env.Log.Warning("the working tree that an earlier job has left can't be used (%v); starting over", err)
	if err := removeTree(g.project); err != nil {
		return fmt.Errorf("remove the project directory: %w", err)
	}
	g.existed = false
	return g.update(ctx)
}

// oursToBlame says whether it is the local repository that git can't work with, for all we can tell: the remote one
// answers, and err does not say that it lacks what was asked for.
func (g *getter) oursToBlame(ctx context.Context, err error) bool {
	var failed *gitError
	if !errors.As(err, &failed) {
		return false
	}
	for _, theirs := range []string{"couldn't find remote ref", "not our ref"} {
		if strings.Contains(failed.said, theirs) {
			return false
		}
	}
	_, err = g.output(ctx, filepath.Dir(g.settingsFile()), g.remotely("ls-remote", "--quiet", g.step.RepoURL, "HEAD")...)
	return err == nil
}

func (g *getter) update(ctx context.Context) error {
	var err error
	if native, ok := g.nativeClone(ctx); ok {
		if err := g.writeTemplate(); err != nil {
			return err
		}
		err = g.in(ctx, filepath.Dir(g.project), "clone "+g.where(), native...)
	} else {
		err = g.fetch(ctx)
	}
	if err != nil {
		return err
	}
	if g.step.SkipCheckout {
		g.env.Log.Info("Skipping Git checkout")
		return nil
	}
	return g.checkout(ctx)
}

// where is the remote repository as a user may see it.
func (g *getter) where() string { return g.clean(g.step.RepoURL) }

// nativeClone returns the arguments for "git clone" if it is to be used (runner contract, section 6.3, last part).
func (g *getter) nativeClone(ctx context.Context) ([]string, bool) {
	if !g.step.NativeClone || g.step.Strategy != "clone" {
		return nil, false
	}
	version, err := g.output(ctx, "", "version")
	if err != nil || !atLeast(version, 2, 49) {
		return nil, false
	}
	args := append(g.remotely("clone", "--no-checkout", g.step.RepoURL, g.project, "--template", g.templateDir()), depth(g.step.Depth)...)
	if strings.HasPrefix(g.step.Ref, "refs/") {
		args = append(args, "--revision", g.step.Ref)
	} else {
		args = append(args, "--branch", g.step.Ref)
	}
	return append(args, g.step.CloneFlags...), true
}

// atLeast reads a text such as "git version 2.49.0 (something)".
func atLeast(version string, major, minor int) bool {
	fields := strings.Fields(version)
	if len(fields) < 3 {
		return false
	}
	parts := strings.SplitN(fields[2], ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, err1 := strconv.Atoi(parts[0])
	b, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (a > major || a == major && b >= minor)
}

func depth(n int) []string {
	if n <= 0 {
		return nil
	}
	return []string{"--depth", strconv.Itoa(n)}
}

// remotely puts before the arguments of a git command what it needs to talk to the server.
func (g *getter) remotely(args ...string) []string {
	before := []string{"-c", "include.path=" + g.settingsFile()}
	if v := g.env.Phase.Version; v != "" {
		before = append(before, "-c", "http.userAgent="+v)
	}
	if host := tranter.GitHost(g.step.RepoURL); host != "" && g.step.ProactiveAuth {
		before = append(before, "-c", "http."+host+".proactiveAuth=basic")
	}
	return append(before, args...)
}

// fetch makes the repository, if there is none, and fetches into it.
func (g *getter) fetch(ctx context.Context) error {
	if !g.existed || !g.ready(ctx) {
		if err := g.setUp(ctx); err != nil {
			return err
		}
	}
	sparing, header, err := native{g}.sparing()
	if err != nil {
		return err
	}
	defer os.Remove(filepath.Join(g.env.Dirs().Temp, headerName)) //nolint:errcheck // the job's cleanup removes it too
	err = g.in(ctx, g.project, "fetch "+g.where(), g.fetchArgs(slices.Concat(sparing, header))...)
	if failed := (*gitError)(nil); len(header) > 0 && errors.As(err, &failed) && redirected(failed.said) {
		return g.in(ctx, g.project, "fetch "+g.where(), g.fetchArgs(sparing)...)
	}
	return err
}

func (g *getter) fetchArgs(before []string) []string {
	args := g.remotely(slices.Concat(before, []string{"fetch", "origin", "--no-recurse-submodules"}, g.step.Refspecs, depth(g.step.Depth), g.step.FetchFlags)...)
	if g.step.Depth <= 0 && exists(filepath.Join(g.project, ".git", "shallow")) {
		args = append(args, "--unshallow")
	}
	return args
}

// ready says whether the repository that is there is set up as this job needs it, as that of a job before it mostly is.
func (g *getter) ready(ctx context.Context) bool {
	if known, isReady := (native{g}).readyAtOnce(); known {
		return isReady
	}
	want := []string{"include.path " + g.settingsFile(), "remote.origin.fetch " + allBranches, "remote.origin.url " + g.step.RepoURL}
	if g.sha256() {
		want = append(want, "extensions.objectformat "+g.step.ObjectFormat)
	}
	found, err := g.output(ctx, g.project, "config", "--local", "--get-regexp", `^(remote\.origin\.|include\.path$|extensions\.objectformat$)`)
	got := strings.Split(strings.TrimSpace(found), "\n")
	slices.Sort(got)
	slices.Sort(want)
	return err == nil && slices.Equal(got, want)
}

func (g *getter) sha256() bool { return g.step.ObjectFormat != "" && g.step.ObjectFormat != "sha1" }

// setUp makes the repository, if there is none, and sets it up.
func (g *getter) setUp(ctx context.Context) error {
	if g.existed && (native{g}).writeConfig() {
		return nil
	}
	if err := g.writeTemplate(); err != nil {
		return err
	}
	init := []string{"-c", "init.defaultBranch=none", "init", "--quiet", g.project, "--template", g.templateDir()}
	if g.sha256() {
		init = append(init, "--object-format", g.step.ObjectFormat)
	}
	fresh := !exists(filepath.Join(g.project, ".git"))
	if err := g.in(ctx, filepath.Dir(g.project), "make the repository", init...); err != nil {
		return err
	}
	if fresh {
		g.env.Log.Info("Created fresh repository.")
		return nil
	}
	return g.adopt(ctx)
}

// adopt sets up a repository that was there before.
func (g *getter) adopt(ctx context.Context) error {
	for _, args := range [][]string{
		{"config", "--replace-all", "remote.origin.url", g.step.RepoURL},
		{"config", "--replace-all", "remote.origin.fetch", allBranches},
		{"config", "--replace-all", "include.path", g.settingsFile(), settingsPattern},
	} {
		if err := g.in(ctx, g.project, "set up the repository", args...); err != nil {
			return err
		}
	}
	return nil
}

func (g *getter) checkout(ctx context.Context) error {
	commit := g.step.SHA
	if commit == "" {
		commit = "FETCH_HEAD"
	}
	short := commit[:min(8, len(commit))]
	g.env.Log.Info("Checking out %s as detached HEAD (ref is %s)...", short, g.step.Ref)
	args := g.remotely("-c", "submodule.recurse=false", "checkout", "-f", "-q", commit)
	if err := g.in(ctx, g.project, "check out "+short, args...); err != nil {
		if _, missing := g.output(ctx, g.project, "cat-file", "-e", commit+"^{commit}"); missing != nil && g.step.Depth > 0 && ctx.Err() == nil {
			return fmt.Errorf("%w; the commit is not among what was fetched: a larger GIT_DEPTH than %d may help", err, g.step.Depth)
		}
		return err
	}
	if g.step.CleanFlags != nil {
		if err := g.in(ctx, g.project, "clean the working tree", slices.Insert(g.cleanArgs(), 1, mounted(g.project)...)...); err != nil {
			return err
		}
	}
	if uses, err := g.usesLFS(ctx); err != nil || !uses {
		return err
	}
	return g.in(ctx, g.project, "pull large files", g.remotely("lfs", "pull")...)
}

// usesLFS says whether there may be large files: whether an attribute of the repository speaks of them.
func (g *getter) usesLFS(ctx context.Context) (bool, error) {
	if !g.lfs {
		return false, nil
	}
	if (native{g}).indexLacks(".gitattributes") {
		return mentions(filepath.Join(g.project, ".git", "info", "attributes"), "filter=lfs"), nil
	}
	names, err := g.output(ctx, g.project, "ls-files", "-z", "--", ".gitattributes", "**/.gitattributes")
	if err != nil {
		return false, err
	}
	for name := range strings.SplitSeq(names+filepath.Join(".git", "info", "attributes"), "\x00") {
		if mentions(filepath.Join(g.project, name), "filter=lfs") {
			return true, nil
		}
	}
	return false, nil
}

// mentions says whether a plain file has text in its first part, which is more than a file of attributes ever has.
func mentions(path, text string) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	return err == nil && strings.Contains(string(data), text)
}

func (g *getter) cleanArgs() []string {
	return slices.Concat([]string{"clean"}, g.step.CleanFlags)
}
