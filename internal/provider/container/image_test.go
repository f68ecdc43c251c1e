package container

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

func TestTheImageIsMadeOnce(t *testing.T) {
	api := enginetest.Client(t, enginetest.Host(t))
	start := time.Now()
	ref, err := BuildImage(t.Context(), api)
	if err != nil {
		t.Fatal(err)
	}
	first := time.Since(start)
	made, err := api.ImageInspect(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	again, err := BuildImage(t.Context(), api)
	if err != nil || again != ref {
		t.Errorf("%s, then %s, error %v", ref, again, err)
	}
	t.Logf("%s of %d MB took %v, and then %v", ref, made.Size>>20, first, time.Since(start))
	if now, err := api.ImageInspect(t.Context(), ref); err != nil || now.ID != made.ID {
		t.Errorf("it was made again: %v", err)
	}
	if !slices.Equal(made.Config.Cmd, []string{"/sbin/init"}) || len(made.Config.Volumes) != 1 {
		t.Errorf("its command is %q, its volumes %v", made.Config.Cmd, made.Config.Volumes)
	}
}

func TestAnImportThatFailsSaysWhy(t *testing.T) {
	api := enginetest.Client(t, enginetest.Host(t))
	for says, files := range map[string][]file{
		"no such file": {{name: "x", mode: 0o644, from: "/no/such/file", size: 1}},
		"shorter":      {{name: "x", mode: 0o644, from: "/dev/null", size: 1}},
	} {
		err := importImage(t.Context(), api, "tranter-test/never:1", files)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one that says %q", err, says)
		}
		if _, err := api.ImageInspect(t.Context(), "tranter-test/never:1"); err == nil {
			_, err = api.ImageRemove(t.Context(), "tranter-test/never:1", client.ImageRemoveOptions{})
			t.Errorf("an image is there (removed: %v)", err)
		}
	}
}
