//go:build linux

package main

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// What jobs in containers leave on the engine goes with the runner: also the volumes of caches, and after a kill.
func TestUpRemovesContainersAndVolumes(t *testing.T) {
	t.Parallel()
	host := enginetest.Host(t)
	g := coordinatortest.New(t, withRegistration)
	p := newUpPlace(t, g.URL, "REGISTRATION_TOKEN="+registrationToken, "CONFIG=own", "DOCKER_HOST="+host)
	p.program = enginetest.Agent(t)
	p.env = append(p.env, "CONFIG_DIR="+p.dir, "DOCKER_IMAGE="+enginetest.Image(t, "busybox"))
	writeFile(t, filepath.Join(p.dir, "own.toml"), "[[runners]]\nexecutor = \"docker\"\n[runners.docker]\nimage = \"{{ DOCKER_IMAGE }}\"\nvolumes = [\"/cache\"]\nnetwork_mode = \"none\"\n")
	u := p.start()
	u.says("Tranter takes jobs")
	owner := engineOwner(strings.TrimSpace(readFile(t, p.path(systemIDFile))), p.path(""))
	t.Cleanup(func() { enginetest.Clean(t, host, "io.tranter.owner="+owner) })
	job := coordinatortest.Script("echo kept > /cache/x", "echo begun")
	job.Variables = append(job.Variables, tranter.Variable{Key: "CI_PROJECT_ID", Value: "1", Public: true})
	g.Wait(g.Enqueue(job), coordinator.Success)
	volumes := ownedVolumes(t, host, owner)
	if len(volumes) == 0 {
		t.Error("the job has made no volume")
	}
	id := g.Enqueue(coordinatortest.Script("echo begun", "sleep 300"))
	g.WaitLog(id, 1)
	u.signal(syscall.SIGKILL)
	u.wait()
	if code, said := p.once("--clean"); code != 0 || !strings.Contains(said, "Removed from the container engine") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	if left := upRunners(g); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	p.leftNothing()
}

// ownedVolumes are the names of the volumes that have the label of an owner.
func ownedVolumes(t *testing.T, host, owner string) []string {
	t.Helper()
	r, err := enginetest.Client(t, host).VolumeList(t.Context(), client.VolumeListOptions{Filters: client.Filters{}.Add("label", "io.tranter.owner="+owner)})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range r.Items {
		names = append(names, v.Name)
	}
	return names
}
