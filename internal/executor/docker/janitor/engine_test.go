package janitor

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// bench is a real engine on which a test makes things under an owner of its own, all of which go with the test.
type bench struct {
	t       *testing.T
	engine  *engine.Engine
	owner   string
	busybox string // an image
}

func newBench(t *testing.T) bench {
	t.Helper()
	b := benchOn(t, enginetest.Host(t))
	b.busybox = enginetest.Image(t, "busybox")
	return b
}

// benchOn is one on another engine; it has no image yet.
func benchOn(t *testing.T, host string) bench {
	t.Helper()
	e, err := engine.Open(t.Context(), engine.Options{Host: host, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	b := bench{t: t, engine: e, owner: "janitor-" + strings.ToLower(rand.Text())}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// cleanup runs f at the test's end with a context that still lives.
func (b bench) cleanup(f func(ctx context.Context)) {
	b.t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		f(ctx)
	})
}

// name is a thing's name that no other test has.
func (b bench) name(n string) string { return b.owner + "-" + n }

// labels are those of a thing of a job, and further ones as NAME=VALUE.
func (b bench) labels(job string, more ...string) map[string]string {
	l := map[string]string{labelOwner: b.owner}
	if job != "" {
		l[labelJob] = job
	}
	for _, m := range more {
		name, value, _ := strings.Cut(m, "=")
		l[name] = value
	}
	return l
}

func expires(at time.Time) string { return labelExpires + "=" + strconv.FormatInt(at.Unix(), 10) }

// container makes a container that sleeps, and starts it.
func (b bench) container(n string, labels map[string]string, with func(*client.ContainerCreateOptions)) string {
	b.t.Helper()
	o := client.ContainerCreateOptions{
		Name:       b.name(n),
		Config:     &container.Config{Image: b.busybox, Cmd: []string{"sleep", "600"}, Labels: labels},
		HostConfig: &container.HostConfig{NetworkMode: "none"},
	}
	if with != nil {
		with(&o)
	}
	made, err := b.engine.API().ContainerCreate(b.t.Context(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(func(ctx context.Context) {
		if err := removeContainer(ctx, b.engine.API(), made.ID); err != nil {
			b.t.Error(err)
		}
	})
	if _, err := b.engine.API().ContainerStart(b.t.Context(), made.ID, client.ContainerStartOptions{}); err != nil {
		b.t.Fatal(err)
	}
	return made.ID
}

func (b bench) network(n string, labels map[string]string) string {
	b.t.Helper()
	made, err := b.engine.API().NetworkCreate(b.t.Context(), b.name(n), client.NetworkCreateOptions{Driver: "bridge", Labels: labels})
	if err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(func(ctx context.Context) {
		if err := removeNetwork(ctx, b.engine.API(), made.ID); err != nil {
			b.t.Error(err)
		}
	})
	return made.ID
}

func (b bench) volume(n string, labels map[string]string) string {
	b.t.Helper()
	if _, err := b.engine.API().VolumeCreate(b.t.Context(), client.VolumeCreateOptions{Name: b.name(n), Labels: labels}); err != nil {
		b.t.Fatal(err)
	}
	b.cleanup(func(ctx context.Context) {
		if err := removeVolume(ctx, b.engine.API(), b.name(n)); err != nil {
			b.t.Error(err)
		}
	})
	return b.name(n)
}

type createOptions = client.ContainerCreateOptions

// on puts a container into a network.
func on(id string) func(*createOptions) {
	return func(o *client.ContainerCreateOptions) { o.HostConfig.NetworkMode = container.NetworkMode(id) }
}

// mounting gives a container volumes.
func mounting(names ...string) func(*client.ContainerCreateOptions) {
	return func(o *client.ContainerCreateOptions) {
		for _, n := range names {
			o.HostConfig.Mounts = append(o.HostConfig.Mounts, mount.Mount{Type: mount.TypeVolume, Source: n, Target: "/" + n})
		}
	}
}

func (b bench) there(err error) bool {
	b.t.Helper()
	if err != nil && !engine.Missing(err) {
		b.t.Fatal(err)
	}
	return err == nil
}

func (b bench) hasContainer(id string) bool {
	b.t.Helper()
	_, err := b.engine.API().ContainerInspect(b.t.Context(), id, client.ContainerInspectOptions{})
	return b.there(err)
}

func (b bench) hasNetwork(id string) bool {
	b.t.Helper()
	_, err := b.engine.API().NetworkInspect(b.t.Context(), id, client.NetworkInspectOptions{})
	return b.there(err)
}

func (b bench) hasVolume(name string) bool {
	b.t.Helper()
	_, err := b.engine.API().VolumeInspect(b.t.Context(), name, client.VolumeInspectOptions{})
	return b.there(err)
}

func (b bench) hasImage(ref string) bool {
	b.t.Helper()
	_, err := b.engine.API().ImageInspect(b.t.Context(), ref)
	return b.there(err)
}

// mine are the names of this test, without what all of them begin with.
func (b bench) mine(names []string) string {
	var out []string
	for _, n := range names {
		if rest, ok := strings.CutPrefix(n, b.owner+"-"); ok {
			out = append(out, rest)
		}
	}
	return strings.Join(out, " ")
}

// image makes an image of this test's own with that content, under a name that no registry has.
func (b bench) image(n string) (name, id string) {
	b.t.Helper()
	name = "tranter-janitor/" + b.name(n) + ":1"
	r, err := b.engine.API().ImageImport(b.t.Context(), client.ImageImportSource{Source: tarball(b.t, b.name(n)), SourceName: "-"}, name, client.ImageImportOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, r)
	if err := r.Close(); err != nil {
		b.t.Fatal(err)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	found, err := b.engine.API().ImageInspect(b.t.Context(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	b.removeAfter(found.ID)
	return name, found.ID
}

// removeAfter removes an image at the test's end.
func (b bench) removeAfter(id string) {
	b.cleanup(func(ctx context.Context) {
		_, err := b.engine.API().ImageRemove(ctx, id, client.ImageRemoveOptions{Force: true})
		if err != nil && !engine.Missing(err) {
			b.t.Error(err)
		}
	})
}
