package enginetest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/moby/api/types/container"
)

func TestARootlessDockerRunsTestImages(t *testing.T) {
	var dir string
	t.Run("engine", func(t *testing.T) {
		e := RootlessDocker(t)
		dir = e.dir
		api := Client(t, e.Host())
		reference := Load(t, e.Host(), "busybox")
		if got, code := run(t, api, &container.Config{Image: reference, Cmd: []string{"id", "-u"}}); got != "0\n" || code != 0 {
			t.Errorf("%q, exit code %d", got, code)
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dir, err)
	}
	if n := killOnce(dir, filepath.Base(dir)); n > 0 {
		t.Errorf("%d processes were left", n)
	}
}
