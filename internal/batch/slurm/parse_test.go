package slurm

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
)

// list is what squeue prints: "|" stands for the character between fields.
func list(lines ...string) string {
	head := []string{mark}
	for _, c := range columns() {
		head = append(head, c[1])
	}
	all := strings.Join(append(head, tail), "|") + "\n"
	for _, l := range lines {
		all += l + "\n"
	}
	return strings.ReplaceAll(all, "|", between)
}

func TestWhatSqueuePrintsIsRead(t *testing.T) {
	got, err := parseList(list(
		"tranter-list|x-p|5|PENDING|batch||1|1|1795949098|1795952698|1795953298|BeginTime|.",
		"tranter-list|x-n|6|PENDING|batch||1|99|1795949098|N/A|N/A|PartitionConfig|.",
		"tranter-list|x-r|7|RUNNING|batch|n[1-2]|2|8|1795949098|1795949100|1795949700|None|.",
		"tranter-list|x-c|8|COMPLETING|batch|n1|1|1|1795949098|1795949100|1795949110|None|.",
		"tranter-list|x-f|9|FAILED|batch|n1|1|4|1795949098|1795949100|1795949110|NonZeroExitCode|.",
		"tranter-list|x-u|10|SOMETHING_NEW|batch|n1|1|4|1795949098|1795949100|1795949110|None|.",
		"tranter-list|x-l|11|PENDING|batch||1|1|2026-11-29T10:44:58|N/A|N/A|Resources|.",
		"tranter-list|wrap|12_[1-5]|PENDING|batch||1|1|1795949098|N/A|N/A|Priority|.",
		"tranter-list|two",
		"lines|12|RUNNING|batch||1|1|1795949098|N/A|N/A|Priority|.",
	), mark, "x-")
	if err != nil {
		t.Fatal(err)
	}
	at := func(s int64) time.Time { return time.Unix(1795949000+s, 0) }
	want := []tranter.BatchJob{
		{ID: "5", Name: "x-p", State: tranter.BatchQueued, Native: "PENDING", Reason: "BeginTime", Queue: "batch", Submitted: at(98), Expected: at(3698)},
		{ID: "6", Name: "x-n", State: tranter.BatchQueued, Native: "PENDING", Reason: "PartitionConfig", Never: true, Queue: "batch", Submitted: at(98)},
		{ID: "7", Name: "x-r", State: tranter.BatchRunning, Native: "RUNNING", Queue: "batch", Nodes: "n[1-2]", Submitted: at(98), Started: at(100), Usage: tranter.Usage{Nodes: 2, CPUs: 8}},
		{ID: "8", Name: "x-c", State: tranter.BatchRunning, Native: "COMPLETING", Queue: "batch", Nodes: "n1", Submitted: at(98), Started: at(100), Usage: tranter.Usage{Nodes: 1, CPUs: 1}},
		{ID: "9", Name: "x-f", State: tranter.BatchFailed, Native: "FAILED", Reason: "NonZeroExitCode", Queue: "batch", Nodes: "n1", Submitted: at(98), Started: at(100), Ended: at(110), Usage: tranter.Usage{Nodes: 1, CPUs: 4}},
		{ID: "10", Name: "x-u", State: tranter.BatchUnknown, Native: "SOMETHING_NEW", Queue: "batch", Nodes: "n1", Submitted: at(98), Started: at(100), Usage: tranter.Usage{Nodes: 1, CPUs: 4}},
		{ID: "11", Name: "x-l", State: tranter.BatchQueued, Native: "PENDING", Reason: "Resources", Queue: "batch", Submitted: time.Date(2026, 11, 29, 10, 44, 58, 0, time.Local)},
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("job %d:\n got %+v\nwant %+v", i, got[min(i, len(got)-1)], want[min(i, len(want)-1)])
		}
	}
}

func TestWhatIsNoListIsNotAnEmptyOne(t *testing.T) {
	whole := "tranter-list|x-r|7|RUNNING|batch|n1|2|8|1795949098|1795949100|1795949700|None|."
	for name, out := range map[string]string{
		"nothing":                       "",
		"a greeting":                    "Welcome to the cluster!\n",
		"an error with exit code 0":     "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n",
		"a list without its head":       strings.SplitAfterN(list(whole), "\n", 2)[1],
		"the last line without its end": strings.TrimSuffix(list(whole), "\n"),
		"a line that is not whole":      list(whole[:40]),
		"a line cut in the name":        list("tranter-list|x"),
		"a line cut before the name":    list("tranter-list|"),
		"another separator":             strings.ReplaceAll(list(whole), between, "|"),
		"no id":                         list(strings.Replace(whole, "|7|", "|-u|", 1)),
		"a list in another language":    strings.Replace(list(whole), "NAME", "NOM", 1),
	} {
		if jobs, err := parseList(out, mark, "x-"); err == nil {
			t.Errorf("%s: it is taken for a list of %+v", name, jobs)
		}
	}
	if jobs, err := parseList("Welcome!\r\n"+list(), mark, "x-"); err != nil || len(jobs) != 0 {
		t.Errorf("a greeting and an empty list: %v, %v", jobs, err)
	}
}

func TestNobodysNameAddsToTheList(t *testing.T) {
	forged := "mallory\n" + mark + "|x-r|7|FAILED|batch|n1|2|8|1795949098|1795949100|1795949700|None|."
	for name, lines := range map[string]string{
		"a line of another job": forged + "\nz",
		"half a line of ours":   "x-y\nz",
		"a separator":           "x-y|z",
		"an end":                "x-y|.\nz",
		"another end":           "x-y|1|PENDING|.",
	} {
		this := mark + "-this"
		out := strings.ReplaceAll(list(
			"tranter-list|x-r|7|RUNNING|batch|n1|2|8|1795949098|1795949100|1795949700|None|.",
			"tranter-list|HERE|8|PENDING|batch||1|1|1795949098|N/A|N/A|Priority|.",
		), mark, this)
		jobs, err := parseList(strings.ReplaceAll(out, "HERE", strings.ReplaceAll(lines, "|", between)), this, "x-")
		if err != nil || len(jobs) != 1 || jobs[0].State != tranter.BatchRunning {
			t.Errorf("%s: %+v, %v", name, jobs, err)
		}
	}
}

func TestACutListIsNeverTakenForAnotherOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var lines []string
		for i := range rapid.IntRange(1, 5).Draw(t, "jobs") {
			name := rapid.StringMatching(`(x-[a-z0-9-]{1,9}|[ -{]{0,9})`).Draw(t, "name")
			lines = append(lines, "tranter-list|"+name+"|"+string(rune('1'+i))+"|PENDING|batch||1|1|1795949098|N/A|N/A|Resources|.")
		}
		out := list(lines...)
		cut := rapid.IntRange(0, len(out)-1).Draw(t, "cut")
		if out[max(cut-1, 0)] == '\n' {
			return // whole lines: the command says that it was cut
		}
		if jobs, err := parseList(out[:cut], mark, "x-"); err == nil {
			t.Fatalf("cut at %d of %d: %+v", cut, len(out), jobs)
		}
		if jobs, err := parseList(out[:cut]+"\n", mark, "x-"); err == nil {
			wanted := strings.Count(out[:cut], mark+between+"x-")
			if len(jobs) != wanted {
				t.Fatalf("cut at %d of %q: %d jobs of %d", cut, out, len(jobs), wanted)
			}
		}
	})
}

func TestWhatScontrolPrintsIsRead(t *testing.T) {
	for version, want := range map[string]tranter.BatchJob{
		"22.05": {State: tranter.BatchFailed, Native: "FAILED", Reason: "JobLaunchFailure", Signal: 9, Nodes: "n1", Queue: "batch", Usage: tranter.Usage{Nodes: 1, CPUs: 1}},
		"23.02": {State: tranter.BatchTimedOut, Native: "TIMEOUT", Reason: "TimeLimit", Signal: 15, Nodes: "n[1-2]", Queue: "batch", Usage: tranter.Usage{Nodes: 2, CPUs: 8, CPUTime: 601 * 8 * time.Second}},
		"23.11": {State: tranter.BatchOutOfMemory, Native: "OUT_OF_MEMORY", Reason: "OutOfMemory", Signal: 125, Nodes: "n1", Queue: "batch", Usage: tranter.Usage{Nodes: 1, CPUs: 4, CPUTime: 44 * time.Second}},
		"24.05": {State: tranter.BatchQueued, Native: "PENDING", Reason: "PartitionTimeLimit", Never: true, Queue: "short", Usage: tranter.Usage{CPUs: 1}},
		"25.05": {State: tranter.BatchCompleted, Native: "COMPLETED", Nodes: "n7", Queue: "batch", Usage: tranter.Usage{Nodes: 1, CPUs: 2, CPUTime: 2 * time.Minute}},
	} {
		data, err := os.ReadFile("testdata/scontrol-" + version + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		got, ok := parseShow(string(data))
		if !ok || got.Submitted.IsZero() || got.State.Final() == got.Ended.IsZero() {
			t.Errorf("%s: %+v, %v", version, got, ok)
		}
		got.Submitted, got.Started, got.Ended = time.Time{}, time.Time{}, time.Time{}
		want.ID, want.Name = "3", "x-31"
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", version, got, want)
		}
	}
}

func TestWhatSacctPrintsIsRead(t *testing.T) {
	data, err := os.ReadFile("testdata/sacct-slurmdbd.txt")
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := parseAccounts(string(data), withMemory)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, j := range jobs {
		got = append(got, j.ID+" "+string(j.State))
	}
	want := []string{"11 completed", "12 cancelled", "13 timed out", "14 out of memory", "15 running", "16 preempted", "17 failed", "18 node lost"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if u := jobs[0].Usage; u != (tranter.Usage{Nodes: 1, CPUs: 4, CPUTime: 4 * time.Minute, MaxMemory: 3 << 19}) {
		t.Errorf("use of the first job: %+v", u)
	}
	if j := jobs[1]; !j.Started.IsZero() || j.Nodes != "" || j.Usage != (tranter.Usage{}) {
		t.Errorf("a job that never ran: %+v", j)
	}
	if !jobs[4].Ended.IsZero() || jobs[6].ExitCode != 7 {
		t.Errorf("%+v", jobs)
	}
	if jobs, err := parseAccounts("11|COMPLETED\n", withMemory); err == nil {
		t.Errorf("a line that is not whole is read as %+v", jobs)
	}
	filed, err := parseAccounts("2|FAILED|3:0|batch|n1|1795949100|1795949100|1795949110|4294967294|1\n2|COMPLETED|0:0|batch|n1|1795949100|1795949100|1795949120|1|1\n", withMemory-2)
	if err != nil || len(filed) != 1 || filed[0].State != tranter.BatchCompleted || filed[0].Usage.CPUTime != 20*time.Second {
		t.Errorf("a job that was started twice: %+v, %v", filed, err)
	}
}

func TestRefusalsAreTold(t *testing.T) {
	for said, want := range map[string]error{
		"sbatch: error: invalid partition specified: nope sbatch: error: Batch job submission failed: Invalid partition name specified":                                                tranter.ErrRejected,
		"sbatch: error: Batch job submission failed: Requested node configuration is not available":                                                                                    tranter.ErrRejected,
		"sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)":                                                                  tranter.ErrRejected,
		"sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified":                                                                       tranter.ErrRejected,
		"sbatch: error: Batch job submission failed: Invalid qos specification":                                                                                                        tranter.ErrRejected,
		"sbatch: error: Batch job submission failed: User's group not permitted to use this partition":                                                                                 tranter.ErrRejected,
		"sbatch: error: Batch job submission failed: Requested reservation is invalid":                                                                                                 tranter.ErrRejected,
		"sbatch: error: Invalid generic resource (gres) specification":                                                                                                                 tranter.ErrRejected,
		"sbatch: unrecognized option '--bogus' Try \"sbatch --help\" for more information":                                                                                             tranter.ErrRejected,
		"sbatch: error: This does not look like a batch script.":                                                                                                                       tranter.ErrRejected,
		"sbatch: error: please name a project with --account sbatch: error: Batch job submission failed: Unspecified error":                                                            tranter.ErrRejected,
		"sbatch: error: QOSMaxCpuPerJobLimit sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)":        tranter.ErrRejected,
		"sbatch: error: QOSMaxSubmitJobPerUserLimit sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)": tranter.ErrNoCapacity,
		"sbatch: error: AssocMaxSubmitJobLimit sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)":      tranter.ErrNoCapacity,
		"sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)":                                            tranter.ErrNoCapacity,
		"sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying sbatch: error: Batch job submission failed: Resource temporarily unavailable":                    tranter.ErrNoCapacity,
		"sbatch: error: Slurm job queue full, sleeping and retrying sbatch: error: Batch job submission failed: Unable to create job record, try again":                                tranter.ErrNoCapacity,
		"allocation failure: Required partition not available (inactive or drain)":                                                                                                     tranter.ErrNoCapacity,
		"sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)":                                                                             nil,
		"sbatch: error: Batch job submission failed: Socket timed out on send/recv operation":                                                                                          nil,
		"sbatch: error: Batch job submission failed: Invalid authentication credential":                                                                                                nil,
		"sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received":                                                                                          nil,
		"something new": nil,
		"":              nil,
	} {
		err := refusal(&batch.CommandError{Name: "sbatch", ExitCode: 1, Said: said})
		if !strings.Contains(err.Error(), said) {
			t.Errorf("%q does not repeat Slurm's words", err)
		}
		for _, kind := range []error{tranter.ErrRejected, tranter.ErrNoCapacity} {
			if errors.Is(err, kind) != errors.Is(want, kind) {
				t.Errorf("%q is %v: %v, want %v", said, kind, errors.Is(err, kind), want)
			}
		}
	}
	for _, e := range []*batch.CommandError{
		{ExitCode: 127, Said: "sh: sbatch: not found, unknown"}, {ExitCode: 255, Said: "ssh: unknown host"}, {ExitCode: -1, Said: "invalid"},
	} {
		if err := refusal(e); errors.Is(err, tranter.ErrRejected) || errors.Is(err, tranter.ErrNoCapacity) {
			t.Errorf("%+v is a refusal", e)
		}
	}
}

func TestReasonsThatDoNotPassAreTold(t *testing.T) {
	for _, reason := range []string{
		"PartitionConfig", "PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "JobHeldAdmin", "DependencyNeverSatisfied", "InvalidAccount", "InvalidQOS",
		"QOSNotAllowed", "AccountNotAllowed", "QOSMaxCpuPerJobLimit", "AssocMaxNodePerJobLimit", "QOSMaxWallDurationPerJobLimit", "QOSMinCpuNotSatisfied",
		"launch_failed_requeued_held", "QOSMaxGRESPerJob",
	} {
		if !never(reason) {
			t.Errorf("%s passes", reason)
		}
	}
	for _, reason := range []string{
		"Resources", "Priority", "BeginTime", "Licenses", "Reservation", "AssocMaxJobsLimit", "QOSMaxJobsPerUserLimit", "AssocGrpCpuLimit", "QOSGrpNodeLimit",
		"Dependency", "JobHeldUser", "ReqNodeNotAvail, UnavailableNodes:n1", "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved", "None", "", "PartitionDown",
	} {
		if never(reason) {
			t.Errorf("%s does not pass", reason)
		}
	}
}

func TestAShapeIsSaidInSbatchsWords(t *testing.T) {
	args, err := arguments(tranter.BatchSpec{
		Name: "x-1", Comment: "for people", Output: "/o/100%", Dir: "/d", Exclude: []string{"n1", "n2"},
		Shape: tranter.Shape{
			Nodes: 2, CPUs: 3, Memory: 1<<30 + 1, GPUs: 1, GPUType: "a100", Walltime: time.Hour + time.Second, Partition: "p", Account: "a", QOS: "q",
			Constraint: "c|d", Reservation: "r", Exclusive: true, Options: []string{"--nice=5"},
		},
	})
	want := "--no-requeue --export=ALL --job-name=x-1 --output=/o/100%% --open-mode=append --chdir=/d --comment=for people --partition=p --account=a --qos=q --constraint=c|d " +
		"--reservation=r --nodes=2 --cpus-per-task=3 --mem=1025M --gres=gpu:a100:1 --time=61 --ntasks-per-node=1 --exclusive --exclude=n1,n2 --nice=5"
	if got := strings.Join(args, " "); err != nil || got != want {
		t.Errorf("got  %s (%v)\nwant %s", got, err, want)
	}
	for _, wrong := range []tranter.BatchSpec{
		{Name: "-x", Output: "/o", Dir: "/"}, {Name: "a b", Output: "/o", Dir: "/"}, {Name: "", Output: "/o", Dir: "/"}, {Name: "x", Output: "o", Dir: "/"}, {Name: "x", Output: "/o", Dir: ""},
	} {
		if args, err := arguments(wrong); err == nil {
			t.Errorf("%+v: %q", wrong, args)
		}
	}
}

func TestTheIDIsFoundInWhatSbatchPrints(t *testing.T) {
	for out, want := range map[string]string{"17\n": "17", "17;cluster\n": "17", "Welcome\n17\n": "17", "": "", "Submitted batch job 17\n": "", "0\n": "", "-1\n": ""} {
		if id, ok := submitted(out); id != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", out, id, ok)
		}
	}
}

func TestAPartitionRefusesWhatNeverFits(t *testing.T) {
	out := "batch*|infinite|4|4000|idle\nbatch*|infinite|8|8000+|mixed\nshort|1:00:00|4|4000|idle\n"
	if p := parseNodes(out, ""); p != (partition{name: "batch", cpus: 8, memory: 8000 << 20}) {
		t.Errorf("the default partition: %+v", p)
	}
	p := parseNodes("short|1:00:00|4|4000|idle\nshort|1:00:00|4|4000|drained*\n", "short")
	if p != (partition{name: "short", limit: time.Hour, cpus: 4, memory: 4000 << 20, out: true}) {
		t.Errorf("short: %+v", p)
	}
	for _, s := range []tranter.Shape{{Walltime: 61 * time.Minute}, {CPUs: 5}, {Memory: 4001 << 20}} {
		if p.refuses(s) == nil {
			t.Errorf("%+v fits", s)
		}
	}
	if err := p.refuses(tranter.Shape{Walltime: time.Hour, CPUs: 4, Memory: 4000 << 20}); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]time.Duration{"1-02:03:04": 26*time.Hour + 3*time.Minute + 4*time.Second, "30:00": 30 * time.Minute, "infinite": 0, "x:y": 0, "": 0} {
		if d, ok := span(text); d != want || ok != (want != 0) {
			t.Errorf("%q: %v, %v", text, d, ok)
		}
	}
}

func FuzzOutputs(f *testing.F) {
	f.Add(list("tranter-list|x-p|5|PENDING|batch||1|1|1795949098|1795952698|1795953298|BeginTime|."))
	for _, name := range []string{"scontrol-22.05", "scontrol-25.05", "sacct-slurmdbd"} {
		data, err := os.ReadFile("testdata/" + name + ".txt")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Add("batch*|1-00:00:00|8|8000+|mixed\n")
	f.Fuzz(func(t *testing.T, out string) {
		jobs, err := parseList(out, mark, "x-")
		for _, j := range jobs {
			if err != nil || !strings.HasPrefix(j.Name, "x-") || !isID(j.ID) {
				t.Fatalf("%+v, %v", j, err)
			}
		}
		jobs, _ = parseAccounts(out, withMemory)
		j, ok := parseShow(out)
		if ok {
			jobs = append(jobs, j)
		}
		for _, j := range jobs {
			if !isID(j.ID) || j.Usage.Nodes < 0 || j.Usage.CPUs < 0 || j.Usage.MaxMemory < 0 || j.Usage.CPUTime < 0 || j.State.Final() && j.Native == "" {
				t.Fatalf("%+v", j)
			}
		}
		if p := parseNodes(out, ""); p.cpus < 0 || p.memory < 0 || p.limit < 0 {
			t.Fatalf("%+v", p)
		}
		_, _ = submitted(out)
	})
}
