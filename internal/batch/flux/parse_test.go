package flux

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

func TestIDsAreTheSameHoweverTheyAreWritten(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]jobID{"ƒ1": 0, "f2": 1, "fz": 57, "f21": 58, "6731191091817518": 6731191091817518, "ƒuZZybuNNy": 6731191091817518, "fjpXCZedGfVQ": math.MaxUint64} {
		id, ok := parseID(text)
		if !ok || id != want {
			t.Errorf("%s: %d, %v; want %d", text, id, ok, want)
		}
		if again, ok := parseID(id.String()); !ok || again != id {
			t.Errorf("%d becomes %s and then %d", id, id, again)
		}
	}
	for _, text := range []string{"", "f", "ƒ", "f0", "fl", "-1", "+1", "x", "fjpXCZedGfVR", "fzzzzzzzzzzzz", "18446744073709551616", "1 2"} {
		if id, ok := parseID(text); ok {
			t.Errorf("%q: %d", text, id)
		}
	}
}

func TestWhatFluxPrintsIsUnderstood(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]tranter.BatchState{
		"58|SCHED|||16|1|1|1767000000.5|0.0|0.0|q|||tranter-1|":                                                                  tranter.BatchQueued,
		"58|SCHED|||0|1|1|1767000000.5|0.0|0.0|q|||tranter-1|":                                                                   tranter.BatchQueued,
		"58|CLEANUP|||16|1|1|1767000000.5|1767000001.5|1767000002.5|q|n1||tranter-1|":                                            tranter.BatchRunning,
		"58|INACTIVE|COMPLETED|0|16|4|1|1767000000.5|1767000001.5|1767000003.5|q|n1||tranter-1|":                                 tranter.BatchCompleted,
		"58|INACTIVE|FAILED|3|16|1|1|1767000000.5|1767000001.5|1767000002.5|q|n1||tranter-1|":                                    tranter.BatchFailed,
		"58|INACTIVE|FAILED|137|16|1|1|1767000000.5|1767000001.5|1767000002.5|q|n1|exec|tranter-1|lost contact with job shell|x": tranter.BatchNodeLost,
		"58|INACTIVE|CANCELED||16|1|1|1767000000.5|0.0|1767000002.5|q||cancel|tranter-1|":                                        tranter.BatchCancelled,
		"58|INACTIVE|CANCELED||16|1|1|1767000000.5|0.0|1767000002.5|q||cancel|tranter-1|preempted by f3":                         tranter.BatchPreempted,
		"58|INACTIVE|TIMEOUT|142|16|1|1|1767000000.5|0.0|1767000002.5|q||timeout|tranter-1|resource allocation expired":          tranter.BatchTimedOut,
		"58|ODD|||16|1|1|1|1|1|q|||tranter-1|":                                                                                   tranter.BatchUnknown,
	} {
		jobs := parse("hello\n" + line + "\n")
		if len(jobs) != 1 || jobs[0].ID != "f21" || jobs[0].Name != "tranter-1" || jobs[0].State != want {
			t.Errorf("%s: %+v", line, jobs)
		}
		if jobs[0].Never != strings.HasPrefix(line, "58|SCHED|||0|") {
			t.Errorf("%s: held %v", line, jobs[0].Never)
		}
		if want == tranter.BatchCompleted && jobs[0].Usage != (tranter.Usage{Nodes: 1, CPUs: 4, CPUTime: 8 * time.Second}) {
			t.Errorf("%+v", jobs[0].Usage)
		}
		if jobs := parse(line + "\n" + line); len(jobs) != 1 || jobs[0].State != tranter.BatchUnknown {
			t.Errorf("twice: %+v", jobs)
		}
	}
}

func TestWhatIsAskedForIsSaidInFluxsWords(t *testing.T) {
	t.Parallel()
	spec := tranter.BatchSpec{
		Name: "tranter-1", Output: "/o", Dir: "/d", Exclude: []string{"n1", "n2"},
		Shape: tranter.Shape{Nodes: 2, CPUs: 4, Memory: 1 << 30, GPUs: 1, GPUType: "a100", Walltime: 61 * time.Second, Partition: "q", Account: "a", Constraint: "x|y", Exclusive: true, Options: []string{"--urgency=16"}},
	}
	args, err := arguments(spec)
	want := []string{
		"batch", "--job-name=tranter-1", "--output=/o", "--cwd=/d", "--nslots=2", "--queue=q", "--bank=a", "--nodes=2", "--cores-per-slot=4", "--gpus-per-slot=1", "--time-limit=2m",
		"--requires=(x|y) and a100 and -host:n1,n2", "--exclusive", "--urgency=16",
	}
	if err != nil || !slices.Equal(args, want) {
		t.Errorf("%q, %v", args, err)
	}
	for name, change := range map[string]func(*tranter.BatchSpec){
		"name": func(s *tranter.BatchSpec) { s.Name = "-a" }, "output": func(s *tranter.BatchSpec) { s.Output = "/{{id}}" }, "qos": func(s *tranter.BatchSpec) { s.Shape.QOS = "x" },
		"reservation": func(s *tranter.BatchSpec) { s.Shape.Reservation = "x" }, "exclude": func(s *tranter.BatchSpec) { s.Exclude = []string{"n1 or n2"} }, "constraint": func(s *tranter.BatchSpec) { s.Shape.Constraint = "a\nb" },
	} {
		s := spec
		change(&s)
		if args, err := arguments(s); err == nil {
			t.Errorf("%s: %q", name, args)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("58|INACTIVE|FAILED|137|16|1|1|1767000000.5|1767000001.5|1767000002.5|q|n1|exec|tranter-1|lost contact with job shell|x")
	f.Add(strings.Repeat("|", 20))
	f.Fuzz(func(t *testing.T, out string) {
		for _, j := range parse(out) {
			if _, ok := parseID(j.ID); !ok || j.State == "" || j.Usage.CPUTime < 0 {
				t.Errorf("%+v", j)
			}
		}
	})
}

func FuzzID(f *testing.F) {
	f.Add("ƒuZZybuNNy")
	f.Add("12")
	f.Fuzz(func(t *testing.T, text string) {
		if id, ok := parseID(text); ok {
			if again, ok := parseID(id.String()); !ok || again != id || strings.HasPrefix(text, "-") {
				t.Errorf("%q: %v, %v", text, id, again)
			}
		}
	})
}
