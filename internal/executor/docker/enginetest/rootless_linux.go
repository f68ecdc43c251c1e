package enginetest

import (
	"context"
	"os"
	"os/user"
	"strconv"
	"testing"

	"github.com/moby/moby/client"
)

// Rootless is dockerd run by an ordinary user, for one test. Its loopback interface is its own: images come by Load.
type Rootless struct{ place }

// RootlessDocker starts dockerd as an ordinary user. It is removed with all that it has when the test ends.
func RootlessDocker(t testing.TB) *Rootless {
	t.Helper()
	as, err := user.Lookup(rootlessUser)
	if err != nil {
		t.Fatalf("the user for a rootless engine (run tools/setup test): %v", err)
	}
	e := &Rootless{}
	e.prepare(t)
	if err := os.MkdirAll(e.path("home/run"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{e.dir, e.path("home"), e.path("home/run")} {
		if err := os.Chown(path, number(t, as.Uid), number(t, as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := e.command("unshare", "--mount", "--propagation", "private", "sh", "-c", rootless, e.dir, as.Uid, as.Gid,
		"dockerd-rootless.sh", "--host", e.Host(), "--data-root", e.path("home/data"), "--exec-root", e.path("home/run/exec"),
		"--pidfile", e.path("home/run/docker.pid"))
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin:/usr/share/docker.io/contrib", "HOME=" + e.path("home"), "XDG_RUNTIME_DIR=" + e.path("home/run"),
	}
	ended, err := bound(cmd)
	if err != nil {
		t.Fatalf("start a rootless dockerd: %v", err)
	}
	api := Client(t, e.Host())
	e.until(t, ended, "a rootless dockerd (is rootlesskit installed?)", func(ctx context.Context) error {
		_, err := api.Ping(ctx, client.PingOptions{})
		return err
	})
	return e
}

func number(t testing.TB, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
