package pbs

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

// head are the first lines of a job as OpenPBS prints it, and tail the last ones.
const (
	head = "Job Id: 12.head\n    Job_Name = x\n    Job_Owner = me@head\n"
	tail = "    Variable_List = PBS_O_HOME=/home/me,PBS_O_PATH=/usr/local/sbin:/usr/local/b\n\tin:/usr/bin,TRANTER_ALLOCATION=tran\n\tter-1,PBS_O_QUEUE=workq\n    project = _pbs_project_default\n\n"
)

func TestWhatQstatPrintsIsUnderstood(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		d     dialect
		lines string
		state tranter.BatchState
		check func(tranter.BatchJob) bool
	}{
		"waits":        {openPBS, "    job_state = Q\n    qtime = Tue Mar  3 09:05:01 2026\n    comment = Not Running: Insufficient amount of resource: ncpus\n    estimated.start_time = Tue Mar  3 10:05:01 2026\n", tranter.BatchQueued, func(j tranter.BatchJob) bool { return !j.Never && j.Expected.Hour() == 10 && j.Submitted.Minute() == 5 }},
		"never runs":   {openPBS, "    job_state = Q\n    comment = Can Never Run: Insufficient amount of resource: ncpus (R: 99 A: 4 T: 4)\n", tranter.BatchQueued, func(j tranter.BatchJob) bool { return j.Never }},
		"held":         {openPBS, "    job_state = H\n    Hold_Types = s\n", tranter.BatchQueued, func(j tranter.BatchJob) bool { return j.Never && j.Reason == "held (s)" }},
		"runs":         {openPBS, "    job_state = R\n    exec_host = n1/0*2+n2/0*2\n    stime = Tue Mar  3 09:06:01 2026\n", tranter.BatchRunning, func(j tranter.BatchJob) bool { return j.Nodes == "n1/0*2+n2/0*2" && !j.Started.IsZero() }},
		"is suspended": {openPBS, "    job_state = U\n", tranter.BatchRunning, nil},
		"has ended": {openPBS, "    job_state = F\n    Exit_status = 0\n    substate = 92\n    resources_used.mem = 2048kb\n    resources_used.ncpus = 4\n    resources_used.walltime = 00:01:10\n    Resource_List.nodect = 2\n", tranter.BatchCompleted, func(j tranter.BatchJob) bool {
			return j.Usage == tranter.Usage{Nodes: 2, CPUs: 4, CPUTime: 280 * time.Second, MaxMemory: 2 << 20}
		}},
		"has failed":   {openPBS, "    job_state = F\n    Exit_status = 3\n    substate = 93\n", tranter.BatchFailed, func(j tranter.BatchJob) bool { return j.ExitCode == 3 }},
		"was killed":   {openPBS, "    job_state = F\n    Exit_status = 265\n    substate = 93\n", tranter.BatchFailed, func(j tranter.BatchJob) bool { return j.Signal == 9 && j.ExitCode == 0 }},
		"was deleted":  {openPBS, "    job_state = F\n    Exit_status = 271\n    substate = 91\n", tranter.BatchCancelled, nil},
		"was late":     {openPBS, "    job_state = F\n    Exit_status = 271\n    substate = 93\n    resources_used.walltime = 01:00:09\n    Resource_List.walltime = 01:00:00\n", tranter.BatchTimedOut, nil},
		"was too late": {openPBS, "    job_state = F\n    Exit_status = -29\n", tranter.BatchTimedOut, nil},
		"took memory":  {openPBS, "    job_state = F\n    Exit_status = -27\n", tranter.BatchOutOfMemory, nil},
		"did not run":  {openPBS, "    job_state = F\n    Exit_status = -1\n", tranter.BatchFailed, func(j tranter.BatchJob) bool { return strings.Contains(j.Reason, "exit status -1") }},
		"lost a node":  {openPBS, "    job_state = F\n    Exit_status = 271\n    comment = job deleted because node n1 is down\n", tranter.BatchNodeLost, nil},
		"of Torque":    {torque, "    job_state = C\n    exit_status = -10\n    start_time = Tue Mar  3 09:06:01 2026\n", tranter.BatchOutOfMemory, nil},
		"is odd":       {openPBS, "    job_state = ?\n", tranter.BatchUnknown, nil},
	} {
		jobs := c.d.parse("\nhello\n" + head + c.lines + tail)
		if len(jobs) != 1 || jobs[0].ID != "12.head" || jobs[0].Name != "tranter-1" || jobs[0].State != c.state || c.check != nil && !c.check(jobs[0]) {
			t.Errorf("%s: %+v", name, jobs)
		}
	}
	ours := head + "    job_state = R\n" + tail
	if jobs := openPBS.parse(ours + head + "    job_state = F\n    Exit_status = 0\n" + tail); len(jobs) != 1 || jobs[0].State != tranter.BatchUnknown {
		t.Errorf("a job that is told of twice: %+v", jobs)
	}
}

func TestWhatIsAskedForIsSaidInItsOwnWords(t *testing.T) {
	t.Parallel()
	spec := tranter.BatchSpec{Name: "tranter-1", Script: "#!/bin/bash -e\n", Output: "/o", Dir: "/d", Shape: tranter.Shape{Nodes: 2, CPUs: 4, Memory: 1<<30 + 1, GPUs: 1, Walltime: 61 * time.Second, Partition: "q", Account: "a", Constraint: "x"}}
	for d, want := range map[dialect]string{
		openPBS: "-r n -j oe -o /o -m n -S /bin/bash -v TRANTER_ALLOCATION=tranter-1 -q q -A a -l select=2:ncpus=4:mem=1025mb:ngpus=1:x -l place=scatter -l walltime=00:02:00",
		torque:  "-r n -j oe -o /o -m n -d /d -S /bin/bash -v TRANTER_ALLOCATION=tranter-1 -q q -A a -l nodes=2:ppn=4:gpus=1:x -l mem=2049mb -l walltime=00:02:00",
		wrapper: "-r n -j oe -o /o -m n -wd /d -q q -A a -l nodes=2:ppn=4:gpus=1,mem=1025mb,proc=x,walltime=00:02:00",
	} {
		if args, err := d.arguments(spec); err != nil || strings.Join(args, " ") != want {
			t.Errorf("%s: %q, %v", d, args, err)
		}
	}
	more := spec
	more.Shape = tranter.Shape{CPUs: 1, GPUType: "a100", Reservation: "R1", Exclusive: true, Options: []string{"-W", "x=y"}}
	if args, err := openPBS.arguments(more); err != nil || !strings.HasSuffix(strings.Join(args, " "), "-q R1 -l select=1:ncpus=1:gpu_type=a100 -l place=scatter:excl -W x=y") {
		t.Errorf("%q, %v", args, err)
	}
	more.Shape.QOS = "high"
	if args, err := torque.arguments(more); err != nil || !slices.Contains(args, "qos=high") || !slices.Contains(args, "advres=R1") || !slices.Contains(args, "naccesspolicy=singlejob") {
		t.Errorf("%q, %v", args, err)
	}
	if got := openPBS.script(spec); got != "#!/bin/bash\ncd /d || exit 1\n" && got != "#!/bin/bash -e\ncd /d || exit 1\n" {
		t.Errorf("%q", got)
	}
	python := tranter.BatchSpec{Script: "#!/usr/bin/python3\nx", Dir: "/d"}
	if got := openPBS.script(python); got != python.Script {
		t.Errorf("%q", got)
	}
}

func TestWhatWouldBeUnderstoodAsSomethingElseIsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*tranter.BatchSpec){
		"name": func(s *tranter.BatchSpec) { s.Name = "1;id" }, "output": func(s *tranter.BatchSpec) { s.Output = "/a b" }, "directory": func(s *tranter.BatchSpec) { s.Dir = "/$(id)" },
		"queue": func(s *tranter.BatchSpec) { s.Shape.Partition = "a b" }, "constraint": func(s *tranter.BatchSpec) { s.Shape.Constraint = "x:ncpus=64" },
		"more of a constraint": func(s *tranter.BatchSpec) { s.Shape.Constraint = "x+4:y" }, "GPU type": func(s *tranter.BatchSpec) { s.Shape.GPUType = "a:ncpus=4" },
	} {
		for _, d := range []dialect{openPBS, torque, wrapper} {
			spec := tranter.BatchSpec{Name: "tranter-1", Output: "/o", Dir: "/d"}
			change(&spec)
			if args, err := d.arguments(spec); err == nil {
				t.Errorf("%s, %s: %q", name, d, args)
			}
		}
	}
	spec := tranter.BatchSpec{Name: "tranter-1", Output: "/o", Dir: "/d"}
	for name, shape := range map[string]tranter.Shape{"qos": {QOS: "x"}, "reservation": {Reservation: "r"}, "exclusive": {Exclusive: true}, "type": {GPUType: "x"}, "option": {Options: []string{"$(id)"}}} {
		spec.Shape = shape
		if args, err := wrapper.arguments(spec); err == nil {
			t.Errorf("%s: %q", name, args)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(head + "    job_state = F\n    Exit_status = 271\n    substate = 93\n    resources_used.walltime = 01:00:09\n" + tail)
	f.Add("Job Id:\t7\n\tJob_Name = x\n\tjob_state = C\n")
	f.Add("Job Id: 1\n\tx\n = = =\n    resources_used.mem = 9999999999999999tb\n    resources_used.walltime = 99999999:99999999:99999999\n    job_state = R\n    resources_used.ncpus = 99999999999\n")
	f.Fuzz(func(t *testing.T, out string) {
		for _, d := range []dialect{openPBS, torque, wrapper} {
			for _, j := range d.parse(out) {
				if !jobID().MatchString(j.ID) || j.State == "" || j.Usage.MaxMemory < 0 {
					t.Errorf("%+v", j)
				}
			}
		}
	})
}
