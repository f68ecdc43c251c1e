package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// older makes the last use of an image, and of all layers, some time ago.
func older(t *testing.T, s *Store, img *Image, by time.Duration) {
	t.Helper()
	then := time.Now().Add(-by)
	if err := os.Chtimes(filepath.Join(filepath.Dir(img.Path), noteFile), then, then); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(s.blobs)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Chtimes(filepath.Join(s.blobs, e.Name()), then, then); err != nil {
			t.Fatal(err)
		}
	}
}

func collect(t *testing.T, s *Store, l Limits) Collected {
	t.Helper()
	done, err := s.Collect(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func TestWhatIsNotUsedIsRemoved(t *testing.T) {
	r := startRegistry(t, "", "")
	one, _ := r.push(t, "app:1", hello(t, "one"))
	two, _ := r.push(t, "app:2", hello(t, "two"))
	s := open(t, filepath.Join(t.TempDir(), "images"), Options{})
	a, b := get(t, s, one, Want{}), get(t, s, two, Want{})
	older(t, s, a, 48*time.Hour)

	if done := collect(t, s, Limits{MaxAge: 24 * time.Hour}); done.Images != 0 || done.Blobs != 3 {
		t.Errorf("what is used is removed: %+v", done)
	}
	b.Release()
	if done := collect(t, s, Limits{MaxSize: 1}); done.Images != 1 || done.Bytes == 0 {
		t.Errorf("%+v", done)
	}
	if read(t, a.Path, "etc/hello") != "one" {
		t.Error("it is gone while it is used")
	}
	a.Release()
	a.Release()
	if done := collect(t, s, Limits{MaxAge: 24 * time.Hour}); done.Images != 1 {
		t.Errorf("%+v", done)
	}
	if _, err := s.Get(t.Context(), one, Want{Policies: []string{"never"}}); kindOf(err) != "config" {
		t.Error(err)
	}
	if img := get(t, s, one, Want{Policies: []string{"if-not-present"}}); read(t, img.Path, "etc/hello") != "one" {
		t.Error("it does not come again")
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.Collect(ended, Limits{MaxSize: 1}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTheOneUsedLongestAgoGoesFirst(t *testing.T) {
	r := startRegistry(t, "", "")
	s := open(t, filepath.Join(t.TempDir(), "images"), Options{})
	var images []*Image
	for i, text := range []string{"a", "b", "c"} {
		ref, _ := r.push(t, "app:"+text, hello(t, text))
		img := get(t, s, ref, Want{})
		img.Release()
		older(t, s, img, time.Duration(10-i)*time.Hour)
		images = append(images, img)
	}
	items, err := s.items()
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, i := range items {
		total += i.size
	}
	if done := collect(t, s, Limits{MaxSize: total - 1}); done.Images+done.Blobs != 1 {
		t.Errorf("%+v", done)
	}
	if _, err := os.Stat(images[0].Path); err == nil {
		t.Error("the oldest one is still there")
	}
}

func TestWhatDeadProcessesLeaveIsRemoved(t *testing.T) {
	r := startRegistry(t, "", "")
	ref, _ := r.push(t, "app:1", hello(t, "one"))
	s := open(t, filepath.Join(t.TempDir(), "images"), Options{})
	img := get(t, s, ref, Want{})
	img.Release()
	id := filepath.Base(filepath.Dir(img.Path))
	long := time.Now().Add(-48 * time.Hour)
	for _, path := range []string{s.path(useDir, id, "gone-1-x"), s.path(tmpDir, "make-1"), s.path(useDir, id, condemned)} {
		write(t, path, "")
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
	}
	// A mark that nobody came back to does not keep the image from being used.
	again := get(t, s, ref, Want{})
	if again.Path != img.Path {
		t.Error(again.Path)
	}
	again.Release()
	if done := collect(t, s, Limits{MaxSize: 1}); done.Images != 1 {
		t.Errorf("%+v", done)
	}
	if _, err := os.Stat(s.path(tmpDir, "make-1")); err == nil {
		t.Error("what was left is still there")
	}
}

func TestADirectoryOfOthersIsNotTrusted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "images")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if s := open(t, dir, Options{}); filepath.Dir(s.dir) != dir {
		t.Errorf("it works in %s", s.dir)
	}
	if _, err := Open(dir, Options{Shared: true}); err == nil {
		t.Error("all may write to what is shared")
	}
	if err := os.Chmod(dir, 0o775); err != nil {
		t.Fatal(err)
	}
	if s := open(t, dir, Options{Shared: true}); s.dir != dir {
		t.Errorf("it works in %s", s.dir)
	} else if info, err := os.Stat(s.blobs); err != nil || info.Mode() != 0o775|os.ModeDir|os.ModeSetgid {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 4711, 4711); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if s := open(t, dir, Options{}); filepath.Dir(s.dir) != dir {
			t.Errorf("it works in %s, which is a stranger's", s.dir)
		}
		if _, err := Open(dir, Options{Shared: true}); err == nil {
			t.Error("a stranger's directory is shared")
		}
	}
	if _, err := Open("relative", Options{}); err == nil {
		t.Error("a relative path")
	}
}
