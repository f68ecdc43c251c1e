package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Commit is a commit that runners can fetch.
type Commit struct {
	Repository string // bare repository in the state directory
	Ref        string // branch, or "main" where there is none
	SHA        string
	Head       string // the commit of the working tree that it is based on, or itself; "" in an empty repository
	Dirty      bool   // the working tree differs from Head
}

// Snapshot makes the present content of a project's working tree fetchable: with uncommitted changes and new files, but
// without ignored ones. The user's repository, index and refs stay as they are: a temporary index is used, and new
// objects go into a repository in the state directory, which borrows all others. A directory that is no repository
// becomes a commit of all its files.
func (c *Coordinator) Snapshot(ctx context.Context, project int64) (Commit, error) {
	c.book.mu.Lock()
	source := c.book.project(project).Source
	c.book.mu.Unlock()
	if source == "" {
		return Commit{}, fmt.Errorf("snapshot: %w", notFound("source of project", project))
	}
	c.repoMu.Lock()
	defer c.repoMu.Unlock()
	s := &snapshot{source: source, bare: c.disk.repoPath(project), state: c.disk.dir}
	commit, err := s.take(ctx)
	if err != nil {
		return Commit{}, fmt.Errorf("snapshot of %s: %w", source, err)
	}
	return commit, nil
}

// pin gives the pipeline's commit a ref, so that it can be fetched by name and is never collected.
func (c *Coordinator) pin(ctx context.Context, r *run) error {
	c.repoMu.Lock()
	defer c.repoMu.Unlock()
	bare := c.disk.repoPath(r.Project)
	if r.Commit.SHA == "" {
		return nil
	}
	if _, err := os.Stat(bare); errors.Is(err, fs.ErrNotExist) {
		return nil // a project without a repository, for jobs with GIT_STRATEGY none
	}
	_, err := git(ctx, bare, nil, "update-ref", "refs/pipelines/"+strconv.FormatInt(r.ID, 10), r.Commit.SHA)
	return err
}

type snapshot struct {
	source  string
	bare    string
	state   string
	objects string // the user's object directory; "" when source is no repository
	index   string // the user's index
	shallow string // the user's list of cut-off commits
	large   string // the user's directory of large files
	format  string
	isBare  bool
	index0  string // the temporary index
}

func (s *snapshot) take(ctx context.Context) (Commit, error) {
	info, err := os.Stat(s.source)
	if err != nil {
		return Commit{}, err
	}
	if !info.IsDir() {
		return Commit{}, errors.New("not a directory")
	}
	if err := s.inspect(ctx); err != nil {
		return Commit{}, err
	}
	if err := s.prepare(ctx); err != nil {
		return Commit{}, err
	}
	commit := Commit{Repository: s.bare, Ref: "main"}
	if s.objects != "" {
		if err := s.borrow(ctx, &commit); err != nil {
			return Commit{}, err
		}
	}
	if !s.isBare {
		if err := s.commitTree(ctx, &commit); err != nil {
			return Commit{}, err
		}
	} else if commit.SHA = commit.Head; commit.SHA == "" {
		return Commit{}, errors.New("the repository has no commit")
	}
	if _, err := git(ctx, s.bare, nil, "update-ref", "refs/heads/"+commit.Ref, commit.SHA); err != nil {
		return Commit{}, err
	}
	_, err = git(ctx, s.bare, nil, "symbolic-ref", "HEAD", "refs/heads/"+commit.Ref)
	return commit, err
}

// borrow takes over what the user's repository has.
func (s *snapshot) borrow(ctx context.Context, commit *Commit) error {
	if ref, err := git(ctx, s.source, nil, "symbolic-ref", "--quiet", "--short", "HEAD"); err == nil {
		commit.Ref = ref
	}
	if head, err := git(ctx, s.source, nil, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"); err == nil {
		commit.Head = head
	}
	return s.copyRefs(ctx)
}

// inspect finds the parts of the user's repository, if there is one. A directory deep inside a repository counts as
// that repository only when it is its top.
func (s *snapshot) inspect(ctx context.Context) error {
	out, err := git(ctx, s.source, nil, "rev-parse", "--is-bare-repository", "--git-path", "objects", "--git-path", "index", "--git-path", "shallow", "--show-object-format")
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		s.format = "sha1"
		return nil // no repository
	}
	if err != nil {
		return err
	}
	lines := strings.Split(out, "\n")
	if len(lines) != 5 {
		return fmt.Errorf("git rev-parse: unexpected answer %q", out)
	}
	s.isBare = lines[0] == "true"
	if !s.isBare {
		top, err := git(ctx, s.source, nil, "rev-parse", "--show-toplevel")
		if err != nil {
			return err
		}
		if !sameFile(top, s.source) {
			s.format = "sha1"
			return nil
		}
	}
	s.objects, s.index, s.shallow, s.format = s.abs(lines[1]), s.abs(lines[2]), s.abs(lines[3]), lines[4]
	s.large = filepath.Join(filepath.Dir(s.objects), "lfs")
	if own, err := git(ctx, s.source, nil, "config", "--type=path", "lfs.storage"); err == nil && own != "" {
		s.large = own
		if !filepath.IsAbs(own) {
			s.large = filepath.Join(filepath.Dir(s.objects), own)
		}
	}
	return nil
}

func (s *snapshot) abs(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(s.source, path)
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// prepare makes the bare repository, borrowing the user's objects.
func (s *snapshot) prepare(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(s.bare, "HEAD")); err != nil {
		if err := os.MkdirAll(s.bare, 0o700); err != nil {
			return err
		}
		if _, err := git(ctx, s.bare, nil, "init", "--quiet", "--bare", "--template=", "--object-format="+s.format, s.bare); err != nil {
			return err
		}
	}
	alternates := filepath.Join(s.bare, "objects", "info", "alternates")
	if err := os.MkdirAll(filepath.Dir(alternates), 0o700); err != nil {
		return err
	}
	if s.objects == "" {
		return nil
	}
	if err := os.WriteFile(alternates, []byte(s.objects+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.bare, lfsTheirs), []byte(s.large), 0o600); err != nil {
		return err
	}
	shallow := filepath.Join(s.bare, "shallow")
	data, err := os.ReadFile(s.shallow)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Remove(shallow); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(shallow, data, 0o600)
}

// copyRefs gives the bare repository the user's branches and tags, so that jobs find them as they do on GitLab.
func (s *snapshot) copyRefs(ctx context.Context) error {
	list := func(dir string) (string, error) {
		return git(ctx, dir, nil, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags")
	}
	theirs, err := list(s.source)
	if err != nil {
		return err
	}
	ours, err := list(s.bare)
	if err != nil {
		return err
	}
	var script strings.Builder
	keep := map[string]bool{}
	for line := range strings.Lines(theirs) {
		name, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" {
			continue
		}
		keep[name] = true
		fmt.Fprintf(&script, "update %s %s\n", name, id)
	}
	var gone strings.Builder
	for line := range strings.Lines(ours) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name != "" && !keep[name] {
			fmt.Fprintf(&gone, "delete %s\n", name)
		}
	}
	// First what is gone, on its own: a branch may have become a folder of branches.
	for _, stdin := range []string{gone.String(), script.String()} {
		if stdin == "" {
			continue
		}
		if _, err := git(ctx, s.bare, &gitCall{stdin: stdin}, "update-ref", "--no-deref", "--stdin"); err != nil {
			return err
		}
	}
	return nil
}

// commitTree records the working tree.
func (s *snapshot) commitTree(ctx context.Context, commit *Commit) error {
	dir, err := os.MkdirTemp(s.state, ".snapshot-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s.index0 = filepath.Join(dir, "index")
	call := &gitCall{env: []string{
		"GIT_INDEX_FILE=" + s.index0, "GIT_WORK_TREE=" + s.source, "GIT_OBJECT_DIRECTORY=" + filepath.Join(s.bare, "objects"),
		// Any of the commands may look at a file again, and give it to Git LFS.
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=lfs.storage", "GIT_CONFIG_VALUE_0=" + filepath.Join(s.bare, "lfs"),
	}}
	if s.objects == "" {
		call.env = append(call.env, "GIT_DIR="+s.bare)
	} else {
		call.env = append(call.env, "GIT_ALTERNATE_OBJECT_DIRECTORIES="+s.objects)
		if err := copyFile(s.index, s.index0); err != nil {
			return err
		}
	}
	if _, err := git(ctx, s.source, call, s.addArguments(ctx, call)...); err != nil {
		return err
	}
	tree, err := git(ctx, s.source, call, "write-tree")
	if err != nil {
		return err
	}
	if commit.Head != "" {
		if have, err := git(ctx, s.source, call, "rev-parse", commit.Head+"^{tree}"); err == nil && have == tree {
			commit.SHA = commit.Head
			return nil
		}
	}
	commit.Dirty = true
	args := []string{"commit-tree", tree, "-m", "Working tree with uncommitted changes"}
	if commit.Head != "" {
		args = append(args, "-p", commit.Head)
	}
	call.env = append(call.env, identity(ctx, s.source)...)
	commit.SHA, err = git(ctx, s.source, call, args...)
	return err
}

// addArguments stage everything but the state directory, should it lie in the working tree. Nothing that the user's
// settings bring along may write into the user's repository.
func (s *snapshot) addArguments(ctx context.Context, call *gitCall) []string {
	args := []string{
		"-c", "core.splitIndex=false", "-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false",
		"-c", "core.hooksPath=" + os.DevNull, "-c", "core.bare=false", "-c", "advice.addEmbeddedRepo=false", "-c", "core.safecrlf=false",
		"add", "--all", "--", ".",
	}
	state := s.stateInside()
	if state == "" {
		return args
	}
	// Git refuses to leave out by name what it ignores anyway.
	if _, err := git(ctx, s.source, call, "check-ignore", "--quiet", "--", state); err == nil {
		return args
	}
	return append(args, ":(exclude,top,literal)"+state)
}

// stateInside is where the state directory lies in the working tree; "" if it does not.
func (s *snapshot) stateInside() string {
	source, err := filepath.EvalSymlinks(s.source)
	if err != nil {
		return ""
	}
	state, err := filepath.EvalSymlinks(s.state)
	if err != nil {
		return ""
	}
	rel, err := filepath.Rel(source, state)
	if err != nil || !filepath.IsLocal(rel) || rel == "." {
		return ""
	}
	return filepath.ToSlash(rel)
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

// identity is the user's, if git knows it.
func identity(ctx context.Context, dir string) []string {
	name, _ := git(ctx, dir, nil, "config", "user.name")
	mail, _ := git(ctx, dir, nil, "config", "user.email")
	if name == "" {
		name = "local"
	}
	if mail == "" {
		mail = "local@localhost"
	}
	return []string{"GIT_AUTHOR_NAME=" + name, "GIT_AUTHOR_EMAIL=" + mail, "GIT_COMMITTER_NAME=" + name, "GIT_COMMITTER_EMAIL=" + mail}
}

type gitCall struct {
	stdin string
	env   []string
}

// git runs one command in dir and returns what it printed, without the last line feed. Its error wraps the exit status.
func git(ctx context.Context, dir string, call *gitCall, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(cleanEnvironment(), "LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0")
	if call != nil {
		cmd.Env = append(cmd.Env, call.env...)
		cmd.Stdin = strings.NewReader(call.stdin)
	}
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", subcommand(args), err, strings.TrimSpace(problems.String()))
	}
	return strings.TrimRight(out.String(), "\n"), nil
}

func subcommand(args []string) string {
	for i := 0; i < len(args); i++ {
		if args[i] == "-c" {
			i++
			continue
		}
		return args[i]
	}
	return ""
}

// cleanEnvironment is ours without what tells git where to work, as it does inside a hook.
func cleanEnvironment() []string {
	var out []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "GIT_") {
			out = append(out, e)
		}
	}
	return out
}
