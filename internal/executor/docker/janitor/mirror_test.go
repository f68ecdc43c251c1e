package janitor

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// remote lets containers reach the tests' registry: it listens on the gateway of the engine's bridge.
func (b bench) remote() string {
	b.t.Helper()
	gateway, err := bridgeGateway(b.t.Context(), b.engine)
	if err != nil || !gateway.IsValid() {
		b.t.Fatalf("no gateway: %v, %v", gateway, err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(gateway.String(), "0"))
	if err != nil {
		b.t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: enginetest.Registry(b.t).Address}))
	if err := server.Listener.Close(); err != nil {
		b.t.Fatal(err)
	}
	server.Listener = listener
	server.Start()
	b.t.Cleanup(server.Close)
	return "http://" + listener.Addr().String()
}

// mirrorOptions are those of a mirror that goes with the test.
func (b bench) mirrorOptions() MirrorOptions {
	o := MirrorOptions{Image: enginetest.Image(b.t, "mirror"), Remote: b.remote(), Owner: b.owner}
	b.cleanup(func(ctx context.Context) {
		if _, err := RemoveMirror(ctx, b.engine, b.owner); err != nil {
			b.t.Error(err)
		}
		enginetestClean(ctx, b)
	})
	return o
}

func enginetestClean(ctx context.Context, b bench) {
	found, err := list(ctx, b.engine.API())
	if err != nil {
		b.t.Error(err)
	}
	for _, c := range found.containers {
		if c.Labels[labelOwner] == b.owner {
			b.t.Errorf("left: %s", nameOf(c))
		}
	}
	for _, v := range found.volumes {
		if v.Labels[labelOwner] == b.owner {
			b.t.Errorf("left: %s", v.Name)
		}
	}
}

func (b bench) ensure(o MirrorOptions) Mirror {
	b.t.Helper()
	m, err := EnsureMirror(b.t.Context(), b.engine, o)
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

func (b bench) inspect(name string) container.InspectResponse {
	b.t.Helper()
	found, err := b.engine.API().ContainerInspect(b.t.Context(), name, client.ContainerInspectOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return found.Container
}

func TestAMirrorServesTheEngineAndContainers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	o := b.mirrorOptions()
	m := b.ensure(o)

	// The engine pulls through it what only the remote has.
	enginetest.Registry(t).Push(t, "noshell", b.owner, "1")
	ref := m.EngineAddress + "/" + b.owner + ":1"
	stream, err := b.engine.API().ImagePull(t.Context(), ref, client.ImagePullOptions{})
	if err == nil {
		err = stream.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	b.cleanup(func(ctx context.Context) { _, _ = b.engine.API().ImageRemove(ctx, ref, client.ImageRemoveOptions{}) })

	// A container reaches it by the bridge, from another network than the mirror's too.
	for _, network := range []string{"bridge", b.network("other", b.labels("job"))} {
		id := b.container("client-"+network[:6], nil, func(o *createOptions) {
			on(network)(o)
			o.Config.Cmd = []string{"wget", "-q", "-O", "-", m.ServiceURL + "/v2/" + b.owner + "/manifests/1"}
		})
		if code := b.wait(id); code != 0 {
			t.Errorf("from %s: exit code %d", network, code)
		}
	}

	// It listens nowhere else.
	for _, bound := range b.inspect(o.name()).HostConfig.PortBindings {
		for _, p := range bound {
			if p.HostIP == netip.IPv4Unspecified() || !p.HostIP.IsValid() {
				t.Errorf("it listens on %v", p.HostIP)
			}
		}
	}
}

// wait waits for a container's end and returns its exit code.
func (b bench) wait(id string) int64 {
	b.t.Helper()
	wait := b.engine.API().ContainerWait(b.t.Context(), id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case err := <-wait.Error:
		b.t.Fatal(err)
		return -1
	case r := <-wait.Result:
		return r.StatusCode
	}
}

func TestAMirrorIsKeptUntilItsOptionsChange(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	o := b.mirrorOptions()
	first := b.ensure(o)
	id := b.inspect(o.name()).ID
	if again := b.ensure(o); again != first || b.inspect(o.name()).ID != id {
		t.Errorf("%+v, then %+v", first, again)
	}

	// Somebody has stopped it.
	if _, err := b.engine.API().ContainerStop(t.Context(), id, client.ContainerStopOptions{}); err != nil {
		t.Fatal(err)
	}
	if again := b.ensure(o); again != first || b.inspect(o.name()).ID != id || !b.inspect(o.name()).State.Running {
		t.Errorf("%+v, then %+v", first, again)
	}

	// A sweep leaves it alone.
	if _, err := Sweep(t.Context(), b.engine, b.owner, func(string) bool { return false }); err != nil || !b.hasContainer(id) || !b.hasVolume(o.name()) {
		t.Errorf("swept, or %v", err)
	}

	o.Remote += "/"
	b.ensure(o)
	if changed := b.inspect(o.name()); changed.ID == id || b.hasContainer(id) {
		t.Error("it is not replaced")
	}
	named, err := Mirrors(t.Context(), b.engine, b.owner)
	if err != nil || named.Count() != 2 || !b.hasVolume(o.name()) {
		t.Errorf("%s, %v", named, err)
	}
	removed, err := RemoveMirror(t.Context(), b.engine, b.owner)
	if err != nil || removed.Count() != 2 || b.hasVolume(o.name()) {
		t.Errorf("%s, %v", removed, err)
	}
	if again, err := RemoveMirror(t.Context(), b.engine, b.owner); err != nil || again.Count() != 0 {
		t.Errorf("%s, %v", again, err)
	}
}

func TestAMirrorTakesAnotherPortWhenItsOwnIsInUse(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	o := b.mirrorOptions()
	usual := b.ensure(o).EngineAddress
	if _, err := RemoveMirror(t.Context(), b.engine, b.owner); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", usual)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if m := b.ensure(o); m.EngineAddress == usual {
		t.Errorf("%+v", m)
	}
}

func TestAMirrorThatDoesNotComeUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	o := b.mirrorOptions()
	o.Image = enginetest.Image(t, "service-broken")
	_, err := EnsureMirror(t.Context(), b.engine, o)
	if err == nil || !strings.Contains(err.Error(), "exit code 7") || !strings.Contains(err.Error(), "the database is corrupt") {
		t.Errorf("%v", err)
	}
}

func TestAMirrorWhoseImageCanNotBeHad(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	o := b.mirrorOptions()
	o.Image = enginetest.Registry(t).Address + "/no/such/image:1"
	if _, err := EnsureMirror(t.Context(), b.engine, o); err == nil || !strings.Contains(err.Error(), "registry_mirror_image") {
		t.Errorf("%v", err)
	}
	o.Pull = func(_ context.Context, image string) error {
		if image != o.Image {
			t.Errorf("asked for %s", image)
		}
		return http.ErrServerClosed
	}
	if _, err := EnsureMirror(t.Context(), b.engine, o); err == nil || !strings.Contains(err.Error(), http.ErrServerClosed.Error()) {
		t.Errorf("%v", err)
	}
}

func TestSomebodyElsesContainerIsNoMirror(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	id := b.container("taken", nil, nil)
	o := MirrorOptions{Image: b.busybox, Owner: b.owner, Name: b.name("taken")}
	if _, err := EnsureMirror(t.Context(), b.engine, o); err == nil || !strings.Contains(err.Error(), "another container") || !b.hasContainer(id) {
		t.Errorf("%v", err)
	}
}
