package docker

import (
	"context"
	"crypto/rand"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// A container that the engine has died over while it started it is made anew, with all that it had.
func TestAContainerThatWasMadeIsMadeAnew(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	e, err := engine.Open(ctx, engine.Options{Host: enginetest.Host(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	name := "tranter-replace-" + rand.Text()
	made, err := e.API().ContainerCreate(ctx, client.ContainerCreateOptions{
		Name:       name,
		Config:     &container.Config{Image: enginetest.Image(t, "busybox"), Cmd: []string{"true"}, Hostname: "here", Labels: map[string]string{"a": "b"}},
		HostConfig: &container.HostConfig{Mounts: []mount.Mount{{Type: mount.TypeTmpfs, Target: "/x"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = e.API().ContainerRemove(context.WithoutCancel(ctx), name, client.ContainerRemoveOptions{Force: true})
	})
	b := &box{host: &host{engine: e}, place: tranter.PlaceBuild, name: name}
	if err := b.replace(ctx); err != nil {
		t.Fatal(err)
	}
	found, err := e.API().ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := found.Container
	if c.ID == made.ID || c.Config.Hostname != "here" || c.Config.Labels["a"] != "b" || len(c.HostConfig.Mounts) != 1 || c.State.Status != container.StateCreated {
		t.Errorf("made anew: %+v, %+v, %+v", c.ID == made.ID, c.Config, c.HostConfig.Mounts)
	}
	if _, err := e.API().ContainerStart(ctx, name, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := b.replace(ctx); err == nil {
		t.Error("a container that was started was made anew")
	}
}
