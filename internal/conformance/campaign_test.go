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

// campaign is a series of rounds of the same jobs, in which the manager is killed again and again.
type campaign struct {
	*rig
	random     *rand.Rand
	subjects   func(round int) map[string]tranter.Job // of all kinds in the first round, which is not disturbed
	kills      int                                    // of the manager, in all
	perRound   int
	longestGap time.Duration            // between two of them
	around     func(n int, kill func()) // calls kill; n is how many there were before
}

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
			"exec 2>/dev/null", "trap 'echo told to end; exit 1' TERM", "echo waiting", "touch "+r.path("waiting"), "for i in $(seq 1 6000); do sleep 0.05; done", // longer than an engine needs to start, which has to bring the wish
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
	v := r.waitLong(id, time.Minute)
	e := ending{status: v.Status, reason: v.Reason, code: v.ExitCode, damaged: v.LogDamaged, log: r.Log(id)}
	e.log = regexp.MustCompile(`[^ ]*/builds/[^ ]*`).ReplaceAllString(e.log, "BUILD")
	e.log = afterPreparation(e.log)
	e.log = regexp.MustCompile(`(correlation ID: |-concurrent-|\bid=|\btoken=)[0-9A-Za-z_-]*`).ReplaceAllString(e.log, "$1")
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

// afterPreparation leaves out what is said while a job's containers are made, between its head and what the job says: that
// is done for all of them at the same time, may be tried again, and begins anew when the manager is killed meanwhile.
func afterPreparation(log string) string {
	begin := strings.Index(log, "Preparing the \"docker\" executor")
	end := strings.Index(log, "Running on ")
	if begin < 0 || end < begin {
		return log
	}
	return log[:begin] + log[end:]
}

// TestKillCampaign kills the manager with SIGKILL at random moments while jobs of all kinds are received, prepared, run
// and reported. Each ends as it does when nobody is killed, and its log is the same to the byte. CAMPAIGN=full in the
// environment asks for 200 kills.
//
// One moment is left out, because no runner can do anything about it: that between GitLab's decision to hand a job out
// and our record of it. See docs/runner.md.
func TestKillCampaign(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	repo := repository(t, map[string]string{"readme": "x\n"})
	const perRound = 25
	rounds := 3
	if full() {
		rounds = 8
	}
	c := campaign{
		rig: r, random: seeded(t), subjects: func(int) map[string]tranter.Job { return r.subjects(repo) },
		kills: rounds * perRound, perRound: perRound, longestGap: 150 * time.Millisecond, around: func(_ int, kill func()) { kill() },
	}
	c.run()
}

// seeded returns a source of chance that a failed test can be repeated with.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CAMPAIGN_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("CAMPAIGN_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// run starts the manager, has the jobs run without a disturbance, and then with all.
func (c *campaign) run() {
	t := c.t
	t.Helper()
	all := c.subjects(0)
	c.configureConcurrent(len(all))
	c.start()
	want := map[string]ending{}
	first := c.enqueue(all)
	c.cancelIfWanted("cancelled", first["cancelled"])
	for name, id := range first {
		want[name] = c.ending(name, id)
	}
	if e := want["cancelled"]; e.status != coordinator.Canceled || !strings.Contains(e.log, "told to end\n") {
		t.Fatalf("the reference: %+v", e)
	}
	lost := 0
	for killed := 0; killed < c.kills; killed += c.perRound {
		ids := c.enqueue(c.subjects(1 + killed/c.perRound))
		began := time.Now()
		c.disturb(killed, ids)
		t.Logf("%d kills in %v", c.perRound, time.Since(began))
		for name, id := range ids {
			c.settled(ids)
			if c.Job(id).Status == coordinator.Running && !c.heardOf(id) {
				lost++
				t.Logf("job %d fell into the gap between GitLab's decision and the record", id)
				c.Abort(id)
				continue
			}
			c.cancelIfWanted(name, id)
			if got := c.ending(name, id); got != want[name] {
				t.Fatalf("after %d kills: %s, job %d: %s\n\nwanted: %s", killed+c.perRound, name, id, difference(got, want[name]), want[name].brief())
			}
		}
	}
	if lost > 2 {
		t.Errorf("%d jobs were lost", lost)
	}
}

// disturb kills and starts the manager as often as a round asks for.
func (c *campaign) disturb(before int, ids map[string]int64) {
	cancelAt := c.random.IntN(c.perRound)
	for n := range c.perRound {
		c.pause(time.Duration(c.random.Int64N(int64(c.longestGap))))
		if n == cancelAt {
			c.cancelIfWanted("cancelled", ids["cancelled"])
		}
		c.around(before+n, func() {
			c.killBetweenHandOuts(ids)
			c.start()
		})
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
	if len(got.log) < 4<<10 { // all of it says more
		at = 200
	}
	from := max(0, at-200)
	return fmt.Sprintf("%s, damaged: %v, artifacts as they should be: %v; the logs differ at byte %d:\n%q\nwanted:\n%q", got.brief(), got.damaged,
		got.artifact == want.artifact, at, got.log[from:min(len(got.log), at+3000)], want.log[from:min(len(want.log), at+400)])
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
	r.settled(map[string]int64{name: id})
	if r.Job(id).Status == coordinator.Running && !r.heardOf(id) {
		return // it fell into the gap between GitLab's decision and the record, and never begins
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
