package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

// agentVolume puts this program on an engine, as a volume that is mounted into every job's containers: nothing has to be
// in an image, and nothing is copied for a job.
type agentVolume struct {
	program *agentProgram // of the engine's system and architecture
	owner   string
	process string

	turn  chan struct{} // of size one; held by who fills the volume
	ready atomic.Bool   // the program is on the engine
}

// agentLife is how long the container may stay that a killed manager has left while it filled a volume.
const agentLife = time.Minute

// ensure returns once the program is in the volume. Any image will do for the container that the engine needs to reach a
// volume; it is never started.
func (a *agentVolume) ensure(ctx context.Context, e *engine.Engine, image string) error {
	if a.ready.Load() {
		return nil
	}
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if a.ready.Load() {
		return nil
	}
	volume, err := a.program.identify()
	if err != nil {
		return err
	}
	f := &filling{agentVolume: a, engine: e, image: image, volume: volume}
	if err := f.fill(ctx); err != nil {
		return fmt.Errorf("put this program on the engine: %w", engine.Explain(err))
	}
	a.ready.Store(true)
	return nil
}

// volume returns the name of the volume, whether the program is in it or not.
func (a *agentVolume) volume() (string, error) { return a.program.identify() }

// forget has the next ensure look again: somebody has removed the volume.
func (a *agentVolume) forget() { a.ready.Store(false) }

// filling is one look at a volume that may have to be filled. There is one at a time for a volume on an engine, whoever
// does it: the container by which the volume is reached has one name, and who comes second waits. A program that is whole
// is never written again, since jobs may be executing it.
type filling struct {
	*agentVolume
	engine *engine.Engine
	image  string
	volume string // and the container's name

	other string    // id of somebody else's container that was found
	since time.Time // when it was found first
}

// labelFiller tells the processes of a manager apart: only one of them can be alive.
const labelFiller = "io.tranter.filler"

// Waits for somebody else who fills the same volume.
const (
	fillPause     = 20 * time.Millisecond
	fillPauseMost = time.Second
	fillTries     = 5 // when others take this process for dead
	joinLimit     = 10 * time.Second
	// diedWithin is how long the container of another process of this manager counts as that of a living one: two without
	// a state directory have the same name.
	diedWithin = 3 * time.Second
)

// fill returns once the program is in its volume.
func (f *filling) fill(ctx context.Context) error {
	if err := f.make(ctx); err != nil {
		return err
	}
	for wait, tries := fillPause, 1; ; wait = min(2*wait, fillPauseMost) {
		id, err := f.create(ctx)
		if err == nil {
			err = f.put(ctx, id)
			f.remove(ctx, id)
			if !engine.Missing(err) || tries == fillTries {
				return err
			}
			tries++
		} else if !engine.Conflict(err) {
			return err
		} else if done, err := f.join(ctx); done || err != nil {
			return err
		}
		if !pause(ctx, wait) {
			return context.Cause(ctx)
		}
	}
}

// make makes the volume if the engine labels none that it makes along with a container.
func (f *filling) make(ctx context.Context) error {
	if !f.engine.Facts().Podman {
		return nil
	}
	own := map[string]string{spec.LabelType: spec.TypeAgent, spec.LabelOwner: f.owner}
	_, err := f.engine.API().VolumeCreate(ctx, client.VolumeCreateOptions{Name: f.volume, Labels: own})
	if engine.Conflict(err) {
		return nil
	}
	return err
}

// create makes the container by which the volume is reached. Its error is a conflict while there is another one.
func (f *filling) create(ctx context.Context) (id string, err error) {
	labels := map[string]string{
		spec.LabelType: spec.TypeAgent, spec.LabelOwner: f.owner, labelFiller: f.process,
		spec.LabelExpires: strconv.FormatInt(time.Now().Add(agentLife).Unix(), 10),
	}
	creating, created := finishing(ctx)
	defer created()
	made, err := f.engine.API().ContainerCreate(creating, client.ContainerCreateOptions{
		Name:   f.volume,
		Config: &container.Config{Image: f.image, Cmd: []string{spec.AgentProgram}, Labels: labels},
		HostConfig: &container.HostConfig{NetworkMode: "none", Mounts: []mount.Mount{{
			Type: mount.TypeVolume, Source: f.volume, Target: spec.AgentDir,
			VolumeOptions: &mount.VolumeOptions{NoCopy: true, Labels: map[string]string{spec.LabelType: spec.TypeAgent, spec.LabelOwner: f.owner}},
		}}},
	})
	return made.ID, err
}

// put writes the program into its volume unless it is there: a manager that is killed meanwhile leaves one that is shorter.
// The error says that the container is missing when somebody has taken it for one that a dead manager has left.
func (f *filling) put(ctx context.Context, id string) error {
	api := f.engine.API()
	if whole, err := f.whole(ctx, id); whole || err != nil && !engine.Missing(err) {
		return err
	}
	into := client.CopyToContainerOptions{DestinationPath: spec.AgentDir}
	if facts := f.engine.Facts(); !facts.Local && !facts.Podman {
		if zipped, err := f.program.zip(); err == nil { // else there is no room for the file
			into.Content = zipped
			_, err = api.CopyToContainer(ctx, id, into)
			return err
		}
	}
	packed, pack := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = pack.CloseWithError(f.program.pack(pack))
	}()
	into.Content = packed
	_, err := api.CopyToContainer(ctx, id, into)
	_ = packed.CloseWithError(errors.New("the engine has read enough"))
	<-done
	return err
}

// whole says whether the program is in the volume that a container has. While the engine is writing it the answer waits.
func (f *filling) whole(ctx context.Context, container string) (bool, error) {
	stat, err := f.engine.API().ContainerStatPath(ctx, container, client.ContainerStatPathOptions{Path: spec.AgentProgram})
	return err == nil && stat.Stat.Size == f.program.size, err
}

// join sees by way of another filler's container whether the program is whole by now.
func (f *filling) join(ctx context.Context) (done bool, err error) {
	looking, stop := context.WithTimeout(ctx, joinLimit)
	done, err = f.whole(looking, f.volume)
	stop()
	switch {
	case done:
		return true, nil
	case err != nil && !engine.Missing(err) && looking.Err() == nil:
		return false, err
	}
	return false, f.clear(ctx)
}

// clear removes the container of another filler if that is dead. An engine that is still reading the program from one that
// is slow ends that first.
func (f *filling) clear(ctx context.Context) error {
	found, err := f.engine.API().ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("name", "^/?"+f.volume+"$")})
	if err != nil || len(found.Items) == 0 {
		return err
	}
	c := found.Items[0]
	if f.other != c.ID {
		f.other, f.since = c.ID, time.Now()
	}
	if f.dead(c.Labels) {
		f.remove(ctx, c.ID)
	}
	return nil
}

// dead says whether the filler that has made a container with the labels is dead.
func (f *filling) dead(labels map[string]string) bool {
	watched := time.Since(f.since)
	expires, err := strconv.ParseInt(labels[spec.LabelExpires], 10, 64)
	if err != nil || watched > agentLife || time.Now().Unix() > expires { // its clock may be wrong
		return true
	}
	return labels[spec.LabelOwner] == f.owner && labels[labelFiller] != f.process && watched > diedWithin
}

func (f *filling) remove(ctx context.Context, id string) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer stop()
	_, _ = f.engine.API().ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true}) // else it is swept, or taken for a dead one's
}
