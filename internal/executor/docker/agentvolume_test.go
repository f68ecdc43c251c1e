package docker_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

// ownProgram gives the rig's jobs a program whose volume no other test uses, and returns the volume's name, and its size.
func (r *rig) ownProgram() (volume string, size int64) {
	r.t.Helper()
	data, err := os.ReadFile(r.options.Program)
	if err != nil {
		r.t.Fatal(err)
	}
	data = append(data, rand.Text()...) // what comes after an executable's end is never read
	r.options.Program = filepath.Join(r.t.TempDir(), "tranter")
	if err := os.WriteFile(r.options.Program, data, 0o755); err != nil { //nolint:gosec // a program
		r.t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	volume = "tranter-agent-" + hex.EncodeToString(sum[:])[:16]
	host := r.settings.Host
	r.t.Cleanup(func() {
		api := enginetest.Client(r.t, host)
		_, _ = api.ContainerRemove(r.context(), volume, client.ContainerRemoveOptions{Force: true}) // the test says it when there is one
		if _, err := api.VolumeRemove(r.context(), volume, client.VolumeRemoveOptions{}); err != nil {
			r.t.Error(err)
		}
	})
	return volume, int64(len(data))
}

// as makes a copy of the rig for a manager of another name.
func (r *rig) as(owner string) *rig {
	n := r.next()
	n.options.Runner.Owner = owner
	return n
}

func (r *rig) noFiller(host, volume string) {
	r.t.Helper()
	found, err := enginetest.Client(r.t, host).ContainerList(r.context(), client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("name", volume)})
	if err != nil || len(found.Items) > 0 {
		r.t.Errorf("containers that are left: %v, %v", found.Items, err)
	}
}

// Each runs a job at once: one that overwrote the program would fail, since the others are executing it.
func TestManagersThatPutTheProgramOnOneEngineAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.shell, r.settings.DisableHelper = "sh", true
	host := r.settings.Host
	volume, _ := r.ownProgram()
	m := newMachine(t)
	rigs := make([]*rig, 5)
	for i := range rigs {
		rigs[i] = r.as(fmt.Sprint(r.options.Runner.Owner, "-", i))
		if i%2 == 1 {
			rigs[i].on(m, fmt.Sprint("runner-", i))
		}
	}
	shared := docker.NewPrograms(t.TempDir()) // of two executors of one process
	rigs[0].options.Programs, rigs[1].options.Programs = shared, shared
	var all sync.WaitGroup
	for _, r := range rigs {
		all.Go(func() {
			if err := r.try(); err != nil {
				t.Errorf("open: %v", err)
				return
			}
			result, log, err := r.perform(r.phase("script", tranter.PlaceBuild, "echo fine"))
			if err != nil || result.Status != tranter.PhaseSucceeded {
				t.Errorf("%+v, %v\n%s", result, err, log)
			}
		})
	}
	all.Wait()
	for _, r := range rigs {
		if r.session != nil {
			r.close()
		}
	}
	r.noFiller(host, volume)
}

func TestWhatAKilledManagerLeftWhileItPutTheProgramOnAnEngine(t *testing.T) {
	t.Parallel()
	later := func(d time.Duration) string { return strconv.FormatInt(time.Now().Add(d).Unix(), 10) }
	for name, c := range map[string]struct {
		labels func(owner string) map[string]string
		atMost time.Duration
		done   bool // the program is whole
	}{
		"another manager, long ago": {labels: func(string) map[string]string {
			return map[string]string{spec.LabelOwner: "other", spec.LabelExpires: later(-time.Second)}
		}, atMost: 30 * time.Second},
		"this one, just now": {labels: func(owner string) map[string]string {
			return map[string]string{spec.LabelOwner: owner, spec.LabelExpires: later(time.Minute), "io.tranter.filler": "before"}
		}, atMost: 40 * time.Second},
		"this one, when it was done": {labels: func(owner string) map[string]string {
			return map[string]string{spec.LabelOwner: owner, spec.LabelExpires: later(time.Minute), "io.tranter.filler": "before"}
		}, atMost: 30 * time.Second, done: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "busybox")
			r.shell, r.settings.DisableHelper = "sh", true
			volume, size := r.ownProgram()
			if c.done {
				if err := r.manager(nil).Warm(r.context()); err != nil {
					t.Fatal(err)
				}
			}
			made, err := r.api().ContainerCreate(r.context(), client.ContainerCreateOptions{
				Name: volume, Config: &container.Config{Image: enginetest.Image(t, "busybox"), Labels: c.labels(r.options.Runner.Owner)},
				HostConfig: &container.HostConfig{Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: volume, Target: spec.AgentDir}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			before := r.programOf(made.ID)
			began := time.Now()
			r.open()
			if took := time.Since(began); took > c.atMost {
				t.Errorf("it took %v", took)
			}
			has(t, r.script("echo fine"), "fine\n")
			after := r.programOf(r.ref().Containers[tranter.PlaceBuild])
			if after.Size != size || c.done && !after.Mtime.Equal(before.Mtime) {
				t.Errorf("the program was %+v, and is %+v", before, after)
			}
			r.close()
			if !c.done { // else nothing had to be done, and it is swept
				r.noFiller(r.settings.Host, volume)
			}
		})
	}
}

// programOf is what there is of the program in a container.
func (r *rig) programOf(id string) container.PathStat {
	r.t.Helper()
	stat, err := r.api().ContainerStatPath(r.context(), id, client.ContainerStatPathOptions{Path: spec.AgentProgram})
	if err != nil {
		return container.PathStat{}
	}
	return stat.Stat
}
