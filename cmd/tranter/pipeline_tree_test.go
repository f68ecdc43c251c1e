package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProjectOf(t *testing.T) {
	for remote, want := range map[string]string{
		"git@gitlab.com:group/sub/name.git":            "group/sub/name",
		"https://user:pass@gitlab.com/group/name.git":  "group/name",
		"https://gitlab.com/group/name/":               "group/name",
		"ssh://git@gitlab.example.com:2222/group/name": "group/name",
		"gitlab.com:group/name":                        "group/name",
		"/srv/git/name.git":                            "",
		"file:///srv/git/name.git":                     "",
		"../name":                                      "",
		"git@host:name.git":                            "",
		"https://host/~user/na%20me":                   "",
	} {
		if got := projectOf(remote); got != want {
			t.Errorf("projectOf(%q) = %q, want %q", remote, got, want)
		}
	}
}

func TestDefaultBranch(t *testing.T) {
	for _, c := range []struct{ refs, branch, want string }{
		{"refs/remotes/origin/HEAD refs/remotes/origin/develop\nrefs/heads/main \n", "x", "develop"},
		{"refs/heads/master \n", "x", "master"},
		{"refs/heads/master \nrefs/remotes/origin/main \n", "x", "main"},
		{"", "trunk", "trunk"},
		{"", "", "main"},
	} {
		if got := defaultBranch(c.refs, c.branch); got != c.want {
			t.Errorf("defaultBranch(%q, %q) = %q, want %q", c.refs, c.branch, got, c.want)
		}
	}
}

// repository is a working tree for a test.
type repository struct {
	t   *testing.T
	dir string
}

func newRepository(t *testing.T) repository {
	t.Helper()
	for _, name := range []string{"AUTHOR", "COMMITTER"} {
		t.Setenv("GIT_"+name+"_NAME", "Test")
		t.Setenv("GIT_"+name+"_EMAIL", "test@example.com")
	}
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	r := repository{t, t.TempDir()}
	r.git("init", "-q", "-b", "main")
	r.write(defaultPipelineFile, "job: {script: echo}\n")
	r.write("a.txt", "1")
	r.commit()
	return r
}

func (r repository) git(args ...string) {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func (r repository) write(name, content string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r repository) commit() {
	r.t.Helper()
	r.git("add", "-A")
	r.git("commit", "-q", "-m", "change")
}

func (r repository) changed(compareTo string) any {
	r.t.Helper()
	tree, err := openTree(r.t.Context(), r.dir, "")
	if err != nil {
		r.t.Fatal(err)
	}
	paths, ok := tree.changed(r.t.Context(), compareTo)
	if !ok {
		return "unknown"
	}
	slices.Sort(paths)
	return paths
}

// What rules:changes compares with, as docs/pipelines.md says.
func TestChangedFiles(t *testing.T) {
	r := newRepository(t)
	check := func(when, compareTo string, want any) {
		t.Helper()
		if d := cmp.Diff(want, r.changed(compareTo)); d != "" {
			t.Errorf("%s: %s", when, d)
		}
	}
	check("one commit, nothing to compare with", "", "unknown")
	r.write("b.txt", "1")
	r.commit()
	check("on the default branch, clean: the last commit", "", []string{"b.txt"})
	r.write("a.txt", "2")
	r.write("new.txt", "")
	check("on the default branch, not clean: what is not committed", "", []string{"a.txt", "new.txt"})
	r.git("checkout", "-q", "-b", "topic")
	r.commit()
	r.write("c.txt", "")
	check("on a branch: all since it left the default branch", "", []string{"a.txt", "c.txt", "new.txt"})
	check("compare_to, by name", "topic", []string{"c.txt"})
	check("compare_to, as a ref", "refs/heads/main", []string{"a.txt", "c.txt", "new.txt"})
	check("compare_to of a ref that is not there", "nowhere", "unknown")
	check("compare_to that looks like a flag", "--output=x", "unknown")
	r.write(".gitignore", "c.txt\n")
	check("ignored files do not count", "topic", []string{".gitignore"})
}

func TestTreeReadsNothingOutside(t *testing.T) {
	r := newRepository(t)
	outside := filepath.Join(t.TempDir(), "secret.yml")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(r.dir, "link.yml")); err != nil {
		t.Fatal(err)
	}
	tree, err := openTree(t.Context(), r.dir, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"link.yml", "../" + filepath.Base(r.dir) + "/a.txt", outside} {
		if data, err := tree.read(path); err == nil {
			t.Errorf("read(%q) = %q", path, data)
		}
	}
	blob, ok := tree.blob("a.txt")
	if want := "56a6051ca2b02b04ef92d5150c9ef600403cb1de"; !ok || blob != want {
		t.Errorf("blob = %q, want what git hash-object gives: %s", blob, want)
	}
}
