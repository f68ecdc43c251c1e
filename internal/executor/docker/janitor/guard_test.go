package janitor

import (
	"context"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/diskspace"
)

// guard returns a guard of the real engine, and, if remote, one as if that were on another host.
func (b bench) guard(o GuardOptions, remote bool) (*Guard, *Uses) {
	b.t.Helper()
	u := openUses(b.t, "")
	o.Owner, o.Log = b.owner, quiet()
	g := NewGuard(b.engine, u, o)
	if g.local == "" {
		b.t.Fatal("the engine is on this host")
	}
	if remote {
		g.local, g.where = "", "the engine far"
	}
	return g, u
}

func TestAGuardSeesTheDiskOfAnEngineOnThisHost(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	good, _ := b.guard(GuardOptions{Floor: diskspace.Room{Bytes: 1, Inodes: 1}}, false)
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	bad, _ := b.guard(GuardOptions{Floor: diskspace.Room{Bytes: math.MaxUint64}}, false)
	if err := bad.Check(); err == nil || !strings.Contains(err.Error(), b.engine.Facts().RootDir) || !strings.Contains(err.Error(), "min_free_mib") {
		t.Error(err)
	}
	bad.Saw(diskspace.Room{Bytes: math.MaxUint64}) // it knows better
	if bad.Check() == nil {
		t.Error("a job's report counts")
	}
}

func TestAGuardOfAnEngineElsewhereTakesAJobsWord(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	g, _ := b.guard(GuardOptions{Floor: diskspace.Room{Bytes: 1 << 30, Inodes: 100}}, true)
	for _, c := range []struct {
		room diskspace.Room
		want string
	}{
		{diskspace.Room{}, ""}, // nobody knows
		{diskspace.Room{Bytes: 1 << 20}, "only 1 MiB are free on the disk of the engine far"},
		{diskspace.Room{Bytes: 1 << 40, Inodes: 5, Counted: true}, "only 5 inodes"},
		{diskspace.Room{Bytes: 1 << 40, Inodes: 500, Counted: true}, ""},
		{diskspace.Room{Bytes: 1 << 40}, ""}, // no fixed number of inodes
	} {
		g.Saw(c.room)
		if err := g.Check(); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c.room, err)
		}
	}
	g.Saw(diskspace.Room{Bytes: 1})
	g.seen = g.seen.Add(-sighting)
	if err := g.Check(); err != nil {
		t.Errorf("an old report stops the runner for good: %v", err)
	}
}

func TestAGuardMakesRoomWhenAJobReportsTooLittle(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	g, u := b.guard(GuardOptions{Floor: diskspace.Room{Bytes: 1 << 20}, Prune: NewLimits(1<<30, 0)}, true)
	old, young := b.volume("old", b.labels("", cacheLabel)), b.volume("young", b.labels("", cacheLabel))
	u.Used(Volume, old, hours(5))
	u.Used(Volume, young, time.Now())
	ctx, stop := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { g.Run(ctx) })
	g.Saw(diskspace.Room{Bytes: 1 << 10})
	deadline, again := time.NewTimer(30*time.Second), time.NewTicker(20*time.Millisecond)
	defer deadline.Stop()
	defer again.Stop()
	for err := g.Check(); err == nil || !strings.Contains(err.Error(), "1 image or volume removed"); err = g.Check() {
		select {
		case <-deadline.C:
			t.Fatal(err)
		case <-again.C:
		}
	}
	stop()
	run.Wait()
	if b.hasVolume(old) || !b.hasVolume(young) {
		t.Error("the wrong volume went")
	}
}

func TestAGuardRestsAfterAPruning(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	g, u := b.guard(GuardOptions{Prune: NewLimits(math.MaxUint64>>2, 0)}, false)
	if err := g.Tick(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	v := b.volume("late", b.labels("", cacheLabel))
	u.Used(Volume, v, hours(5))
	if err := g.Tick(t.Context(), time.Now()); err != nil || !b.hasVolume(v) {
		t.Errorf("pruned again at once, or %v", err)
	}
	if err := g.Tick(t.Context(), time.Now().Add(2*fruitless)); err != nil || b.hasVolume(v) {
		t.Errorf("not pruned later, or %v", err)
	}
}

func TestAGuardThatIsOffDoesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	g, u := b.guard(GuardOptions{}, true)
	v := b.volume("old", b.labels("", cacheLabel))
	u.Used(Volume, v, hours(5))
	g.Saw(diskspace.Room{Bytes: 1, Counted: true})
	if err := g.Tick(t.Context(), time.Now()); err != nil || !b.hasVolume(v) || g.Check() != nil {
		t.Errorf("%v, %v", err, g.Check())
	}
}
