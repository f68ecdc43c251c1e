package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch/slurmtest"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

// siteRig is a GitLab, a real Slurm cluster, and a manager that runs the jobs of a site file in its batch jobs.
type siteRig struct {
	*rig
	cluster *slurmtest.Cluster
	project coordinator.Project
	prefix  string // of the names of its batch jobs
}

// newSiteRig makes the runners of a site file in GitLab. Those have the tags that their sections say; settings are lines for
// [batch].
func newSiteRig(t *testing.T, c *slurmtest.Cluster, settings, sections string) *siteRig {
	t.Helper()
	r := &siteRig{
		rig:     &rig{GitLab: coordinatortest.New(t, quick), t: t, dir: t.TempDir(), program: program, output: &output{}, env: c.Env},
		cluster: c, prefix: "t" + strconv.FormatInt(time.Now().UnixNano()%1e9, 36),
	}
	r.launch = []string{"site", "run", "--config", r.path("site.toml"), "--log-format", "text"}
	var err error
	if r.project, err = r.Coordinator.CreateProject("local/demo", ""); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`name = "site"
url = %q
management_token = %q
project = "local/demo"
[poll]
interval = 1
[manager]
check_interval = 1
shutdown_timeout = 20
[runner]
executor = "shell"
%s
%s
`, r.URL, r.Coordinator.AdminToken().Reveal(), settings, sections)
	r.writeSite(text)
	if out, code := r.tool("site", "apply", "--config", r.path("site.toml"), "--state-dir", r.path("state"), "--yes"); code != 0 {
		t.Fatalf("site apply: code %d, %s", code, out)
	}
	t.Cleanup(r.endBatchJobs)
	r.cleanUp()
	return r
}

// inBatchJobs is [batch] with further lines.
func inBatchJobs(r string, lines ...string) string {
	return fmt.Sprintf(`[batch]
scheduler = "slurm"
partition = "work"
cpus = 1
memory = "50m"
walltime = "10m"
margin = "1m"
poll_interval = "1s"
prefix = %q
%s
`, r, strings.Join(lines, "\n"))
}

func (r *siteRig) writeSite(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.path("site.toml"), []byte(strings.ReplaceAll(text, "PREFIX", r.prefix)), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// endBatchJobs ends what is left in the cluster when the manager has ended.
func (r *siteRig) endBatchJobs() {
	for _, j := range r.batchJobs() {
		r.cluster.Slurm("scancel", "--full", j.id)
	}
}

// send offers a job to the runner with a tag.
func (r *siteRig) send(tag string, job tranter.Job) int64 {
	r.t.Helper()
	job.Info.ProjectID, job.Info.ProjectFullPath = r.project.ID, r.project.Path
	id, err := r.Coordinator.Enqueue(with(job, "GITLAB_USER_LOGIN", "ada"), tag)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// batchJob is a batch job of the rig that waits or runs.
type batchJob struct{ id, name, state, node string }

func (r *siteRig) batchJobs() []batchJob {
	r.t.Helper()
	var all []batchJob
	for line := range strings.Lines(r.cluster.Slurm("squeue", "-a", "-h", "-o", "%i %j %T %N")) {
		f := append(strings.Fields(line), "", "")
		if strings.HasPrefix(f[1], r.prefix+"-") {
			all = append(all, batchJob{id: f[0], name: f[1], state: f[2], node: f[3]})
		}
	}
	return all
}

// submitted are the ids of all batch jobs of the rig that have ended, as Slurm's accounting knows them.
func (r *siteRig) submitted() []string {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(filepath.Dir(r.cluster.Conf), "log/jobcomp"))
	if err != nil {
		r.t.Fatal(err)
	}
	var ids []string
	for _, m := range regexp.MustCompile(`(?m)^JobId=(\d+) .*?\bName=(\S+)`).FindAllStringSubmatch(string(data), -1) {
		if strings.HasPrefix(m[2], r.prefix+"-") {
			ids = append(ids, m[1])
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// empty waits until the rig has no batch job, and returns how many it had in all.
func (r *siteRig) empty() int {
	r.t.Helper()
	r.eventuallyIn(30*time.Second, "no batch job is left", func() bool { return len(r.batchJobs()) == 0 })
	return len(r.submitted())
}

// batchJobOf is the id of the batch job that a job has run in, as its log says it.
func batchJobOf(log string) string {
	if m := regexp.MustCompile(`Using batch job (\d+)`).FindStringSubmatch(log); m != nil {
		return m[1]
	}
	return ""
}

// logs waits until a job's log says something.
func (r *siteRig) logs(id int64, text string) {
	r.t.Helper()
	limit := time.Now().Add(40 * time.Second)
	for !strings.Contains(plain(r.Log(id)), text) {
		if v := r.Job(id); v.Status.Finished() || time.Now().After(limit) {
			r.t.Fatalf("job %d is %s and does not say %q:\n%s\nbatch jobs: %v", id, v.Status, text, plain(r.Log(id)), r.batchJobs())
		}
		r.pause(50 * time.Millisecond)
	}
}

// ends waits for the end of a job and checks it.
func (r *siteRig) ends(id int64, status coordinator.Status, reason tranter.FailureReason, has ...string) string {
	r.t.Helper()
	v := r.waitLong(id, time.Minute)
	log := plain(r.Log(id))
	if v.Status != status || v.Reason != reason || v.LogDamaged {
		r.t.Errorf("job %d is %s %q, log damaged %v:\n%s", id, v.Status, v.Reason, v.LogDamaged, log)
	}
	for _, text := range has {
		if !strings.Contains(log, text) {
			r.t.Errorf("the log of job %d lacks %q:\n%s", id, text, log)
		}
	}
	return log
}

// TestJobsInBatchJobsOfSlurm shares one cluster: partition work of three nodes, and lone of one that is killed.
func TestJobsInBatchJobsOfSlurm(t *testing.T) {
	t.Parallel()
	c := slurmtest.Start(t, slurmtest.Options{Nodes: 4, Accounting: true, Config: "PartitionName=work Nodes=n[1-3] MaxTime=INFINITE\nPartitionName=lone Nodes=n4 MaxTime=INFINITE\nPartitionName=never Nodes=n1 State=DOWN\n"})
	for name, test := range map[string]func(*testing.T, *slurmtest.Cluster){
		"orders, sizes and packing":               testOrdersSizesAndPacking,
		"cancelled jobs, and batch jobs that die": testCancelledJobsAndBatchJobsThatDie,
		"a killed manager, journals in files":     func(t *testing.T, c *slurmtest.Cluster) { testAKilledManager(t, c, "", time.Second) },
		"a killed manager that is away, journals apart": func(t *testing.T, c *slurmtest.Cluster) {
			testAKilledManager(t, c, `listen = "127.0.0.1:0"`, 8*time.Second)
		},
		"a launch command": testALaunchCommandRunsOnceForEachJob,
		"jobs of users":    testJobsOfUsers,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, c)
		})
	}
}

func testOrdersSizesAndPacking(t *testing.T, c *slurmtest.Cluster) {
	r := newSiteRig(t, c, inBatchJobs("PREFIX"), `
[runners.first]
tags = ["first"]
[runners.sized]
tags = ["sized"]
batch = { order = "take-first", allow = { cpus = "1-16", memory = "10m-1g", partitions = ["*"] } }
[runners.packed]
tags = ["packed"]
batch = { places = 3, linger = "4s" }
`)
	r.start()
	pipe := r.buildAndTest()
	size := r.send("sized", with(script("echo on $SLURM_CPUS_ON_NODE processors with $SLURM_MEM_PER_NODE MB"), "TRANTER_BATCH_CPUS", "3", "TRANTER_BATCH_MEMORY", "123m"))
	large := r.send("sized", with(script("echo never"), "TRANTER_BATCH_CPUS", "9"))
	forbidden := r.send("sized", with(script("echo never"), "TRANTER_BATCH_CPUS", "17"))
	nowhere := r.send("sized", with(script("echo never"), "TRANTER_BATCH_PARTITION", "nowhere"))
	var packed []int64
	for n := range 3 {
		own := fmt.Sprintf("%s-%d", r.path("packed"), n)
		packed = append(packed, r.send("packed", script("touch "+own, "for i in $(seq 100); do [ $(ls "+r.path("packed")+"-* | wc -l) = 3 ] && break; sleep 0.1; done", "ls "+r.path("packed")+"-*")))
	}
	r.ends(size, coordinator.Success, "", "on 3 processors with 123 MB")
	r.ends(large, coordinator.Failed, tranter.RunnerConfigurationError, "Requested node configuration is not available")
	r.ends(nowhere, coordinator.Failed, tranter.RunnerConfigurationError, "invalid partition")
	r.ends(forbidden, coordinator.Failed, tranter.RunnerConfigurationError, "TRANTER_BATCH_CPUS", "1 to 16")
	in := map[string]bool{}
	for _, id := range packed {
		in[batchJobOf(r.ends(id, coordinator.Success, "", "packed-0", "packed-1", "packed-2"))] = true
	}
	fourth := r.send("packed", script("echo follows"))
	in[batchJobOf(r.ends(fourth, coordinator.Success, "", "follows"))] = true
	if len(in) != 1 {
		t.Errorf("the jobs were in batch jobs %v", in)
	}
	built, tested := r.jobOf(pipe, "build"), r.jobOf(pipe, "test")
	log := r.ends(built, coordinator.Success, "", "from the repository", "waited")
	r.ends(tested, coordinator.Success, "", "made in batch job "+batchJobOf(log)+"\n")
	if n := r.empty(); n != 5 { // build, test, size, packed; and the one that was refused has an id too
		t.Errorf("there were %d batch jobs: %v", n, r.submitted())
	}
}

// buildAndTest starts a pipeline of two jobs of the runner with the tag first: one makes artifacts, the other needs them.
func (r *siteRig) buildAndTest() int64 {
	r.t.Helper()
	r.Serve(repository(r.t, map[string]string{"readme": "from the repository\n"}), tranter.Job{})
	commit, err := r.Coordinator.Snapshot(r.t.Context(), r.project.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	job := func(name string, commands ...string) pipeline.Job {
		return pipeline.Job{Name: name, Group: name, Stage: name, Script: commands, When: pipeline.OnSuccess, Total: 1, Tags: []string{"first"}}
	}
	build := job("build", "cat readme", "mkdir out", "echo made in batch job $SLURM_JOB_ID > out/result")
	build.Artifacts = []tranter.Artifact{{Name: "out", Paths: []string{"out"}, When: "on_success", Type: "archive", Format: "zip"}}
	id, err := r.Coordinator.StartPipeline(r.t.Context(), r.project.ID, coordinator.PipelineSpec{
		Pipeline: &pipeline.Pipeline{Stages: []string{"build", "test"}, Jobs: []pipeline.Job{build, job("test", "cat out/result")}}, Ref: commit.Ref, SHA: commit.SHA,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r *siteRig) jobOf(pipe int64, name string) int64 {
	r.t.Helper()
	v, err := r.Coordinator.Pipeline(pipe)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, j := range v.Jobs {
		if j.Name == name {
			return j.ID
		}
	}
	r.t.Fatalf("pipeline %d has no job %s", pipe, name)
	return 0
}

func testCancelledJobsAndBatchJobsThatDie(t *testing.T, c *slurmtest.Cluster) {
	r := newSiteRig(t, c, inBatchJobs("PREFIX"), `
[runners.first]
tags = ["first"]
[runners.lone]
tags = ["lone"]
batch = { partition = "lone" }
[runners.later]
tags = ["later"]
batch = { partition = "never" }
`)
	r.start()
	long := after(script("for i in $(seq 600); do echo waits; sleep 0.5; done"), "echo cleaned up") // what is silent hears of its end every 30 s only
	queued := r.send("later", long)
	running, cancelled, worker, node := r.send("first", long), r.send("first", long), r.send("first", long), r.send("lone", long)
	for _, id := range []int64{running, cancelled, worker, node} {
		r.logs(id, "\nwaits")
	}
	r.eventually("batch jobs for those that are queued", func() bool { return len(r.batchJobs()) == 5 })
	r.Cancel(queued)
	r.Cancel(running)
	c.Slurm("scancel", batchJobOf(plain(r.Log(cancelled))))
	if err := syscall.Kill(r.worker(batchJobOf(plain(r.Log(worker)))), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.KillNode(4)
	c.Down(4)
	r.ends(running, coordinator.Canceled, "", "cleaned up")
	r.ends(queued, coordinator.Canceled, "")
	r.ends(cancelled, coordinator.Failed, tranter.RunnerSystemFailure, "cancel")
	r.ends(worker, coordinator.Failed, tranter.RunnerSystemFailure)
	r.ends(node, coordinator.Failed, tranter.RunnerSystemFailure, "node")
	if n := r.empty(); n != 5 {
		t.Errorf("there were %d batch jobs: %v", n, r.submitted())
	}
}

// worker returns the id of the process that works in a batch job.
func (r *siteRig) worker(batchJob string) int {
	r.t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, dir := range all {
		command, _ := os.ReadFile(dir + "/cmdline")
		environment, _ := os.ReadFile(dir + "/environ")
		if strings.Contains(string(command), "\x00agent\x00worker\x00"+r.dir) && strings.Contains("\x00"+string(environment), "\x00SLURM_JOB_ID="+batchJob+"\x00") {
			pid, err := strconv.Atoi(filepath.Base(dir))
			if err != nil {
				r.t.Fatal(err)
			}
			return pid
		}
	}
	r.t.Fatalf("no worker is found in batch job %s", batchJob)
	return 0
}

// testAKilledManager kills it while jobs run in and wait for batch jobs, in both orders, and starts it after a while in which
// batch jobs begin.
func testAKilledManager(t *testing.T, c *slurmtest.Cluster, lines string, away time.Duration) {
	r := newSiteRig(t, c, inBatchJobs("PREFIX", lines), `
[runners.first]
tags = ["first"]
[runners.sized]
tags = ["sized"]
batch = { order = "take-first" }
[runners.later]
tags = ["later"]
batch = { partition = "PREFIX" }
[runners.later-sized]
tags = ["later-sized"]
batch = { partition = "PREFIX", order = "take-first" }
`)
	c.Slurm("scontrol", "create", "partitionname="+r.prefix, "nodes=n[1-3]", "state=down")
	r.start()
	ids := map[string]int64{}
	for n, tag := range []string{"first", "sized"} {
		nonce := strconv.Itoa(100 + n)
		ids[nonce] = r.send(tag, with(numbered(60), "NONCE", nonce))
	}
	for _, id := range ids {
		r.logs(id, "\nline-2\n")
	}
	for n, tag := range []string{"later", "later-sized"} {
		nonce := strconv.Itoa(200 + n)
		ids[nonce] = r.send(tag, with(numbered(3), "NONCE", nonce))
	}
	r.eventually("batch jobs for those that are queued", func() bool { return len(r.batchJobs()) == 4 })
	r.kill()
	c.Slurm("scontrol", "update", "partitionname="+r.prefix, "state=up")
	r.pause(away)
	r.start()
	for nonce, id := range ids {
		log := r.ends(id, coordinator.Success, "")
		lines := 60
		if nonce[0] == '2' {
			lines = 3
		}
		if !inOrder(log, nonce, lines) {
			t.Errorf("job %d has not run once, or its log is not whole:\n%s", id, log)
		}
	}
	if n := r.empty(); n != 4 {
		t.Errorf("there were %d batch jobs for 4 jobs: %v", n, r.submitted())
	}
}

// numbered is a job that prints so many numbered lines in about a tenth of a second each.
func numbered(lines int) tranter.Job {
	return script("echo begin-$NONCE", fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo line-$i; sleep 0.1; done", lines), "echo end-$NONCE")
}

// inOrder says whether a log is that of a numbered job that has run once.
func inOrder(log, nonce string, lines int) bool {
	want := []string{"begin-" + nonce}
	for i := range lines {
		want = append(want, fmt.Sprintf("line-%d", i+1))
	}
	want = append(want, "end-"+nonce)
	return slices.Equal(want, regexp.MustCompile(`(?m)^(begin|line|end)-\d+$`).FindAllString(strings.ReplaceAll(plain(log), "\r", ""), -1))
}

func testALaunchCommandRunsOnceForEachJob(t *testing.T, c *slurmtest.Cluster) {
	launched := filepath.Join(t.TempDir(), "launched")
	r := newSiteRig(t, c, fmt.Sprintf(`
[launch]
executable = "sbatch"
args = ["--partition=work", "--job-name=PREFIX-launched", "--output=/dev/null", "--mem=50M", "--begin=now+2"]
timeout = 20
stdin = '''
#!/bin/bash
echo "$$SLURM_JOB_ID" >> %s
exec $THIS run-single --config $CONFIG --runner $NAME --max-builds $NUM_JOBS --wait-timeout 5
'''
`, launched), `
[runners.launched]
tags = ["launched"]
`)
	r.start()
	ids := []int64{r.send("launched", script("echo in batch job $SLURM_JOB_ID")), r.send("launched", script("echo in batch job $SLURM_JOB_ID"))}
	r.eventually("two batch jobs", func() bool { return len(r.batchJobs()) == 2 })
	r.kill()
	ids = append(ids, r.send("launched", script("echo in batch job $SLURM_JOB_ID")))
	r.start()
	for _, id := range ids {
		r.ends(id, coordinator.Success, "", "in batch job ")
	}
	if n := r.empty(); n != 3 {
		t.Errorf("there were %d batch jobs for 3 jobs: %v", n, r.submitted())
	}
	data, err := os.ReadFile(launched)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Fields(string(data)); len(lines) != 3 {
		t.Errorf("there were launches of %v", lines)
	}
}
