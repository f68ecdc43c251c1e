package machinetest

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"maps"
	"strings"
	"testing"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	tranter "github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/provider/container"
)

// Options says what a machine of a test is like.
type Options struct {
	Name     string            // empty: one that no other has
	Image    string            // empty: Image
	Files    map[string]string // what is written before it starts, by absolute path; a file that starts with #! is a program
	UserData string            // a program that it executes whenever it starts, while it boots
	Memory   int64             // bytes; 0: no limit
	Labels   map[string]string
	Stopped  bool // it is not started
}

// Machine is a machine of a test.
type Machine struct {
	Name    string
	ID      string // of the container
	Address string // IP address; empty while it is stopped
	Login   tranter.Login
	t       testing.TB
	api     *client.Client
}

// Start makes a machine and starts it; it may still boot. It is removed when the test ends, with its volumes.
func Start(t testing.TB, o Options) *Machine {
	t.Helper()
	host := enginetest.Host(t)
	api := enginetest.Client(t, host)
	m := &Machine{Name: cmp.Or(o.Name, "machine-"+strings.ToLower(rand.Text()[:10])), t: t, api: api}
	image := cmp.Or(o.Image, Image(t))
	private, public := Key(t)
	ctx, cancel := m.context()
	defer cancel()
	config := container.Privileges(cgroups(ctx, t, api))
	config.NetworkMode = apicontainer.NetworkMode(Network(t))
	config.Memory = o.Memory
	labels := map[string]string{Label: t.Name()}
	maps.Copy(labels, o.Labels)
	made, err := api.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name:       m.Name,
		HostConfig: config,
		Config: &apicontainer.Config{
			Image: image, Hostname: m.Name, Labels: labels, Env: []string{"TRANTER_AUTHORIZED_KEYS=" + public},
		},
	})
	if err != nil {
		t.Fatalf("create the machine %s: %v", m.Name, err)
	}
	m.ID = made.ID
	t.Cleanup(m.remove)
	m.write(ctx, o)
	m.Login = tranter.Login{User: "root", Port: 22, Identity: private}
	if !o.Stopped {
		m.PowerOn()
	}
	return m
}

// cgroups returns the version of the engine's control groups.
func cgroups(ctx context.Context, t testing.TB, api *client.Client) string {
	t.Helper()
	answer, err := api.Info(ctx, client.InfoOptions{})
	if err != nil {
		t.Fatalf("ask the engine for its control groups: %v", err)
	}
	return answer.Info.CgroupVersion
}

// write puts the files of the options into a machine that has not been started.
func (m *Machine) write(ctx context.Context, o Options) {
	m.t.Helper()
	files := map[string]string{}
	maps.Copy(files, o.Files)
	if o.UserData != "" {
		files["/etc/tranter-user-data"] = o.UserData
	}
	if len(files) == 0 {
		return
	}
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	for name, content := range files {
		mode := int64(0o644)
		if strings.HasPrefix(content, "#!") {
			mode = 0o755
		}
		err := w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(name, "/"), Mode: mode, Size: int64(len(content)), Typeflag: tar.TypeReg})
		if err == nil {
			_, err = io.WriteString(w, content)
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
	err := w.Close()
	if err == nil {
		_, err = m.api.CopyToContainer(ctx, m.ID, client.CopyToContainerOptions{DestinationPath: "/", Content: &data})
	}
	if err != nil {
		m.t.Fatalf("write files into the machine %s: %v", m.Name, err)
	}
}
