package machinetest

import (
	"cmp"
	"context"
	"net/netip"
	"os"
	"testing"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

func (m *Machine) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(m.t.Context()), callLimit)
}

// do fails the test when what was done to the machine did not work.
func (m *Machine) do(what string, act func(ctx context.Context) error) {
	m.t.Helper()
	ctx, cancel := m.context()
	defer cancel()
	if err := act(ctx); err != nil {
		m.t.Fatalf("%s the machine %s: %v", what, m.Name, err)
	}
}

func (m *Machine) remove() {
	m.t.Helper()
	if m.t.Failed() {
		m.t.Logf("the machine %s said:\n%s", m.Name, m.Log())
	}
	Remove(m.t, m.ID)
}

// Remove removes a container with its volumes, if it is there.
func Remove(t testing.TB, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), callLimit)
	defer cancel()
	api := enginetest.Client(t, cmp.Or(os.Getenv("DOCKER_HOST"), client.DefaultDockerHost)) // no question first: the test may be over
	if _, err := api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil && !engine.Missing(err) {
		t.Errorf("remove the container %s: %v", id, err)
	}
}

// PowerOn starts a machine that is off, and learns its address.
func (m *Machine) PowerOn() {
	m.t.Helper()
	m.do("start", func(ctx context.Context) error {
		_, err := m.api.ContainerStart(ctx, m.ID, client.ContainerStartOptions{})
		return err
	})
	m.look()
}

// look reads the machine's address.
func (m *Machine) look() {
	m.t.Helper()
	m.do("look at", func(ctx context.Context) error {
		found, err := m.api.ContainerInspect(ctx, m.ID, client.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		m.Address = ""
		for _, n := range found.Container.NetworkSettings.Networks {
			if n.IPAddress.IsValid() {
				m.Address = n.IPAddress.String()
			}
		}
		m.Login.Host = m.Address
		return nil
	})
}

// Running says whether the machine runs.
func (m *Machine) Running() bool {
	m.t.Helper()
	running := false
	m.do("look at", func(ctx context.Context) error {
		found, err := m.api.ContainerInspect(ctx, m.ID, client.ContainerInspectOptions{})
		if err == nil {
			running = found.Container.State.Running
		}
		return err
	})
	return running
}

// Kill ends the machine as a power cut does.
func (m *Machine) Kill() {
	m.t.Helper()
	m.do("kill", func(ctx context.Context) error {
		_, err := m.api.ContainerKill(ctx, m.ID, client.ContainerKillOptions{Signal: "KILL"})
		return err
	})
}

// Stop switches the machine off.
func (m *Machine) Stop() {
	m.t.Helper()
	m.do("stop", func(ctx context.Context) error {
		_, err := m.api.ContainerStop(ctx, m.ID, client.ContainerStopOptions{})
		return err
	})
}

// Pause freezes the machine: connections stay, and nothing answers.
func (m *Machine) Pause() {
	m.t.Helper()
	m.do("pause", func(ctx context.Context) error {
		_, err := m.api.ContainerPause(ctx, m.ID, client.ContainerPauseOptions{})
		return err
	})
}

// Unpause undoes Pause.
func (m *Machine) Unpause() {
	m.t.Helper()
	m.do("thaw", func(ctx context.Context) error {
		_, err := m.api.ContainerUnpause(ctx, m.ID, client.ContainerUnpauseOptions{})
		return err
	})
}

// Disconnect takes the machine off its network.
func (m *Machine) Disconnect() {
	m.t.Helper()
	m.do("disconnect", func(ctx context.Context) error {
		_, err := m.api.NetworkDisconnect(ctx, NetworkName, client.NetworkDisconnectOptions{Container: m.ID, Force: true})
		return err
	})
}

// Reconnect undoes Disconnect. The machine has the address that it had.
func (m *Machine) Reconnect() {
	m.t.Helper()
	m.do("reconnect", func(ctx context.Context) error {
		address, err := netip.ParseAddr(m.Address)
		if err != nil {
			return err
		}
		_, err = m.api.NetworkConnect(ctx, NetworkName, client.NetworkConnectOptions{
			Container: m.ID, EndpointConfig: &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: address}},
		})
		return err
	})
}
