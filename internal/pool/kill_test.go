package pool_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/scale"
)

// brink is a book whose manager dies with its nth transaction: either right before it is durable or right after.
type brink struct {
	*memory
	mu    sync.Mutex
	left  int  // transactions until then
	after bool // the last one is kept
	dead  bool
	die   context.CancelFunc
}

func (b *brink) Append(ctx context.Context, name string, events []fleet.Event, changed []fleet.Machine, gone []string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead {
		return errors.New("the manager is dead")
	}
	if b.left--; b.left == 0 {
		b.dead = true
		b.die()
		if !b.after {
			return errors.New("the manager is dead")
		}
	}
	return b.memory.Append(ctx, name, events, changed, gone)
}

// Whenever the manager dies, in every state that a machine can be in, the next one finds or removes all machines, and leases
// that nobody claims any more come to an end.
func TestTheManagerMayDieAtAnyTransaction(t *testing.T) {
	for _, after := range []bool{false, true} {
		died := true
		for n := 1; died; n++ {
			if n > 100 {
				t.Fatal("there is no end of transactions")
			}
			t.Run(fmt.Sprint("transaction ", n, ", kept ", after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { died = dieAt(t, n, after) })
			})
		}
	}
}

// dieAt is false if there are not so many transactions in the manager's life.
func dieAt(t *testing.T, n int, after bool) bool {
	s := newSite(t, 3*time.Second, scale.Policy{Limit: 3, MaxUses: 2, Stopped: 1, StoppedTime: time.Minute, Idle: scale.Idle{Time: 10 * time.Second}})
	c := &switches{cloud: s.cloud}
	s.settings.Provider = c
	s.cloud.removal = 2 * time.Second
	s.cloud.fail = func(n int) error {
		if n == 2 {
			return errors.New("internal error")
		}
		return nil
	}
	kept := s.book
	dying := &brink{memory: kept, left: n, after: after, die: func() { s.end() }}
	s.store = dying
	s.start()
	var jobs sync.WaitGroup
	for i := range 3 {
		jobs.Go(func() {
			time.Sleep(time.Duration(i*9) * time.Second)
			_ = s.run(fmt.Sprint("job-", i), 5*time.Second, io.Discard) // it may have no manager any more
		})
	}
	time.Sleep(2 * time.Minute)
	dying.mu.Lock()
	died := dying.dead
	dying.mu.Unlock()
	s.stop()
	jobs.Wait()
	s.store = kept
	s.cloud.fail = nil
	s.start()
	time.Sleep(time.Second)
	if err := s.executor.Sweep(t.Context(), func(string) bool { return false }); err != nil {
		t.Error(err)
	}
	if err := s.run("later", time.Second, io.Discard); err != nil {
		t.Error(err)
	}
	time.Sleep(30 * time.Minute)
	synctest.Wait()
	if st := s.status(); len(st.Machines) != 0 || len(s.cloud.names()) != 0 || s.cloud.most > 3 {
		t.Errorf("left %v at the provider (%d at once), and in the book %+v", s.cloud.names(), s.cloud.most, st.Machines)
	}
	s.stop()
	return died
}

var _ tranter.Starter = (*switches)(nil)
