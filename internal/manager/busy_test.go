package manager_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
)

// room says whether there is any, as a pool of machines does.
type room struct {
	mu      sync.Mutex
	err     error
	changed chan struct{}
	asked   int
}

func (r *room) ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return r.err
}

func (r *room) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *room) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	close(r.changed)
	r.changed = make(chan struct{})
}

var errFull = fmt.Errorf("10 of 10 machines have jobs: %w", tranter.ErrBusy)

func newRoom(s *site, err error) *room {
	r := &room{err: err, changed: make(chan struct{})}
	for i := range s.settings.Runners {
		s.settings.Runners[i].Ready, s.settings.Runners[i].Changed = r.ready, r.next
	}
	return r
}

func TestARunnerAsksAtOnceWhenThereIsRoomAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 4, "a")
		var log bytes.Buffer
		s.options.Log = slog.New(slog.NewTextHandler(&log, nil))
		full := newRoom(s, errFull)
		server := s.servers["a"]
		server.Enqueue(s.job(1, time.Second))
		s.start()
		time.Sleep(10*time.Second + time.Millisecond) // between two looks
		synctest.Wait()
		if asked := server.Asked(); len(asked) > 0 {
			t.Fatalf("the full runner asked at %v", asked)
		}
		if st := s.m.Status().Runners[0]; st.Problem != "" || !strings.Contains(st.Busy, "10 of 10 machines") {
			t.Errorf("%+v", st)
		}
		at := time.Now()
		full.set(nil)
		synctest.Wait()
		if asked := server.Asked(); len(asked) == 0 || asked[0].Sub(at) > 0 {
			t.Errorf("there was room at %v, and the runner asked at %v", at, asked)
		}
		if st := s.m.Status().Runners[0]; st.Problem+st.Busy != "" {
			t.Errorf("%+v", st)
		}
		s.end()
		if strings.Contains(log.String(), "takes no jobs") || strings.Contains(log.String(), "takes jobs again") || strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("being full was logged:\n%s", &log)
		}
	})
}

func TestAFaultThatBecomesMereWantOfRoomIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 4, "a")
		var log bytes.Buffer
		s.options.Log = slog.New(slog.NewTextHandler(&log, nil))
		r := newRoom(s, errors.New("the disk is full"))
		s.start()
		for range 3 {
			time.Sleep(7 * time.Second)
			synctest.Wait()
			r.set(errFull)
			time.Sleep(7 * time.Second)
			synctest.Wait()
			if st := s.m.Status().Runners[0]; st.Problem != "" || st.Busy == "" {
				t.Errorf("%+v", st)
			}
			r.set(errors.New("the disk is full"))
			synctest.Wait()
			if st := s.m.Status().Runners[0]; st.Problem == "" || st.Busy != "" {
				t.Errorf("%+v", st)
			}
		}
		s.end()
		if n, m := strings.Count(log.String(), "takes no jobs"), strings.Count(log.String(), "takes jobs again"); n != 4 || m != 3 {
			t.Errorf("%d faults and %d ends in\n%s", n, m, &log)
		}
	})
}

// What there was room for when the runner began to wait for a place may have been taken when it gets one.
func TestARunnerThatHasWaitedForAPlaceLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a", "b")
		r := newRoom(s, nil)
		s.settings.Runners[0].Ready = nil
		s.settings.Runners[0].Changed = nil
		s.servers["a"].Enqueue(s.job(1, time.Minute))
		s.start()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		before := len(s.servers["b"].Asked())
		r.set(errFull)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(s.servers["b"].Asked()) - before; n != 0 {
			t.Errorf("%d requests without room", n)
		}
		if got := s.m.Status().Jobs; len(got) != 0 {
			t.Errorf("%+v", got)
		}
		r.set(nil)
		synctest.Wait()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(s.servers["b"].Asked()) - before; n == 0 {
			t.Error("no request with room")
		}
		s.end()
	})
}

// A job that was taken needs a moment until the executor knows of it. A runner that counts jobs takes none for which there is
// no room, though it has many places and the server holds requests.
func TestARunnerTakesNoMoreJobsThanItKnowsRoomFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 4, "a")
		r := newRoom(s, nil)
		var told []int64
		s.settings.Runners[0].Limits.Requests = 4
		s.settings.Runners[0].Expect = func(job int64) {
			told = append(told, job)
			r.set(errFull)
		}
		server := s.servers["a"]
		server.Enqueue(s.job(1, time.Minute), s.job(2, time.Minute))
		s.start()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := len(s.m.Status().Jobs); got != 1 || !slices.Equal(told, []int64{1}) {
			t.Fatalf("%d jobs are taken where there was room for one; the executor was told of %v", got, told)
		}
		r.set(nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := len(s.m.Status().Jobs); got != 2 || !slices.Equal(told, []int64{1, 2}) {
			t.Errorf("%d jobs are taken where there was room for one more; the executor was told of %v", got, told)
		}
		s.end()
	})
}

// The room for which a request was made may be gone while the server holds it.
func TestARunnerThatCountsJobsHasNoRequestHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 4, "a")
		r := newRoom(s, nil)
		s.settings.Runners[0].Expect = func(int64) {}
		server := s.servers["a"]
		server.Hold = time.Minute
		s.start()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		r.set(errFull)
		server.Enqueue(s.job(1, time.Minute))
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := s.m.Status().Jobs; len(got) != 0 {
			t.Errorf("a job was taken without room: %+v", got)
		}
		s.end()
	})
}
