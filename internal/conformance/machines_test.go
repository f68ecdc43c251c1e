package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/provider/machinetest"
)

// machineRig is a rig whose jobs run in containers on machines, which are containers of the machine's engine. The machines
// have one small image, so jobs get no sources and need no helper. machine are lines for [runners.machine].
func machineRig(t *testing.T, section, machine string) *rig {
	t.Helper()
	image := enginetest.Image(t, "busybox")
	return machineRigWith(t, section, fmt.Sprintf(`[runners.docker]
image = %q
pull_policy = "if-not-present"
disable_helper = true
network_mode = "host"
[runners.machine]
provider = "container"
MachineName = "m-%%s"
%s
[runners.machine.container]
image = %q
network = %q
[runners.machine.engine]
preload_images = [%q]
`, image, machine, machinetest.Image(t), machinetest.Network(t), image))
}

// machineRigWith is a rig with the given lines after those of the runner.
func machineRigWith(t *testing.T, section, jobs string) *rig {
	t.Helper()
	r := &rig{GitLab: coordinatortest.New(t, quick), t: t, dir: t.TempDir(), program: program, output: &output{}, jobs: jobs, kind: "docker+machine", engine: enginetest.Host(t)}
	r.configure("", section)
	t.Cleanup(func() { r.removeMachines() }) // when the manager has ended
	r.cleanUp()
	return r
}

// machines names the containers that are the rig's machines.
func (r *rig) machines() []string {
	r.t.Helper()
	list, err := enginetest.Client(r.t, r.engine).ContainerList(context.WithoutCancel(r.t.Context()), client.ContainerListOptions{
		All: true, Filters: make(client.Filters).Add("name", "^/?runner-"+strings.ToLower(r.Token.Short())+"-"),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	var names []string
	for _, c := range list.Items {
		names = append(names, strings.TrimPrefix(c.Names[0], "/"))
	}
	return names
}

func (r *rig) removeMachines() {
	r.t.Helper()
	for _, name := range r.machines() {
		_, _ = enginetest.Client(r.t, r.engine).ContainerRemove(context.WithoutCancel(r.t.Context()), name, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	}
}

// bare is a job that needs nothing but a shell.
func bare(lines ...string) tranter.Job {
	return with(script(lines...), "GIT_STRATEGY", "none")
}

// fleet is what machine ls says.
func (r *rig) fleet() []pool.MachineStatus {
	r.t.Helper()
	out, code := r.tool("machine", "ls", "--config", r.path("config.toml"), "--state-dir", r.path("state"), "--output", "json")
	if code != 0 {
		r.t.Fatalf("machine ls: code %d, %s", code, out)
	}
	var all []pool.MachineStatus
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		r.t.Fatalf("machine ls: %v: %s", err, out)
	}
	return all
}

func TestAKilledManagerFindsMachinesAndJobsAgain(t *testing.T) {
	t.Parallel()
	r := machineRig(t, "limit = 2", "IdleTime = 2")
	r.start()
	long := r.Enqueue(bare("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i; sleep 1; done"))
	r.Wait(long, coordinator.Running)
	r.eventuallyIn(time.Minute, "the job has a machine", func() bool { return strings.Contains(r.Log(long), "line 2") })
	r.kill()
	r.start()
	second := r.Enqueue(bare("echo second"))
	r.eventually("a second machine is being made", func() bool { return len(r.machines()) == 2 })
	r.kill()
	r.start()
	r.waitLong(long, time.Minute)
	if v := r.waitLong(second, time.Minute); v.Status != coordinator.Success {
		t.Errorf("the second job: %s", v.Status)
	}
	if log := r.Log(long); strings.Count(log, "line 12") != 1 || strings.Count(log, "line 3\n")+strings.Count(log, "line 3\r\n") != 1 {
		t.Errorf("the log is not whole, once:\n%s", log)
	}
	r.gone()
}
