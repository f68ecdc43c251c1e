package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// stubborn are jobs that do what they can to go on. $PIDS is a file for the ids of their processes.
var stubborn = map[string]string{
	"ignores signals":        `trap '' TERM INT HUP QUIT; echo $$ >> $PIDS; while :; do sleep 0.1; done`,
	"children that ignore":   `for i in 1 2 3; do (trap '' TERM; echo $BASHPID >> $PIDS; while :; do sleep 0.1; done) & done; wait`,
	"daemon":                 `setsid setsid env -i PIDS=$PIDS sh -c 'trap "" TERM; echo $$ >> $PIDS; while :; do sleep 0.1; done' </dev/null >/dev/null 2>&1 & sleep 0.3; exec sleep 60`,
	"daemon without a sign":  `(cd /; setsid env -i sh -c 'echo $$ >> '$PIDS'; exec sleep 60' & ) ; sleep 60`,
	"stops itself":           `echo $$ >> $PIDS; kill -STOP $$; sleep 60`,
	"stops its agent":        `echo $$ >> $PIDS; kill -STOP $PPID; sleep 60`,
	"floods the log":         `echo $$ >> $PIDS; while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done`,
	"holds the output open":  `(trap '' TERM; setsid sleep 60 & echo $! >> $PIDS) ; sleep 60`,
	"forks without an end":   `f() { echo $BASHPID >> $PIDS; sleep 0.2; f & }; f; sleep 60`,
	"a reader that is stuck": `mkfifo $PIDS.fifo; echo $$ >> $PIDS; cat $PIDS.fifo`,
}

// Whatever a job does, it is over at most ten seconds after the time of grace that follows its timeout, and nothing of it
// is left.
func TestNothingOutlivesTheTimeout(t *testing.T) {
	t.Parallel()
	testEnds(newRig(t, "", muchLog), tranter.JobExecutionTimeout, coordinator.Failed, func(_ *rig, job *tranter.Job) { job.Runner.Timeout = 2 }, nil)
}

// The same for a job that the server does not want any more. It hears of that with the next report.
func TestNothingOutlivesAnAbort(t *testing.T) {
	t.Parallel()
	testEnds(newRig(t, "", muchLog), "", coordinator.Canceled, nil, func(r *rig, id int64) { r.Abort(id) })
}

// muchLog is for jobs that print without an end.
const muchLog = "output_limit = 100000"

func testEnds(r *rig, reason tranter.FailureReason, status coordinator.Status, prepare func(*rig, *tranter.Job), end func(*rig, int64)) {
	t := r.t
	t.Helper()
	r.configureConcurrent(len(stubborn))
	r.start()
	ids := map[string]int64{}
	for name, commands := range stubborn {
		pids := r.path(strings.ReplaceAll(name, " ", "-"))
		job := with(script(commands), "PIDS", pids)
		job.Features.FailureReasons = known
		if prepare != nil {
			prepare(r, &job)
		}
		ids[name] = r.Enqueue(job)
	}
	began := time.Now()
	for name, id := range ids {
		r.file(r.path(strings.ReplaceAll(name, " ", "-")))
		if end != nil {
			end(r, id)
		}
	}
	limit := 2*time.Second + endMargin + 15*time.Second // they share the machine, and are asked for one after the other
	for name, id := range ids {
		v := r.waitLong(id, limit-time.Since(began))
		if v.Status != status || v.Reason != reason && status == coordinator.Failed {
			t.Errorf("%s: %s %s", name, v.Status, v.Reason)
		}
		if took := v.Times.Duration(time.Now()); end == nil && took > 2*time.Second+endMargin {
			t.Errorf("%s: it took %v", name, took)
		}
	}
	r.eventuallyIn(40*time.Second+endMargin, "the runner has no job left", func() bool {
		entries, err := filepath.Glob(r.path("state/jobs/*"))
		return err == nil && len(entries) == 0
	})
	if r.engine != "" {
		return // its processes are those of its containers, of which none may be left either
	}
	for name := range ids {
		for _, pid := range pidsIn(t, r.path(strings.ReplaceAll(name, " ", "-"))) {
			if syscall.Kill(pid, 0) == nil && !zombie(pid) {
				t.Errorf("%s: process %d is left", name, pid)
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
}

func pidsIn(t *testing.T, path string) []int {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	var out []int
	for field := range strings.FieldsSeq(string(data)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		out = append(out, pid)
	}
	return out
}

// zombie says whether a process has ended and only its parent has not heard of it.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

func (r *rig) configureConcurrent(n int) {
	r.t.Helper()
	data, err := os.ReadFile(r.path("config.toml"))
	if err != nil {
		r.t.Fatal(err)
	}
	text := strings.Replace(string(data), "concurrent = 4", fmt.Sprintf("concurrent = %d", n), 1)
	if err := os.WriteFile(r.path("config.toml"), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}
