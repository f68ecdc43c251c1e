package pool_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/scale"
)

func TestAJobGetsAMachineThatIsMadeForItAndRemovedWhenItIsSpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 10, Idle: scale.Idle{Time: 30 * time.Second}})
		s.start()
		var log bytes.Buffer
		start := time.Now()
		if err := s.run("a", 5*time.Second, &log); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 9*time.Second { // 3 to create, 1 to boot, 5 to work
			t.Errorf("it took %v", took)
		}
		for _, want := range []string{"Waiting for a machine: one is being created\n", "Using machine m-1, after a wait of 4s\n"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the job's log lacks %q: %q", want, log.String())
			}
		}
		start = time.Now()
		if err := s.run("b", time.Second, io.Discard); err != nil || time.Since(start) != time.Second {
			t.Errorf("on the machine that is there: %v after %v", err, time.Since(start))
		}
		time.Sleep(29 * time.Second)
		if got := s.cloud.names(); len(got) != 1 {
			t.Errorf("before its idle time is over: %v", got)
		}
		time.Sleep(2 * time.Second)
		if got := s.cloud.names(); len(got) != 0 {
			t.Errorf("after its idle time: %v", got)
		}
		s.stop()
	})
}

// burst has jobs run at the same time and returns when the last one has ended.
func burst(s *site, n int, each time.Duration) (time.Duration, []error) {
	start := time.Now()
	errs := make([]error, n)
	var jobs sync.WaitGroup
	for i := range n {
		jobs.Go(func() { errs[i] = s.run(fmt.Sprint("job-", i), each, io.Discard) })
	}
	jobs.Wait()
	return time.Since(start), errs
}

func TestABurstKeepsTheLimit(t *testing.T) {
	for _, idle := range []int{0, 2} {
		t.Run(fmt.Sprint(idle, " idle"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, 3*time.Second, scale.Policy{Limit: 10, Idle: scale.Idle{Count: idle, Time: 30 * time.Second}})
				s.start()
				time.Sleep(10 * time.Second)
				took, errs := burst(s, 40, 5*time.Second)
				if err := errors.Join(errs...); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if took > 25*time.Second || s.cloud.most > 10 {
					t.Errorf("it took %v, with %d machines at once", took, s.cloud.most)
				}
				time.Sleep(5 * time.Minute)
				if got := s.cloud.names(); len(got) != idle {
					t.Errorf("left: %v", got)
				}
				s.stop()
			})
		})
	}
}

func TestAMachineIsRemovedAfterSoManyJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 4, MaxUses: 1, Idle: scale.Idle{Time: time.Hour}})
		s.start()
		if _, errs := burst(s, 12, 5*time.Second); errors.Join(errs...) != nil {
			t.Error(errs)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(s.cloud.removed) != 12 || len(s.cloud.names()) != 0 || s.cloud.most > 4 {
			t.Errorf("%d removed, %v left, %d at once", len(s.cloud.removed), s.cloud.names(), s.cloud.most)
		}
		s.stop()
	})
}

func TestARestartFindsMachinesLeasesAndJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 10, Idle: scale.Idle{Time: time.Minute}})
		s.start()
		session, err := s.open("a", io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		ref := session.Ref()
		going := make(chan error, 1)
		go func() { _, err := s.open("b", io.Discard); going <- err }() // its machine is being created
		time.Sleep(time.Second)
		s.stop()
		if err := <-going; err == nil {
			t.Error("a job got a machine of a pool that has ended")
		}
		s.start()
		again, err := s.executor.Reopen(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		if was, is := session.(tranter.Placed).Place(), again.(tranter.Placed).Place(); !slices.Contains(s.cloud.names(), was.Machine) || was != is {
			t.Errorf("the job was on %+v, and is on %+v now", was, is)
		}
		if got, err := again.Attach(t.Context(), "10s", 0, io.Discard); err != nil || got.Status != tranter.PhaseSucceeded {
			t.Errorf("attach: %v, %v", got, err)
		}
		if err := again.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := s.run("b", time.Second, io.Discard); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Minute)
		if got := s.cloud.names(); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
		s.stop()
	})
}

func TestAMachineThatFailsInPreparationIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 10})
		s.broken = errors.New("no space left on device")
		s.start()
		go func() {
			time.Sleep(6 * time.Second)
			s.cloud.with(func() { s.broken = nil })
		}()
		var log bytes.Buffer
		if err := s.run("a", time.Second, &log); err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
		if !strings.Contains(log.String(), "goes on with another machine") || !strings.Contains(log.String(), "no space left") {
			t.Errorf("the log says %q", log.String())
		}
		time.Sleep(time.Minute)
		if got := s.cloud.names(); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
		s.stop()
	})
}

func TestAMachineLostInMidJobIsToldFromAFault(t *testing.T) {
	for _, c := range []struct {
		name string
		kill func(v *vm, s *site, name string)
		min  time.Duration
		max  time.Duration
	}{
		{"removed at the provider", func(_ *vm, s *site, name string) { delete(s.cloud.machines, name) }, 0, 30 * time.Second},
		{"switched off", func(v *vm, _ *site, _ string) { v.power = tranter.PowerOff }, 0, 30 * time.Second},
		{"dead", func(v *vm, _ *site, _ string) { v.alive = false }, 2 * time.Minute, 3 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, 3*time.Second, scale.Policy{Limit: 10})
				s.start()
				session, err := s.open("a", io.Discard)
				if err != nil {
					t.Fatal(err)
				}
				name := s.cloud.names()[0]
				s.cloud.with(func() { c.kill(s.cloud.machines[name], s, name) })
				start := time.Now()
				_, err = session.Attach(t.Context(), "1h", 0, io.Discard)
				if took := time.Since(start); !errors.Is(err, tranter.ErrMachineLost) || took < c.min || took > c.max {
					t.Errorf("%v after %v", err, took)
				}
				if err := session.Close(t.Context()); err != nil {
					t.Error(err)
				}
				if err := s.run("b", time.Second, io.Discard); err != nil { // others get others
					t.Error(err)
				}
				time.Sleep(time.Minute)
				if got := s.cloud.names(); len(got) != 0 {
					t.Errorf("left: %v", got)
				}
				s.stop()
			})
		})
	}
}

func TestAMachineThatChangesItsAddressKeepsItsJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 10})
		s.start()
		session, err := s.open("a", io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		name := s.cloud.names()[0]
		go func() {
			time.Sleep(10 * time.Second)
			s.cloud.with(func() { s.cloud.machines[name].host = "elsewhere" })
		}()
		if got, err := session.Attach(t.Context(), "1m", 0, io.Discard); err != nil || got.Status != tranter.PhaseSucceeded {
			t.Errorf("attach: %v, %v", got, err)
		}
		if m, err := s.pool.Machine(t.Context(), name); err != nil || m.Seen.Login.Host != "elsewhere" {
			t.Errorf("the book has %v, %v", m.Seen.Login, err)
		}
		if err := session.Close(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if got := s.cloud.names(); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
		s.stop()
	})
}

func TestAJobThatHasNotBegunDoesNotWaitLongForADeadMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 10, Idle: scale.Idle{Count: 1}})
		s.settings.LostAfter = 10 * time.Minute
		s.start()
		time.Sleep(10 * time.Second)
		name := s.cloud.names()[0]
		s.cloud.with(func() { s.cloud.machines[name].alive = false })
		start := time.Now()
		if err := s.run("a", time.Second, io.Discard); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > time.Minute {
			t.Errorf("it took %v", took)
		}
		s.stop()
	})
}

func TestAStrangerWithOurMarkIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 10})
		s.cloud.machines["stranger"] = &vm{power: tranter.PowerOn, alive: true, mark: mark}
		s.cloud.machines["others"] = &vm{power: tranter.PowerOn, alive: true, mark: tranter.Mark{Owner: "other", Pool: "pool"}}
		s.start()
		time.Sleep(time.Minute)
		if got := s.cloud.names(); len(got) != 1 || got[0] != "others" {
			t.Errorf("left: %v", got)
		}
		if s.book.kinds(fleet.MachineAdopted) != 1 {
			t.Error("the book does not tell of it")
		}
		s.stop()
	})
}

func TestARemovalIsTriedUntilItSucceedsAndShownAsALeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 1})
		s.cloud.stuck = errors.New("the volume is in use")
		s.start()
		if err := s.run("a", time.Second, io.Discard); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		st := s.status()
		if len(st.Machines) != 1 || !strings.Contains(st.Machines[0].Leak, "the volume is in use") {
			t.Errorf("shown as %+v", st.Machines)
		}
		if err := s.run("b", time.Second, io.Discard); err != nil { // a leak is no capacity
			t.Error(err)
		}
		s.cloud.with(func() { s.cloud.stuck = nil })
		time.Sleep(time.Hour)
		if got := s.cloud.names(); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
		s.stop()
	})
}

func TestNothingIsCreatedThatTheBookCannotKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 10, Idle: scale.Idle{Count: 3}})
		s.book.fail = errors.New("disk full")
		s.start()
		time.Sleep(time.Minute)
		if got := s.cloud.names(); len(got) != 0 {
			t.Errorf("created: %v", got)
		}
		s.book.mu.Lock()
		s.book.fail = nil
		s.book.mu.Unlock()
		time.Sleep(time.Minute)
		if got := s.cloud.names(); len(got) != 3 {
			t.Errorf("then: %v", got)
		}
		s.stop()
	})
}

func TestAThrottlingProviderIsLeftAloneAndTheJobWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 10})
		free := time.Now().Add(30 * time.Minute)
		s.cloud.fail = func(int) error {
			if time.Now().Before(free) {
				return &tranter.ThrottledError{RetryAfter: 5 * time.Minute, Err: errors.New("RequestLimitExceeded")}
			}
			return nil
		}
		s.start()
		var log bytes.Buffer
		if err := s.run("a", time.Second, &log); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := s.cloud.begun; n > 8 {
			t.Errorf("it was asked %d times in 30 minutes", n)
		}
		if !strings.Contains(log.String(), "the provider wants fewer requests") || strings.Contains(log.String(), "RequestLimitExceeded") {
			t.Errorf("the log says %q", log.String())
		}
		s.stop()
	})
}

func TestAPoolThatIsRetiredEmptiesAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 10, Idle: scale.Idle{Count: 3}})
		s.start()
		time.Sleep(10 * time.Second)
		session, err := s.open("a", io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.pool.Retire(t.Context(), "its runner is gone"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := s.cloud.names(); len(got) != 1 {
			t.Errorf("while a job runs: %v", got)
		}
		if err := session.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-s.ended; err != nil || len(s.cloud.names()) != 0 {
			t.Errorf("%v, left %v", err, s.cloud.names())
		}
	})
}
