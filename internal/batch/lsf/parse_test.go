package lsf

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

func row(fields ...string) string { return strings.Join(fields, "|") + "\n" }

func TestWhatBjobsPrintsIsUnderstood(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		line  string
		state tranter.BatchState
		never bool
	}{
		"waits":      {row("1", "PEND", "q", "-", "4", "-", "Jan  2 09:00", "-", "-", "0 second(s)", "-", "-", "tranter-1", "-", "Job dependency condition not satisfied;"), tranter.BatchQueued, false},
		"held":       {row("1", "PSUSP", "q", "-", "4", "-", "Jan  2 09:00", "-", "-", "0 second(s)", "-", "-", "tranter-1", "-", "x"), tranter.BatchQueued, true},
		"runs":       {row("1", "RUN", "q", "-", "4", "2", "Dec 31 23:59", "Jan  1 00:01", "Jan  3 00:01 L", "5 second(s)", "2 Gbytes", "2*n1:2*n2", "tranter-1", "-", "-"), tranter.BatchRunning, false},
		"suspended":  {row("1", "SSUSP", "q", "-", "4", "2", "-", "-", "-", "-", "-", "-", "tranter-1", "-", "-"), tranter.BatchRunning, false},
		"memory":     {row("1", "EXIT", "q", "137", "4", "2", "-", "Jan  1 00:01", "-", "-", "-", "-", "tranter-1", "TERM_MEMLIMIT: job killed after reaching LSF memory usage limit", "-"), tranter.BatchOutOfMemory, false},
		"preempted":  {row("1", "EXIT", "q", "137", "4", "2", "-", "Jan  1 00:01", "-", "-", "-", "-", "tranter-1", "TERM_PREEMPT: job killed after preemption", "-"), tranter.BatchPreempted, false},
		"killed":     {row("1", "EXIT", "q", "130", "4", "2", "-", "Jan  1 00:01", "-", "-", "-", "-", "tranter-1", "TERM_ADMIN: job killed by root or LSF administrator", "-"), tranter.BatchCancelled, false},
		"unstarted":  {row("1", "EXIT", "q", "-", "4", "2", "-", "-", "-", "-", "-", "-", "tranter-1", "-", "-"), tranter.BatchCancelled, false},
		"failed":     {row("1", "EXIT", "q", "3", "4", "2", "-", "Jan  1 00:01", "-", "-", "-", "-", "tranter-1", "-", "-"), tranter.BatchFailed, false},
		"zombie":     {row("1", "ZOMBI", "q", "3", "4", "2", "-", "-", "-", "-", "-", "-", "tranter-1", "-", "-"), tranter.BatchNodeLost, false},
		"unknown":    {row("1", "UNKWN", "q", "3", "4", "2", "-", "-", "-", "-", "-", "-", "tranter-1", "-", "-"), tranter.BatchUnknown, false},
		"told twice": {strings.Repeat(row("1", "DONE", "q", "3", "4", "2", "-", "-", "-", "-", "-", "-", "tranter-1", "-", "-"), 2), tranter.BatchUnknown, false},
	} {
		jobs := parse("a greeting\n"+c.line, now)
		if len(jobs) != 1 || jobs[0].ID != "1" || jobs[0].Name != "tranter-1" || jobs[0].State != c.state || jobs[0].Never != c.never {
			t.Errorf("%s: %+v", name, jobs)
		}
		if name == "runs" && (!jobs[0].Submitted.Equal(time.Date(2025, 12, 31, 23, 59, 0, 0, time.UTC)) || !jobs[0].Started.Equal(time.Date(2026, 1, 1, 0, 1, 0, 0, time.UTC)) ||
			jobs[0].Usage != (tranter.Usage{Nodes: 2, CPUs: 4, CPUTime: 20 * time.Second, MaxMemory: 2 << 30})) {
			t.Errorf("%+v", jobs[0])
		}
	}
}

func TestWhatIsAskedForIsSaidInLSFsWords(t *testing.T) {
	t.Parallel()
	spec := tranter.BatchSpec{
		Name: "tranter-1", Comment: "for people", Output: "/o", Dir: "/d", Exclude: []string{"n1", "n2"},
		Shape: tranter.Shape{
			Nodes: 2, CPUs: 4, Memory: 1<<30 + 1, GPUs: 1, GPUType: "A100", Walltime: 61 * time.Second, Partition: "q", Account: "a", QOS: "s",
			Constraint: "type==any", Reservation: "r", Exclusive: true, Options: []string{"-app", "x"},
		},
	}
	args, err := arguments(spec)
	want := []string{
		"-J", "tranter-1", "-o", "/o", "-cwd", "/d", "-rn", "-Jd", "for people", "-q", "q", "-P", "a", "-sla", "s", "-U", "r", "-W", "2", "-n", "8",
		"-R", "select[type==any]", "-R", "select[hname!='n1' && hname!='n2']", "-R", "span[ptile=4]", "-R", "rusage[mem=1025MB/host]", "-gpu", "num=1:gmodel=A100", "-x", "-app", "x",
	}
	if err != nil || !slices.Equal(args, want) {
		t.Errorf("%q, %v", args, err)
	}
	for name, change := range map[string]func(*tranter.BatchSpec){
		"name": func(s *tranter.BatchSpec) { s.Name = "a[1-100]" }, "output": func(s *tranter.BatchSpec) { s.Output = "x" },
		"constraint": func(s *tranter.BatchSpec) { s.Shape.Constraint = "x] rusage[mem=1" }, "GPU": func(s *tranter.BatchSpec) { s.Shape.GPUType = "x:num=8" },
		"exclude": func(s *tranter.BatchSpec) { s.Exclude = []string{"n1' || 'x"} }, "queue": func(s *tranter.BatchSpec) { s.Shape.Partition = "-x" },
	} {
		s := spec
		change(&s)
		if args, err := arguments(s); err == nil {
			t.Errorf("%s: %q", name, args)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(row("1", "EXIT", "q", "3", "4", "2", "Jan  2 09:00", "-", "Feb 30 99:00 L", "5 second(s)", "2 Gbytes", "n1", "tranter-1", "TERM_X", "y"))
	f.Add("|||||||||||||||\n1|RUN")
	f.Fuzz(func(t *testing.T, out string) {
		for _, j := range parse(out, time.Now()) {
			if !jobID().MatchString(j.ID) || j.State == "" || j.Usage.MaxMemory < 0 || j.Usage.CPUTime < 0 {
				t.Errorf("%+v", j)
			}
		}
	})
}
