//go:build unix

package flux_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/batch/batchtest"
	"github.com/tranter-ci/tranter/internal/batch/flux"
	"github.com/tranter-ci/tranter/internal/batch/pretend"
)

func TestMain(m *testing.M) {
	pretend.Main(commands())
	os.Exit(m.Run())
}

func commands() map[string]pretend.Command { return map[string]pretend.Command{"flux": command} }

func command(c *pretend.Cluster, args []string) int {
	switch args[0] {
	case "batch":
		return submit(c, args[1:])
	case "jobs":
		return jobs(c, args[1:])
	case "cancel":
		return cancel(c, args[1:])
	}
	return say("flux: `%s' is not a flux command", args[0])
}

func say(format string, args ...any) int {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	return 1
}

const digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// base58 is a small number to the base of 58.
func base58(n int) string {
	if n < len(digits) {
		return digits[n : n+1]
	}
	return base58(n/len(digits)) + base58(n%len(digits))
}

// number finds the job that an id means.
func number(c *pretend.Cluster, id string) (pretend.Job, bool) {
	for _, j := range c.Jobs() {
		if id == "ƒ"+base58(j.ID) || id == "f"+base58(j.ID) || id == strconv.Itoa(j.ID) {
			return j, true
		}
	}
	return pretend.Job{}, false
}

func submit(c *pretend.Cluster, args []string) int {
	script, _ := io.ReadAll(os.Stdin)
	j := pretend.Job{Argv: []string{"/bin/sh"}, Script: string(script), Words: map[string]string{}}
	for _, a := range args {
		name, value, _ := strings.Cut(strings.TrimPrefix(a, "--"), "=")
		switch name {
		case "job-name":
			j.Name = value
		case "output":
			j.Output = value
		case "cwd":
			j.Dir = value
		case "queue":
			j.Queue = value
		case "urgency":
			j.Held = value == "0"
		case "time-limit":
			j.Words["limit"] = value
		}
	}
	switch j.Queue {
	case "nowhere":
		return say("flux-batch: ERROR: [Errno 22] Invalid queue 'nowhere' specified")
	case "large":
		return say("flux-batch: ERROR: [Errno 22] unsatisfiable request")
	case "full":
		return say("flux-batch: ERROR: [Errno 22] user has max number of active jobs submitted: 5")
	case "away":
		return say("flux-batch: ERROR: Unable to connect to Flux: broker socket /run/flux/local was not found")
	case "slow":
		j.Walltime = 300 * time.Millisecond
	}
	ids := make([]string, 0, 100)
	for i := range 100 {
		ids = append(ids, fmt.Sprintf("%d) echo f%s;;", 101+i, base58(101+i)))
	}
	j.Script = "FLUX_ENCLOSING_ID=$(case $(basename $(dirname $0)) in " + strings.Join(ids, " ") + " esac); export FLUX_ENCLOSING_ID\n" + j.Script
	id, err := c.Submit(j)
	if err != nil {
		return say("%v", err)
	}
	fmt.Println("ƒ" + base58(id))
	return 0
}

func cancel(c *pretend.Cluster, ids []string) (code int) {
	for _, id := range ids {
		j, ok := number(c, id)
		switch {
		case !ok:
			code = say("flux-cancel: ERROR: %s: unknown job id", id)
		case c.Cancel(j.ID) != nil:
			code = say("flux-cancel: ERROR: %s: job is inactive", id)
		}
	}
	return code
}

func jobs(c *pretend.Cluster, args []string) (code int) {
	format, byID := "", false
	for _, a := range args {
		switch {
		case strings.HasPrefix(a, "--format="):
			format = strings.TrimPrefix(a, "--format=")
		case strings.HasPrefix(a, "-"):
		default:
			byID = true
			if j, ok := number(c, a); ok {
				show(j, format)
			} else {
				code = say("flux-jobs: ERROR: JobID %s unknown", a)
			}
		}
	}
	for _, j := range c.Jobs() {
		if !byID && !j.Over() {
			show(j, format)
		}
	}
	return code
}

func show(j pretend.Job, format string) {
	values := map[string]string{
		"id.dec": strconv.Itoa(j.ID), "state": "RUN", "result": "", "returncode": "", "ncores": "1", "nnodes": "1", "t_submit": stamp(j.Submitted), "t_run": stamp(j.Started),
		"t_cleanup": stamp(j.Ended), "queue": j.Queue, "nodelist": "n1", "exception.type": "", "name": j.Name, "exception.note": "", "urgency": "16",
	}
	if j.Held {
		values["urgency"] = "0"
	}
	switch {
	case j.Over():
		values["state"], values["result"], values["returncode"] = "INACTIVE", "COMPLETED", strconv.Itoa(j.ExitCode)
		if j.ExitCode != 0 || j.Signal != 0 {
			values["result"] = "FAILED"
		}
		if j.Signal != 0 {
			values["returncode"] = strconv.Itoa(-j.Signal)
		}
		if j.TimedOut {
			values["result"], values["exception.type"], values["exception.note"] = "TIMEOUT", "timeout", "resource allocation expired"
		} else if j.Cancelled {
			values["result"], values["exception.type"] = "CANCELED", "cancel"
		}
	case j.Waits():
		values["state"] = "SCHED"
	}
	for name, value := range values {
		format = strings.ReplaceAll(format, "{"+name+"}", value)
	}
	fmt.Println(format)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "0.0"
	}
	return fmt.Sprintf("%.6f", float64(t.UnixMicro())/1e6)
}

func scheduler(t *testing.T, c batch.Client) *flux.Scheduler {
	t.Helper()
	s, err := flux.New(flux.Options{Client: c})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFlux(t *testing.T) {
	t.Parallel()
	c, cluster := pretend.Start(t, commands())
	batchtest.Run(t, batchtest.Subject{
		Scheduler: scheduler(t, c), Dir: t.TempDir(), IDVariable: flux.IDVariable(), Unknown: "fzzzz", Forgets: true,
		Wait:   func(spec *tranter.BatchSpec) { spec.Shape.Options = []string{"--urgency=0"} },
		Refuse: func(spec *tranter.BatchSpec) { spec.Shape.Partition = "nowhere" },
		Walltime: func(id string) (time.Duration, error) {
			j, _ := number(cluster, id)
			return time.ParseDuration(j.Words["limit"])
		},
		Without: batchtest.Without{Check: true, Append: true},
	})
}

func spec(t *testing.T) tranter.BatchSpec {
	dir := t.TempDir()
	return tranter.BatchSpec{Name: "tranter-1", Script: "#!/bin/sh\nexec sleep 975", Output: dir + "/out", Dir: dir}
}

func TestWhyAJobIsNotTakenIsTold(t *testing.T) {
	t.Parallel()
	c, _ := pretend.Start(t, commands())
	s := scheduler(t, c)
	for queue, want := range map[string]error{"nowhere": tranter.ErrRejected, "large": tranter.ErrRejected, "full": tranter.ErrNoCapacity, "away": nil} {
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
	got, err := s.Jobs(t.Context(), []string{"fzzzz", "ƒ" + strings.TrimPrefix(id, "f")})
	if err != nil || len(got) != 1 || got[0].State != tranter.BatchTimedOut || got[0].ID != "ƒ"+id[1:] || got[0].Usage.CPUTime <= 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
