//go:build unix

package conformance

import (
	"database/sql"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver of the state's database

	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
)

// install puts a program in the place of another, which may be running.
func install(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to+".new", data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
}

// TestUpgrade replaces the manager by another version while jobs run and while GitLab hands one out.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	versions := t.TempDir()
	older, newer := filepath.Join(versions, "older"), filepath.Join(versions, "newer")
	for path, version := range map[string]string{older: "1.0.0", newer: "2.0.0-with-a-longer-name"} {
		if err := build(path, version); err != nil {
			t.Fatal(err)
		}
	}
	cases := map[string]replacement{
		"killed and started": {func(r *rig) {
			r.kill()
			r.start()
		}, false},
		"left and started": {func(r *rig) {
			if out, code := r.tool("drain", "--leave-jobs", "--wait", "--state-dir", r.path("state")); code != 0 || !strings.Contains(out, "left for the next start") {
				r.t.Errorf("drain --leave-jobs: %d\n%s", code, out)
			}
			if code := r.wait(20 * time.Second); code != 0 {
				r.t.Errorf("exit code %d", code)
			}
			r.start()
		}, false},
		"by command": {func(r *rig) {
			if out, code := r.tool("upgrade", "--state-dir", r.path("state")); code != 0 || !strings.Contains(out, "2.0.0-with") {
				r.t.Errorf("upgrade: %d\n%s", code, out)
			}
		}, true},
		"by signal": {func(r *rig) { r.signal(syscall.SIGUSR2) }, true},
	}
	for executor, newRig := range makers() {
		for name, c := range cases {
			t.Run(executor+", "+name, func(t *testing.T) {
				t.Parallel()
				testUpgrade(t, newRig(t, "", ""), c, older, newer)
			})
		}
	}
	t.Cleanup(func() {
		removeAgent(older)
		removeAgent(newer)
	})
}

// replacement is a way to put one version in another's place.
type replacement struct {
	replace func(r *rig)
	same    bool // the process stays
}

func testUpgrade(t *testing.T, r *rig, c replacement, older, newer string) {
	t.Helper()
	r.program = r.path("tranter")
	install(t, older, r.program)
	r.start()
	waiting := "while [ ! -e " + r.path("go") + " ]; do sleep 0.05; done"
	long := r.Enqueue(script("echo begin", "touch "+r.path("running"), waiting, "echo end"))
	failing := r.Enqueue(after(script("touch "+r.path("failing"), waiting, "exit 4"), "echo tidied"))
	r.file(r.path("running"))
	r.file(r.path("failing"))
	install(t, newer, r.program)
	if c.same { // a job that is handed out in this moment
		r.Inject(coordinatortest.Fault{Endpoint: coordinatortest.Request, Delay: 700 * time.Millisecond, Times: 3})
	}
	between := r.Enqueue(script("echo between"))
	if c.same {
		r.pause(400 * time.Millisecond)
	}
	before := r.cmd.Process.Pid
	c.replace(r)
	r.eventually("the new version runs", func() bool { return strings.Contains(r.output.String(), "version=2.0.0-with") })
	if c.same != (r.cmd.Process.Pid == before) {
		t.Errorf("process %d, then %d", before, r.cmd.Process.Pid)
	}
	fresh := r.Enqueue(script("echo fresh"))
	for _, id := range []int64{between, fresh} {
		if !c.same && strings.Contains(t.Name(), "killed") && id == between {
			continue // it may have been in GitLab's hand
		}
		if v := r.Wait(id); v.Status != coordinator.Success {
			t.Errorf("job %d: %s", id, v.Status)
		}
	}
	if log := plain(r.Log(fresh)); !strings.Contains(log, "Running with tranter 2.0.0-with-a-longer-name") {
		t.Errorf("a new job is not run by the new version:\n%s", log)
	}
	touch(t, r.path("go"))
	if v := r.Wait(long); v.Status != coordinator.Success || v.LogDamaged {
		t.Errorf("%s, damaged %v", v.Status, v.LogDamaged)
	}
	if log := plain(r.Log(long)); strings.Count(log, "Running with tranter 1.0.0") != 1 || strings.Count(log, "\nbegin\n") != 1 || strings.Count(log, "\nend\n") != 1 {
		t.Errorf("the log of the old job:\n%s", log)
	}
	v := r.Wait(failing)
	if log := plain(r.Log(failing)); v.Status != coordinator.Failed || v.ExitCode != 4 || strings.Count(log, "\ntidied\n") != 1 || strings.Count(log, "Running with") != 1 {
		t.Errorf("%s %d\n%s", v.Status, v.ExitCode, log)
	}
	r.eventually("no ended agent is left", func() bool { return len(zombies(t, r.cmd.Process.Pid)) == 0 })
}

// zombies are the ended children of a process that it has not asked about.
func zombies(t *testing.T, parent int) []string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[0] == "Z" && fields[1] == strconv.Itoa(parent) {
			out = append(out, string(data))
		}
	}
	return out
}

// A new version that does not work does not take over.
func TestABrokenVersionDoesNotReplaceTheManager(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	r.program = r.path("tranter")
	install(t, program, r.program)
	r.start()
	r.eventually("it runs", func() bool { return strings.Contains(r.output.String(), "takes jobs") })
	broken := r.path("broken")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho wrong libc >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	install(t, broken, r.program)
	client := *r
	client.program = program
	if out, code := client.tool("upgrade", "--state-dir", r.path("state")); code != 1 || !strings.Contains(out, "wrong libc") {
		t.Errorf("upgrade: %d\n%s", code, out)
	}
	install(t, program, r.program)
	id := r.Enqueue(script("echo still here"))
	if v := r.Wait(id); v.Status != coordinator.Success {
		t.Errorf("%s", v.Status)
	}
}

// A version before the one that wrote the state says so and touches nothing.
func TestAnOlderVersionRefusesANewerState(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	if err := os.Mkdir(r.path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", r.path("state/tranter.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE of_the_future (x); PRAGMA user_version = 1000"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	out, code := r.tool("run", "--config", r.path("config.toml"), "--state-dir", r.path("state"))
	if code != 1 || !strings.Contains(out, "newer tranter") || !strings.Contains(out, "tranter.db") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}
