package conformance

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// onSmallDisk runs the manager where the directory lies on a disk of so many KiB, in a mount namespace of its own.
func (r *rig) onSmallDisk(dir string, kib int) {
	r.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	cmd := r.command("run", "--config", r.path("config.toml"), "--state-dir", r.path("state"), "--working-directory", r.dir)
	mount := fmt.Sprintf("mount -t tmpfs -o size=%dk tmpfs '%s' && exec '%s'", kib, dir, strings.Join(cmd.Args, "' '"))
	wrapped := exec.Command("unshare", "-rm", "sh", "-c", mount)
	wrapped.Dir, wrapped.Env, wrapped.Stdout, wrapped.Stderr = cmd.Dir, cmd.Env, r.output, r.output
	if err := wrapped.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.cmd, r.ended = wrapped, make(chan struct{})
	ended := r.ended
	go func() {
		defer close(ended)
		_ = wrapped.Wait()
	}()
}

func TestAFullBuildsDirectory(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	noise := make([]byte, 6<<20)
	for i := range noise {
		noise[i] = byte(rand.IntN(256))
	}
	large := r.Serve(repository(t, map[string]string{"noise": string(noise)}), script("true"))
	r.onSmallDisk(r.path("builds"), 4096)
	writes := r.Enqueue(script("head -c 20000000 /dev/zero > file"))
	v := r.Wait(writes)
	if log := plain(r.Log(writes)); v.Status != coordinator.Failed || v.Reason != tranter.ScriptFailure || !strings.Contains(log, "No space left on device") {
		t.Errorf("a script that fills the disk: %s %s\n%s", v.Status, v.Reason, log)
	}
	clones := r.Enqueue(large)
	v = r.Wait(clones)
	if log := plain(r.Log(clones)); v.Status != coordinator.Failed || v.Reason != tranter.RunnerSystemFailure || !strings.Contains(log, "get_sources") {
		t.Errorf("sources that do not fit: %s %s\n%s", v.Status, v.Reason, log)
	}
}

func TestAFullStateDirectory(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "output_limit = 100000")
	r.onSmallDisk(r.path("state"), 1024)
	prints := r.Enqueue(script("echo first", "head -c 8000000 /dev/zero | tr '\\0' '\\n'", "sleep 60"))
	v := r.Wait(prints)
	log := plain(r.Log(prints))
	if v.Status != coordinator.Failed || v.Reason != tranter.RunnerSystemFailure || !strings.Contains(log, "first") {
		t.Errorf("%s %s, log of %d bytes", v.Status, v.Reason, len(log))
	}
	next := r.Enqueue(script("echo fine"))
	if v := r.Wait(next); v.Status != coordinator.Success {
		t.Errorf("the next job: %s\n%s", v.Status, plain(r.Log(next)))
	}
}
