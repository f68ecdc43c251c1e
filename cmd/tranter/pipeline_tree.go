package main

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // git's own name for a content, not a protection
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/lazy"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

// defaultPipelineFile is what GitLab runs when nothing else is named.
const defaultPipelineFile = ".gitlab-ci.yml"

// tree is the directory that a pipeline is run for, or looked at: the whole of a git working tree, or a directory with a
// pipeline of its own.
type tree struct {
	dir  string // absolute
	file string // of the pipeline, relative to dir, with slashes
	git  bool   // dir is the top of a working tree, else its history is not used

	head     head
	remote   string // path of the project on its server, from the URL of origin
	fallback string // default branch
	branch   string // "" when HEAD is no branch
	user     pipeline.UserFacts
}

// head is the commit that the working tree is based on.
type head struct {
	sha, parent, author, message string
	time                         time.Time
}

// openTree finds the tree that dir belongs to: dir itself if the pipeline's file is in it, else the top of the git
// working tree around it.
func openTree(ctx context.Context, dir, file string) (*tree, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("find the directory: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory: name the one with the pipeline, and another file with --file", dir)
	}
	if _, err := exec.LookPath("git"); err != nil {
		return nil, errors.New("git is not installed, or not in PATH: jobs get their sources with it")
	}
	t := &tree{dir: dir, file: defaultPipelineFile}
	top, err := gitOutput(ctx, dir, "rev-parse", "--show-toplevel")
	if err == nil {
		if err := t.place(strings.TrimSuffix(top, "\n"), file); err != nil {
			return nil, err
		}
	} else if top, err := gitOutput(ctx, dir, "-c", "safe.directory=*", "rev-parse", "--show-toplevel"); err == nil {
		top = strings.TrimSuffix(top, "\n")
		return nil, fmt.Errorf("git does not work in %s, which belongs to another user, until you say: git config --global --add safe.directory %s", top, shellWord(top))
	}
	if err := t.locate(file); err != nil {
		return nil, err
	}
	return t, t.inspect(ctx)
}

// place decides between dir and the top of the working tree around it.
func (t *tree) place(top, file string) error {
	top = filepath.FromSlash(top)
	here, err := os.Stat(t.dir)
	if err != nil {
		return err
	}
	if there, err := os.Stat(top); err == nil && os.SameFile(here, there) {
		t.git = true
		return nil
	}
	if _, err := os.Stat(filepath.Join(t.dir, t.file)); err == nil {
		return nil
	}
	if file != "" && !filepath.IsAbs(file) {
		// What is named from inside the tree is meant from there.
		rel, err := filepath.Rel(top, filepath.Join(t.dir, file))
		if err == nil && filepath.IsLocal(rel) {
			if _, err := os.Stat(filepath.Join(top, rel)); err == nil {
				t.file = filepath.ToSlash(rel)
			}
		}
	}
	t.dir, t.git = top, true
	return nil
}

// locate finds the pipeline's file in the tree.
func (t *tree) locate(file string) error {
	if file != "" && t.file == defaultPipelineFile {
		rel := file
		if filepath.IsAbs(file) {
			var err error
			if rel, err = filepath.Rel(t.dir, file); err != nil {
				return fmt.Errorf("find %s: %w", file, err)
			}
		}
		if !filepath.IsLocal(rel) {
			return fmt.Errorf("%s lies outside of %s: a pipeline and what it includes are files of the project", file, t.dir)
		}
		t.file = filepath.ToSlash(rel)
	}
	_, err := os.Stat(filepath.Join(t.dir, filepath.FromSlash(t.file)))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no %s in %s: name the directory of a project, or another file with --file", t.file, t.dir)
	}
	return err
}

// inspect reads what git knows about the tree.
func (t *tree) inspect(ctx context.Context) error {
	t.fallback = "main"
	t.head.time = time.Now() // of the snapshot, where there is no commit
	if !t.git {
		return nil
	}
	if branch, err := gitOutput(ctx, t.dir, "symbolic-ref", "--quiet", "--short", "HEAD"); err == nil {
		t.branch = strings.TrimSpace(branch)
	}
	if out, err := gitOutput(ctx, t.dir, "log", "-1", "--format=%H%x00%P%x00%an <%ae>%x00%cI%x00%B", "HEAD"); err == nil {
		t.head = parseHead(out)
	}
	if out, err := gitOutput(ctx, t.dir, "config", "--null", "--get-regexp", `^(user\.(name|email)|remote\.origin\.url)$`); err == nil {
		t.parseConfig(out)
	}
	out, err := gitOutput(ctx, t.dir, "for-each-ref", "--format=%(refname) %(symref)", "refs/remotes/origin/HEAD", "refs/remotes/origin/main",
		"refs/remotes/origin/master", "refs/heads/main", "refs/heads/master")
	if err != nil {
		return fmt.Errorf("read the branches: %w", err)
	}
	t.fallback = defaultBranch(out, t.branch)
	return nil
}

func parseHead(out string) head {
	parts := strings.SplitN(strings.TrimRight(out, "\n"), "\x00", 5)
	if len(parts) < 5 {
		return head{}
	}
	parent, _, _ := strings.Cut(parts[1], " ")
	at, _ := time.Parse(time.RFC3339, parts[3])
	return head{sha: parts[0], parent: parent, author: parts[2], time: at, message: parts[4]}
}

func (t *tree) parseConfig(out string) {
	for entry := range strings.SplitSeq(out, "\x00") {
		key, value, _ := strings.Cut(entry, "\n")
		switch key {
		case "user.name":
			t.user.Name = value
		case "user.email":
			t.user.Email = value
			t.user.Login, _, _ = strings.Cut(value, "@")
		case "remote.origin.url":
			t.remote = projectOf(value)
		}
	}
}

// defaultBranch is what origin says, else main or master if there is one, else the present branch.
func defaultBranch(refs, branch string) string {
	known := map[string]bool{}
	for line := range strings.Lines(refs) {
		name, target, _ := strings.Cut(strings.TrimSpace(line), " ")
		known[name] = true
		if b, ok := strings.CutPrefix(target, "refs/remotes/origin/"); ok && name == "refs/remotes/origin/HEAD" {
			return b
		}
	}
	for _, b := range []string{"main", "master"} {
		if known["refs/remotes/origin/"+b] || known["refs/heads/"+b] {
			return b
		}
	}
	if branch != "" {
		return branch
	}
	return "main"
}

var (
	remoteShape  = lazy.Regexp(`^(?:[a-z+]+://[^/]+/|(?:[^@/]+@)?[^:/]+:/?)(.+?)(?:\.git)?/?$`)
	projectShape = lazy.Regexp(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$`)
	notInName    = lazy.Regexp(`[^A-Za-z0-9_.-]+`)
)

// projectOf returns the path of the project that a remote's URL names: group/name; "" if it names none.
func projectOf(remote string) string {
	m := remoteShape().FindStringSubmatch(remote)
	if m == nil || strings.HasPrefix(remote, "file:") || !projectShape().MatchString(m[1]) {
		return ""
	}
	return m[1]
}

// project is the project's path, such as CI_PROJECT_PATH shows it.
func (t *tree) project() string {
	if t.remote != "" {
		return t.remote
	}
	name := strings.Trim(notInName().ReplaceAllString(strings.TrimSuffix(filepath.Base(t.dir), ".git"), "-"), "-.")
	if name == "" {
		name = "project"
	}
	return "local/" + name
}

// read returns a file of the project. Links that lead out of it are not followed.
func (t *tree) read(path string) ([]byte, error) {
	root, err := os.OpenRoot(t.dir)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // nothing was written
	return root.ReadFile(filepath.FromSlash(path))
}

// list returns the files of the project: those that git has, and new ones that it does not ignore.
func (t *tree) list(ctx context.Context) []string {
	if !t.git {
		return t.walk()
	}
	out, err := gitOutput(ctx, t.dir, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(splitNull(out), func(path string) bool {
		_, err := os.Lstat(filepath.Join(t.dir, filepath.FromSlash(path)))
		return err != nil
	})
}

func (t *tree) walk() []string {
	var out []string
	_ = filepath.WalkDir(t.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil //nolint:nilerr // what can't be read is not there for rules
		case d.IsDir() && d.Name() == ".git":
			return filepath.SkipDir
		case d.IsDir():
			return nil
		}
		if rel, err := filepath.Rel(t.dir, path); err == nil {
			out = append(out, filepath.ToSlash(rel))
		}
		return nil
	})
	return out
}

func splitNull(s string) []string {
	return slices.DeleteFunc(strings.Split(s, "\x00"), func(p string) bool { return p == "" })
}

// changed lists the files in which the tree differs from its base, for rules:changes: new files count, ignored ones do
// not. It is false when there is nothing to compare with.
func (t *tree) changed(ctx context.Context, compareTo string) ([]string, bool) {
	if !t.git || t.head.sha == "" {
		return nil, false
	}
	untracked, err := gitOutput(ctx, t.dir, "ls-files", "-z", "--others", "--exclude-standard")
	if err != nil {
		return nil, false
	}
	from := func(commit string) []string {
		out, err := gitOutput(ctx, t.dir, "diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", commit)
		if err != nil {
			return nil
		}
		return append(splitNull(out), splitNull(untracked)...)
	}
	base := t.base(ctx, compareTo)
	switch {
	case compareTo != "" && base == "":
		return nil, false
	case compareTo != "":
		return from(base), true
	case base == "":
		base = t.head.sha
	}
	if list := from(base); len(list) > 0 {
		return list, true
	}
	// Nothing differs from the default branch: what counts is the last commit.
	if t.head.parent == "" {
		return nil, false
	}
	return from(t.head.parent), true
}

// base is where the tree's history has left that of the given ref, or of the default branch; "" if that is not known.
func (t *tree) base(ctx context.Context, ref string) string {
	names := []string{"refs/remotes/origin/" + t.fallback, "refs/heads/" + t.fallback}
	if ref != "" {
		ref = strings.TrimPrefix(ref, "refs/heads/")
		names = []string{"refs/heads/" + ref, "refs/remotes/origin/" + ref, "refs/tags/" + ref, ref}
	}
	for _, name := range names {
		if strings.HasPrefix(name, "-") {
			continue
		}
		if out, err := gitOutput(ctx, t.dir, "merge-base", name, t.head.sha); err == nil {
			return strings.TrimSpace(out)
		}
	}
	return ""
}

// blob is git's name for a file's present content.
func (t *tree) blob(path string) (string, bool) {
	data, err := t.read(path)
	if err != nil {
		return "", false
	}
	sum := sha1.New() //nolint:gosec // see above
	fmt.Fprintf(sum, "blob %d\x00", len(data))
	_, _ = sum.Write(data)
	return hex.EncodeToString(sum.Sum(nil)), true
}

func (t *tree) lastCommit(ctx context.Context, path string) (string, bool) {
	if !t.git || t.head.sha == "" {
		return "", false
	}
	out, err := gitOutput(ctx, t.dir, "log", "-1", "--format=%H", "--", path)
	sha := strings.TrimSpace(out)
	return sha, err == nil && sha != ""
}

// gitOutput runs git in dir, as a reader that leaves everything as it is.
func gitOutput(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "core.fsmonitor=false", "-c", "core.quotePath=false"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0")
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(problems.String()))
	}
	return out.String(), nil
}

// leaveHook forgets what git tells a hook about the repository that it works on: this program and its jobs have others.
func leaveHook() {
	for _, kv := range os.Environ() {
		key, _, _ := strings.Cut(kv, "=")
		switch key {
		case "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_PREFIX",
			"GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_QUARANTINE_PATH":
			_ = os.Unsetenv(key) // it cannot fail for a name that is set
		}
	}
}
