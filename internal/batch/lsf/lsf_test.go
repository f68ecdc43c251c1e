//go:build unix

package lsf_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/batch/batchtest"
	"github.com/tranter-ci/tranter/internal/batch/lsf"
	"github.com/tranter-ci/tranter/internal/batch/pretend"
)

func TestMain(m *testing.M) {
	pretend.Main(commands())
	os.Exit(m.Run())
}

func commands() map[string]pretend.Command {
	return map[string]pretend.Command{"bsub": bsub, "bjobs": bjobs, "bkill": bkill}
}

const failed = 255

func say(code int, format string, args ...any) int {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	return code
}

func bsub(c *pretend.Cluster, args []string) int {
	script, _ := io.ReadAll(os.Stdin)
	j := pretend.Job{Argv: []string{"/bin/sh"}, Queue: "normal", Append: true, Words: map[string]string{"args": strings.Join(args, " ")}}
	j.Script = "LSB_JOBID=$(basename $(dirname $0)); export LSB_JOBID\n" + string(script)
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-H":
			j.Held = true
			continue
		case "-rn", "-x":
			continue
		}
		if i++; i == len(args) {
			return say(failed, "%s: option requires an argument. Job not submitted.", args[i-1])
		}
		switch value := args[i]; args[i-1] {
		case "-J":
			j.Name = value
		case "-o":
			j.Output = value
		case "-cwd":
			j.Dir = value
		case "-q":
			j.Queue = value
		case "-W":
			j.Words["minutes"] = value
		}
	}
	switch {
	case os.Getenv("LSB_STDOUT_DIRECT") == "":
		return say(failed, "no direct output")
	case j.Queue == "nowhere":
		return say(failed, "nowhere: No such queue. Job not submitted.")
	case j.Queue == "full":
		return say(failed, "User <root>: Pending job slot limit has been reached. Job not submitted.")
	case j.Queue == "away":
		return say(failed, "LSF is down. Please wait ...")
	case j.Queue == "slow":
		j.Walltime = 300 * time.Millisecond
	}
	id, err := c.Submit(j)
	if err != nil {
		return say(failed, "%v", err)
	}
	fmt.Printf("Job <%d> is submitted to queue <%s>.\n", id, j.Queue)
	return 0
}

func bkill(c *pretend.Cluster, ids []string) (code int) {
	for _, id := range ids {
		n, _ := strconv.Atoi(id)
		if err := c.Cancel(n); err == nil {
			fmt.Printf("Job <%s> is being terminated\n", id)
			continue
		}
		if _, ok := c.Job(n); ok {
			code = say(failed, "Job <%s>: Job has already finished", id)
		} else {
			code = say(failed, "Job <%s>: No matching job found", id)
		}
	}
	return code
}

func bjobs(c *pretend.Cluster, args []string) (code int) {
	var ids []string
	format, names := "", ""
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-a", "-noheader":
		case "-o":
			i++
			format = args[i]
		case "-J":
			i++
			names = args[i]
		case "-u":
			i++
		default:
			ids = append(ids, args[i])
		}
	}
	count := 0
	for _, j := range c.Jobs() {
		if ok, _ := filepath.Match(names, j.Name); names != "" && !ok {
			continue
		}
		if len(ids) == 0 {
			count++
			show(j, format)
		}
	}
	for _, id := range ids {
		n, _ := strconv.Atoi(id)
		if j, ok := c.Job(n); ok {
			show(j, format)
		} else {
			code = say(failed, "Job <%s> is not found", id)
		}
	}
	if len(ids) == 0 && count == 0 {
		if names != "" {
			return say(failed, "Job <%s> is not found", names)
		}
		return say(0, "No job found")
	}
	return code
}

var field = regexp.MustCompile(`([a-z_]+):(\d+)`)

// show prints a job in the columns that are asked for.
func show(j pretend.Job, format string) {
	values := map[string]string{
		"jobid": strconv.Itoa(j.ID), "stat": "RUN", "queue": j.Queue, "slots": "1", "nexec_host": "1", "job_name": j.Name, "submit_time": stamp(j.Submitted),
		"start_time": stamp(j.Started), "run_time": "2 second(s)", "max_mem": "1.5 Mbytes", "exec_host": "n1",
	}
	switch {
	case j.Over() && j.ExitCode == 0 && j.Signal == 0 && !j.Cancelled:
		values["stat"] = "DONE"
	case j.Over():
		values["stat"] = "EXIT"
		if j.Signal != 0 {
			values["exit_code"] = strconv.Itoa(128 + j.Signal)
		} else {
			values["exit_code"] = strconv.Itoa(j.ExitCode)
		}
		switch {
		case j.TimedOut:
			values["exit_reason"] = "TERM_RUNLIMIT: job killed after reaching LSF run time limit"
		case j.Cancelled:
			values["exit_reason"] = "TERM_OWNER: job killed by owner"
		}
	case j.Held:
		values["stat"], values["pend_reason"] = "PSUSP", "The job was suspended by the user while pending;"
	case j.Waits():
		values["stat"], values["pend_reason"] = "PEND", "New job is waiting for scheduling;"
	}
	if j.Over() {
		values["finish_time"] = stamp(j.Ended) + " L"
	}
	var row []string
	for _, f := range field.FindAllStringSubmatch(format, -1) {
		value := values[f[1]]
		if value == "" {
			value = "-"
		}
		if width, _ := strconv.Atoi(f[2]); len(value) > width {
			value = "*" + value[len(value)-width+1:]
		}
		row = append(row, value)
	}
	fmt.Println(strings.Join(row, "|"))
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format("Jan _2 15:04")
}

func scheduler(t *testing.T, c batch.Client) *lsf.Scheduler {
	t.Helper()
	s, err := lsf.New(lsf.Options{Client: c})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLSF(t *testing.T) {
	t.Parallel()
	c, cluster := pretend.Start(t, commands())
	batchtest.Run(t, batchtest.Subject{
		Scheduler: scheduler(t, c), Dir: t.TempDir(), IDVariable: lsf.IDVariable(), Unknown: "999999",
		Wait:   func(spec *tranter.BatchSpec) { spec.Shape.Options = []string{"-H"} },
		Refuse: func(spec *tranter.BatchSpec) { spec.Shape.Partition = "nowhere" },
		Walltime: func(id string) (time.Duration, error) {
			n, _ := strconv.Atoi(id)
			j, _ := cluster.Job(n)
			minutes, err := strconv.Atoi(j.Words["minutes"])
			return time.Duration(minutes) * time.Minute, err
		},
		Without: batchtest.Without{Check: true},
	})
}

func spec(t *testing.T) tranter.BatchSpec {
	dir := t.TempDir()
	return tranter.BatchSpec{Name: "tranter-1", Script: "#!/bin/sh\nexec sleep 976", Output: dir + "/out", Dir: dir}
}

func TestWhyAJobIsNotTakenIsTold(t *testing.T) {
	t.Parallel()
	c, _ := pretend.Start(t, commands())
	s := scheduler(t, c)
	for queue, want := range map[string]error{"nowhere": tranter.ErrRejected, "full": tranter.ErrNoCapacity, "away": nil, "-x": tranter.ErrRejected} {
		sp := spec(t)
		sp.Shape.Partition = queue
		_, err := s.Submit(t.Context(), sp)
		if err == nil || want != nil && !errors.Is(err, want) || want == nil && (errors.Is(err, tranter.ErrRejected) || errors.Is(err, tranter.ErrNoCapacity)) {
			t.Errorf("%s: %v, want %v", queue, err, want)
		}
	}
	if err := s.Check(t.Context(), spec(t)); err != nil {
		t.Error(err)
	}
}

func TestAJobThatTakesTooLongHasTimedOut(t *testing.T) {
	t.Parallel()
	c, cluster := pretend.Start(t, commands())
	s := scheduler(t, c)
	sp := spec(t)
	sp.Shape.Partition = "slow"
	id, err := s.Submit(t.Context(), sp)
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		if j, ok := cluster.Job(101); ok && j.Over() {
			break
		}
		<-tick.C
	}
	if jobs, err := s.Jobs(t.Context(), []string{"5", id}); err != nil || len(jobs) != 1 || jobs[0].State != tranter.BatchTimedOut || jobs[0].Usage.MaxMemory != 3<<19 {
		t.Errorf("%+v, %v", jobs, err)
	}
}
