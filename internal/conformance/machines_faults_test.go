package conformance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/provider/machinetest"
)

// plain driver settings, which tests replace parts of.
const driven = `concurrent = 4
check_interval = 1
[[runners]]
name = "driven"
url = %%[1]q
token = %%[2]q
executor = "docker+machine"
limit = %d
[runners.docker]
image = %q
pull_policy = "if-not-present"
disable_helper = true
[runners.machine]
IdleTime = 2
MachineDriver = "lab"
MachineName = "d-%%%%s"
MachineOptions = ["lab-network=%s"]
boot_timeout = "1m"
create_timeout = "1m"
lost_after = "5s"
[runners.machine.engine]
preload_images = [%q]
`

func drivenRig(t *testing.T, limit int) *rig {
	t.Helper()
	image := enginetest.Image(t, "busybox")
	return driverRig(t, fmt.Sprintf(driven, limit, image, machinetest.Network(t), image))
}

// With settings that can't be right, no job is taken, and the log says what is wrong and how to put it right.
func TestNoJobIsTakenWithWrongSettingsOfMachines(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ from, to, env, says string }{
		"no such driver":   {`MachineDriver = "lab"`, `MachineDriver = "labb"`, "", "driver labb is not installed"},
		"no such option":   {`"lab-network=`, `"lab-netwrk=`, "", "the nearest is lab-network"},
		"a missing option": {"limit", "limit", "LAB_TOKEN=", "lab-token or the variable LAB_TOKEN"},
		"a refused login":  {"limit", "limit", "LAB_TOKEN=wrong", "unauthorized"},
		"no such image":    {"limit", "limit", "LAB_IMAGE=not/there:1", "not/there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := drivenRig(t, 1)
			r.env = append(slices.Clip(r.env), c.env)
			data, err := os.ReadFile(r.path("config.toml"))
			if err != nil {
				t.Fatal(err)
			}
			r.write(strings.ReplaceAll(string(data), c.from, c.to))
			id := r.Enqueue(bare("true"))
			r.up()
			r.eventually("the mistake is named", func() bool { return strings.Contains(r.output.String(), c.says) })
			if out, code := r.tool("status", "--state-dir", r.path("state"), "--output", "json"); code != 0 || !strings.Contains(strings.ReplaceAll(out, "\\\"", "\""), c.says) {
				t.Errorf("status: code %d, %s", code, out)
			}
			if v := r.Job(id); v.Status != coordinator.Pending {
				t.Errorf("the job is %s", v.Status)
			}
			if n := len(r.machines()); n > 0 {
				t.Errorf("%d machines", n)
			}
		})
	}
}

// A driver that is none, and machines that nobody can log in to: the job waits, its log says for what, and it runs as soon
// as things are put right. Nothing is left of what was in vain.
func TestAJobThatWaitsForMachinesInVainRunsOnceTheyCanBeHad(t *testing.T) {
	t.Parallel()
	garbage := filepath.Join(t.TempDir(), "docker-machine-driver-garbage")
	if err := os.WriteFile(garbage, []byte("#!/bin/sh\necho garbage\nsleep 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ from, to, says string }{
		"no driver":    {`MachineDriver = "lab"`, fmt.Sprintf("MachineDriver = %q", garbage), "it is \\\"garbage\\\""},
		"no SSH":       {`"lab-network=`, `"lab-command=sleep 1000", "lab-network=`, ":22: connect: connection refused"},
		"no such user": {`"lab-network=`, `"lab-ssh-user=nobody-there", "lab-network=`, "nobody-there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := drivenRig(t, 1)
			data, err := os.ReadFile(r.path("config.toml"))
			if err != nil {
				t.Fatal(err)
			}
			r.write(strings.NewReplacer(c.from, c.to, `boot_timeout = "1m"`, `boot_timeout = "3s"`).Replace(string(data)))
			r.up()
			id := r.Enqueue(bare("echo at last"))
			r.eventuallyIn(time.Minute, "the log says why the machine is of no use", func() bool { return strings.Contains(r.output.String(), c.says) })
			r.edit(c.to, c.from, `boot_timeout = "3s"`, `boot_timeout = "1m"`)
			if v := r.waitLong(id, 90*time.Second); v.Status != coordinator.Success || !strings.Contains(r.Log(id), "at last") {
				t.Errorf("%s:\n%s", v.Status, r.Log(id))
			}
			t.Logf("the job's log:\n%s", plain(r.Log(id)))
			r.gone()
		})
	}
}

// Machines that die under a job, or freeze: the job has failed for the system's sake, or is run again if it wants that.
func TestJobsWhoseMachinesAreLost(t *testing.T) {
	t.Parallel()
	r := machineRig(t, "limit = 4", "IdleTime = 2\nlost_after = \"3s\"")
	r.start()
	long := bare("echo begin on $(hostname)", "i=0; while [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done")
	again := with(bare("echo begin on $(hostname)", "i=0; while [ $i -lt 40 ]; do sleep 0.1; i=$((i+1)); done", "echo end on $(hostname)"), "TRANTER_RESTART_LOST", "true")
	killed, restarted, frozen := r.Enqueue(long), r.Enqueue(again), r.Enqueue(long)
	at := map[int64]string{}
	for _, id := range []int64{killed, restarted, frozen} {
		r.eventuallyIn(time.Minute, "the jobs run", func() bool { return strings.Contains(r.Log(id), "begin on runner-") })
		at[id] = machineOf(r.Log(id))
	}
	api, ctx := enginetest.Client(t, r.engine), context.WithoutCancel(t.Context())
	began := time.Now()
	for _, id := range []int64{killed, restarted} {
		if _, err := api.ContainerKill(ctx, at[id], client.ContainerKillOptions{Signal: "KILL"}); err != nil {
			t.Fatal(err)
		}
	}
	for tries := 1; ; tries++ { // what starts processes all the time can't always be frozen
		_, err := api.ContainerPause(ctx, at[frozen], client.ContainerPauseOptions{})
		if err == nil {
			break
		}
		if tries == 10 {
			t.Fatal(err)
		}
	}
	for _, id := range []int64{killed, frozen} {
		v := r.waitLong(id, 100*time.Second)
		if v.Status != coordinator.Failed || v.Reason != tranter.RunnerSystemFailure || !strings.Contains(r.Log(id), at[id]) {
			t.Errorf("job %d is %s, %s:\n%s", id, v.Status, v.Reason, r.Log(id))
		}
		t.Logf("job %d failed %v after its machine", id, time.Since(began).Round(time.Millisecond))
	}
	v := r.waitLong(restarted, time.Minute)
	log := plain(r.Log(restarted))
	if v.Status != coordinator.Success || machineOf(log) == at[restarted] || strings.Count(log, "\nbegin on ") != 2 || strings.Count(log, "\nend on ") != 1 {
		t.Errorf("the job that wants to be run again is %s:\n%s", v.Status, log)
	}
	r.gone()
}
