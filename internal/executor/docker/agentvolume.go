package docker

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"sync"
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
	program string // of the engine's system and architecture
	owner   string

	mu    sync.Mutex
	name  string // of the volume; empty: the program was not looked at yet
	size  int64
	ready bool // it is on the engine
}

// agentLife is how long the container may stay that a killed manager has left while it filled a volume.
const agentLife = 20 * time.Second

// ensure returns once the program is in the volume. Any image will do for the container that the engine needs to reach a
// volume; it is never started.
func (a *agentVolume) ensure(ctx context.Context, e *engine.Engine, image string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ready {
		return nil
	}
	if err := a.identify(); err != nil {
		return err
	}
	if err := a.fill(ctx, e, image); err != nil {
		return fmt.Errorf("put this program on the engine: %w", engine.Explain(err))
	}
	a.ready = true
	return nil
}

// volume returns the name of the volume, whether the program is in it or not.
func (a *agentVolume) volume() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.identify()
	return a.name, err
}

// forget has the next ensure look again: somebody has removed the volume.
func (a *agentVolume) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ready = false
}

// identify names the volume after the program's content: another version gets another volume, and the one that running
// jobs use stays as it is.
func (a *agentVolume) identify() error {
	if a.name != "" {
		return nil
	}
	f, err := os.Open(a.program)
	if err != nil {
		return fmt.Errorf("read this program for the engine: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if a.size, err = io.Copy(sum, f); err != nil {
		return fmt.Errorf("read this program for the engine: %w", err)
	}
	a.name = "tranter-agent-" + hex.EncodeToString(sum.Sum(nil))[:16]
	return nil
}

// fill writes the program into its volume unless it is there. The program comes last and is complete when it has its size:
// a manager that is killed while it writes leaves no half one that is taken for whole.
func (a *agentVolume) fill(ctx context.Context, e *engine.Engine, image string) error {
	if e.Facts().Podman { // it labels no volume that it makes along with a container
		own := map[string]string{spec.LabelType: spec.TypeAgent, spec.LabelOwner: a.owner}
		if _, err := e.API().VolumeCreate(ctx, client.VolumeCreateOptions{Name: a.name, Labels: own}); err != nil && !engine.Conflict(err) {
			return err
		}
	}
	labels := map[string]string{
		spec.LabelType: spec.TypeAgent, spec.LabelOwner: a.owner, spec.LabelExpires: strconv.FormatInt(time.Now().Add(agentLife).Unix(), 10),
	}
	creating, created := finishing(ctx)
	made, err := e.API().ContainerCreate(creating, client.ContainerCreateOptions{
		Config: &container.Config{Image: image, Cmd: []string{spec.AgentProgram}, Labels: labels},
		HostConfig: &container.HostConfig{NetworkMode: "none", Mounts: []mount.Mount{{
			Type: mount.TypeVolume, Source: a.name, Target: spec.AgentDir,
			VolumeOptions: &mount.VolumeOptions{NoCopy: true, Labels: map[string]string{spec.LabelType: spec.TypeAgent, spec.LabelOwner: a.owner}},
		}}},
	})
	created()
	if err != nil {
		return err
	}
	defer func() {
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
		defer stop()
		_, _ = e.API().ContainerRemove(ctx, made.ID, client.ContainerRemoveOptions{Force: true}) // else it is swept
	}()
	stat, err := e.API().ContainerStatPath(ctx, made.ID, client.ContainerStatPathOptions{Path: spec.AgentProgram})
	if err == nil && stat.Stat.Size == a.size {
		return nil
	}
	packed, pack := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = pack.CloseWithError(a.pack(pack))
	}()
	_, err = e.API().CopyToContainer(ctx, made.ID, client.CopyToContainerOptions{DestinationPath: spec.AgentDir, Content: packed})
	_ = packed.CloseWithError(errors.New("the engine has read enough"))
	<-done
	return err
}

func (a *agentVolume) pack(w io.Writer) error {
	f, err := os.Open(a.program)
	if err != nil {
		return err
	}
	defer f.Close()
	t := tar.NewWriter(w)
	worker := tar.Header{Typeflag: tar.TypeSymlink, Name: path.Base(spec.WorkerProgram), Linkname: path.Base(spec.AgentProgram), Mode: 0o777}
	program := tar.Header{Typeflag: tar.TypeReg, Name: path.Base(spec.AgentProgram), Mode: 0o755, Size: a.size}
	if err := t.WriteHeader(&worker); err != nil {
		return err
	}
	if err := t.WriteHeader(&program); err != nil {
		return err
	}
	if _, err := io.Copy(t, f); err != nil {
		return err
	}
	return t.Close()
}
