package cluster_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
)

func TestAPlaceIsNotOfferedAgainWhileItsJobIsOnTheWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		c, stop := l.start(l.settings(allocateFirst()))
		defer stop()
		if err := c.Demand(t.Context(), pending(1, 2)); err != nil {
			t.Fatal(err)
		}
		pass(6 * time.Second)
		expect := c.Executor().Expect()
		for id := int64(1); id <= 2; id++ {
			if err := c.Ready(); err != nil {
				t.Fatalf("job %d can't be taken though a place runs for it: %v", id, err)
			}
			expect(id)
		}
		if err := c.Ready(); !errors.Is(err, tranter.ErrBusy) {
			t.Fatalf("a third job may be taken for two places: %v", err)
		}
		changed := c.Changed()
		if _, err := c.Executor().Open(t.Context(), spec(1, &lockedBuffer{})); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case <-changed:
		default:
			t.Error("who waits for a place is not told that there may be one")
		}
		if err := c.Ready(); !errors.Is(err, tranter.ErrBusy) {
			t.Errorf("a third job may be taken while the second is on its way: %v", err)
		}
		// The second job never comes. Its place is kept for it no longer than that it may have lost its way.
		pass(time.Minute)
		if err := c.Ready(); err != nil {
			t.Errorf("no job may be taken for a place that is free: %v", err)
		}
	})
}

func TestJobsThatMayBeTakenBeforeThereArePlacesAreNotCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		c, stop := l.start(l.settings(takeFirst()))
		defer stop()
		if c.Executor().Expect() != nil {
			t.Error("jobs are counted")
		}
	})
}
