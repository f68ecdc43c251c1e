package conformance

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/coordinator"
)

const builtinSection = "[runners.cache]\nType = \"builtin\"\n"

// forget removes what a machine that runs one job has not.
func forget(r *rig) {
	r.t.Helper()
	for _, dir := range []string{"cache", "builds"} {
		if err := os.RemoveAll(r.path(dir)); err != nil {
			r.t.Fatal(err)
		}
	}
}

// succeeds waits for a job and returns its log.
func (r *rig) succeeds(id int64) string {
	r.t.Helper()
	v := r.Wait(id)
	log := plain(r.Log(id))
	if v.Status != coordinator.Success {
		r.t.Errorf("%s %s\n%s", v.Status, v.Reason, log)
	}
	return log
}

func TestTheBuiltinCacheNeedsNoSetup(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", builtinSection)
	r.start()
	first := r.succeeds(r.Enqueue(cached(script("mkdir cached", "head -c 20000000 /dev/urandom > cached/large", "cksum < cached/large > cached/sum"), "deps")))
	forget(r)
	second := r.succeeds(r.Enqueue(cached(script("cksum < cached/large | cmp - cached/sum"), "deps")))
	if !strings.Contains(first, "Uploading cache.zip to 127.0.0.1:") || !strings.Contains(second, "Successfully extracted cache") || !strings.Contains(second, "skipping upload") {
		t.Errorf("first:\n%s\nsecond:\n%s", first, second)
	}
	if text := first + second + r.output.String(); strings.Contains(text, "signature") {
		t.Error("a log has a signed URL")
	}
	if info, err := os.Stat(r.path("state/cache-server.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v %v", info, err)
	}
}

// The manager is killed while a job uploads to it. The upload goes on where it was with the next one.
func TestAnUploadToAKilledManager(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", builtinSection)
	r.start()
	id := r.Enqueue(cached(script("mkdir cached", "head -c 150000000 /dev/urandom > cached/large", "cksum < cached/large > cached/sum"), "deps"))
	r.eventually("the upload has begun", func() bool { return len(parts(r)) > 1 })
	r.kill()
	r.pause(3 * time.Second) // an outage, not a blink
	if len(parts(r)) == 0 {
		t.Error("the upload was over, so the test proves nothing")
	}
	r.start()
	log := r.succeeds(id)
	if !strings.Contains(log, "Created cache") || strings.Contains(log, "Failed to create cache") {
		t.Errorf("log:\n%s", log)
	}
	forget(r)
	if log := r.succeeds(r.Enqueue(cached(script("cksum < cached/large | cmp - cached/sum"), "deps"))); !strings.Contains(log, "Successfully extracted cache") {
		t.Errorf("log:\n%s", log)
	}
}

// parts returns the parts of uploads that are not complete.
func parts(r *rig) []string {
	var out []string
	_ = filepath.WalkDir(r.path("state/cache/archives/uploads"), func(path string, _ fs.DirEntry, _ error) error {
		if strings.HasSuffix(path, ".part") {
			out = append(out, path)
		}
		return nil
	})
	return out
}
