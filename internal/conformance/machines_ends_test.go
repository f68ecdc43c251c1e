//go:build unix

package conformance

import (
	"database/sql"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/provider/machinetest"
)

// flagRig is a machineRig whose jobs see the folder /flag of their machines.
func flagRig(t *testing.T, section, machine string) *rig {
	t.Helper()
	r := machineRig(t, section, machine)
	r.jobs = strings.Replace(r.jobs, "[runners.docker]\n", "[runners.docker]\nvolumes = [\"/flag:/flag\"]\n", 1)
	r.configure("", section)
	return r
}

// untilFlag is a job that ends once somebody has made a file on its machine.
func untilFlag(name string) tranter.Job {
	return bare("echo begin", "while [ ! -e /flag/"+name+" ]; do sleep 0.1; done", "echo end")
}

// begun waits until a job runs, and returns its machine.
func (r *rig) begun(id int64) string {
	r.t.Helper()
	r.eventuallyIn(time.Minute, "the job's script has begun", func() bool { return strings.Contains(plain(r.Log(id)), "\nbegin") })
	return machineOf(r.Log(id))
}

// says runs a command of machine that has to work and to say certain things.
func (r *rig) says(command []string, wants ...string) string {
	r.t.Helper()
	out, code := r.machine(command...)
	if code != 0 {
		r.t.Errorf("machine %v: code %d, %s", command, code, out)
	}
	for _, want := range wants {
		if !strings.Contains(out, want) {
			r.t.Errorf("machine %v does not say %q:\n%s", command, want, out)
		}
	}
	return out
}

// The commands do the same with the manager and, once it was killed, without it. A runner that leaves the configuration lets
// its job end, and its machines go.
func TestMachinesAreLookedAtAndWorkedOnWithAndWithoutTheManager(t *testing.T) {
	t.Parallel()
	r := flagRig(t, "limit = 2", "IdleTime = 600")
	r.up()
	first := r.Enqueue(untilFlag("first"))
	name := r.begun(first)
	look := func() {
		r.t.Helper()
		r.says([]string{"ls"}, name, "leased")
		r.says([]string{"why", name}, "1 job without a machine", "created in")
		r.says([]string{"inspect", name}, name, "leased")
		r.says([]string{"env", name}, "DOCKER_HOST")
		r.says([]string{"leaks"})
		r.says([]string{"ssh", name, "hostname"}, name)
	}
	look()
	r.says([]string{"create"})
	others := slices.DeleteFunc(r.machines(), func(n string) bool { return n == name })
	if len(others) != 1 {
		t.Fatalf("machines besides %s: %v", name, others)
	}
	r.says([]string{"rm", others[0]})
	r.eventuallyIn(time.Minute, "the machine is removed", func() bool { return slices.Equal(r.machines(), []string{name}) })
	r.kill()
	look()
	r.says([]string{"ssh", name, "touch /flag/first"})
	r.up()
	if v := r.waitLong(first, time.Minute); v.Status != coordinator.Success {
		t.Errorf("%s:\n%s", v.Status, r.Log(first))
	}
	r.eventuallyIn(time.Minute, "its machine is idle", func() bool { all := r.fleet(); return len(all) == 1 && all[0].State == "idle" })
	second := r.Enqueue(untilFlag("second"))
	if again := r.begun(second); again != name {
		t.Errorf("the second job has %s, and %s is idle", again, name)
	}
	r.write("concurrent = 1\n")
	r.signal(syscall.SIGHUP)
	r.eventually("the runner is gone", func() bool { return strings.Contains(r.output.String(), "not in the configuration any more") })
	if !slices.Equal(r.machines(), []string{name}) {
		t.Errorf("machines: %v", r.machines())
	}
	r.says([]string{"ssh", name, "touch /flag/second"})
	if v := r.waitLong(second, time.Minute); v.Status != coordinator.Success {
		t.Errorf("%s:\n%s", v.Status, r.Log(second))
	}
	r.gone()
}

// A manager that drains lets jobs end, and removes the machines if it is told to.
func TestADrainedManagerLeavesNoMachines(t *testing.T) {
	t.Parallel()
	r := flagRig(t, "limit = 1", "IdleTime = 600")
	r.configure("[machine.shutdown_drain]\nenabled = true", "limit = 1")
	r.up()
	id := r.Enqueue(untilFlag("go"))
	name := r.begun(id)
	r.signal(syscall.SIGQUIT)
	r.eventually("the manager drains", func() bool { return strings.Contains(r.output.String(), "Taking no new jobs") })
	r.says([]string{"ssh", name, "touch /flag/go"})
	if code := r.wait(time.Minute); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if v := r.Job(id); v.Status != coordinator.Success {
		t.Errorf("%s:\n%s", v.Status, r.Log(id))
	}
	if left := r.machines(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// The manager is replaced while a job waits for a machine, which is fast, and the job goes on. Then the settings change.
func TestAManagerIsReplacedWhileAJobWaitsForAMachine(t *testing.T) {
	t.Parallel()
	r := drivenRig(t, 1)
	r.program = r.path("tranter")
	install(t, program, r.program)
	data, err := os.ReadFile(r.path("config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	r.write(strings.Replace(string(data), `"lab-network`, `"lab-create-delay=3", "lab-network`, 1))
	r.up()
	id := r.Enqueue(bare("echo done"))
	r.eventually("the job waits", func() bool { return strings.Contains(r.Log(id), "Waiting for a machine") })
	began := time.Now()
	if out, code := r.tool("upgrade", "--state-dir", r.path("state")); code != 0 {
		t.Errorf("upgrade: %d\n%s", code, out)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	t.Logf("replaced within %v", time.Since(began).Round(time.Millisecond))
	if v := r.waitLong(id, time.Minute); v.Status != coordinator.Success || strings.Count(r.Log(id), "Running with tranter") != 1 {
		t.Errorf("%s:\n%s", v.Status, r.Log(id))
	}
	r.edit("limit = 1", "limit = 2", "IdleTime = 2", "IdleTime = 2\nIdleCount = 2", `"lab-create-delay=3", `, "")
	r.eventuallyIn(time.Minute, "two machines are idle", func() bool {
		all := r.fleet()
		return len(all) == 2 && all[0].State == "idle" && all[1].State == "idle"
	})
	r.edit("IdleCount = 2", "IdleCount = 0")
	r.gone()
}

// twin is a second manager with the same configuration and a state of its own.
func (r *rig) twin() *rig {
	r.t.Helper()
	two := &rig{GitLab: r.GitLab, t: r.t, dir: r.t.TempDir(), program: r.program, output: &output{}, jobs: r.jobs, kind: r.kind, engine: r.engine, env: r.env}
	data, err := os.ReadFile(r.path("config.toml"))
	if err != nil {
		r.t.Fatal(err)
	}
	two.write(strings.ReplaceAll(string(data), r.dir, two.dir))
	two.cleanUp()
	return two
}

// Two managers have the same runner: each has its own machines, and keeps its hands off the other's. One that was killed
// finds its own again, except one whose row can't be read: nobody can use that, and it is removed.
func TestTwoManagersOfOneRunnerKeepToTheirOwnMachines(t *testing.T) {
	t.Parallel()
	r := flagRig(t, "limit = 1", "IdleTime = 600")
	r.up()
	first := r.Enqueue(untilFlag("go"))
	one := r.begun(first)
	two := r.twin()
	two.up()
	second := r.Enqueue(untilFlag("go"))
	other := r.begun(second)
	if other == one {
		t.Errorf("both jobs are on %s", one)
	}
	if out, code := two.machine("prune", "--yes"); code != 0 || strings.Contains(out, one) {
		t.Errorf("machine prune of the second: code %d, %s", code, out)
	}
	if out, code := r.machine("rm", "--force", other); code == 0 || !strings.Contains(out, "there is no machine") {
		t.Errorf("machine rm of the second's by the first: code %d, %s", code, out)
	}
	r.says([]string{"ssh", one, "touch /flag/go"})
	two.says([]string{"ssh", other, "touch /flag/go"})
	for _, id := range []int64{first, second} {
		if v := r.waitLong(id, time.Minute); v.Status != coordinator.Success {
			t.Errorf("%s:\n%s", v.Status, r.Log(id))
		}
	}
	if all := r.machines(); len(all) != 2 {
		t.Errorf("machines: %v", all)
	}
	two.kill()
	two.breakRow(other)
	two.up()
	two.eventuallyIn(time.Minute, "the machine that can't be read of is removed", func() bool { return !slices.Contains(r.machines(), other) })
	two.eventually("that is said", func() bool { return strings.Contains(two.output.String(), other) })
	if !slices.Contains(r.machines(), one) {
		t.Errorf("%s is removed too", one)
	}
}

// breakRow spoils what the manager, which does not run, remembers of a machine.
func (r *rig) breakRow(name string) {
	r.t.Helper()
	db, err := sql.Open("sqlite", r.path("state/tranter.db"))
	if err != nil {
		r.t.Fatal(err)
	}
	result, err := db.Exec("UPDATE machines SET machine = '{\"spoiled' WHERE name = ?", name)
	if err != nil {
		r.t.Fatal(err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		r.t.Fatalf("%d rows, error %v", n, err)
	}
	if err := db.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// A host that two managers list serves the first; the second says so, and its job waits.
func TestAHostIsOneManagersOnly(t *testing.T) {
	t.Parallel()
	host := machinetest.Start(t, machinetest.Options{})
	host.WaitEngine()
	r := machineRig(t, "", "")
	r.jobs = strings.Replace(r.jobs, `provider = "container"`, `provider = "static"`, 1)
	r.jobs = r.jobs[:strings.Index(r.jobs, "[runners.machine.container]")] + r.jobs[strings.Index(r.jobs, "[runners.machine.engine]"):]
	r.jobs += fmt.Sprintf("[[runners.machine.hosts]]\nname = \"host\"\naddress = \"ssh://root@%s:22\"\nidentity_file = %q\n", host.Address, host.Login.Identity)
	r.configure("", "")
	r.up()
	id := r.Enqueue(bare("echo on $(hostname)"))
	if v := r.waitLong(id, time.Minute); v.Status != coordinator.Success || !strings.Contains(r.Log(id), "Using machine host") {
		t.Errorf("%s:\n%s", v.Status, r.Log(id))
	}
	two := r.twin()
	two.up()
	two.eventuallyIn(time.Minute, "the second manager is refused", func() bool { return strings.Contains(two.output.String(), "looked after by another manager") })
	if all := r.fleet(); len(all) != 1 || all[0].State != "idle" {
		t.Errorf("the first has %+v", all)
	}
}
