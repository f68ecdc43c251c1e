package conformance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/batch/slurmtest"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// batchCampaign are bursts of jobs, in which the manager and Slurm's daemons are killed.
type batchCampaign struct {
	*siteRig
	random  *rand.Rand
	marks   string           // file to which each job appends its number once
	ids     map[string]int64 // of the jobs, by their numbers
	wanted  map[string]bool  // numbers of those that are to be cancelled
	kills   int
	started time.Time
}

const (
	linesOfCampaign = 20
	campaignLimit   = time.Minute // for a job, once nobody is killed any more
)

// TestKillCampaignOverSlurm kills the manager with SIGKILL at random moments, and restarts Slurm's daemons, while jobs come in
// bursts, wait in the queue, run, and are cancelled. In the end each that was not cancelled has run once, with a whole log, and
// nothing is left in the cluster. CAMPAIGN=full in the environment asks for 200 jobs and 50 kills. The moment between GitLab's
// decision and our record is left out, as in TestKillCampaign.
func TestKillCampaignOverSlurm(t *testing.T) {
	t.Parallel()
	cluster := slurmtest.Start(t, slurmtest.Options{Nodes: 3, Accounting: true, Config: "PartitionName=work Nodes=ALL MaxTime=INFINITE\n"})
	rounds, jobs, kills := 2, 8, 2
	if full() {
		rounds, jobs, kills = 10, 20, 5
	}
	c := &batchCampaign{
		siteRig: newSiteRig(t, cluster, inBatchJobs("PREFIX", `command_timeout = "3s"`, `take_timeout = "10s"`), `
[runners.first]
tags = ["first"]
[runners.sized]
tags = ["sized"]
batch = { order = "take-first" }
[runners.packed]
tags = ["packed"]
batch = { places = 3, linger = "2s", listen = "127.0.0.1:0" }
`),
		random: seeded(t), ids: map[string]int64{}, wanted: map[string]bool{}, started: time.Now(),
	}
	c.marks = c.path("marks")
	c.up()
	for round := range rounds {
		c.burst(round, jobs)
		switch round % 3 {
		case 0:
			cluster.StopController()
			c.disturb(kills)
			cluster.StartController()
		case 1:
			cluster.RestartNode(1 + c.random.IntN(3))
			c.disturb(kills)
		default:
			c.disturb(kills)
		}
		t.Logf("%d jobs and %d kills after %v", len(c.ids), c.kills, time.Since(c.started).Round(time.Second))
	}
	c.check()
}

// burst offers jobs, of which some will be cancelled.
func (c *batchCampaign) burst(round, jobs int) {
	tags := []string{"first", "sized", "packed"}
	for n := range jobs {
		nonce := fmt.Sprint(1000 + round*jobs + n)
		job := numbered(linesOfCampaign)
		job.Steps[0].Script = append([]string{"echo $NONCE >> " + c.marks}, job.Steps[0].Script...)
		c.ids[nonce] = c.send(tags[c.random.IntN(len(tags))], with(job, "NONCE", nonce))
		c.wanted[nonce] = c.random.IntN(8) == 0
	}
}

// disturb kills and starts the manager, and cancels jobs.
func (c *batchCampaign) disturb(kills int) {
	for n := range kills {
		c.pause(time.Duration(c.random.Int64N(int64(3 * time.Second))))
		for nonce, cancel := range c.wanted {
			if cancel && (n == kills-1 || c.random.IntN(2) == 0) && !c.Job(c.ids[nonce]).Status.Finished() {
				if err := c.Coordinator.CancelJob(c.ids[nonce], false); err != nil && !errors.Is(err, coordinator.ErrNotPossible) {
					c.t.Fatal(err)
				}
			}
		}
		c.killBetweenHandOuts(c.ids)
		c.kills++
		if c.random.IntN(3) == 0 {
			c.pause(time.Duration(c.random.Int64N(int64(4 * time.Second))))
		}
		c.start()
	}
}

// check waits for the end of all jobs and looks at what has become of them.
func (c *batchCampaign) check() {
	cancelled := 0
	for nonce, id := range c.ids {
		v := c.waitLong(id, campaignLimit)
		log, status := plain(c.Log(id)), coordinator.Success
		if c.wanted[nonce] && v.Status == coordinator.Canceled {
			status = coordinator.Canceled
			cancelled++
		}
		if v.Status != status || v.LogDamaged || !c.whole(log, nonce, status) {
			c.t.Fatalf("job %d is %s %s, log damaged %v:\n%s\nqueue: %s", id, v.Status, v.Reason, v.LogDamaged, log, c.cluster.Queue())
		}
	}
	data, err := os.ReadFile(c.marks)
	if err != nil {
		c.t.Fatal(err)
	}
	times := map[string]int{}
	for nonce := range strings.FieldsSeq(string(data)) {
		times[nonce]++
	}
	for nonce, id := range c.ids {
		if n := times[nonce]; n > 1 || n == 0 && c.Job(id).Status == coordinator.Success {
			c.t.Errorf("job %d has run %d times", id, n)
		}
	}
	batchJobs := c.empty()
	limit := time.Now().Add(30 * time.Second)
	for left := []string{""}; len(left) > 0; c.pause(100 * time.Millisecond) {
		if left, err = filepath.Glob(c.path("state/batch/*/allocations/*")); err != nil || time.Now().After(limit) {
			c.t.Fatalf("what was made for batch jobs is left: %v, %v", left, err)
		}
	}
	resubmitted := strings.Count(c.output.String(), "it is asked again\" runner")
	c.t.Logf("%d jobs, %d of them cancelled, in %d batch jobs, with %d kills, %d submissions repeated: %v",
		len(c.ids), cancelled, batchJobs, c.kills, resubmitted, time.Since(c.started).Round(time.Second))
}

// whole says whether a log has all of the job's lines once and in order; that of a cancelled one may end earlier.
func (c *batchCampaign) whole(log, nonce string, status coordinator.Status) bool {
	if status == coordinator.Success {
		return inOrder(log, nonce, linesOfCampaign)
	}
	want := []string{"begin-" + nonce}
	for i := range linesOfCampaign {
		want = append(want, fmt.Sprintf("line-%d", i+1))
	}
	got := regexp.MustCompile(`(?m)^(begin|line)-\d+$`).FindAllString(strings.ReplaceAll(log, "\r", ""), -1)
	return len(got) <= len(want) && slices.Equal(want[:len(got)], got)
}
