package docker_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// An engine with room for an image but not for this program says what to do, and works as soon as there is room.
func TestAnEngineWhoseDiskIsFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const small, large = 8 << 20, 400 << 20
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", small)); err != nil {
		t.Fatalf("a small disk: %v", err)
	}
	t.Cleanup(func() { // after the engine is gone
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	e := enginetest.Engine(t, enginetest.Options{Args: []string{"--data-root", dir}})
	d := config.DefaultRunner().Docker
	d.Host, d.PullPolicy = e.Host(), config.OneOrMany{"if-not-present"}
	d.Image = e.Image(t, "busybox")
	d.HelperImage = d.Image
	r := rigOf(t, d)
	r.refused("system", "no space left on device", "the disk of the engine is full", "tranter docker prune")
	enginetest.Clean(t, d.Host, "io.tranter.owner="+r.options.Runner.Owner, "io.tranter.session")
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", large)); err != nil {
		t.Fatalf("a larger disk: %v", err)
	}
	r.ran("true")
}
