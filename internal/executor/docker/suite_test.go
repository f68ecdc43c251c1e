package docker_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"testing"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/docker"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
	"github.com/tranter-ci/tranter/internal/executor/executortest"
)

func TestMain(m *testing.M) {
	enginetest.SideBySide(2)
	os.Exit(executortest.Main(m))
}

// settings are those of a runner whose jobs get the image, on the engine of the tests.
func settings(t *testing.T, image string) config.Docker {
	t.Helper()
	d := config.DefaultRunner().Docker
	d.Host, d.Image, d.HelperImage = enginetest.Host(t), enginetest.Image(t, image), enginetest.Image(t, "helper")
	d.PullPolicy = config.OneOrMany{"if-not-present"}
	return d
}

// options are those of a manager of the test's own, of which nothing may be left on the engine.
func options(t *testing.T, d config.Docker) docker.Options {
	t.Helper()
	owner := "test-" + rand.Text()
	t.Cleanup(func() {
		enginetest.Clean(t, d.Host, spec.LabelOwner+"="+owner, spec.LabelSession)
		removeCaches(t, d.Host, owner)
	})
	return docker.Options{
		Settings: d, Program: enginetest.Agent(t), State: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Runner: spec.Runner{ShortToken: "abcdefgh", Token: "glrt-abcdefghijk", SystemID: "s_test", Owner: owner},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	d := settings(t, "busybox")
	d.Volumes = []string{os.TempDir() + ":" + os.TempDir()} // so that the suite sees what jobs write
	o := options(t, d)
	executortest.Run(t, executortest.Subject{
		Shell: "sh", New: func(*testing.T) tranter.Executor { return docker.New(o) },
		Spoil: func(s *tranter.SessionSpec) {
			job := *s.Job
			job.Image.Name, s.Job = "no such image", &job
		},
	})
}

// removeCaches removes the volumes of a test's jobs that outlive jobs.
func removeCaches(t *testing.T, host, owner string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	api := enginetest.Client(t, host)
	found, err := api.VolumeList(ctx, client.VolumeListOptions{Filters: make(client.Filters).Add("label", spec.LabelOwner+"="+owner, spec.StockLabel+"type=cache")})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found.Items {
		if _, err := api.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{Force: true}); err != nil {
			t.Errorf("remove volume %s: %v", v.Name, err)
		}
	}
}
