package conformance

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
)

func TestSIGQUITFinishesJobsAndTakesNoNewOnes(t *testing.T) {
	onEach(t, testSIGQUITFinishesJobsAndTakesNoNewOnes)
}

func testSIGQUITFinishesJobsAndTakesNoNewOnes(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, "", "")
	r.start()
	first := r.Enqueue(script("touch "+r.path("running"), "while [ ! -e "+r.path("go")+" ]; do sleep 0.1; done"))
	r.file(r.path("running"))
	r.signal(syscall.SIGQUIT)
	r.eventually("the manager drains", func() bool { return strings.Contains(r.output.String(), "Taking no new jobs") })
	r.pause(time.Second) // a request that is under way may still bring a job
	second := r.Enqueue(script("true"))
	touch(t, r.path("go"))
	if code := r.wait(30 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if v := r.Job(first); v.Status != coordinator.Success {
		t.Errorf("the running job: %s", v.Status)
	}
	if v := r.Job(second); v.Status != coordinator.Pending {
		t.Errorf("the new job: %s", v.Status)
	}
}

func TestSIGTERMReportsJobsAsInterrupted(t *testing.T) {
	onEach(t, testSIGTERMReportsJobsAsInterrupted)
}

func testSIGTERMReportsJobsAsInterrupted(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, "", "")
	r.start()
	job := after(script("touch "+r.path("running"), "sleep 60"), "touch "+r.path("after"))
	job.Features.FailureReasons = known
	id := r.Enqueue(job)
	r.file(r.path("running"))
	r.signal(syscall.SIGTERM)
	if code := r.wait(25 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if v := r.Job(id); v.Status != coordinator.Failed || v.Reason != tranter.RunnerInterrupted {
		t.Errorf("%s %s", v.Status, v.Reason)
	}
	if fileExists(r.path("after")) {
		t.Error("after_script has run")
	}
}

func TestASecondSignalEndsAtOnceAndTheNextStartReports(t *testing.T) {
	onEach(t, testASecondSignalEndsAtOnceAndTheNextStartReports)
}

func testASecondSignalEndsAtOnceAndTheNextStartReports(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, "", "")
	r.start()
	job := script("touch "+r.path("running"), "trap '' TERM; while [ ! -e "+r.path("go")+" ]; do sleep 0.1; done; echo whole")
	id := r.Enqueue(job)
	r.file(r.path("running"))
	r.signal(syscall.SIGTERM)
	r.eventually("the manager stops", func() bool { return strings.Contains(r.output.String(), "Stopping") })
	r.signal(syscall.SIGTERM)
	if code := r.wait(10 * time.Second); code != 1 { // the time to stop in is twice that
		t.Errorf("exit code %d", code)
	}
	if v := r.Job(id); v.Status != coordinator.Running {
		t.Errorf("%s", v.Status)
	}
	r.start()
	if v := r.Wait(id); !v.Status.Finished() {
		t.Errorf("%s", v.Status)
	}
}

// A job that the server has handed out when the stop comes is not left hanging.
func TestAJobInFlightIsRunOrReported(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		signal syscall.Signal
		status coordinator.Status
		reason tranter.FailureReason
	}{
		"drain": {syscall.SIGQUIT, coordinator.Success, ""},
		"stop":  {syscall.SIGTERM, coordinator.Failed, tranter.RunnerSystemFailure},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", "")
			id := r.Enqueue(script("true"))
			r.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Request, Delay: 1500 * time.Millisecond})
			r.start()
			r.eventually("the request is under way", func() bool { return strings.Contains(r.output.String(), "takes jobs") })
			r.pause(500 * time.Millisecond) // the answer is under way meanwhile
			r.signal(c.signal)
			r.wait(25 * time.Second)
			if v := r.Job(id); v.Status != c.status || v.Reason != c.reason {
				t.Errorf("%s %s, want %s %s", v.Status, v.Reason, c.status, c.reason)
			}
		})
	}
}

// The manager is killed while jobs run: its successor brings logs and states as if nothing had happened.
func TestKilledManager(t *testing.T) { onEach(t, testKilledManager) }

func testKilledManager(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, "", "")
	r.start()
	long := script("for i in $(seq 1 60); do echo line $i; sleep 0.1; done")
	ids := []int64{r.Enqueue(long), r.Enqueue(long), r.Enqueue(after(script("sleep 3", "exit 5"), "echo status $CI_JOB_STATUS"))}
	for range 4 {
		r.WaitLog(ids[0], 1)
		r.pause(700 * time.Millisecond) // a crash comes at any moment
		r.kill()
		r.start()
	}
	for i, id := range ids {
		v := r.Wait(id)
		log := plain(r.Log(id))
		if i < 2 {
			want := ""
			for n := range 60 {
				want += "line " + itoa(n+1) + "\n"
			}
			if v.Status != coordinator.Success || !strings.Contains(log, want) || strings.Count(log, "Running with tranter") != 1 {
				t.Errorf("%s\n%s", v.Status, log)
			}
		} else if v.Status != coordinator.Failed || v.ExitCode != 5 || strings.Count(log, "status failed") != 1 {
			t.Errorf("%s %d\n%s", v.Status, v.ExitCode, log)
		}
		if v.LogDamaged {
			t.Error("the log's checksum is wrong")
		}
	}
}

func TestAChangedConfigurationIsUsedAndABrokenOneIsNot(t *testing.T) {
	onEach(t, testAChangedConfigurationIsUsedAndABrokenOneIsNot)
}

func testAChangedConfigurationIsUsedAndABrokenOneIsNot(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, "", "")
	r.start()
	r.eventually("it runs", func() bool { return strings.Contains(r.output.String(), "takes jobs") })
	id := r.Enqueue(script("touch "+r.path("running"), "while [ ! -e "+r.path("go")+" ]; do sleep 0.1; done", "echo got=$ADDED"))
	r.file(r.path("running"))
	r.configure("", "environment = [\"ADDED=yes\"]")
	r.signal(syscall.SIGHUP)
	r.eventually("the new configuration is read", func() bool { return strings.Contains(r.output.String(), "Configuration loaded") })
	second := r.Enqueue(script("echo got=$ADDED"))
	r.Wait(second)
	if log := plain(r.Log(second)); !strings.Contains(log, "got=yes") {
		t.Errorf("the new job does not have the new configuration:\n%s", log)
	}
	r.configure("concurrent = \"many\"", "")
	r.eventually("the broken one is refused", func() bool { return strings.Contains(r.output.String(), "is not used") })
	out, code := r.tool("status", "--state-dir", r.path("state"))
	if code != 0 || !strings.Contains(out, "config.toml:") {
		t.Errorf("status %d:\n%s", code, out)
	}
	touch(t, r.path("go"))
	r.Wait(id)
	if log := plain(r.Log(id)); !strings.Contains(log, "got=\n") {
		t.Errorf("the running job was touched:\n%s", log)
	}
}

func TestTwoManagersOnOneStateDirectory(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	r.start()
	r.eventually("it runs", func() bool { return strings.Contains(r.output.String(), "takes jobs") })
	out, code := r.tool("run", "--config", r.path("config.toml"), "--state-dir", r.path("state"))
	if code != 1 || !strings.Contains(out, "another manager uses the state directory") || !strings.Contains(out, "--state-dir") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	id := r.Enqueue(script("true"))
	if v := r.Wait(id); v.Status != coordinator.Success {
		t.Errorf("the first one was disturbed: %s", v.Status)
	}
}

func TestStatusAndDrain(t *testing.T) { onEach(t, testStatusAndDrain) }

func testStatusAndDrain(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, "", "")
	if out, code := r.tool("status", "--state-dir", r.path("state")); code != 1 || !strings.Contains(out, "no manager is running") {
		t.Errorf("without a manager: %d\n%s", code, out)
	}
	r.start()
	id := r.Enqueue(script("touch "+r.path("running"), "while [ ! -e "+r.path("go")+" ]; do sleep 0.1; done"))
	r.file(r.path("running"))
	out, code := r.tool("status", "--state-dir", r.path("state"), "--output", "json")
	var status struct {
		State string
		Jobs  []struct{ ID int64 }
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil || code != 0 || status.State != "running" || len(status.Jobs) != 1 || status.Jobs[0].ID != id {
		t.Errorf("status %d, %v:\n%s", code, err, out)
	}
	if out, code := r.tool("drain", "--state-dir", r.path("state")); code != 0 || !strings.Contains(out, "1 job") {
		t.Errorf("drain %d:\n%s", code, out)
	}
	touch(t, r.path("go"))
	if code := r.wait(20 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if v := r.Job(id); v.Status != coordinator.Success {
		t.Errorf("%s", v.Status)
	}
}

func TestGitLabThatIsAwayOrUnwell(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	r.Inject(coordinatortest.Fault{Drop: true, Times: 3})
	r.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Request, Status: 502, Body: "<html>bad gateway</html>", Times: 3})
	r.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Request, Status: 429, Header: http.Header{"Retry-After": {"1"}}, Times: 2})
	r.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Trace, Status: 500, Times: 8})
	r.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Update, Lose: true, Times: 1})
	r.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Trace, Lose: true, Times: 2})
	r.start()
	id := r.Enqueue(script("for i in 1 2 3 4 5 6; do echo line $i; sleep 0.5; done"))
	v := r.Wait(id)
	log := plain(r.Log(id))
	if v.Status != coordinator.Success || v.LogDamaged || !strings.Contains(log, "line 1\nline 2\nline 3\nline 4\nline 5\nline 6\n") {
		t.Errorf("%s, damaged %v:\n%s", v.Status, v.LogDamaged, log)
	}
}

func TestAPayloadThatCantBeReadIsReportedIfPossible(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	r.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Request, Truncate: true, Skip: 0})
	id := r.Enqueue(script("true"))
	r.start()
	next := r.Enqueue(script("true"))
	if v := r.Wait(next); v.Status != coordinator.Success {
		t.Errorf("the next job: %s", v.Status)
	}
	_ = id
	if !strings.Contains(r.output.String(), "Checking for jobs... failed") {
		t.Error("nothing was said about it")
	}
}

func TestAWrongTokenPausesTheRunner(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "unhealthy_requests_limit = 2")
	r.Token = "glrt-wrong"
	r.configure("", "unhealthy_requests_limit = 2")
	r.start()
	r.eventually("the runner pauses", func() bool { return strings.Contains(r.output.String(), "The runner pauses") })
	out, _ := r.tool("status", "--state-dir", r.path("state"))
	if !strings.Contains(out, "paused for") || strings.Contains(out+r.output.String(), "glrt-wrong") {
		t.Errorf("status:\n%s", out)
	}
}

func TestABrokenConfigurationIsRefusedWithItsPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "limit = \"x\"")
	out, code := r.tool("run", "--config", r.path("config.toml"), "--state-dir", r.path("state"))
	if code != 1 || !strings.Contains(out, "config.toml:10:") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func TestRunSingle(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	ids := []int64{r.Enqueue(script("echo one")), r.Enqueue(script("exit 2")), r.Enqueue(script("echo three"))}
	out, code := r.tool("run-single", "--url", r.URL, "--token", r.Token.Reveal(), "--executor", "shell", "--builds-dir", r.path("builds"), "--cache-dir", r.path("cache"), "--max-builds", "2")
	if code != 0 || strings.Contains(out, r.Token.Reveal()) {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if a, b, c := r.Job(ids[0]).Status, r.Job(ids[1]).Status, r.Job(ids[2]).Status; a != coordinator.Success || b != coordinator.Failed || c != coordinator.Pending {
		t.Errorf("%s %s %s", a, b, c)
	}
	out, code = r.tool("run-single", "--config", r.path("config.toml"), "--runner", "conformance", "--wait-timeout", "2")
	if v := r.Job(ids[2]); code != 0 || v.Status != coordinator.Success {
		t.Errorf("exit code %d, %s:\n%s", code, v.Status, out)
	}
	if out, code := r.tool("run-single", "--url", r.URL); code != 1 || !strings.Contains(out, "executor") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func itoa(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}
