package enginetest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

func TestContainersOutliveTheirEngine(t *testing.T) {
	host := Host(t)
	var dir string
	t.Run("engine", func(t *testing.T) {
		began := time.Now()
		e := Engine(t, Options{})
		t.Logf("started in %v", time.Since(began))
		dir = e.dir
		api := Client(t, e.Host())
		reference := e.Image(t, "busybox")
		if got, code := run(t, api, &container.Config{Image: reference, Cmd: []string{"ping", "-c1", "-W5", e.Gateway}}); code != 0 {
			t.Errorf("a container does not reach the machine: %s", got)
		}
		id := start(t, api, &container.Config{Image: reference, Cmd: []string{"sleep", "1000"}}, nil)
		before, err := api.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, end := range []func(testing.TB){e.Kill, e.Stop} {
			end(t)
			if _, err := api.Ping(t.Context(), client.PingOptions{}); err == nil {
				t.Error("the engine answers though it has ended")
			}
			began = time.Now()
			e.Start(t)
			t.Logf("started again in %v", time.Since(began))
		}
		after, err := api.ContainerInspect(t.Context(), id, client.ContainerInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if was, is := before.Container.State.Pid, after.Container.State.Pid; was != is || !after.Container.State.Running {
			t.Errorf("process %d before, %d after, running %t", was, is, after.Container.State.Running)
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dir, err)
	}
	if n := killOnce(dir, filepath.Base(dir)); n > 0 {
		t.Errorf("%d processes were left", n)
	}
	if groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(dir)); len(groups) > 0 {
		t.Errorf("control groups are left: %v", groups)
	}
	if got, code := run(t, Client(t, host), &container.Config{Image: Image(t, "busybox"), Cmd: []string{"true"}}); code != 0 {
		t.Errorf("the machine's engine has suffered: %s", got)
	}
}
