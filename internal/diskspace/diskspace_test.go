package diskspace_test

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/diskspace"
)

func TestOfLooksAtTheParentOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	here, err := diskspace.Of(dir)
	if err != nil || here.Bytes == 0 {
		t.Fatalf("%+v, %v", here, err)
	}
	there, err := diskspace.Of(filepath.Join(dir, "not", "there"))
	if err != nil || there.Bytes == 0 {
		t.Fatalf("%+v, %v", there, err)
	}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "builds"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		guard diskspace.Guard
		want  string
	}{
		"off":       {diskspace.Guard{Dirs: []string{dir}}, ""},
		"enough":    {diskspace.Guard{Bytes: 1, Inodes: 1, Dirs: []string{dir}}, ""},
		"no bytes":  {diskspace.Guard{Bytes: math.MaxUint64, Dirs: []string{dir, filepath.Join(dir, "builds")}}, "MiB are free on the disk of " + dir},
		"no inodes": {diskspace.Guard{Inodes: math.MaxUint64, Dirs: []string{dir}}, "inodes are free on the disk of " + dir},
		"nowhere":   {diskspace.Guard{Bytes: math.MaxUint64}, ""},
	} {
		if room, err := diskspace.Of(dir); name == "no inodes" && (err != nil || !room.Counted) {
			continue // a file system without a fixed number of them
		}
		err := diskspace.NewWatch(c.guard, time.Second, nil).Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestFull(t *testing.T) {
	t.Parallel()
	for r, want := range map[diskspace.Room]bool{
		{Bytes: 1 << 30, Inodes: 5, Counted: true}: false,
		{Bytes: 1 << 30}:                        false,
		{Bytes: 4096, Inodes: 5, Counted: true}: true,
		{Bytes: 1 << 30, Counted: true}:         true,
	} {
		if r.Full() != want {
			t.Errorf("%+v: %v", r, r.Full())
		}
	}
}
