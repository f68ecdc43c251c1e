//go:build unix

package launch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch/batchtest"
	"github.com/tranter-ci/tranter/internal/batch/launch"
	"github.com/tranter-ci/tranter/internal/batch/slurm"
	"github.com/tranter-ci/tranter/internal/batch/slurmtest"
)

// TestMain lets this program be the one that runs the commands, as the real one is.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "agent" && os.Args[2] == "launch" {
		if err := launch.Run(context.Background(), os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // programs that look for races else end a second later
	os.Exit(m.Run())
}

// tracker is a batch system that knows the jobs that it is told to.
type tracker struct {
	mu        sync.Mutex
	jobs      map[string]tranter.BatchJob
	err       error
	asked     [][]string
	cancelled []string
}

func (k *tracker) Jobs(_ context.Context, ids []string) ([]tranter.BatchJob, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, ids)
	var found []tranter.BatchJob
	for _, id := range ids {
		if j, ok := k.jobs[id]; ok {
			j.ID = id
			found = append(found, j)
		}
	}
	return found, k.err
}

func (k *tracker) Cancel(_ context.Context, ids []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cancelled = append(k.cancelled, ids...)
	return nil
}

// set makes a job stand so.
func (k *tracker) set(id string, s tranter.BatchState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.jobs[id] = tranter.BatchJob{State: s, Native: "its " + string(s)}
}

type fixture struct {
	*launch.Launcher
	t       *testing.T
	dir     string
	tracker *tracker
}

func start(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: filepath.Join(t.TempDir(), "launches"), tracker: &tracker{jobs: map[string]tranter.BatchJob{}}}
	f.restart()
	t.Cleanup(f.clean)
	return f
}

// restart makes a new Launcher, as a manager does that was killed.
func (f *fixture) restart() {
	f.Launcher = launch.New(launch.Options{Dir: f.dir, Agent: []string{os.Args[0]}, Grace: 300 * time.Millisecond, Recognise: func(executable string) launch.Tracker {
		if filepath.Base(executable) == "flux" {
			return nil
		}
		return f.tracker
	}})
}

// clean ends what runs.
func (f *fixture) clean() {
	entries, _ := os.ReadDir(f.dir)
	for _, e := range entries {
		for _, name := range []string{"process.json", "begun.json"} {
			if pid := f.pid(e.Name(), name); pid > 1 {
				_ = syscall.Kill(-pid, syscall.SIGKILL)
			}
		}
		f.await(e.Name(), "the end of its processes", func() bool { return !f.alive(e.Name()) })
	}
}

// alive says whether somebody holds the lock of a launch.
func (f *fixture) alive(name string) bool {
	l, err := os.OpenFile(filepath.Join(f.dir, name, "lock"), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer l.Close()
	return syscall.Flock(int(l.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
}

func (f *fixture) pid(name, file string) int {
	var p struct {
		PID int `json:"pid"`
	}
	data, _ := os.ReadFile(filepath.Join(f.dir, name, file))
	_ = json.Unmarshal(data, &p)
	return p.PID
}

func (f *fixture) await(name, what string, ok func() bool) {
	f.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(limit) {
			f.t.Fatalf("%s: %s does not come", name, what)
		}
	}
}

// launch runs a script of the shell in a launch.
func (f *fixture) launch(name, script string, change ...func(*launch.Command)) {
	f.t.Helper()
	c := launch.Command{Executable: "/bin/sh", Stdin: script, Workdir: f.t.TempDir()}
	for _, ch := range change {
		ch(&c)
	}
	if err := f.Prepare(name, c); err != nil {
		f.t.Fatal(err)
	}
	if id, err := f.Submit(f.t.Context(), tranter.BatchSpec{Name: name}); err != nil || id != name {
		f.t.Fatalf("%q, %v", id, err)
	}
}

func (f *fixture) job(name string) tranter.BatchJob {
	f.t.Helper()
	jobs, err := f.List(f.t.Context(), name)
	if err != nil {
		f.t.Fatal(err)
	}
	i := slices.IndexFunc(jobs, func(j tranter.BatchJob) bool { return j.Name == name && j.ID == name })
	if i < 0 {
		f.t.Fatalf("no %s in %+v", name, jobs)
	}
	return jobs[i]
}

// state waits until a launch stands so.
func (f *fixture) state(name string, want tranter.BatchState) tranter.BatchJob {
	f.t.Helper()
	var job tranter.BatchJob
	f.await(name, string(want), func() bool { job = f.job(name); return job.State == want })
	return job
}

// done waits until the command has ended.
func (f *fixture) done(name string) {
	f.t.Helper()
	f.await(name, "the end of its command", func() bool { _, err := os.Stat(filepath.Join(f.dir, name, "exit.json")); return err == nil })
}

func TestACommandRunsOnceWhateverIsAskedAndBySoMany(t *testing.T) {
	f := start(t)
	count := filepath.Join(t.TempDir(), "count")
	script := "#!/bin/sh\necho once >>" + count + "; cat >/dev/null"
	if err := f.Prepare("one", launch.Command{Executable: "/bin/sh"}); err != nil {
		t.Fatal(err)
	}
	if jobs, err := f.List(t.Context(), ""); err != nil || len(jobs) != 0 {
		t.Errorf("what was only prepared is listed: %+v, %v", jobs, err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			other := launch.New(launch.Options{Dir: f.dir, Agent: []string{os.Args[0]}})
			if id, err := other.Submit(t.Context(), tranter.BatchSpec{Name: "one", Script: script}); id != "one" || err != nil {
				t.Errorf("%q, %v", id, err)
			}
		})
	}
	all.Wait()
	f.done("one")
	f.restart()
	if err := f.Prepare("one", launch.Command{Executable: "/bin/false"}); err != nil {
		t.Error(err)
	}
	if _, err := f.Submit(t.Context(), tranter.BatchSpec{Name: "one"}); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(count); string(got) != "once\n" {
		t.Errorf("it ran %q", got)
	}
	if j := f.job("one"); j.State != tranter.BatchRunning || j.Native != "its command has ended well" {
		t.Errorf("%+v", j)
	}
	f.await("one", "the end of all that it has started", func() bool { return !f.job("one").Ended.IsZero() })
	if err := f.Forget("one"); err != nil {
		t.Error(err)
	}
	if err := f.Forget("one"); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(f.dir); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestWhatIsOnDiskIsForNobodyElse(t *testing.T) {
	f := start(t)
	f.launch("one", "cat >/dev/null; echo hello; echo hello >&2")
	f.done("one")
	err := filepath.Walk(f.dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAFailedCommandSaysWhy(t *testing.T) {
	f := start(t)
	f.launch("bad", "echo 'error: invalid partition' >&2; exit 3")
	f.launch("missing", "", func(c *launch.Command) { c.Executable = "/no/such/program" })
	f.launch("nowhere", "", func(c *launch.Command) { c.Workdir = "/no/such/directory" })
	f.launch("dies", "kill -9 $$")
	for name, want := range map[string]string{"bad": "exit code 3: error: invalid partition", "missing": "no such file", "nowhere": "no such file", "dies": "signal 9"} {
		if j := f.state(name, tranter.BatchFailed); !strings.Contains(j.Reason, want) || j.Ended.IsZero() {
			t.Errorf("%s: %+v", name, j)
		}
	}
	if j := f.job("bad"); j.ExitCode != 3 {
		t.Errorf("%+v", j)
	}
}

func TestALaunchThatMakesNoSenseIsRefused(t *testing.T) {
	f := start(t)
	for _, name := range []string{"", "../x", ".x", "a/b", "a b", strings.Repeat("x", 201)} {
		if err := f.Prepare(name, launch.Command{Executable: "true"}); !errors.Is(err, tranter.ErrRejected) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := f.Prepare("x", launch.Command{}); !errors.Is(err, tranter.ErrRejected) {
		t.Error(err)
	}
	if err := f.Prepare("x", launch.Command{Executable: "true", Workdir: "relative"}); !errors.Is(err, tranter.ErrRejected) {
		t.Error(err)
	}
	if _, err := f.Submit(t.Context(), tranter.BatchSpec{Name: "unprepared"}); !errors.Is(err, tranter.ErrRejected) {
		t.Error(err)
	}
}

func TestALaunchStandsAsTheJobDoesThatItsCommandHasHandedIn(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.tracker.set("41", tranter.BatchQueued)
	f.tracker.set("42", tranter.BatchRunning)
	f.launch("a", "echo 'Submitted batch job 41'")
	f.launch("b", "echo 'Job <42> is submitted to queue <normal>.'; exit 1") // what counts is that it was handed in
	f.done("a")
	f.done("b")
	f.tracker.asked = nil
	jobs, err := f.List(t.Context(), "")
	if err != nil || len(jobs) != 2 || jobs[0].State != tranter.BatchQueued || jobs[1].State != tranter.BatchRunning {
		t.Fatalf("%+v, %v", jobs, err)
	}
	if jobs[0].Native != "its queued (job 41)" || jobs[0].ID != "a" || jobs[0].Submitted.IsZero() {
		t.Errorf("%+v", jobs[0])
	}
	f.tracker.set("41", tranter.BatchOutOfMemory)
	f.state("a", tranter.BatchOutOfMemory)
	f.restart()
	delete(f.tracker.jobs, "41") // its batch system may forget it
	f.tracker.asked = nil
	f.state("a", tranter.BatchOutOfMemory)
	if len(f.tracker.asked) != 0 {
		t.Errorf("it is asked about what is over: %v", f.tracker.asked)
	}
	delete(f.tracker.jobs, "42")
	f.state("b", tranter.BatchUnknown)
	f.state("b", tranter.BatchCompleted)
	if got, err := f.Final(t.Context(), []string{"b", "nothing", "../x"}); err != nil || len(got) != 1 || got[0].State != tranter.BatchCompleted {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAllJobsOfABatchSystemAreAskedAboutAtOnceAndItsErrorsSayNothingOfThem(t *testing.T) {
	f := start(t)
	for i := range 5 {
		name := fmt.Sprintf("x%d", i)
		f.tracker.set(fmt.Sprint(i), tranter.BatchQueued)
		f.launch(name, fmt.Sprintf("echo Submitted batch job %d", i))
		f.done(name)
	}
	f.tracker.asked = nil
	if jobs, err := f.List(t.Context(), "x"); err != nil || len(jobs) != 5 || len(f.tracker.asked) != 1 || len(f.tracker.asked[0]) != 5 {
		t.Errorf("%d jobs, %v, asked %v", len(jobs), err, f.tracker.asked)
	}
	f.tracker.err = errors.New("the controller is down")
	if jobs, err := f.List(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "the controller is down") {
		t.Errorf("%+v, %v", jobs, err)
	}
}

func TestMuchOutputBlocksNothingAndFillsNoDisk(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.tracker.set("77", tranter.BatchQueued)
	f.launch("early", "echo 'Submitted batch job 77'; yes 'a line of noise' | head -c 8000000; yes noise | head -c 8000000 >&2; sleep 0.3; echo end of it")
	f.state("early", tranter.BatchQueued)
	f.done("early")
	for _, name := range []string{"stdout", "stderr"} {
		if st, err := os.Stat(filepath.Join(f.dir, "early", name)); err != nil || st.Size() > 300<<10 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	text, _ := os.ReadFile(filepath.Join(f.dir, "early", "stdout"))
	if !strings.HasSuffix(string(text), "end of it\n") {
		t.Errorf("the end is lost: %.100q", text[max(0, len(text)-100):])
	}
}

func TestACommandThatTakesTooLongIsEndedWithAllThatItHasStarted(t *testing.T) {
	t.Parallel()
	f := start(t)
	dir := t.TempDir()
	slow := func(c *launch.Command) { c.Timeout = 300 * time.Millisecond }
	f.tracker.set("9", tranter.BatchQueued)
	f.launch("slow", "echo waiting >&2; sleep 987 & echo $! >"+dir+"/pid; wait", slow)
	f.launch("late", "echo Submitted batch job 9; sleep 987", slow)
	f.launch("deaf", "trap '' TERM; while :; do sleep 0.1; done", slow)
	j := f.state("slow", tranter.BatchFailed)
	if !strings.Contains(j.Reason, "did not end within 300ms: waiting") {
		t.Errorf("%+v", j)
	}
	f.done("late")
	f.state("late", tranter.BatchQueued)
	f.state("deaf", tranter.BatchFailed)
	for _, name := range []string{"slow", "late", "deaf"} {
		f.await(name, "the end of its processes", func() bool { return !f.alive(name) })
	}
}

func TestAManagerThatWasKilledFindsItsLaunches(t *testing.T) {
	f := start(t)
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	f.launch("one", "read x <"+gate+"; echo Submitted batch job 5")
	f.restart()
	if j := f.job("one"); j.State != tranter.BatchRunning || j.Native != "its command runs" {
		t.Errorf("%+v", j)
	}
	f.tracker.set("5", tranter.BatchQueued)
	if err := os.WriteFile(gate, []byte("go\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.restart()
	f.state("one", tranter.BatchQueued)
}

func TestAProgramThatWasKilledBeforeItBeganBeginsAgain(t *testing.T) {
	f := start(t)
	count := filepath.Join(t.TempDir(), "count")
	command := launch.Command{Executable: "/bin/sh", Stdin: "echo once >>" + count, Workdir: t.TempDir()}
	if err := f.Prepare("one", command); err != nil {
		t.Fatal(err)
	}
	dying := launch.New(launch.Options{Dir: f.dir, Agent: []string{"/bin/sh", "-c", "echo no memory >&2; kill -9 $$"}})
	if _, err := dying.Submit(t.Context(), tranter.BatchSpec{Name: "one"}); err == nil || !strings.Contains(err.Error(), "no memory") {
		t.Errorf("%v", err)
	}
	if jobs, err := f.List(t.Context(), ""); err != nil || len(jobs) != 0 {
		t.Errorf("%+v, %v", jobs, err)
	}
	hanging := launch.New(launch.Options{Dir: f.dir, Agent: []string{"/bin/sh", "-c", "exec sleep 1"}})
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := hanging.Submit(short, tranter.BatchSpec{Name: "one"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, err := f.Submit(t.Context(), tranter.BatchSpec{Name: "one"}); err != nil {
		t.Error(err)
	}
	f.done("one")
	if got, _ := os.ReadFile(count); string(got) != "once\n" {
		t.Errorf("it ran %q", got)
	}
}

func TestACommandOutlivesTheProgramThatRunsIt(t *testing.T) {
	f := start(t)
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	f.launch("one", "read x <"+gate+"; echo Submitted batch job 6; echo noise >&2")
	f.await("one", "its process", func() bool { return f.pid("one", "process.json") > 1 })
	_ = syscall.Kill(f.pid("one", "begun.json"), syscall.SIGKILL)
	f.restart()
	if j := f.job("one"); j.State != tranter.BatchRunning {
		t.Errorf("%+v", j)
	}
	if err := f.Forget("one"); err == nil {
		t.Error("it is forgotten while it runs")
	}
	f.tracker.set("6", tranter.BatchQueued)
	if err := os.WriteFile(gate, []byte("go\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.state("one", tranter.BatchQueued)
}

func TestALaunchOfWhichNobodyKnowsWhatHasBecomeIsFailedAfterAWhileAndNotRunAgain(t *testing.T) {
	t.Parallel()
	f := start(t)
	count := filepath.Join(t.TempDir(), "count")
	f.launch("one", "echo once >>"+count+"; exec sleep 986")
	f.await("one", "its process", func() bool { return f.pid("one", "process.json") > 1 })
	f.await("one", "its script", func() bool { got, _ := os.ReadFile(count); return len(got) > 0 })
	_ = syscall.Kill(f.pid("one", "begun.json"), syscall.SIGKILL)
	_ = syscall.Kill(f.pid("one", "process.json"), syscall.SIGKILL) // as a host does that goes down
	f.state("one", tranter.BatchUnknown)
	if _, err := f.Submit(t.Context(), tranter.BatchSpec{Name: "one"}); err != nil {
		t.Error(err)
	}
	if j := f.state("one", tranter.BatchFailed); !strings.Contains(j.Reason, "not known") {
		t.Errorf("%+v", j)
	}
	if got, _ := os.ReadFile(count); string(got) != "once\n" {
		t.Errorf("it ran %q", got)
	}
}

func TestCancelEndsTheCommandOrTheJob(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.tracker.set("8", tranter.BatchQueued)
	f.tracker.set("9", tranter.BatchQueued)
	f.launch("runs", "exec sleep 985")
	f.launch("job", "echo Submitted batch job 8")
	f.launch("both", "echo Submitted batch job 9; exec sleep 984")
	f.launch("unseen", "sleep 983 >/dev/null 2>&1 & exit 0")
	f.launch("orphan", "exec sleep 982")
	f.launch("deaf", "trap '' TERM; while :; do sleep 0.1; done")
	f.await("orphan", "its process", func() bool { return f.pid("orphan", "process.json") > 1 })
	f.await("deaf", "its process", func() bool { return f.pid("deaf", "process.json") > 1 })
	_ = syscall.Kill(f.pid("orphan", "begun.json"), syscall.SIGKILL)
	f.done("job")
	f.done("unseen")
	f.await("both", "its output", func() bool { text, _ := os.ReadFile(filepath.Join(f.dir, "both", "stdout")); return len(text) > 0 })
	if err := f.Cancel(t.Context(), []string{"runs", "job", "both", "unseen", "orphan", "deaf", "nothing", "../x"}); err != nil {
		t.Fatal(err)
	}
	if j := f.state("runs", tranter.BatchCancelled); j.Reason != "sh was stopped" {
		t.Errorf("%+v", j)
	}
	f.state("unseen", tranter.BatchCancelled)
	f.state("deaf", tranter.BatchCancelled)
	f.await("orphan", "its end", func() bool { return f.job("orphan").State != tranter.BatchRunning })
	f.done("both")
	f.job("both")
	if !slices.Contains(f.tracker.cancelled, "8") || !slices.Contains(f.tracker.cancelled, "9") {
		t.Errorf("cancelled: %v", f.tracker.cancelled)
	}
	for _, name := range []string{"runs", "both", "unseen", "orphan", "deaf"} {
		f.await(name, "the end of its processes", func() bool { return !f.alive(name) })
	}
}

func TestACommandLearnsNoTokensOfOurs(t *testing.T) {
	t.Setenv("TRANTER_TOKEN", "s3cret")
	t.Setenv("CI_JOB_TOKEN", "s3cret")
	t.Setenv("MY_ACCESS_TOKEN", "s3cret")
	f := start(t)
	out := filepath.Join(t.TempDir(), "out")
	f.launch("one", "env >"+out+"; cat /proc/$PPID/environ /proc/$PPID/cmdline | tr '\\0' '\\n' >>"+out, func(c *launch.Command) { c.Environment = []string{"CONFIG=/x y"} })
	f.done("one")
	got, err := os.ReadFile(out)
	if err != nil || strings.Contains(string(got), "s3cret") || !strings.Contains(string(got), "CONFIG=/x y\n") {
		t.Errorf("%v\n%s", err, got)
	}
}

func TestACommandRunsAsItsUser(t *testing.T) {
	f := start(t)
	nobody := &tranter.Account{Name: "nobody", UID: 65534, GID: 65534, Groups: []uint32{65534}, Home: "/"}
	if err := f.Prepare("one", launch.Command{Executable: "/bin/sh", Stdin: "id -u; echo $USER $HOME; pwd; exit 1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Submit(t.Context(), tranter.BatchSpec{Name: "one", As: nobody}); err != nil {
		t.Fatal(err)
	}
	want := "65534 nobody / /"
	if os.Geteuid() != 0 {
		want = "only root can"
	}
	if j := f.state("one", tranter.BatchFailed); !strings.Contains(j.Reason, want) {
		t.Errorf("%+v, want %q", j, want)
	}
}

// viaSbatch launches each job with a command of the site's that runs sbatch.
type viaSbatch struct {
	*launch.Launcher
	cluster *slurmtest.Cluster
}

func (v viaSbatch) Submit(ctx context.Context, spec tranter.BatchSpec) (string, error) {
	args := append([]string{"-c", `sbatch --job-name=site "$@"; echo launched >&2`, "site.sh", "--output=" + spec.Output, "--open-mode=append", "--chdir=" + spec.Dir}, spec.Shape.Options...)
	if err := v.Prepare(spec.Name, launch.Command{Executable: "/bin/sh", Args: args, Environment: v.cluster.Env, Timeout: time.Minute}); err != nil {
		return "", err
	}
	return v.Launcher.Submit(ctx, spec)
}

func TestJobsThatASiteHandsToSlurmItselfAreFollowed(t *testing.T) {
	t.Parallel()
	cluster := slurmtest.Start(t, slurmtest.Options{})
	s, err := slurm.New(slurm.Options{Client: cluster.Client()})
	if err != nil {
		t.Fatal(err)
	}
	l := launch.New(launch.Options{Dir: filepath.Join(t.TempDir(), "launches"), Agent: []string{os.Args[0]}, Recognise: func(executable string) launch.Tracker {
		if filepath.Base(executable) == "sbatch" {
			return s
		}
		return nil
	}})
	batchtest.Run(t, batchtest.Subject{
		Scheduler: viaSbatch{Launcher: l, cluster: cluster}, Dir: t.TempDir(),
		Wait:    func(spec *tranter.BatchSpec) { spec.Shape.Options = []string{"--hold"} },
		Unknown: "nothing",
		Without: batchtest.Without{Check: true},
	})
}

func TestALaunchHasNotEndedWhileWhatItHasStartedGoesOn(t *testing.T) {
	f := start(t)
	gate := filepath.Join(t.TempDir(), "gate")
	f.launch("one", "#!/bin/sh\n(until [ -e "+gate+" ]; do sleep 0.05; done) >/dev/null 2>&1 &\n")
	f.done("one")
	if j := f.job("one"); j.State != tranter.BatchRunning || !j.Ended.IsZero() {
		t.Errorf("%+v", j)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.await("one", "the end of all that it has started", func() bool { return !f.job("one").Ended.IsZero() })
	if j := f.job("one"); j.State != tranter.BatchRunning {
		t.Errorf("%+v", j)
	}
}
