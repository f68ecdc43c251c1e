package source

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

func TestWhatIsMountedBelowTheProject(t *testing.T) {
	t.Parallel()
	const table = `22 1 0:20 / / rw - ext4 /dev/vda rw
23 22 0:21 / /builds rw - ext4 /dev/vda rw
24 23 0:21 / /builds/a/project rw - ext4 /dev/vda rw
25 24 0:21 / /builds/a/project/vendor rw - ext4 /dev/vda rw
26 24 0:21 / /builds/a/project/deep/my\040dir[1] rw - ext4 /dev/vda rw
27 24 0:21 / /builds/a/project2/vendor rw - ext4 /dev/vda rw
28 24 0:21 / /builds/a/project/.git/x rw - ext4 /dev/vda rw
short line
`
	want := []string{"-e", "/vendor", "-e", `/deep/my\ dir\[1]`}
	if got := excludesOf(mountsIn(table, "/builds/a/project")); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestAnExcludedDirectoryStays is about git: it has to leave alone a path that is given so, and what is above it.
func TestAnExcludedDirectoryStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	run("init", "-q")
	kept, gone := filepath.Join(dir, "deep", "my dir[1]"), filepath.Join(dir, "deep", "other")
	for _, d := range []string{kept, gone} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "file"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	table := "26 24 0:21 / " + dir + `/deep/my\040dir[1] rw - ext4 /dev/vda rw`
	run(slices.Concat([]string{"clean", "-ffdx"}, excludesOf(mountsIn(table, dir)))...)
	if !exists(filepath.Join(kept, "file")) || exists(gone) {
		t.Errorf("kept: %v, gone: %v", exists(filepath.Join(kept, "file")), !exists(gone))
	}
}

func TestADirectoryIsEmptiedRoundWhatIsMounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{".git/objects", "deep/vendor", "deep/other", "vendor2"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, d, "file"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeAround(dir, []string{"deep/vendor"}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"deep/vendor/file": true, "deep/other": false, ".git": false, "vendor2": false} {
		if exists(filepath.Join(dir, name)) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
