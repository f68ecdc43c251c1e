package enginetest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// Options of a private engine.
type Options struct {
	Args []string // further ones of dockerd, such as --registry-mirror=...
}

// Private is an engine of one test, which may stop and kill it. It has its own containerd, files and network namespace, so
// that it and the machine's engine know nothing of each other. Containers outlive its death, as with live-restore.
type Private struct {
	place
	args    []string
	mu      sync.Mutex
	process *exec.Cmd
	ended   <-chan struct{}
}

// Engine starts an engine that is removed with all that it has when the test ends.
func Engine(t testing.TB, o Options) *Private {
	t.Helper()
	e := &Private{}
	e.prepare(t)
	if err := os.WriteFile(e.path("config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.args = append([]string{
		"--config-file", e.path("config.json"), "--host", e.Host(), "--data-root", e.path("data"), "--exec-root", e.path("exec"),
		"--pidfile", e.path("docker.pid"), "--containerd", e.path("containerd.sock"), "--live-restore", "--cgroup-parent", "/" + filepath.Base(e.dir),
	}, o.Args...)
	e.startContainerd(t)
	e.Start(t)
	return e
}

func (e *Private) startContainerd(t testing.TB) {
	t.Helper()
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
		e.path("containerd"), e.path("containerd-state"), e.path("containerd.sock"))
	if err := os.WriteFile(e.path("containerd.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ended, err := bound(e.command("containerd", "--config", e.path("containerd.toml")))
	if err != nil {
		t.Fatalf("start containerd: %v", err)
	}
	e.until(t, ended, "containerd", func(context.Context) error {
		conn, err := net.Dial("unix", e.path("containerd.sock"))
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

// Start starts dockerd and returns when it answers.
func (e *Private) Start(t testing.TB) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	cmd := e.command("dockerd", e.args...)
	ended, err := bound(cmd)
	if err != nil {
		t.Fatalf("start dockerd: %v", err)
	}
	e.process, e.ended = cmd, ended
	api := Client(t, e.Host())
	e.until(t, ended, "dockerd", func(ctx context.Context) error {
		_, err := api.Ping(ctx, client.PingOptions{})
		return err
	})
}

// Stop ends dockerd as a service manager does, and returns when it has ended. Containers go on.
func (e *Private) Stop(t testing.TB) { t.Helper(); e.signal(t, syscall.SIGTERM) }

// Kill ends dockerd at once, as a crash does. Containers go on.
func (e *Private) Kill(t testing.TB) { t.Helper(); e.signal(t, syscall.SIGKILL) }

// Freeze keeps dockerd from doing anything, until Thaw: connections are taken and not answered.
func (e *Private) Freeze(t testing.TB) { t.Helper(); e.send(t, syscall.SIGSTOP) }

// Thaw lets a frozen dockerd go on.
func (e *Private) Thaw(t testing.TB) { t.Helper(); e.send(t, syscall.SIGCONT) }

func (e *Private) send(t testing.TB, s syscall.Signal) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.process.Process.Signal(s); err != nil {
		t.Fatalf("signal dockerd: %v", err)
	}
}

func (e *Private) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	e.send(t, s)
	select {
	case <-e.ended:
	case <-time.After(privateLimit):
		t.Fatalf("dockerd did not end\n%s", e.Log())
	}
}
