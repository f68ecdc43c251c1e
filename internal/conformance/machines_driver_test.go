package conformance

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/provider/machinetest"
)

// driverRig is a rig whose machines a driver of Docker Machine makes. configuration is the whole file, but for URL and token,
// which stand for %[1]q and %[2]q in it.
func driverRig(t *testing.T, configuration string) *rig {
	t.Helper()
	r := &rig{GitLab: coordinatortest.New(t, quick), t: t, dir: t.TempDir(), program: program, output: &output{}, kind: "docker+machine", engine: enginetest.Host(t)}
	r.env = []string{
		"PATH=" + machinetest.Driver(t) + string(filepath.ListSeparator) + os.Getenv("PATH"),
		"LAB_TOKEN=secret-of-the-cloud", "LAB_IMAGE=" + machinetest.Image(t), "LAB_CONTROL=" + r.path("faults"),
	}
	if err := os.Mkdir(r.path("faults"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.write(configuration)
	t.Cleanup(func() { r.removeMachines() })
	r.cleanUp()
	return r
}

// write replaces the configuration.
func (r *rig) write(configuration string) {
	r.t.Helper()
	if strings.Contains(configuration, "%[1]q") {
		configuration = fmt.Sprintf(configuration, r.URL, r.Token.Reveal())
	}
	if err := os.WriteFile(r.path("config.toml"), []byte(configuration), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// edit replaces texts of the configuration, in pairs, and has the manager read it.
func (r *rig) edit(pairs ...string) {
	r.t.Helper()
	data, err := os.ReadFile(r.path("config.toml"))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(string(data), pairs[i]) {
			r.t.Fatalf("the configuration has no %q:\n%s", pairs[i], data)
		}
	}
	r.write(strings.NewReplacer(pairs...).Replace(string(data)))
	r.signal(syscall.SIGHUP)
}

// up starts the manager and waits until it takes jobs.
func (r *rig) up() {
	r.t.Helper()
	before := strings.Count(r.output.String(), "Tranter takes jobs")
	r.start()
	r.eventually("the manager takes jobs", func() bool { return strings.Count(r.output.String(), "Tranter takes jobs") > before })
}

// gone waits until the rig has no machines, and the manager knows of none.
func (r *rig) gone() {
	r.t.Helper()
	r.eventuallyIn(time.Minute, "all machines are gone", func() bool { return len(r.machines()) == 0 && len(r.fleet()) == 0 })
	if out, code := r.machine("leaks"); code != 0 {
		r.t.Errorf("machine leaks: code %d, %s", code, out)
	}
}

// machine runs a command of machine.
func (r *rig) machine(args ...string) (string, int) {
	r.t.Helper()
	where := []string{"machine", args[0], "--config", r.path("config.toml"), "--state-dir", r.path("state")}
	return r.tool(append(where, args[1:]...)...)
}

// small returns the name of an image of the machine's engine that is called alpine: the real one, or another small one that is
// called so until the test ends.
func small(t *testing.T) string {
	t.Helper()
	const name = "alpine"
	api := enginetest.Client(t, enginetest.Host(t))
	if _, err := api.ImageInspect(t.Context(), name); err == nil {
		return name
	} else if !engine.Missing(err) {
		t.Fatal(err)
	}
	if _, err := api.ImageTag(t.Context(), client.ImageTagOptions{Source: enginetest.Image(t, "busybox"), Target: name}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = api.ImageRemove(context.WithoutCancel(t.Context()), name, client.ImageRemoveOptions{})
	})
	return name
}

// stock is what people have who pay for machines by the second: as few as can be, gone as soon as can be.
const stock = `concurrent = 10
check_interval = 0

[session_server]
  session_timeout = 1800

[[runners]]
  name = "spot"
  url = %%[1]q
  token = %%[2]q
  executor = "docker+machine"
  limit = 10
  [runners.docker]
    tls_verify = false
    image = "alpine"
    privileged = false
    disable_entrypoint_overwrite = false
    oom_kill_disable = false
    disable_cache = false
    volumes = ["/cache"]
    shm_size = 0
    pull_policy = "if-not-present"
    disable_helper = true
  [runners.cache]
  [runners.machine]
    IdleCount = 0
    IdleTime = 30
    MaxGrowthRate = 3
    MachineDriver = "lab"
    MachineName = "auto-%%%%s"
    MachineOptions = ["lab-network=%s", "lab-tag=team=build"]
    [runners.machine.engine]
      preload_images = ["%s"]
`

// The first of two configurations that are in use: nothing of it is changed but names.
func TestAConfigurationOfDockerMachineRunsAsItIs(t *testing.T) {
	t.Parallel()
	image := small(t)
	r := driverRig(t, fmt.Sprintf(stock, machinetest.Network(t), image))
	r.up()
	var ids []int64
	for range 4 {
		ids = append(ids, r.Enqueue(bare("echo on $(hostname) in $(pwd)")))
	}
	most := 0
	r.eventuallyIn(time.Minute, "all jobs have ended", func() bool {
		coming := 0
		for _, m := range r.fleet() {
			if m.State == "wanted" || m.State == "booting" {
				coming++
			}
		}
		most = max(most, coming)
		for _, id := range ids {
			if !r.Job(id).Status.Finished() {
				return false
			}
		}
		return true
	})
	for _, id := range ids {
		if v := r.Job(id); v.Status != coordinator.Success {
			t.Errorf("%s %s:\n%s", v.Status, v.Reason, r.Log(id))
		}
	}
	if most > 3 {
		t.Errorf("%d machines were made at once, and MaxGrowthRate is 3", most)
	}
	if n := len(r.machines()); n == 0 {
		t.Error("no machine is kept for IdleTime")
	}
	if strings.Contains(r.output.String(), "secret-of-the-cloud") {
		t.Error("the driver's token is in the log")
	}
	r.edit("IdleTime = 30", "IdleTime = 1")
	r.gone()
}

// shared is what people have who keep a folder for all machines on a file server.
const shared = `concurrent = 19
check_interval = 0
[[runners]]
  name = "share"
  url = %%[1]q
  token = %%[2]q
  executor = "docker+machine"
  [runners.docker]
    image = %q
    pull_policy = "if-not-present"
    disable_helper = true
    volumes = ["/cache:/var/shared:rw"]
  [runners.machine]
    IdleCount = 0
    IdleTime = 60
    MaxBuilds = 100
    MachineDriver = "lab"
    MachineName = "share-%%%%s"
    MachineOptions = ["lab-network=%s", "lab-user-data=%s"]
    [runners.machine.engine]
      preload_images = [%q]
`

// The second: the machine has a folder by what its user-data does, and jobs have that.
func TestAFolderThatUserDataMakesIsSeenByJobs(t *testing.T) {
	t.Parallel()
	image, data := enginetest.Image(t, "busybox"), filepath.Join(t.TempDir(), "user-data")
	if err := os.WriteFile(data, []byte("#!/bin/sh\nmkdir -p /cache\nmount -t tmpfs share /cache\necho from the share > /cache/file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := driverRig(t, fmt.Sprintf(shared, image, machinetest.Network(t), data, image))
	r.start()
	first := r.Enqueue(bare("cat /var/shared/file", "echo left by a job > /var/shared/other"))
	r.waitLong(first, time.Minute)
	second := r.Enqueue(bare("cat /var/shared/other"))
	r.waitLong(second, time.Minute)
	if log := r.Log(first); !strings.Contains(log, "from the share") {
		t.Errorf("the first job:\n%s", log)
	}
	if log := r.Log(second); !strings.Contains(log, "left by a job") || !strings.Contains(log, machineOf(r.Log(first))) {
		t.Errorf("the second job does not see what the first has left, or has another machine than %s:\n%s", machineOf(r.Log(first)), log)
	}
	r.edit("IdleTime = 60", "IdleTime = 1")
	r.gone()
}

// machineOf is the machine that a log names last.
func machineOf(log string) string {
	log = plain(log)
	_, rest, _ := strings.Cut(log[max(0, strings.LastIndex(log, "Using machine ")):], "Using machine ")
	name, _, _ := strings.Cut(rest, "\n")
	name, _, _ = strings.Cut(name, ",")
	return cmp.Or(strings.TrimSpace(name), "(none)")
}
