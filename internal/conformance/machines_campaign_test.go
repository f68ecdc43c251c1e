package conformance

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/pool"
)

// full says whether the long form of the campaigns is wanted.
func full() bool { return os.Getenv("CAMPAIGN") == "full" }

// A burst of jobs never has more machines than allowed, and leaves none. CAMPAIGN=full in the environment asks for 40 jobs
// with at most 10 machines.
func TestABurstOfJobsHasNoMoreMachinesThanAllowed(t *testing.T) {
	t.Parallel()
	jobs, limit := 8, 3
	if full() {
		jobs, limit = 40, 10
	}
	r := machineRig(t, "", "IdleTime = 1")
	r.configure("", fmt.Sprintf("limit = %d", limit))
	r.write(strings.Replace(r.read("config.toml"), "concurrent = 4", fmt.Sprintf("concurrent = %d", limit), 1))
	r.up()
	began := time.Now()
	ids := make([]int64, jobs)
	for i := range ids {
		ids[i] = r.Enqueue(bare("echo on $(hostname)", "sleep 0.3"))
	}
	most := 0
	r.eventuallyIn(3*time.Minute, "all jobs have ended", func() bool {
		most = max(most, len(r.machines()))
		for _, id := range ids {
			if !r.Job(id).Status.Finished() {
				return false
			}
		}
		return true
	})
	t.Logf("%d jobs with at most %d machines took %v", jobs, limit, time.Since(began).Round(100*time.Millisecond))
	for _, id := range ids {
		if v := r.Job(id); v.Status != coordinator.Success || v.LogDamaged {
			t.Errorf("job %d: %s %s, log damaged %v:\n%s", id, v.Status, v.Reason, v.LogDamaged, r.Log(id))
		}
	}
	log := r.Log(ids[0])
	for _, want := range []string{"Waiting for a machine", "Using machine runner-" + strings.ToLower(r.Token.Short()) + "-m-", "on runner-"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	if most > limit {
		t.Errorf("there were %d machines, and the limit is %d", most, limit)
	}
	r.gone()
}

func (r *rig) read(name string) string {
	r.t.Helper()
	data, err := os.ReadFile(r.path(name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

// counted is a job whose log tells whether it ran once, and is whole.
func counted(nonce string) tranter.Job {
	return with(bare("echo begin-$NONCE", "i=0; while [ $i -lt 12 ]; do i=$((i+1)); echo line-$i; sleep 0.2; done", "echo end-$NONCE"), "NONCE", nonce)
}

// isWhole says whether a log is that of a counted job that ran once.
func isWhole(log, nonce string) bool {
	want := []string{"begin-" + nonce}
	for i := range 12 {
		want = append(want, fmt.Sprintf("line-%d", i+1))
	}
	want = append(want, "end-"+nonce)
	return slices.Equal(want, regexp.MustCompile(`(?m)^(begin|line|end)-\d+$`).FindAllString(strings.ReplaceAll(plain(log), "\r", ""), -1))
}

// machineFaults are states of the provider, as files that its driver reads.
func machineFaults(random *rand.Rand) map[string]string {
	switch n := random.IntN(100); {
	case n < 30:
		return map[string]string{"fail": "create"}
	case n < 35:
		return map[string]string{"hang": "create"}
	case n < 45:
		return map[string]string{"fail": "done: created, and then an error"}
	case n < 52:
		return map[string]string{"die": "created"}
	case n < 57:
		return map[string]string{"throttle": "create"}
	case n < 62:
		return map[string]string{"fail": "remove\nstate"}
	}
	return nil
}

// misbehave has the driver show faults, and no others.
func (r *rig) misbehave(faults map[string]string) {
	r.t.Helper()
	for _, name := range []string{"fail", "hang", "die", "throttle"} {
		if _, on := faults[name]; !on {
			_ = os.Remove(r.path("faults/" + name))
		}
	}
	for name, moments := range faults {
		if err := os.WriteFile(r.path("faults/"+name+".new"), []byte(moments+"\n"), 0o600); err != nil {
			r.t.Fatal(err)
		}
		if err := os.Rename(r.path("faults/"+name+".new"), r.path("faults/"+name)); err != nil {
			r.t.Fatal(err)
		}
	}
}

// TestKillCampaignOverMachines kills the manager with SIGKILL at random moments, while machines are made, fail, hang, die and
// are removed, and jobs run on them: in the end each job has run once, with a whole log, and no machine is left. CAMPAIGN=full
// in the environment asks for 200 kills. The moment between GitLab's decision and our record is left out, as in
// TestKillCampaign.
func TestKillCampaignOverMachines(t *testing.T) {
	t.Parallel()
	r := drivenRig(t, 3)
	r.write(strings.NewReplacer(`create_timeout = "1m"`, `create_timeout = "8s"`, "IdleTime = 2", "IdleTime = 1").Replace(r.read("config.toml")))
	random := seeded(t)
	rounds, perRound := 1, 6
	if full() {
		rounds, perRound = 20, 10
	}
	r.up()
	began := time.Now()
	for round := range rounds {
		ids := map[string]int64{}
		for n := range 4 {
			nonce := fmt.Sprint(1000 + 10*round + n)
			ids[nonce] = r.Enqueue(counted(nonce))
		}
		for range perRound {
			r.misbehave(machineFaults(random))
			gap := time.Second
			if random.IntN(2) == 0 {
				gap = 5 * time.Second
			}
			r.pause(time.Duration(random.Int64N(int64(gap))))
			r.killBetweenHandOuts(ids)
			r.start()
		}
		r.misbehave(nil)
		for nonce, id := range ids {
			if v := r.waitLong(id, 3*time.Minute); v.Status != coordinator.Success || v.LogDamaged || !isWhole(r.Log(id), nonce) {
				t.Fatalf("after %d kills, job %d is %s, %s, log damaged %v:\n%s", (round+1)*perRound, id, v.Status, v.Reason, v.LogDamaged, r.Log(id))
			}
		}
		t.Logf("%d kills after %v", (round+1)*perRound, time.Since(began).Round(time.Second))
	}
	r.eventuallyIn(2*time.Minute, "only what may have been left behind is in the book", func() bool {
		return len(r.machines()) == 0 && !slices.ContainsFunc(r.fleet(), func(m pool.MachineStatus) bool { return !strings.Contains(m.Leak, "may have been left") })
	})
	t.Logf("creations of which the driver had not said an id when the manager was killed: %d", len(r.fleet()))
	if out, code := r.machine("prune", "--yes"); code != 0 {
		t.Errorf("machine prune: code %d, %s", code, out)
	}
	r.gone()
}
