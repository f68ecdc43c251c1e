package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/worker"
)

// fakeCluster is a cluster that stands still.
type fakeCluster struct {
	status cluster.Status

	mu    sync.Mutex
	ended []string
}

func (f *fakeCluster) Status(context.Context) (cluster.Status, error) { return f.status, nil }

func (f *fakeCluster) End(_ context.Context, name, reason string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.status.Allocations {
		if a.Name == name && a.State != allocation.Ended {
			f.ended = append(f.ended, name+": "+reason)
			return nil
		}
	}
	return cluster.ErrUnknown
}

// batchAllocations are one of each state.
func batchAllocations(now time.Time) []allocation.Allocation {
	at := func(ago time.Duration) time.Time { return now.Add(-ago) }
	one := func(name, id string, state allocation.State, times allocation.Times) allocation.Allocation {
		if times.Planned.IsZero() {
			times.Planned = at(10 * time.Minute)
		}
		return allocation.Allocation{
			Name: name, Class: "t1", Order: allocation.AllocateFirst, Domain: "p1/ada", Places: 1, State: state, BatchID: id, Attempt: 1, Times: times,
			Shape: tranter.Shape{CPUs: 4, Partition: "batch"}, Reason: "a job needs it",
		}
	}
	planned := one("job-a", "", allocation.Planned, allocation.Times{NotBefore: at(-time.Minute)})
	planned.For, planned.Reason = []int64{11}, "QOSMaxSubmitJobPerUserLimit"
	queued := one("job-b", "102", allocation.Queued, allocation.Times{Queued: at(9 * time.Minute)})
	queued.For, queued.Attempt, queued.Batch = []int64{12}, 2, tranter.BatchJob{ID: "102", State: tranter.BatchQueued, Queue: "batch", Reason: "Priority\x1b[2J", Expected: at(-time.Hour)}
	started := one("job-c", "103", allocation.Started, allocation.Times{Queued: at(9 * time.Minute), Started: at(5 * time.Minute), Until: at(-25 * time.Minute), LastSeen: at(time.Second)})
	started.Places, started.Uses, started.For = 4, 3, []int64{15}
	started.Leases = []allocation.Lease{{Job: "gitlab.example.com-13", ID: 13, Since: at(4 * time.Minute), Began: true}, {Job: "gitlab.example.com-14", ID: 14, Since: at(time.Minute)}}
	started.Batch = tranter.BatchJob{ID: "103", State: tranter.BatchRunning, Queue: "batch", Nodes: "n[1-2]"}
	ending := one("job-d", "104", allocation.Ending, allocation.Times{Queued: at(9 * time.Minute), Ending: at(3 * time.Second)})
	ending.Reason = "no job waits for it any more"
	ended := one("job-e", "105", allocation.Ended, allocation.Times{Queued: at(9 * time.Minute), Ended: at(8 * time.Minute)})
	ended.Reason, ended.Past.Refused, ended.For = "the scheduler says that it can never start: PartitionConfig", true, []int64{16}
	ended.Shape.CPUs, ended.Batch.State = 512, tranter.BatchCancelled
	return []allocation.Allocation{planned, queued, started, ending, ended}
}

// batches is a fleet of one runner with all kinds of batch jobs and jobs, and one whose scheduler does not answer.
func batches(t *testing.T, now time.Time) (*batchFleet, *fakeCluster) {
	t.Helper()
	wait := func(id int64, key, made string) cluster.WaitingJob {
		return cluster.WaitingJob{ID: id, Key: key, Name: "test", Project: "a/b", Domain: "p1/ada", Since: now.Add(-2 * time.Minute), Allocation: made, Shape: tranter.Shape{CPUs: 4, Partition: "batch"}}
	}
	big, refused := wait(17, "", ""), wait(18, "", "")
	big.Shape.CPUs, refused.Refused = 512, "cpus: 64 is too much"
	one := &fakeCluster{status: cluster.Status{
		Class: "t1", Runner: "hpc", System: "slurm", Order: allocation.AllocateFirst, Waiting: 6, Taken: 1, Full: "as many batch jobs wait as may",
		Terms: cluster.Terms{Queued: 2, Total: 9, PerUser: 4, Places: 4}, Allocations: batchAllocations(now),
		Jobs: []cluster.WaitingJob{wait(11, "", "job-a"), wait(12, "k-12", "job-b"), wait(16, "", ""), big, refused, wait(19, "", "")},
	}}
	two := &fakeCluster{status: cluster.Status{
		Class: "t2", Runner: "mute", System: "lsf", Order: allocation.TakeFirst, Taken: 1, Problem: "bjobs: connection refused", Again: now.Add(20 * time.Second),
		Allocations: []allocation.Allocation{}, Jobs: []cluster.WaitingJob{wait(21, "k-21", "")},
	}}
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "tranter.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	remember(t, st, "t1", now)
	return &batchFleet{clusters: func() []batchCluster { return []batchCluster{two, one} }, history: st.Allocations()}, one
}

// remember gives a store batch jobs that have ended: two of one day, the second by another user, and one of the day before.
func remember(t *testing.T, st *store.Store, class string, now time.Time) {
	t.Helper()
	for i, c := range []struct {
		name, id, user string
		ago            time.Duration
		state          tranter.BatchState
	}{{"job-x", "91", "ada", 26 * time.Hour, tranter.BatchCompleted}, {"job-y", "92", "ada", time.Hour, tranter.BatchTimedOut}, {"job-z", "93", "bob", 30 * time.Minute, tranter.BatchCompleted}} {
		end := now.Add(-c.ago)
		a := allocation.Allocation{
			Name: c.name, BatchID: c.id, Domain: "p1/" + c.user, State: allocation.Ended, Uses: i + 1, Places: 1, Reason: "its jobs are done",
			Shape: tranter.Shape{CPUs: 4, GPUs: 1, Nodes: 2},
			Times: allocation.Times{Planned: end.Add(-2 * time.Hour), Queued: end.Add(-90 * time.Minute), Started: end.Add(-time.Hour), Ended: end},
			Batch: tranter.BatchJob{State: c.state, Nodes: "n7", Usage: tranter.Usage{MaxMemory: 100 << 20}},
		}
		if err := st.Allocations().Save(t.Context(), class, []allocation.Allocation{a}, []string{c.name}); err != nil {
			t.Fatal(err)
		}
	}
}

// batch runs "tranter batch" with the arguments.
func (h machineHarness) batch(open batchOpener, args ...string) (out string, code int) {
	h.t.Helper()
	var both bytes.Buffer
	where := []string{"--config", filepath.Join(h.state, "none.toml"), "--state-dir", h.state}
	args = slices.Concat([]string{"batch"}, args[:1], where, args[1:])
	ctx, stop := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer stop()
	s := streams{in: strings.NewReader(""), out: &both, err: &both}
	root := &cobra.Command{Use: "tranter", SilenceUsage: true, SilenceErrors: true}
	addLogFlags(root.PersistentFlags())
	root.AddCommand(newBatchWith(s, open))
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		both.WriteString(err.Error() + "\n")
		code = 1
	}
	return both.String(), code
}

func TestBatchJobsAreListedAsTheyStand(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f, _ := batches(t, now)
	a, err := f.answer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := a.entries()
	sortBatch(all)
	var out bytes.Buffer
	printBatch(&out, all, false, now)
	printWaiting(&out, a.Runners, now)
	want := `RUNNER  NAME   BATCH JOB  STATE    WHERE   PLACES  JOBS        WAITED  AGE     USER  REASON
hpc     job-a  -          planned  batch   0/1     (11)        -       10m00s  ada   QOSMaxSubmitJobPerUserLimit
hpc     job-b  102        queued   batch   0/1     (12)        9m00s   10m00s  ada   Priority` + "\ufffd" + `[2J
hpc     job-c  103        started  n[1-2]  2/4     13 14 (15)  4m00s   10m00s  ada   -
hpc     job-d  104        ending   batch   0/1     -           9m00s   10m00s  ada   no job waits for it any more
hpc     job-e  105        ended    batch   0/1     -           1m00s   10m00s  ada   the scheduler says that it can never start: PartitionConfig
6 jobs wait in GitLab for hpc.
1 job of hpc waits for a place in a batch job.
No more batch jobs are made for hpc at the moment: as many batch jobs wait as may.
1 job of mute waits for a place in a batch job.
The scheduler of mute (lsf) does not answer, and is asked again in 20.0s: bjobs: connection refused
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestItIsToldWhyABatchJobIsAsItIs(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	s := cluster.Status{Class: "t1", Runner: "hpc", System: "slurm", Terms: cluster.Terms{Linger: time.Minute}}
	all := batchAllocations(now)
	idle := all[2]
	idle.Leases, idle.For, idle.Times.Idle, idle.Places = nil, nil, now.Add(-10*time.Second), 1
	silent := all[1]
	silent.Times.Ran, silent.Batch.Nodes, silent.For = now.Add(-2*time.Minute), "n3", nil
	launched := silent
	launched.Order, launched.BatchID = allocation.SelfTaking, ""
	over := launched
	over.Batch.Ended = now.Add(-time.Minute)
	never := all[1]
	never.Batch = tranter.BatchJob{Reason: "PartitionConfig", Never: true}
	for name, c := range map[string]struct {
		a    allocation.Allocation
		want []string
	}{
		"planned":  {all[0], []string{"Batch job job-a of runner hpc is planned. It was made 10m00s ago for job 11 of ada.", "did not take it: QOSMaxSubmitJobPerUserLimit. It is asked again at 12:01:00."}},
		"queued":   {all[1], []string{"Batch job 102 (job-b)", "it is attempt 2.", "waited in the queue batch for 9m00s", "others with a higher priority come first", "start at 13:00:00, in 1h00m."}},
		"never":    {never, []string{"the partition can't give what it asks for", "That does not pass by itself"}},
		"silent":   {silent, []string{"has run on n3 for 2m00s, but our program in it has not said so yet"}},
		"launched": {launched, []string{"Batch job job-b of runner hpc is launched.", "What was launched has run on n3 for 2m00s, and takes its jobs by itself."}},
		"over":     {over, []string{"Its command ended 1m00s ago."}},
		"started":  {all[2], []string{"for jobs 13, 14 and 15 of ada", "run on n[1-2] for 5m00s, after 4m00s in the queue, and 2 of its 4 places are used.", "over at 12:25:00, in 25m00s."}},
		"idle":     {idle, []string{"ago for ada.", "its place is free", "had 3 jobs, and stays for the next one until 12:00:50"}},
		"ending":   {all[3], []string{"It is being ended, for 3.0s: no job waits for it any more."}},
		"ended":    {all[4], []string{"It ended 8m00s ago (cancelled): the scheduler says that it can never start: PartitionConfig."}},
	} {
		text := strings.Join(aboutBatch(batchEntry{Runner: "hpc", Allocation: c.a}, s, now), "\n")
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is not in\n%s", name, want, text)
			}
		}
	}
	s.Problem = "squeue: no answer"
	if text := strings.Join(aboutBatch(batchEntry{Allocation: all[1]}, s, now), "\n"); !strings.Contains(text, "The scheduler of hpc (slurm) does not answer, so this may be out of date: squeue: no answer.") {
		t.Error(text)
	}
}

func TestItIsToldWhyAJobWaits(t *testing.T) {
	t.Parallel()
	f, _ := batches(t, time.Now())
	h := managedWith(t, nil, f)
	for id, wants := range map[string][]string{
		"11":  {"Job 11 (test of a/b) has waited in GitLab for 2m00s, for runner hpc.", "Batch job job-a of runner hpc is planned"},
		"12":  {"Job 12 (test of a/b) was taken by runner hpc and has waited for a place in a batch job for 2m00s.", "others with a higher priority"},
		"13":  {"Job 13 of runner hpc has had a place in batch job 103 for 4m00s, and has begun.", "run on n[1-2]"},
		"14":  {"and is being prepared."},
		"15":  {"Job 15 of runner hpc is not known to wait at the moment; a batch job was made for it."},
		"16":  {"There is no batch job for it yet.", "Its batch job 105 was refused 8m00s ago", "No more batch jobs are made at the moment: as many batch jobs wait as may.", "2 of max_queued = 2 wait, and 4 of max_allocations = 9 are there.", "There are 4 batch jobs for the same user, and max_per_user is 4."},
		"17":  {"A batch job like the one that it needs, 105, was refused 8m00s ago"},
		"18":  {"No batch job is made for it, because of what it asks for: cpus: 64 is too much."},
		"21":  {"The scheduler of mute (lsf) does not answer, and is asked again in", "bjobs: connection refused."},
		"103": {"Batch job 103 (job-c) of runner hpc is started."},
		"92":  {"Batch job 92 (job-y) of runner hpc is ended.", "(timed out): its jobs are done. It waited 30m00s, ran 1h00m, and had 2 jobs."},
	} {
		out, code := h.batch(openBatchBook, "why", id)
		for _, want := range wants {
			if code != 0 || !strings.Contains(onTheMinute(out), want) {
				t.Errorf("%s: code %d, %q is not in\n%s", id, code, want, out)
			}
		}
	}
	for name, want := range map[string]string{"999": "neither a batch job 999 is known, nor does a CI job of that number wait", "no-such": `there is no batch job "no-such"`, "job-": "fits 8 batch jobs"} {
		if out, code := h.batch(openBatchBook, "why", name); code != 1 || !strings.Contains(out, want) {
			t.Errorf("%s: code %d, %s", name, code, out)
		}
	}
	out, code := h.batch(openBatchBook, "why", "12", "--output", "json")
	var stories []batchStory
	if err := json.Unmarshal([]byte(out), &stories); err != nil || code != 0 || len(stories) != 1 || stories[0].BatchJob == nil || stories[0].BatchJob.BatchID != "102" {
		t.Errorf("code %d, %v, %s", code, err, out)
	}
}

func TestBatchJobsAreListedInspectedAndEndedByCommand(t *testing.T) {
	t.Parallel()
	f, one := batches(t, time.Now())
	h := managedWith(t, nil, f)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"all that there are": {[]string{"ls"}, "job-a job-b job-c job-d"},
		"with ended ones":    {[]string{"ls", "--all"}, "job-x job-y job-z job-a job-b job-c job-d job-e"},
		"of a runner":        {[]string{"ls", "--runner", "hpc", "--all"}, "job-x job-y job-z job-a job-b job-c job-d job-e"},
		"of the other":       {[]string{"ls", "--runner", "t2", "--all"}, ""},
	} {
		out, code := h.batch(openBatchBook, append(c.args, "--output", "json")...)
		var all []batchEntry
		if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 || all == nil {
			t.Fatalf("%s: code %d, %v, %s", name, code, err, out)
		}
		var names []string
		for _, e := range all {
			names = append(names, e.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	if out, code := h.batch(openBatchBook, "ls", "--runner", "x"); code != 1 || !strings.Contains(out, `no runner "x" has batch jobs; there is t1 (hpc), t2 (mute)`) {
		t.Errorf("code %d, %s", code, out)
	}
	var e batchEntry
	if out, code := h.batch(openBatchBook, "inspect", "103"); code != 0 || json.Unmarshal([]byte(out), &e) != nil || e.Name != "job-c" || e.Runner != "hpc" || len(e.Leases) != 2 {
		t.Errorf("code %d, %s", code, out)
	}
	out, code := h.batch(openBatchBook, "end", "103", "job-b", "105", "--reason", "it is needed")
	if code != 1 || !strings.Contains(out, "job-c  is ended, and with it the 2 jobs in it\njob-b  is ended\n") || !strings.Contains(out, `there is no batch job "105"`) {
		t.Errorf("code %d, %s", code, out)
	}
	if got := strings.Join(one.ended, " "); got != "job-c: it is needed job-b: it is needed" {
		t.Error(got)
	}
}

func TestWhatBatchJobsCostIsSummed(t *testing.T) {
	t.Parallel()
	f, _ := batches(t, time.Now())
	h := managedWith(t, nil, f)
	out, code := h.batch(openBatchBook, "history", "--by", "user")
	want := `USER  BATCH JOBS  NOT COMPLETED  JOBS  WAITED ON AVERAGE  RAN    CPU HOURS  GPU HOURS  MAX MEMORY
ada   2           1              3     30m00s             2h00m  16.000     4.000      100 MiB
bob   1           0              3     30m00s             1h00m  8.000      2.000      100 MiB
all   3           1              6     30m00s             3h00m  24.000     6.000      100 MiB
`
	if code != 0 || out != want {
		t.Errorf("code %d, got\n%swant\n%s", code, out, want)
	}
	for name, c := range map[string]struct {
		args []string
		want int
	}{
		"days":          {[]string{"--by", "day", "--since", "3h"}, 1},
		"runners":       {[]string{"--by", "runner"}, 1},
		"all":           {nil, 3},
		"limit":         {[]string{"--limit", "2"}, 2},
		"since":         {[]string{"--since", "24h"}, 2},
		"another's":     {[]string{"--runner", "mute"}, 0},
		"of the runner": {[]string{"--runner", "t1"}, 3},
	} {
		out, code := h.batch(openBatchBook, slices.Concat([]string{"history", "--output", "json"}, c.args)...)
		var all []map[string]any
		if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 || len(all) != c.want && name != "days" {
			t.Errorf("%s: code %d, %v, %s", name, code, err, out)
		}
	}
	out, code = h.batch(openBatchBook, "history", "--limit", "1")
	if code != 0 || !strings.Contains(out, "hpc     93         n7     bob   3     30m00s  1h00m  8.000      2.000      100 MiB     completed  its jobs are done") {
		t.Errorf("code %d, %s", code, out)
	}
	for _, args := range [][]string{{"history", "--by", "node"}, {"history", "--limit", "0"}} {
		if out, code := h.batch(openBatchBook, args...); code != 1 || !strings.Contains(out, args[1]) {
			t.Errorf("%v: code %d, %s", args, code, out)
		}
	}
}

func TestStatusAndJobsShowBatchJobs(t *testing.T) {
	t.Parallel()
	f, _ := batches(t, time.Now())
	jobs := []manager.JobStatus{{ID: 13, Key: "gitlab.example.com-13", Name: "build"}, {ID: 12, Key: "k-12"}, {ID: 1, Key: "k-1"}}
	h := managedWith(t, nil, f, jobs...)
	var s statusAnswer
	if err := newControlClient(h.state).call(t.Context(), http.MethodGet, "/status", &s); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	printBatchCounts(&out, s.Batch, false)
	want := `
BATCH JOBS OF  SYSTEM  ORDER           JOBS IN GITLAB  WITHOUT A PLACE  IN PLACES  PLANNED  SUBMITTING  QUEUED  STARTED  ENDING  PROBLEM
hpc            slurm   allocate-first  6               1                2          1        0           1       1        1       -
mute           lsf     take-first      0               1                0          0        0           0       0        0       bjobs: connection refused
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	var places []string
	for _, j := range withMachines(s) {
		places = append(places, batchOf(j))
	}
	if got := strings.Join(places, "; "); got != "103 on n[1-2]; waits for 102; -" {
		t.Error(got)
	}
	out.Reset()
	printJobs(&out, withMachines(s), false, time.Now())
	if !strings.Contains(out.String(), "BATCH JOB\n") || !strings.Contains(out.String(), "103 on n[1-2]") {
		t.Error(out.String())
	}
}

func TestWhatAManagerHasLeftIsReadWithoutOne(t *testing.T) {
	t.Parallel()
	now := time.Now()
	h := machineHarness{t: t, state: shortDir(t)}
	if out, code := h.batch(openBatchBook, "ls"); code != 1 || !strings.Contains(out, "no manager is running with the state directory") {
		t.Errorf("code %d, %s", code, out)
	}
	st, err := store.Open(t.Context(), filepath.Join(h.state, "tranter.db"))
	if err != nil {
		t.Fatal(err)
	}
	remember(t, st, "t1", now)
	if err := st.Allocations().Save(t.Context(), "t1", batchAllocations(now), nil); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"t1/allocations/job-c", "t1/allocations/job-q", "t9/allocations"} {
		if err := os.MkdirAll(filepath.Join(h.state, "batch", name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	out, code := h.batch(openBatchBook, "ls", "--all")
	for _, want := range []string{
		"this is what the last one has left", "job-y", "job-c", "files of 1 batch job (job-q) that this manager does not know",
		"t9 by a manager that is not there any more (it was never at work there): files of no batch job",
	} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("code %d, %q is not in\n%s", code, want, out)
		}
	}
	for command, want := range map[string]string{"why 103": "Batch job 103 (job-c)", "history": "job-y", "inspect 91": `"job-x"`} {
		if out, code := h.batch(openBatchBook, strings.Fields(command)...); code != 0 || !strings.Contains(out, want) && !strings.Contains(out, "92") {
			t.Errorf("%s: code %d, %s", command, code, out)
		}
	}
	if out, code := h.batch(openBatchBook, "end", "103"); code != 1 || !strings.Contains(out, "no manager is running") || !strings.Contains(out, "start it to end batch jobs") {
		t.Errorf("code %d, %s", code, out)
	}
	if out, code := h.batch(openBatchBook, "why", "999"); code != 1 || !strings.Contains(out, "no manager is running, which alone knows what waits") {
		t.Errorf("code %d, %s", code, out)
	}
}

func TestBatchJobsOfARunnerThatIsNotThereAnyMoreAreTold(t *testing.T) {
	t.Parallel()
	now := time.Now()
	f, _ := batches(t, now)
	lost := batchAllocations(now)[1:2]
	if err := f.history.(*store.Allocations).Save(t.Context(), "t7", lost, nil); err != nil {
		t.Fatal(err)
	}
	f.runners = func() map[string]string { return map[string]string{"t7": "gone"} }
	h := managedWith(t, nil, f)
	if out, code := h.batch(openBatchBook, "ls", "--runner", "gone"); code != 0 || !strings.Contains(out, "job-b") || !strings.Contains(out, "gone: the runner is not in the configuration any more") {
		t.Errorf("code %d, %s", code, out)
	}
}

func TestNoBatchJobsIsNoError(t *testing.T) {
	t.Parallel()
	h := managedWith(t, nil, nil)
	if out, code := h.batch(openBatchBook, "ls"); code != 0 || out != "There is no batch job.\n" {
		t.Errorf("code %d, %s", code, out)
	}
	if out, code := h.batch(openBatchBook, "history"); code != 0 || out != "No batch job is known that has ended.\n" {
		t.Errorf("code %d, %s", code, out)
	}
	opened := func(context.Context, config.Config, string) (*batchFleet, func() error, error) {
		return nil, func() error { return nil }, nil
	}
	alone := machineHarness{t: t, state: shortDir(t)}
	if out, code := alone.batch(opened, "ls", "--output", "json"); code != 0 || out != "[]\n" {
		t.Errorf("code %d, %s", code, out)
	}
}

func TestTheDirectoryOfARunnerThatHasGoneIsRemoved(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	shared := t.TempDir()
	cs := newBatchClusters("owner", nil, slog.New(slog.DiscardHandler))
	open := func(class string) *cluster.Cluster {
		t.Helper()
		if _, err := cs.office(worker.Options{Dir: filepath.Join(shared, class), Self: self, Program: self}); err != nil {
			t.Fatal(err)
		}
		cs.all[class] = cluster.New(cluster.Options{Class: class}, cluster.Settings{})
		return cs.all[class]
	}
	there := func() string {
		t.Helper()
		entries, err := os.ReadDir(shared)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return strings.Join(names, " ")
	}
	goes, full, stays := open("goes"), open("full"), open("stays")
	if err := os.Mkdir(filepath.Join(shared, "full", "allocations", "job-a"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(shared, "builds"), 0o700); err != nil {
		t.Fatal(err)
	}
	cs.forget("goes", open("goes"))
	cs.forget("goes", goes) // one that was replaced meanwhile
	cs.forget("full", full)
	if got := there(); got != "builds full stays" {
		t.Error(got)
	}
	if left := leftIn(cs.fleet("", nil).offices(), []cluster.Status{{Class: "stays"}}); len(left) != 0 {
		t.Errorf("what was in use a moment ago is another manager's: %v", left)
	}
	cs.close()
	cs.forget("stays", stays) // the manager ends: the next one goes on
	if got := there(); got != "builds full stays" {
		t.Error(got)
	}
}

// onTheMinute is a text whose times are as if the test had taken none.
func onTheMinute(text string) string {
	return regexp.MustCompile(`m0[0-9]s`).ReplaceAllString(text, "m00s")
}
