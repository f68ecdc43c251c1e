package container_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/crypto/ssh"

	tranter "github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/provider/container"
	"github.com/tranter-ci/tranter/internal/provider/machinetest"
	"github.com/tranter-ci/tranter/internal/provider/providertest"
)

// options returns those of providers in tests. Their machines need no engine.
func options(t testing.TB) container.Options {
	t.Helper()
	return container.Options{Host: enginetest.Host(t), Image: machinetest.Bare(t), Network: machinetest.Network(t), Dir: t.TempDir()}
}

func open(t testing.TB, o container.Options) *container.Provider {
	t.Helper()
	p, err := container.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func unnoted(json.RawMessage) {}

func TestItIsAProvider(t *testing.T) {
	o := options(t)
	api := enginetest.Client(t, o.Host)
	prefix := fmt.Sprintf("conformance-%08x-", rand.Uint32())
	providertest.Run(t, providertest.Subject{
		Prefix: prefix,
		New:    func(t testing.TB) tranter.Provider { return open(t, o) },
		Alive: func(t testing.TB, name string) bool {
			_, err := api.ContainerInspect(context.WithoutCancel(t.Context()), name, client.ContainerInspectOptions{})
			if err != nil && !engine.Missing(err) {
				t.Errorf("look for %s: %v", name, err)
			}
			return err == nil
		},
		Options: []string{"memory=1g"},
		Notes:   true, Marks: true, Starts: true,
		Fails: []providertest.Failure{
			{Options: []string{"image=127.0.0.1:1/no-such:Image!"}, Is: tranter.ErrRejected},
			{Options: []string{"memory=much"}, Is: tranter.ErrRejected},
			{Options: []string{"memory=1k"}, Is: tranter.ErrRejected},
			{Options: []string{"cpus=-1"}, Is: tranter.ErrRejected},
			{Options: []string{"cpus=100000"}, Is: tranter.ErrRejected},
			{Options: []string{"color=red"}, Is: tranter.ErrRejected},
		},
	})
	left, err := api.ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("name", prefix)})
	if err != nil || len(left.Items) > 0 {
		t.Errorf("containers are left: %v, %v", left.Items, err)
	}
}

func TestAMachineHasALoginAndAnEngine(t *testing.T) {
	o := options(t)
	o.Image = "" // it makes it
	p, name := open(t, o), fmt.Sprintf("whole-%08x", rand.Uint32())
	t.Cleanup(func() {
		if err := p.Destroy(context.WithoutCancel(t.Context()), tranter.MachineRef{Name: name}); err != nil {
			t.Error(err)
		}
	})
	if err := p.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	m, err := p.Create(t.Context(), tranter.MachineSpec{Name: name}, unnoted)
	if err != nil {
		t.Fatal(err)
	}
	made := time.Since(start)
	data, err := os.ReadFile(m.Login.Identity)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ClientConfig{User: m.Login.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()}
	var c *ssh.Client
	eventually(t, func() error {
		c, err = ssh.Dial("tcp", m.Login.Host+":22", config)
		return err
	})
	defer c.Close()
	up := time.Since(start)
	e, err := client.New(client.WithHost("tcp://machine"), client.WithDialContext(func(context.Context, string, string) (net.Conn, error) {
		return c.Dial("unix", "/var/run/docker.sock")
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	eventually(t, func() error {
		_, err := e.Ping(t.Context(), client.PingOptions{})
		return err
	})
	t.Logf("created after %v, SSH after %v, the engine after %v", made, up, time.Since(start))
	info, err := e.Info(t.Context(), client.InfoOptions{})
	if err != nil || info.Info.Name != name || info.Info.Driver != "overlay2" {
		t.Errorf("the engine of %q with the storage %q, error %v", info.Info.Name, info.Info.Driver, err)
	}
}

// eventually tries something until it works.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for err := try(); err != nil; err = try() {
		select {
		case <-ctx.Done():
			t.Fatalf("in vain: %v", err)
		case <-tick.C:
		}
	}
}

func TestAMachineIsAsItsOptionsSay(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Memory, o.CPUs = "2g", "0.5"
	p, name := open(t, o), fmt.Sprintf("options-%08x", rand.Uint32())
	m, err := p.Create(t.Context(), tranter.MachineSpec{Name: name, Options: []string{"memory=512m"}}, unnoted)
	t.Cleanup(func() {
		if err := p.Destroy(context.WithoutCancel(t.Context()), tranter.MachineRef{Name: name}); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	api := enginetest.Client(t, o.Host)
	found, err := api.ContainerInspect(t.Context(), m.ID, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := found.Container
	if c.HostConfig.Memory != 512<<20 || c.HostConfig.NanoCPUs != 5e8 || c.Config.Hostname != name || c.Config.Labels["io.tranter.owner"] != "" {
		t.Errorf("memory %d, CPUs %d, host name %s, labels %v", c.HostConfig.Memory, c.HostConfig.NanoCPUs, c.Config.Hostname, c.Config.Labels)
	}
	volumes := 0
	if err := p.Destroy(t.Context(), tranter.MachineRef{Name: name, Ref: m.Ref}); err != nil {
		t.Fatal(err)
	}
	for _, mount := range c.Mounts {
		if mount.Type != "volume" {
			continue
		}
		volumes++ // for what the machine's engine stores
		if _, err := api.VolumeInspect(t.Context(), mount.Name, client.VolumeInspectOptions{}); !engine.Missing(err) {
			t.Errorf("the volume %s of the machine is left: %v", mount.Name, err)
		}
	}
	if volumes == 0 {
		t.Errorf("the machine has no volume: %+v", c.Mounts)
	}
	if m.Login.User != "root" || m.Login.Port != 22 || filepath.Dir(m.Login.Identity) != o.Dir {
		t.Errorf("%+v", m.Login)
	}
}

func TestAContainerThatHasAMachinesNameIsLeftAlone(t *testing.T) {
	t.Parallel()
	o := options(t)
	api, p, name := enginetest.Client(t, o.Host), open(t, o), fmt.Sprintf("foreign-%08x", rand.Uint32())
	made, err := api.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: name, Config: &apicontainer.Config{Image: o.Image}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { machinetest.Remove(t, made.ID) })
	if _, err := p.Create(t.Context(), tranter.MachineSpec{Name: name}, unnoted); !errors.Is(err, tranter.ErrRejected) || !strings.Contains(err.Error(), "is not this machine") {
		t.Errorf("create: %v", err)
	}
	if err := p.Destroy(t.Context(), tranter.MachineRef{Name: name}); err != nil {
		t.Errorf("destroy: %v", err)
	}
	if _, err := api.ContainerInspect(t.Context(), made.ID, client.ContainerInspectOptions{}); err != nil {
		t.Errorf("it was touched: %v", err)
	}
}

func TestAContainerThatClaimsToBeAMachineIsNone(t *testing.T) {
	o := options(t)
	p, api, mark := open(t, o), enginetest.Client(t, o.Host), tranter.Mark{Owner: fmt.Sprintf("%016x", rand.Uint64()), Pool: "pool-f"}
	name := fmt.Sprintf("real-%08x", rand.Uint32())
	m, err := p.Create(t.Context(), tranter.MachineSpec{Name: name, Mark: mark}, unnoted)
	t.Cleanup(func() {
		if err := p.Destroy(context.WithoutCancel(t.Context()), tranter.MachineRef{Name: name}); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, claimed := range []string{name, "", "a\nb", "other"} { // as a job could make them, which has the engine's socket
		fake, err := api.ContainerCreate(t.Context(), client.ContainerCreateOptions{Config: &apicontainer.Config{
			Image: machinetest.Bare(t), Labels: map[string]string{"io.tranter.machine": claimed, "io.tranter.machine.owner": mark.Owner, "io.tranter.machine.pool": mark.Pool},
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := api.ContainerRemove(context.WithoutCancel(t.Context()), fake.ID, client.ContainerRemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		})
	}
	for what, known := range map[string][]tranter.MachineRef{"nothing": nil, "its name": {{Name: name}}, "its reference": {{Name: name, Ref: m.Ref}}} {
		seen, err := p.List(t.Context(), mark, known)
		if err != nil || len(seen) != 1 || seen[0].ID != m.ID || seen[0].Power != tranter.PowerOn {
			t.Errorf("known is %s: %+v, error %v", what, seen, err)
		}
	}
}

func TestANetworkIsMadeOnceAndItsEndIsNoCapacity(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Network = fmt.Sprintf("tranter-test-%08x", rand.Uint32())
	o.Subnet = fmt.Sprintf("10.219.%d.%d/30", rand.IntN(256), rand.IntN(64)*4) // room for the gateway and one machine
	api := enginetest.Client(t, o.Host)
	t.Cleanup(func() {
		if _, err := api.NetworkRemove(context.WithoutCancel(t.Context()), o.Network, client.NetworkRemoveOptions{}); err != nil {
			t.Error(err)
		}
	})
	const machines = 3
	var all sync.WaitGroup
	errs := make([]error, machines)
	for i := range machines {
		p, name := open(t, o), fmt.Sprintf("%s-%d", o.Network, i) // each makes the network
		t.Cleanup(func() {
			if err := p.Destroy(context.WithoutCancel(t.Context()), tranter.MachineRef{Name: name}); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() { _, errs[i] = p.Create(t.Context(), tranter.MachineSpec{Name: name}, unnoted) })
	}
	all.Wait()
	worked := 0
	for _, err := range errs {
		switch {
		case err == nil:
			worked++
		case !errors.Is(err, tranter.ErrNoCapacity):
			t.Error(err)
		}
	}
	if worked != 1 {
		t.Errorf("%d machines in a network for one: %v", worked, errs)
	}
	networks, err := api.NetworkList(t.Context(), client.NetworkListOptions{Filters: make(client.Filters).Add("name", o.Network)})
	if err != nil || len(networks.Items) != 1 {
		t.Errorf("%d networks, error %v", len(networks.Items), err)
	}
}

func TestTheKeyIsMadeOnceAndForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	var all sync.WaitGroup
	public := make([]string, 8)
	for i := range public {
		all.Go(func() {
			var err error
			if _, public[i], err = container.Key(dir); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, key := range public {
		if key != public[0] || !strings.HasPrefix(key, "ssh-ed25519 ") {
			t.Errorf("%q, want %q", key, public[0])
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, error %v", files, err)
	}
	if info, err := files[0].Info(); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, files[0].Name()), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := container.Key(dir); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("error %v", err)
	}
}

func TestOptionsThatAreWrong(t *testing.T) {
	t.Parallel()
	for says, o := range map[string]container.Options{
		"there is no directory": {},
		`memory is "x"`:         {Dir: t.TempDir(), Memory: "x"},
		`cpus is "1/0"`:         {Dir: t.TempDir(), CPUs: "1/0"},
		`subnet is "here"`:      {Dir: t.TempDir(), Subnet: "here"},
	} {
		_, err := container.New(o)
		if _, ok := errors.AsType[*tranter.ConfigError](err); !ok || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want a ConfigError that says %q", err, says)
		}
	}
	p := open(t, container.Options{Host: "unix:///no/such.sock", Dir: t.TempDir()})
	if err := p.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "/no/such.sock") {
		t.Errorf("check: %v", err)
	}
	if _, err := p.List(t.Context(), tranter.Mark{}, nil); err == nil {
		t.Error("an engine that is not there has listed machines")
	}
}
