package docker_test

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/diskspace"
	"github.com/tranter-ci/tranter/internal/executor/docker"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/executor/docker/janitor"
)

// dropImages removes the test's names of images.
func dropImages(t *testing.T, r *rig, with string) {
	t.Helper()
	found, err := r.api().ImageList(r.context(), client.ImageListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, image := range found.Items {
		for _, name := range append(image.RepoTags, image.RepoDigests...) {
			if strings.Contains(name, with) {
				_, _ = r.api().ImageRemove(r.context(), name, client.ImageRemoveOptions{Force: true}) // a digest goes with its tag
			}
		}
	}
	if found, err = r.api().ImageList(r.context(), client.ImageListOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, image := range found.Items {
		if strings.Contains(strings.Join(append(image.RepoTags, image.RepoDigests...), " "), with) {
			t.Errorf("an image is left: %q %q", image.RepoTags, image.RepoDigests)
		}
	}
}

func TestARegistryMirror(t *testing.T) {
	t.Parallel()
	const repository = "mirrored"
	tag := strings.ToLower(rand.Text())
	r := nestedRig(t)
	t.Cleanup(func() { dropImages(t, r, repository+"/"+tag) })
	remote := bridged(t, r, enginetest.Registry(t).Address)
	job := strings.TrimPrefix(enginetest.Registry(t).Push(t, "dockercli", repository+"/"+tag, "1"), enginetest.Registry(t).Address)
	inner := strings.TrimPrefix(enginetest.Registry(t).Push(t, "busybox", repository+"/"+tag, "2"), enginetest.Registry(t).Address+"/")
	d := &r.settings
	d.Image, d.PullPolicy = remote.Address+job, config.OneOrMany{"always"}
	d.RegistryMirror, d.RegistryMirrorImage, d.RegistryMirrorRemote = "start", enginetest.Image(t, "mirror"), "http://"+remote.Address
	e, err := engine.Open(r.context(), engine.Options{Host: d.Host, Log: r.options.Log})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	t.Cleanup(func() {
		if _, err := janitor.RemoveMirror(r.context(), e, r.options.Runner.Owner); err != nil {
			t.Error(err)
		}
	})
	r.public("DOCKER_TLS_CERTDIR", "")
	r.public("DOCKER_HOST", "tcp://docker:2375")
	// The engine does not take the remote for one without TLS: images come by the mirror, or not at all.
	log := r.all("until docker info >/dev/null 2>&1; do sleep 0.1; done", "docker pull -q "+inner, "docker run --rm "+inner+" echo inside", "docker info 2>&1")
	has(t, log, "\ninside\n", "Registry Mirrors:")
	hasNot(t, r.log.String(), "WARNING")
	r.close()
	asked := remote.count()
	if asked == 0 {
		t.Error("the mirror has asked the remote for nothing")
	}

	// What was pulled once comes again when the remote is gone, for another manager process, and by address.
	remote.close()
	for name, mirror := range map[string]string{"started": "start", "address": r.mirrorAddress()} {
		dropImages(t, r, repository+"/"+tag)
		next := r.next()
		next.job.Services = nil
		next.settings.RegistryMirror = mirror
		if mirror != "start" {
			next.settings.RegistryMirrorRemote = config.DefaultRunner().Docker.RegistryMirrorRemote
			next.settings.Image = strings.TrimPrefix(job, "/") // of the default registry, which the mirror stands for
		}
		began := time.Now()
		has(t, next.all("echo from the mirror"), "\nfrom the mirror\n")
		t.Logf("%s: pulled and done after %v", name, time.Since(began))
		next.close()
	}
	if n := remote.count(); n != asked {
		t.Errorf("the remote was asked %d times more", n-asked)
	}
	mirrorStays(t, r, e)
}

// mirrorAddress is where the manager's mirror answers the engine.
func (r *rig) mirrorAddress() string {
	r.t.Helper()
	e, err := engine.Open(r.context(), engine.Options{Host: r.settings.Host, Log: r.options.Log})
	if err != nil {
		r.t.Fatal(err)
	}
	defer e.Close()
	m, err := janitor.EnsureMirror(r.context(), e, janitor.MirrorOptions{
		Image: r.settings.RegistryMirrorImage, Remote: r.settings.RegistryMirrorRemote, Owner: r.options.Runner.Owner,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return m.EngineAddress
}

// mirrorStays sweeps and prunes all that is the manager's, which leaves the mirror.
func mirrorStays(t *testing.T, r *rig, e *engine.Engine) {
	t.Helper()
	o := r.options
	o.Settings = r.settings
	if err := docker.New(o).Sweep(r.context(), func(string) bool { return false }); err != nil {
		t.Error(err)
	}
	uses, err := janitor.OpenUses(janitor.UsesPath(o.State, e.Facts().ID))
	if err != nil {
		t.Fatal(err)
	}
	pruning := janitor.Pruning{Limits: janitor.Limits{All: true}, Owner: o.Runner.Owner, Kinds: []janitor.Kind{janitor.Volume}}
	if _, err := pruning.Run(r.context(), e, uses, diskspace.Room{}); err != nil {
		t.Error(err)
	}
	if found, err := janitor.Mirrors(r.context(), e, o.Runner.Owner); err != nil || len(found.Containers) != 1 || len(found.Volumes) != 1 {
		t.Errorf("of the mirror there is %+v, %v", found, err)
	}
}
