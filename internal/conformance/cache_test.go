package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cache/remote/s3test"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// bucketSection is a section that keeps caches in a bucket.
func bucketSection(g *s3test.Gateway, secret string) string {
	return fmt.Sprintf("[runners.cache]\nType = \"s3\"\nPath = \"ci\"\nShared = true\n[runners.cache.s3]\nServerAddress = %q\nAccessKey = %q\nSecretKey = %q\nBucketName = %q\nInsecure = true\n",
		g.Address, g.AccessKey, secret, g.Bucket)
}

func cached(job tranter.Job, keys ...string) tranter.Job {
	job.Cache = []tranter.Cache{{Key: keys[0], Paths: []string{"cached/"}, Policy: "pull-push", When: "always", FallbackKeys: keys[1:]}}
	return job
}

func TestACacheTravelsThroughS3(t *testing.T) {
	t.Parallel()
	g := s3test.Start(t)
	first := newRig(t, "", bucketSection(g, g.SecretKey))
	first.start()
	// Larger than a part, and not to be compressed.
	id := first.Enqueue(cached(script("mkdir cached", "head -c 20000000 /dev/urandom > cached/large", "cksum < cached/large > cached/sum"), "deps-main"))
	if v := first.Wait(id); v.Status != coordinator.Success {
		t.Fatalf("%s %s\n%s", v.Status, v.Reason, plain(first.Log(id)))
	}
	log := plain(first.Log(id))
	if !strings.Contains(log, "Created cache") || strings.Contains(log, "distributed cache") {
		t.Errorf("log of the job that saves:\n%s", log)
	}
	if _, err := os.Stat(filepath.Join(g.Dir, "ci", "project", "1", "deps-main")); err != nil {
		t.Errorf("the archive is not where GitLab Runner would look: %v", err)
	}
	first.eventually("unfinished uploads are undone", func() bool { return g.Unfinished(t) == 0 })

	empty := newRig(t, "", bucketSection(g, g.SecretKey)) // another machine
	empty.start()
	for _, keys := range [][]string{{"deps-main"}, {"deps-topic", "deps-main"}} {
		id := empty.Enqueue(cached(script("cksum < cached/large | cmp - cached/sum"), keys...))
		if v := empty.Wait(id); v.Status != coordinator.Success {
			t.Errorf("keys %q: %s %s\n%s", keys, v.Status, v.Reason, plain(empty.Log(id)))
		}
		if log := plain(empty.Log(id)); !strings.Contains(log, "Successfully extracted cache") {
			t.Errorf("keys %q:\n%s", keys, log)
		}
		for _, dir := range []string{"cache", "builds"} {
			if err := os.RemoveAll(empty.path(dir)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, r := range []*rig{first, empty} {
		r.eventually("unfinished uploads are undone", func() bool { return g.Unfinished(t) == 0 })
		if strings.Contains(r.output.String(), "X-Amz-Signature") {
			t.Error("the runner's log holds signatures")
		}
	}
	for _, text := range []string{"X-Amz-Signature", g.SecretKey} {
		if strings.Contains(log, text) {
			t.Errorf("the job's log holds %s", text)
		}
	}
}

// A job that is killed in the middle of its upload leaves nothing at the storage that somebody would have to pay for.
func TestAnInterruptedJobLeavesNoUpload(t *testing.T) {
	t.Parallel()
	g := s3test.Start(t)
	r := newRig(t, "", bucketSection(g, g.SecretKey))
	r.start()
	id := r.Enqueue(cached(script("mkdir cached", "date > cached/x", "touch "+r.path("started"), "sleep 600"), "deps"))
	r.file(r.path("started"))
	if g.Unfinished(t) == 0 {
		t.Error("no upload was begun, so the test proves nothing")
	}
	r.kill() // and what was begun is known to the next start
	r.start()
	r.Abort(id)
	r.eventually("the upload is undone", func() bool { return g.Unfinished(t) == 0 })
}

func TestAJobRunsWithoutItsBucket(t *testing.T) {
	t.Parallel()
	g := s3test.Start(t)
	r := newRig(t, "", bucketSection(g, "wrong-secret"))
	r.start()
	started := time.Now()
	id := r.Enqueue(cached(script("mkdir -p cached", "test -e cached/x || date > cached/x"), "deps"))
	v := r.Wait(id)
	log := plain(r.Log(id))
	if v.Status != coordinator.Success || !strings.Contains(log, "The distributed cache cannot be used") || !strings.Contains(log, "SignatureDoesNotMatch") || strings.Contains(log, "wrong-secret") {
		t.Errorf("%s %s after %v\n%s", v.Status, v.Reason, time.Since(started), log)
	}
}
