package janitor

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/diskspace"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
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

// TestAMirrorOnPodman looks from within podman's network, where its ports are.
func TestAMirrorOnPodman(t *testing.T) {
	const hostKey, imageKey, remoteKey = "TRANTER_TEST_MIRROR_HOST", "TRANTER_TEST_MIRROR_IMAGE", "TRANTER_TEST_MIRROR_REMOTE"
	if host := os.Getenv(hostKey); host != "" {
		mirrorFrom(t, host, os.Getenv(imageKey), os.Getenv(remoteKey))
		return
	}
	t.Parallel()
	podman := enginetest.Podman(t)
	l, err := net.Listen("tcp", podman.Gateway+":0")
	if err != nil {
		t.Fatal(err)
	}
	remote := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})) // it greets, that is all
	_ = remote.Listener.Close()
	remote.Listener = l
	remote.Start()
	defer remote.Close()
	network := filepath.Base(filepath.Dir(strings.TrimPrefix(podman.Host(), "unix://")))
	cmd := exec.CommandContext(t.Context(), "nsenter", "--net=/run/netns/"+network, os.Args[0], "-test.run=^TestAMirrorOnPodman$", "-test.v")
	cmd.Env = append(os.Environ(), hostKey+"="+podman.Host(), imageKey+"="+podman.Image(t, "mirror"), remoteKey+"="+remote.URL)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestAMirrorOnPodman") {
		t.Errorf("%v\n%s", err, out)
	}
}

func mirrorFrom(t *testing.T, host, image, remote string) {
	t.Helper()
	e, err := engine.Open(t.Context(), engine.Options{Host: host})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	o := MirrorOptions{Image: image, Owner: "mirrors", Remote: remote}
	for range 2 { // the second finds the data of one that was made before
		if _, err := EnsureMirror(t.Context(), e, o); err != nil {
			t.Fatal(err)
		}
		o.Remote += "/"
	}
	if removed, err := RemoveMirror(t.Context(), e, o.Owner); err != nil || removed.Count() != 2 {
		t.Errorf("%+v, %v", removed, err)
	}
}
