package janitor

import (
	"testing"

	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

func TestEverythingOfAnOwnerIsRemovedAndNothingElse(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	other := b
	other.owner = b.owner + "-other"
	network := b.network("network", b.labels("job"))
	cache := b.volume("cache", b.labels("", labelStockType+"="+typeCache))
	agent := b.volume("agent", b.labels("", labelType+"="+typeAgent))
	build := b.container("build", b.labels("job"), func(o *createOptions) { on(network)(o); mounting(cache, agent)(o) })
	mirror := b.container("mirror", b.labels("", labelType+"="+typeMirror), nil)
	kept := other.volume("cache", other.labels(""))
	stays := other.container("build", other.labels("job"), mounting(kept))

	swept, err := RemoveOwned(t.Context(), b.engine, b.owner)
	if err != nil || len(swept.Containers) != 2 || len(swept.Networks) != 1 || len(swept.Volumes) != 2 {
		t.Errorf("%s, %v", swept, err)
	}
	if b.hasContainer(build) || b.hasContainer(mirror) || b.hasNetwork(network) || b.hasVolume(cache) || b.hasVolume(agent) {
		t.Error("something is left")
	}
	if !b.hasContainer(stays) || !b.hasVolume(kept) {
		t.Error("something of another owner is gone")
	}
	enginetest.Clean(t, enginetest.Host(t), labelOwner+"="+b.owner)
	if swept, err := RemoveOwned(t.Context(), b.engine, ""); err == nil {
		t.Errorf("without an owner: %s", swept)
	}
}
