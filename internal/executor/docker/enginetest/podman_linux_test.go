package enginetest

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

func TestPodmanRunsTestImages(t *testing.T) {
	for name, begin := range map[string]func(testing.TB) *PodmanService{"root": Podman, "ordinary user": RootlessPodman} {
		var dir string
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			p := begin(t)
			t.Logf("started in %v", time.Since(began))
			dir = p.dir
			usePodman(t, p)
		})
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", dir, err)
		}
		if n := killOnce(dir, filepath.Base(dir)); n > 0 {
			t.Errorf("%d processes were left", n)
		}
	}
}

func usePodman(t *testing.T, p *PodmanService) {
	t.Helper()
	api := Client(t, p.Host())
	reference := p.Image(t, "busybox")
	server, seen, err := listenAt(p.Gateway)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if got, code := run(t, api, &container.Config{Image: reference, Cmd: []string{"sh", "-c", "wget -q -O- " + server.URL + " && id -u"}}); code != 0 || got != "welcome\n0\n" {
		t.Errorf("exit code %d: %s", code, got)
	}
	if seen() != 1 {
		t.Errorf("%d requests have reached the machine", seen())
	}
	network, err := api.NetworkCreate(t.Context(), "own", client.NetworkCreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	made, err := api.ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Config:     &container.Config{Image: reference, Cmd: []string{"sleep", "1000"}},
		HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(network.ID)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.ContainerStart(t.Context(), made.ID, client.ContainerStartOptions{}); err != nil {
		t.Error(err) // it is left to the end of the service
	}
}

// listenAt serves a page at an address of the machine.
func listenAt(host string) (*httptest.Server, func() int64, error) {
	var n atomic.Int64
	listener, err := net.Listen("tcp", host+":0")
	if err != nil {
		return nil, nil, err
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n.Add(1)
		fmt.Fprintln(w, "welcome")
	}))
	_ = server.Listener.Close()
	server.Listener = listener
	server.Start()
	return server, n.Load, nil
}
