package conformance

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// disk is a place with little room.
type disk struct {
	dir  string
	wrap []string // goes before a command line for which the disk is there
}

// smallDisk makes a disk of so many KiB: a file system in a mount namespace of the command's own, or one for all to see,
// or, where no mount is allowed, as in most containers, what such a place has as shared memory, filled up to that size.
func smallDisk(t *testing.T, dir string, kib int) disk {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, flags := range []string{"-m", "-rm"} {
		if exec.Command("unshare", flags, "mount", "-t", "tmpfs", "tmpfs", dir).Run() == nil {
			mount := fmt.Sprintf(`mount -t tmpfs -o size=%dk tmpfs '%s' && exec "$0" "$@"`, kib, dir)
			return disk{dir: dir, wrap: []string{"unshare", flags, "sh", "-c", mount}}
		}
	}
	if exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dk", kib), "tmpfs", dir).Run() == nil {
		t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
		return disk{dir: dir}
	}
	const memory = "/dev/shm"
	var s unix.Statfs_t
	if err := unix.Statfs(memory, &s); err != nil || s.Blocks*uint64(s.Bsize) > 256<<20 {
		t.Fatalf("a small disk is needed: root, or user namespaces, or a %s of at most 256 MiB (%v)", memory, err)
	}
	own, err := os.MkdirTemp(memory, "tranter-disk-") //nolint:usetesting // it has to lie on that disk
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(own) })
	filler := make([]byte, int64(s.Bavail)*s.Bsize-int64(kib)<<10)
	if err := os.WriteFile(filepath.Join(own, "filler"), filler, 0o600); err != nil {
		t.Fatal(err)
	}
	return disk{dir: filepath.Join(own, "disk")}
}

// noGuard lets jobs run although there is hardly any room.
const noGuard = "[disk_guard]\nmin_free_mib = 0\nmin_free_inodes = 0\n"

func TestAFullBuildsDirectory(t *testing.T) {
	d := smallDisk(t, filepath.Join(t.TempDir(), "builds"), 4096)
	r := newRig(t, noGuard, fmt.Sprintf("builds_dir = %q", d.dir))
	noise := make([]byte, 6<<20)
	for i := range noise {
		noise[i] = byte(rand.IntN(256))
	}
	large := r.Serve(repository(t, map[string]string{"noise": string(noise)}), script("true"))
	r.startWith(d.wrap, r.path("state"))
	writes := r.Enqueue(script("head -c 20000000 /dev/zero > file"))
	v := r.Wait(writes)
	if log := plain(r.Log(writes)); v.Status != coordinator.Failed || v.Reason != tranter.RunnerSystemFailure || !strings.Contains(log, "No space left on device") || !strings.Contains(log, "no space is left on the disk of "+d.dir) {
		t.Errorf("a script that fills the disk: %s %s\n%s", v.Status, v.Reason, log)
	}
	clones := r.Enqueue(large)
	v = r.Wait(clones)
	if log := plain(r.Log(clones)); v.Status != coordinator.Failed || v.Reason != tranter.RunnerSystemFailure || !strings.Contains(log, "get_sources") {
		t.Errorf("sources that do not fit: %s %s\n%s", v.Status, v.Reason, log)
	}
}

func TestAFullStateDirectory(t *testing.T) {
	d := smallDisk(t, filepath.Join(t.TempDir(), "state"), 4096) // with room for the databases, and less than the log
	r := newRig(t, noGuard, "output_limit = 100000")
	r.startWith(d.wrap, d.dir)
	prints := r.Enqueue(script("echo first", "head -c 8000000 /dev/zero | tr '\\0' '\\n'", "sleep 60"))
	v := r.Wait(prints)
	log := plain(r.Log(prints))
	if v.Status != coordinator.Failed || v.Reason != tranter.RunnerSystemFailure || !strings.Contains(log, "first") || !strings.Contains(log, "no space left") {
		t.Errorf("%s %s, log of %d bytes, at its end %q", v.Status, v.Reason, len(log), log[max(0, len(log)-500):])
	}
	next := r.Enqueue(script("echo fine"))
	if v := r.Wait(next); v.Status != coordinator.Success {
		t.Errorf("the next job: %s\n%s", v.Status, plain(r.Log(next)))
	}
}

func TestTheDiskGuard(t *testing.T) {
	d := smallDisk(t, filepath.Join(t.TempDir(), "builds"), 8192)
	r := newRig(t, "[disk_guard]\nmin_free_mib = 4\nmin_free_inodes = 0\n", fmt.Sprintf("builds_dir = %q", d.dir))
	r.startWith(d.wrap, r.path("state"))
	fill := r.Enqueue(script("head -c 6000000 /dev/zero > ../keep"))
	if v := r.Wait(fill); v.Status != coordinator.Success {
		t.Fatalf("%s\n%s", v.Status, plain(r.Log(fill)))
	}
	r.eventually("the runner says why it takes no jobs", func() bool {
		out, _ := r.tool("status", "--config", r.path("config.toml"), "--state-dir", r.path("state"))
		return strings.Contains(out, "MiB are free on the disk of "+d.dir)
	})
	waits := r.Enqueue(script("true"))
	r.pause(2 * time.Second)
	if v := r.Job(waits); v.Status != coordinator.Pending {
		t.Fatalf("the job is %s", v.Status)
	}
	r.configure(noGuard, fmt.Sprintf("builds_dir = %q", d.dir))
	r.signal(syscall.SIGHUP)
	if v := r.Wait(waits); v.Status != coordinator.Success {
		t.Errorf("%s\n%s", v.Status, plain(r.Log(waits)))
	}
	for _, want := range []string{"takes no jobs for now", "takes jobs again"} {
		if !strings.Contains(r.output.String(), want) {
			t.Errorf("the manager has not said %q", want)
		}
	}
}
