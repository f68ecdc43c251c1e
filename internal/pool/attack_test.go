package pool_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/scale"
)

// stubborn is a cloud whose calls, once begun, don't end before they are let go, whatever their contexts say.
type stubborn struct {
	*cloud
	mu                    sync.Mutex
	create, destroy, list chan struct{} // nil: these calls behave
	creates, destroys     int
	lists                 int
}

func (s *stubborn) Create(ctx context.Context, spec tranter.MachineSpec, note func(json.RawMessage)) (tranter.Machine, error) {
	s.mu.Lock()
	s.creates++
	hold := s.create
	s.mu.Unlock()
	if hold != nil {
		<-hold
		ctx = context.WithoutCancel(ctx)
	}
	return s.cloud.Create(ctx, spec, note)
}

func (s *stubborn) Destroy(ctx context.Context, m tranter.MachineRef) error {
	s.mu.Lock()
	s.destroys++
	hold := s.destroy
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return s.cloud.Destroy(ctx, m)
}

func (s *stubborn) List(ctx context.Context, mark tranter.Mark, known []tranter.MachineRef) ([]tranter.Machine, error) {
	s.mu.Lock()
	s.lists++
	hold := s.list
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return s.cloud.List(ctx, mark, known)
}

// hostile is a site with such a cloud.
func hostile(t *testing.T, policy scale.Policy) (*site, *stubborn) {
	s := newSite(t, 3*time.Second, policy)
	c := &stubborn{cloud: s.cloud}
	s.settings.Provider = c
	return s, c
}

// bubble runs a test that may take so long on the clock of the machines only.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestARemovalThatIsAskedForAgainIsNotCutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, c := hostile(t, scale.Policy{Limit: 2, Idle: scale.Idle{Count: 1, Time: time.Hour}})
		c.removal = 10 * time.Second
		s.start()
		time.Sleep(6 * time.Second)
		for range 4 { // while it takes that long
			if err := s.pool.Remove(t.Context(), "m-1", true); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * time.Second)
		}
		time.Sleep(time.Minute)
		c.mu.Lock()
		if n := s.book.kinds(fleet.RemovalFailed); n != 0 || c.destroys != 1 || slices.Contains(c.names(), "m-1") {
			t.Errorf("%d removals were begun and %d failed; there are %v", c.destroys, n, c.names())
		}
		c.mu.Unlock()
		s.stop()
	})
}

func TestACreationThatDoesNotEndKeepsNoMachine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, c := hostile(t, scale.Policy{Limit: 2, Times: scale.Times{Create: time.Minute, Boot: time.Minute}, Idle: scale.Idle{Time: time.Hour}})
		c.create = make(chan struct{})
		s.start()
		var job sync.WaitGroup
		job.Go(func() {
			if err := s.run("a", time.Second, io.Discard); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(30 * time.Second)
		first := c.create
		c.mu.Lock()
		c.create = nil // the others behave
		c.mu.Unlock()
		job.Wait()
		time.Sleep(5 * time.Minute)
		if _, err := s.pool.Machine(t.Context(), "m-1"); !errors.Is(err, pool.ErrUnknown) {
			t.Errorf("the machine that is not created in time is still in the book: %v", err)
		}
		close(first) // it is made after all
		time.Sleep(time.Minute)
		if got := c.names(); slices.Contains(got, "m-1") {
			t.Errorf("what was made late is left: %v", got)
		}
		s.stop()
	})
}

func TestAListThatDoesNotEndIsNotWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, c := hostile(t, scale.Policy{Limit: 2, Idle: scale.Idle{Time: time.Minute}})
		c.list = make(chan struct{})
		s.start()
		if err := s.run("a", 10*time.Minute, io.Discard); err != nil {
			t.Error(err)
		}
		c.mu.Lock()
		if problem := s.status().Problem; problem == "" || c.lists > 10 {
			t.Errorf("after %d lists, the status tells %q", c.lists, problem)
		}
		c.mu.Unlock()
		time.Sleep(5 * time.Minute)
		if got := c.names(); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
		s.stop()
		close(c.list)
	})
}

func TestARemovalThatDoesNotEndIsTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, c := hostile(t, scale.Policy{Limit: 2})
		first := make(chan struct{})
		c.destroy = first
		s.start()
		if err := s.run("a", time.Second, io.Discard); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Minute)
		c.mu.Lock()
		c.destroy = nil
		c.mu.Unlock()
		time.Sleep(10 * time.Minute)
		if got := c.names(); len(got) != 0 || s.book.kinds(fleet.RemovalFailed) != 1 {
			t.Errorf("%d failures, left %v", s.book.kinds(fleet.RemovalFailed), got)
		}
		s.stop()
		close(first)
	})
}

func TestThePoolEndsWhateverHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, c := hostile(t, scale.Policy{Limit: 4, Idle: scale.Idle{Count: 2, Time: time.Hour}})
		watching := make(chan struct{})
		s.settings.Hands.Watch = func(context.Context, pool.Host, func(string, time.Time)) { <-watching }
		s.start()
		time.Sleep(10 * time.Second)
		c.mu.Lock()
		c.create, c.destroy, c.list = watching, watching, watching
		c.mu.Unlock()
		if _, err := s.pool.Create(t.Context(), 1, ""); err != nil {
			t.Error(err)
		}
		if err := s.pool.Remove(t.Context(), "m-1", true); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Second)
		start := time.Now()
		s.stop()
		if took := time.Since(start); took > time.Minute {
			t.Errorf("it took %v", took)
		}
		close(watching)
		time.Sleep(time.Minute)
	})
}

func TestHangingCreationsKeepNobodyFromRemoving(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, c := hostile(t, scale.Policy{Limit: 300, Idle: scale.Idle{Count: 2, Time: time.Minute}})
		s.start()
		time.Sleep(10 * time.Second)
		c.mu.Lock()
		c.create = make(chan struct{})
		lists := c.lists
		c.mu.Unlock()
		if _, err := s.pool.Create(t.Context(), 100, ""); err != nil {
			t.Error(err)
		}
		if err := s.pool.Remove(t.Context(), "m-1", true); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		c.mu.Lock()
		if slices.Contains(c.names(), "m-1") || c.lists < lists+3 {
			t.Errorf("machines: %v; %d lists", c.names(), c.lists-lists)
		}
		c.mu.Unlock()
		close(c.create)
		time.Sleep(time.Minute)
		s.stop()
	})
}

func TestAJobThatLeavesAsItGetsAMachineGivesItBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 1, MaxUses: 1})
		s.start()
		for range 30 {
			ctx, end := context.WithTimeout(t.Context(), 4*time.Second) // as long as a machine takes
			session, err := s.executor.Open(ctx, tranter.SessionSpec{Name: "a", Job: &tranter.Job{}, Log: io.Discard})
			if err == nil {
				_ = session.Close(t.Context())
			}
			end()
			time.Sleep(time.Minute)
			if st := s.status(); len(st.Machines) != 0 {
				t.Fatalf("a machine is held by nobody: %+v", st.Machines)
			}
		}
		s.stop()
	})
}

func TestAJobWaitsOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 1})
		s.start()
		first := make(chan error, 1)
		go func() { first <- s.run("a", time.Second, io.Discard) }()
		synctest.Wait()
		if _, err := s.open("a", io.Discard); err == nil {
			t.Error("the same job waits twice")
		}
		if err := <-first; err != nil {
			t.Error(err)
		}
		s.stop()
	})
}

func TestClosingTwiceGivesBackOneMachine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 4, MaxUses: 1})
		s.start()
		old, err := s.open("a", io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		_ = old.Close(t.Context())
		if _, err = s.open("a", io.Discard); err != nil {
			t.Fatal(err)
		}
		_ = old.Close(t.Context())
		time.Sleep(time.Minute)
		if st := s.status(); len(st.Machines) != 1 || !slices.Equal(st.Machines[0].Jobs, []string{"a"}) {
			t.Errorf("the job has lost its machine: %+v", st.Machines)
		}
		s.stop()
	})
}

func TestAPoolThatIsRetiredCanBeTakenBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 4, Idle: scale.Idle{Count: 2, Time: time.Hour}})
		s.start()
		session, err := s.open("a", io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.pool.Retire(t.Context(), "its runner is gone"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := s.pool.Create(t.Context(), 1, ""); err == nil || s.pool.Ready() == nil {
			t.Errorf("a pool that is retired makes machines: %v, %v", err, s.pool.Ready())
		}
		if err := s.pool.Change(t.Context(), s.settings); err != nil {
			t.Fatal(err)
		}
		_ = session.Close(t.Context())
		time.Sleep(time.Minute)
		if err := s.pool.Ready(); err != nil || len(s.cloud.names()) != 2 {
			t.Errorf("after it was taken back: %v, %v", err, s.cloud.names())
		}
		s.stop()
	})
}

func TestAPoolThatIsRetiredRunsTheJobsThatWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 1, Idle: scale.Idle{Time: time.Hour}})
		s.start()
		var jobs sync.WaitGroup
		for _, job := range []string{"a", "b", "c"} {
			jobs.Go(func() {
				if err := s.run(job, 10*time.Second, io.Discard); err != nil {
					t.Errorf("job %s: %v", job, err)
				}
			})
		}
		time.Sleep(6 * time.Second)
		if err := s.pool.Retire(t.Context(), "its runner is gone"); err != nil {
			t.Fatal(err)
		}
		jobs.Wait()
		if err := <-s.ended; err != nil || len(s.cloud.names()) != 0 {
			t.Errorf("%v, left %v", err, s.cloud.names())
		}
	})
}

func TestAJobWhosePoolEndsIsNotKeptWaiting(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 1, Idle: scale.Idle{Time: time.Hour}})
		s.start()
		session, err := s.open("a", io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		s.cloud.with(func() { s.cloud.deaf, s.cloud.machines["m-1"].alive = true, false })
		failed := make(chan error, 1)
		go func() { failed <- session.Start(t.Context(), tranter.Phase{}) }() // it asks whether the machine is lost
		time.Sleep(2 * time.Second)
		s.stop()
		select {
		case <-failed:
		case <-time.After(time.Minute):
			t.Error("it waits for a pool that has ended")
		}
	})
}

func TestANoticeOfThePastDoesNotEndTheJob(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 1, Idle: scale.Idle{Time: time.Hour}})
		s.settings.Hands.Watch = func(ctx context.Context, _ pool.Host, found func(string, time.Time)) {
			if sleep(ctx, 5*time.Second) {
				found("spot", time.Now().Add(-3*time.Minute)) // its clock is behind
			}
		}
		s.start()
		if err := s.run("a", time.Minute, io.Discard); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if got := s.cloud.names(); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
		s.stop()
	})
}

func TestDrainingWhatIsNotReadyRemovesIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 1})
		s.start()
		names, err := s.pool.Create(t.Context(), 1, "")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := s.pool.Drain(t.Context(), names[0], "by hand"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if got := s.cloud.names(); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
		s.stop()
	})
}

func TestAMachineThatAnswersKeepsItsJobWhateverListsSay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 1})
		s.settings.Provider = forgetful{s.cloud}
		s.start()
		if err := s.run("a", 20*time.Minute, io.Discard); err != nil {
			t.Error(err)
		}
		s.stop()
	})
}

// forgetful lists nothing, such as one whose settings are those of another account by now.
type forgetful struct{ *cloud }

func (forgetful) List(context.Context, tranter.Mark, []tranter.MachineRef) ([]tranter.Machine, error) {
	return nil, nil
}

// switches is a cloud whose machines can be switched off.
type switches struct {
	*cloud
	stops int
}

func (c *switches) Start(_ context.Context, m tranter.MachineRef) (tranter.Machine, error) {
	c.with(func() { c.machines[m.Name].power = tranter.PowerOn })
	return c.describe(m.Name), nil
}

func (c *switches) Stop(ctx context.Context, m tranter.MachineRef) error {
	c.stops++
	if !sleep(ctx, 10*time.Second) {
		return context.Cause(ctx)
	}
	c.with(func() { c.machines[m.Name].power = tranter.PowerOff })
	return nil
}

func TestAMachineWhoseSwitchingOffWasCutOffIsSwitchedOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 1, Stopped: 1, StoppedTime: time.Hour})
		c := &switches{cloud: s.cloud}
		s.settings.Provider = c
		s.start()
		if err := s.run("a", time.Second, io.Discard); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
		s.stop()
		s.start()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if m := c.describe("m-1"); m.Power != tranter.PowerOff || c.stops != 2 {
			t.Errorf("it is %s after it was switched off %d times", m.Power, c.stops)
		}
		if err := s.run("b", time.Second, io.Discard); err != nil || len(c.created) != 1 {
			t.Errorf("%v, %d were made", err, len(c.created))
		}
		s.stop()
	})
}

func TestAClockThatWasAheadDelaysNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 4})
		ahead := time.Now().Add(10 * time.Hour)
		for _, m := range []fleet.Machine{
			{Name: "removing", State: fleet.Removing, Since: ahead, Made: ahead, Retry: ahead, Tries: 1},
			{Name: "wanted", State: fleet.Wanted, Since: ahead, Made: ahead, Deadline: ahead},
			{Name: "booting", State: fleet.Booting, Since: ahead, Made: ahead, Deadline: ahead},
			{Name: "idle", State: fleet.Idle, Since: ahead, Made: ahead, Ready: ahead, Used: ahead, Kept: json.RawMessage(`1`)},
		} {
			s.book.machines[m.Name] = m
			s.cloud.machines[m.Name] = &vm{power: tranter.PowerOn, alive: m.State != fleet.Booting, host: "h", mark: mark}
		}
		s.start()
		time.Sleep(15 * time.Minute)
		if got := s.cloud.names(); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
		s.stop()
	})
}

func TestWhatTheBookDoesNotTakeIsNotTriedWithoutEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 10, Idle: scale.Idle{Count: 2, Time: time.Hour}})
		var names atomic.Int64
		s.settings.NewName = func() string { names.Add(1); return "the same" }
		s.start()
		time.Sleep(time.Minute)
		if names.Load() > 100 || len(s.cloud.names()) != 1 {
			t.Errorf("%d names were asked for", names.Load())
		}
		s.stop()
	})
}

func TestNoTurnInTimeIsNoFailure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCloud(0)
		p := pool.Limited(c, pool.NewBudget(0.01, 1))
		if err := p.Destroy(t.Context(), tranter.MachineRef{Name: "a"}); err != nil {
			t.Error(err)
		}
		soon, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		throttled, ok := errors.AsType[*tranter.ThrottledError](p.Destroy(soon, tranter.MachineRef{Name: "b"}))
		if !ok || throttled.RetryAfter <= 0 {
			t.Errorf("%v", throttled)
		}
		given, up := context.WithCancel(t.Context())
		up()
		if err := p.Destroy(given, tranter.MachineRef{Name: "c"}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

// deafHost is a machine whose checks never end once it is silent.
type deafHost struct {
	*host
	silent <-chan struct{}
	hold   <-chan struct{}
}

func (h deafHost) Check(ctx context.Context) error {
	select {
	case <-h.silent:
		<-h.hold
		return ctx.Err()
	default:
		return h.host.Check(ctx)
	}
}

func TestAMachineWhoseChecksDoNotEndIsLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, 3*time.Second, scale.Policy{Limit: 1})
		silent, hold := make(chan struct{}), make(chan struct{})
		prepare := s.settings.Hands.Prepare
		s.settings.Hands.Prepare = func(ctx context.Context, m tranter.Machine, kept json.RawMessage, report func(tranter.Timing)) (pool.Host, json.RawMessage, error) {
			h, kept, err := prepare(ctx, m, kept, report)
			if err != nil {
				return nil, nil, err
			}
			return deafHost{h.(*host), silent, hold}, kept, nil
		}
		s.settings.Hands.Executor = func(_ tranter.Machine, h pool.Host) (tranter.Executor, error) {
			return work{h.(deafHost).host, &s.broken}, nil
		}
		s.start()
		session, err := s.open("a", io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		close(silent)
		start := time.Now()
		if _, err := session.Attach(t.Context(), "1h", 0, io.Discard); !errors.Is(err, tranter.ErrMachineLost) || time.Since(start) > 6*time.Minute {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		_ = session.Close(t.Context())
		s.stop()
		close(hold)
	})
}
