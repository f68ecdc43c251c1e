package conformance

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
)

// The campaign: so many times is the manager killed, in rounds of the same jobs.
const (
	kills         = 200
	killsPerRound = 25
	longestGap    = 150 * time.Millisecond
)

// subjects are one job of each kind. What they print does not depend on when and where they run.
func (r *rig) subjects(repo string) map[string]tranter.Job {
	exact := func(job tranter.Job) tranter.Job {
		job.Features.TraceSections = false // they carry times
		job.Features.FailureReasons = known
		return with(job, "FF_TIMESTAMPS", "false")
	}
	failing := exact(after(script("echo before", "sleep 0.6", "echo worse", "exit 7"), "echo after, as $CI_JOB_STATUS"))
	keeping := exact(with(r.Serve(repo, script("mkdir -p out deps", "seq 1 20000 > out/big", "seq 1 100 > deps/list", "sleep 0.5", "echo packed")), "GIT_STRATEGY", "clone"))
	keeping.Artifacts = []tranter.Artifact{{Name: "out", Paths: []string{"out"}, When: "on_success", Type: "archive", Format: "zip"}}
	keeping.Cache = []tranter.Cache{{Key: "campaign", Paths: []string{"deps"}, Policy: "push", When: "on_success"}}
	return map[string]tranter.Job{
		"long":    exact(script("for i in $(seq 1 12); do echo line $i; sleep 0.1; done")),
		"chatty":  exact(script("seq 1 60000")),
		"failing": failing,
		"keeping": keeping,
		"cancelled": exact(after(script(
			"exec 2>/dev/null", "trap 'echo told to end; exit 1' TERM", "echo waiting", "touch "+r.path("waiting"), "for i in $(seq 1 600); do sleep 0.05; done",
		), "echo cleaned up")),
	}
}

// ending is how a job of the campaign has ended, as GitLab sees it.
type ending struct {
	status   coordinator.Status
	reason   tranter.FailureReason
	code     int
	damaged  bool
	log      string
	artifact string // what the file in it holds
}

// ending waits for a job and returns how it ended, without what must differ from job to job.
func (r *rig) ending(name string, id int64) ending {
	r.t.Helper()
	v := r.Wait(id)
	e := ending{status: v.Status, reason: v.Reason, code: v.ExitCode, damaged: v.LogDamaged, log: r.Log(id)}
	e.log = regexp.MustCompile(`[^ ]*/builds/[^ ]*`).ReplaceAllString(e.log, "BUILD")
	e.log = regexp.MustCompile(`(correlation ID: |\bid=|\btoken=)[0-9A-Za-z_-]*`).ReplaceAllString(e.log, "$1")
	if name != "keeping" {
		return e
	}
	data := r.Artifact(id, "archive")
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		r.t.Fatalf("the artifacts are damaged: %v", err)
	}
	f, err := z.Open("out/big")
	if err != nil {
		r.t.Fatal(err)
	}
	content, err := io.ReadAll(f)
	if err != nil {
		r.t.Fatalf("the artifacts are damaged: %v", err)
	}
	e.artifact = string(content)
	return e
}

// TestKillCampaign kills the manager with SIGKILL at random moments while jobs of all kinds are received, prepared, run
// and reported. Each ends as it does when nobody is killed, and its log is the same to the byte.
//
// One moment is left out, because no runner can do anything about it: that between GitLab's decision to hand a job out
// and our record of it. See docs/runner.md.
func TestKillCampaign(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CAMPAIGN_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("CAMPAIGN_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	r := newRig(t, "", "")
	config, err := os.ReadFile(r.path("config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	config = bytes.Replace(config, []byte("concurrent = 4"), []byte("concurrent = 5"), 1)
	if err := os.WriteFile(r.path("config.toml"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	repo := repository(t, map[string]string{"readme": "x\n"})
	want := map[string]ending{}
	for name, id := range r.enqueue(r.subjects(repo)) {
		r.cancelIfWanted(name, id)
		want[name] = r.ending(name, id)
	}
	if e := want["cancelled"]; e.status != coordinator.Canceled || !strings.Contains(e.log, "told to end\n") {
		t.Fatalf("the reference: %+v", e)
	}
	lost := 0
	for killed := 0; killed < kills; {
		all := r.subjects(repo)
		ids := r.enqueue(all)
		cancelAt := random.IntN(killsPerRound)
		for n := range killsPerRound {
			r.pause(time.Duration(random.Int64N(int64(longestGap))))
			if n == cancelAt {
				r.cancelIfWanted("cancelled", ids["cancelled"])
			}
			r.killBetweenHandOuts(ids)
			r.start()
			killed++
		}
		for name, id := range ids {
			r.settled(ids)
			if r.Job(id).Status == coordinator.Running && !r.heardOf(id) {
				lost++
				t.Logf("job %d fell into the gap between GitLab's decision and the record", id)
				r.Abort(id)
				continue
			}
			r.cancelIfWanted(name, id)
			if got := r.ending(name, id); got != want[name] {
				t.Fatalf("after %d kills: %s, job %d: %s\n\nwanted: %s", killed, name, id, difference(got, want[name]), want[name].brief())
			}
		}
	}
	if lost > 2 {
		t.Errorf("%d jobs were lost", lost)
	}
}

func (e ending) brief() string {
	return fmt.Sprintf("%s %s %d, log of %d bytes", e.status, e.reason, e.code, len(e.log))
}

// difference shows where a job's end is not the one wanted.
func difference(got, want ending) string {
	at := 0
	for at < min(len(got.log), len(want.log)) && got.log[at] == want.log[at] {
		at++
	}
	from := max(0, at-200)
	return fmt.Sprintf("%s, damaged: %v, artifacts as they should be: %v; the logs differ at byte %d:\n%q\nwanted:\n%q", got.brief(), got.damaged,
		got.artifact == want.artifact, at, got.log[from:min(len(got.log), at+400)], want.log[from:min(len(want.log), at+400)])
}

// enqueue offers all jobs and returns their ids.
func (r *rig) enqueue(all map[string]tranter.Job) map[string]int64 {
	r.t.Helper()
	_ = os.Remove(r.path("waiting"))
	ids := map[string]int64{}
	for name, job := range all {
		ids[name] = r.Enqueue(job)
	}
	return ids
}

// cancelIfWanted cancels a job that is to be cancelled, once its script has begun.
func (r *rig) cancelIfWanted(name string, id int64) {
	r.t.Helper()
	if name != "cancelled" || r.Job(id).Status == coordinator.Canceling || r.Job(id).Status.Finished() {
		return
	}
	r.file(r.path("waiting"))
	r.Cancel(id)
}

// killBetweenHandOuts kills the manager when GitLab is not just handing out one of the jobs.
func (r *rig) killBetweenHandOuts(ids map[string]int64) {
	r.t.Helper()
	r.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Request, Hold: r.t.Context().Done(), Times: -1})
	r.pause(3 * time.Millisecond) // for those that have come through before
	r.settled(ids)
	r.kill()
	r.Clear()
}

// settled waits while a job has been handed out and not been recorded.
func (r *rig) settled(ids map[string]int64) {
	limit := time.Now().Add(3 * time.Second)
	for name := range ids {
		for r.Job(ids[name]).Status == coordinator.Running && !r.heardOf(ids[name]) && time.Now().Before(limit) {
			r.pause(time.Millisecond)
		}
	}
}

// heardOf says whether a manager has recorded the job, which it says afterwards, or its successor does.
func (r *rig) heardOf(id int64) bool {
	mark := fmt.Sprintf("job=%d ", id)
	for line := range strings.Lines(r.output.String()) {
		if strings.Contains(line, mark) && (strings.Contains(line, "... received") || strings.Contains(line, "Taking up")) {
			return true
		}
	}
	return false
}
