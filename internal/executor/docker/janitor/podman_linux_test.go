package janitor

import (
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/diskspace"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// TestPodmanIsKeptTidyToo sweeps and prunes an engine that only speaks like Docker's.
func TestPodmanIsKeptTidyToo(t *testing.T) {
	t.Parallel()
	podman := enginetest.Podman(t)
	b := benchOn(t, podman.Host())
	b.busybox = enginetest.Load(t, podman.Host(), "busybox")
	if !b.engine.Facts().Podman {
		t.Fatal("it is none")
	}
	network := b.network("network", b.labels("dead"))
	scratch := b.volume("scratch", b.labels("dead", labelTemporary+"=1"))
	dead := b.container("build", b.labels("dead"), mounting(scratch))
	live := b.container("live", b.labels("live"), nil)
	swept, err := Sweep(t.Context(), b.engine, b.owner, func(job string) bool { return job == "live" })
	if err != nil || b.mine(swept.Containers) != "build" || b.mine(swept.Networks) != "network" || b.mine(swept.Volumes) != "scratch" {
		t.Errorf("%s, %v", swept, err)
	}
	if b.hasContainer(dead) || b.hasNetwork(network) || b.hasVolume(scratch) || !b.hasContainer(live) {
		t.Error("the wrong things went")
	}

	u := openUses(t, "")
	old, busy := b.volume("old", b.labels("", cacheLabel)), b.volume("busy", b.labels("", cacheLabel))
	b.container("user", b.labels("live"), mounting(busy))
	_, id := b.image("mine")
	used, err := b.engine.API().ImageInspect(t.Context(), b.busybox)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{old, busy} {
		u.Used(Volume, v, hours(50))
	}
	u.Used(Image, id, hours(60))
	u.Used(Image, used.ID, hours(70))
	p := all(b.owner)
	p.Sizes = true
	pruned, err := p.Run(t.Context(), b.engine, u, diskspace.Room{})
	if err != nil || len(pruned.Removed) != 2 || b.hasVolume(old) || b.hasImage(id) {
		t.Errorf("%+v, %v", pruned, err)
	}
	if !b.hasVolume(busy) || !b.hasImage(used.ID) {
		t.Error("what is in use is gone")
	}
	if found, err := List(t.Context(), b.engine); err != nil || len(found) != 3 || time.Since(found[0].Created) > time.Hour {
		t.Errorf("%+v, %v", found, err)
	}
}
