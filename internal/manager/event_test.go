package manager_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job/jobtest"
	"github.com/tranter-ci/tranter/internal/manager"
)

// heard is what was told of a manager.
type heard struct {
	mu  sync.Mutex
	all []tranter.Event
}

// listen lets a site be heard. Whoever listens may ask the manager.
func listen(s *site) *heard {
	h := &heard{}
	s.options.Events = func(e tranter.Event) {
		_ = s.m.Status()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all = append(h.all, e)
	}
	return h
}

func (h *heard) of(kinds ...tranter.EventKind) (out []tranter.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.all {
		if slices.Contains(kinds, e.Kind) {
			out = append(out, e)
		}
	}
	return out
}

func (h *heard) kinds() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for _, e := range h.all {
		out = append(out, string(e.Kind))
	}
	return strings.Join(out, " ")
}

func TestWhatHappensToAJobIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		h := listen(s)
		past := &jobtest.Past{}
		s.options.Past = past
		s.executor.Place(1)
		j := s.job(1, time.Minute)
		j.Info.TimeInQueueSeconds = 2
		j.Info.ProjectFullPath = "group/project"
		s.servers["a"].Enqueue(j)
		s.start()
		time.Sleep(2 * time.Minute)
		bad := s.job(2, time.Minute)
		s.executor.Set(2, jobtest.Work{Open: errors.New("no disk")})
		s.servers["a"].Enqueue(bad)
		time.Sleep(time.Minute)
		s.end()
		want := "manager_started job_taken job_placed job_ended job_taken job_ended manager_stopping manager_ended"
		if got := h.kinds(); got != want {
			t.Fatalf("told\n%s\nwant\n%s", got, want)
		}
		taken, placed, ended := h.all[1], h.all[2], h.all[3]
		if taken.Took != 2*time.Second || !strings.Contains(taken.Text, `job 1, "test" of group/project`) || taken.Past == nil || taken.Past.Job.ID != 1 {
			t.Errorf("%+v", taken)
		}
		if placed.Machine != "machine-0" || placed.Job != taken.Job || placed.Runner != tranter.Secret("token-a").Short() || placed.Past.Times.Placed.IsZero() {
			t.Errorf("%+v", placed)
		}
		all, _ := past.All()
		if kept := all[ended.Job]; ended.Text != "Job succeeded" || ended.Level != tranter.EventInfo || ended.Took != time.Minute || ended.Past.Result != kept.Result || len(kept.Stages) == 0 {
			t.Errorf("%+v, kept %+v", ended, kept)
		}
		if failed := h.all[5]; failed.Level != tranter.EventWarning || !strings.Contains(failed.Text, "Job failed (runner_system_failure): ") || !strings.Contains(failed.Text, "no disk") {
			t.Errorf("%+v", failed)
		}
	})
}

func TestATroubleIsToldOnceAndItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		h := listen(s)
		var mu sync.Mutex
		var unready error
		set := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			unready = err
		}
		s.settings.Runners[0].Ready = func() error {
			mu.Lock()
			defer mu.Unlock()
			return unready
		}
		s.start()
		time.Sleep(time.Minute)
		s.servers["a"].Fail(errors.New("connection refused"))
		time.Sleep(10 * time.Minute)
		s.servers["a"].Fail(nil)
		time.Sleep(time.Minute)
		set(errors.New("the disk is full"))
		time.Sleep(10 * time.Minute)
		set(tranter.ErrBusy) // is no trouble
		time.Sleep(time.Minute)
		s.servers["a"].Fail(tranter.ErrForbidden)
		set(nil)
		time.Sleep(30 * time.Minute)
		s.end()
		var got []string
		for _, e := range h.of(tranter.RunnerTrouble, tranter.RunnerRecovered) {
			got = append(got, string(e.Level)+" "+e.Text)
		}
		want := []string{
			"warning Checking for jobs... failed: connection refused",
			" Checking for jobs works again, after: Checking for jobs... failed: connection refused",
			"warning The runner takes no jobs for now: the disk is full",
			" Checking for jobs works again, after: The runner takes no jobs for now: the disk is full",
			"warning Checking for jobs... failed: " + tranter.ErrForbidden.Error(),
			"error The runner pauses for 1h0m0s because its requests are refused: " + tranter.ErrForbidden.Error(),
		}
		if !slices.Equal(got, want) {
			t.Errorf("told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if e := h.of(tranter.RunnerRecovered)[0]; e.Took < 10*time.Minute-10*time.Second || e.Took > 10*time.Minute+10*time.Second {
			t.Errorf("it took %v", e.Took)
		}
	})
}

func TestWordsThatAreNewEachTimeAreNotToldEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		h := listen(s)
		n := 0
		s.settings.Runners[0].Ready = func() error {
			n++
			return errors.New(strings.Repeat("x", n))
		}
		s.start()
		time.Sleep(10 * time.Minute)
		s.end()
		if got := len(h.of(tranter.RunnerTrouble)); got < 5 || got > 11 {
			t.Errorf("told %d times in ten minutes, of %d", got, n)
		}
	})
}

func TestTheManagersOwnLifeIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		h := listen(s)
		s.servers["a"].Enqueue(s.job(1, time.Hour))
		s.start()
		time.Sleep(time.Minute)
		s.m.Leave()
		s.m.Leave()
		<-s.done
		if got, want := h.kinds(), "manager_started job_taken job_placed manager_draining manager_ended"; got != want {
			t.Errorf("told\n%s\nwant\n%s", got, want)
		}
		h.all = nil
		s.start()
		time.Sleep(2 * time.Hour)
		s.end()
		if got, want := h.kinds(), "job_resumed manager_started job_ended manager_stopping manager_ended"; got != want {
			t.Errorf("told\n%s\nwant\n%s", got, want)
		}
		if e := h.all[0]; e.Past == nil || len(e.Past.Stages) == 0 || e.Past.Times.Placed.IsZero() {
			t.Errorf("%+v", e.Past)
		}
	})
}

func TestAPausedRunnerTakesNoJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 5, "a", "b")
		h := listen(s)
		short := tranter.Secret("token-a").Short()
		s.options.Paused = map[string]string{short: "by jane since Monday"}
		s.servers["a"].Enqueue(s.job(1, time.Minute))
		s.servers["b"].Enqueue(s.job(2, time.Hour))
		s.start()
		time.Sleep(time.Minute)
		if s.servers["a"].Accepted(1) || len(s.servers["a"].Asked()) > 0 || !s.servers["b"].Accepted(2) {
			t.Error("a runner that was paused before the start asks, or another one does not")
		}
		s.m.Reload(s.settings)
		time.Sleep(time.Minute)
		if got := s.m.Status().Runners[0].Held; got != "by jane since Monday" || len(s.servers["a"].Asked()) > 0 {
			t.Errorf("after a reload it is held %q, and has asked %d times", got, len(s.servers["a"].Asked()))
		}
		if err := s.m.Resume("a"); err != nil { // by its name
			t.Error(err)
		}
		time.Sleep(2 * time.Minute)
		s.want("a", 1, tranter.JobSuccess, "")
		if err := s.m.Pause(tranter.Secret("token-b").Short(), "by joe"); err != nil {
			t.Error(err)
		}
		synctest.Wait() // for a request that was about to be made
		asked := len(s.servers["b"].Asked())
		s.servers["b"].Enqueue(s.job(3, time.Minute))
		time.Sleep(2 * time.Hour)
		s.want("b", 2, tranter.JobSuccess, "") // what runs goes on
		if len(s.servers["b"].Asked()) != asked || s.m.Status().Runners[1].Held != "by joe" {
			t.Errorf("%+v", s.m.Status().Runners[1])
		}
		if err := s.m.Pause("nobody", "by joe"); !errors.Is(err, tranter.ErrNotFound) {
			t.Error(err)
		}
		if err := s.m.Resume("nobody"); !errors.Is(err, tranter.ErrNotFound) {
			t.Error(err)
		}
		s.end()
		var texts []string
		for _, e := range h.of(tranter.RunnerPaused, tranter.RunnerResumed) {
			texts = append(texts, e.Runner+" "+e.Text)
		}
		if want := []string{short + " The runner was resumed, by a person", tranter.Secret("token-b").Short() + " The runner was paused: by joe"}; !slices.Equal(texts, want) {
			t.Errorf("%q", texts)
		}
	})
}

// A request that is held while its runner is paused ends; a job that is on its way with it is run.
func TestAPauseEndsTheRequestThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 5, "a")
		s.servers["a"].Hold, s.servers["a"].Delay = time.Hour, 2*time.Second
		s.start()
		time.Sleep(time.Minute)
		s.servers["a"].Enqueue(s.job(1, time.Minute))
		time.Sleep(time.Second) // it was handed out, its answer is under way
		if err := s.m.Pause("a", "by joe"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		s.servers["a"].Enqueue(s.job(2, time.Minute))
		time.Sleep(5 * time.Minute)
		s.want("a", 1, tranter.JobSuccess, "")
		if s.servers["a"].Accepted(2) || s.m.Status().Runners[0].Problem != "" {
			t.Errorf("%+v", s.m.Status().Runners[0])
		}
		if err := s.m.Resume("a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		s.want("a", 2, tranter.JobSuccess, "")
		s.end()
	})
}

func TestAJobIsCanceledByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		h := listen(s)
		s.servers["a"].Enqueue(s.job(1, time.Hour))
		s.start()
		time.Sleep(time.Minute)
		running := s.m.Status().Jobs[0]
		if p := running.Past; p.Key != running.Key || p.Result.State != tranter.JobRunning || len(p.Stages) == 0 || p.Times.Started.IsZero() {
			t.Errorf("%+v", p)
		}
		path, live, err := s.m.LogPath(running.Key)
		if err != nil || !live {
			t.Fatal(path, live, err)
		}
		log, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		if err := s.m.Cancel(running.Key, "jane"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		u, ok := s.servers["a"].Final(1)
		if !ok || u.State != tranter.JobFailed || u.Reason != tranter.UnknownFailure { // the server does not know job_canceled
			t.Errorf("%+v", u)
		}
		if data, _ := io.ReadAll(log); string(data) != s.servers["a"].Log(1) || !strings.Contains(string(data), "canceled by jane") {
			t.Errorf("the log, read where it was:\n%s", data)
		}
		if err := s.m.Cancel(running.Key, "jane"); !errors.Is(err, tranter.ErrNotFound) {
			t.Error(err)
		}
		if _, _, err := s.m.LogPath(running.Key); !errors.Is(err, tranter.ErrNotFound) {
			t.Error(err)
		}
		s.end()
		if e := h.of(tranter.JobCanceling); len(e) != 1 || e[0].Job != running.Key || !strings.Contains(e[0].Text, "jane") {
			t.Errorf("%+v", e)
		}
		if e := h.of(tranter.JobEnded); len(e) != 1 || !strings.Contains(e[0].Text, "canceled by jane") || e[0].Level != tranter.EventInfo {
			t.Errorf("%+v", e)
		}
	})
}

func TestWhatOnlyTheReportIsLeftOfCantBeCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		s.servers["a"].Enqueue(s.job(1, time.Minute))
		s.start()
		time.Sleep(30 * time.Second)
		s.servers["a"].Fail(errors.New("away"))
		time.Sleep(2 * time.Minute)
		one := s.m.Status().Jobs[0]
		if err := s.m.Cancel(one.Key, "jane"); !errors.Is(err, tranter.ErrJobEnded) {
			t.Error(err)
		}
		if lag := s.m.Lag(); lag <= 0 || one.Past.Result.State != tranter.JobSuccess {
			t.Errorf("%d bytes, %+v", lag, one.Past)
		}
		s.servers["a"].Fail(nil)
		time.Sleep(5 * time.Minute)
		if lag := s.m.Lag(); lag != 0 {
			t.Errorf("%d bytes", lag)
		}
		s.end()
	})
}

// The log of a job that is left to the next start can be read, but nothing will be written to it.
func TestTheLogOfAJobThatWasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		s.servers["a"].Enqueue(s.job(1, time.Hour))
		s.start()
		time.Sleep(time.Minute)
		name := s.m.Status().Jobs[0].Key
		s.m.Leave()
		<-s.done
		if path, live, err := s.m.LogPath(name); err != nil || live || !strings.HasSuffix(path, ".log") {
			t.Error(path, live, err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		s.m = manager.New(s.options, s.settings) // only so that the job ends
		if err := s.m.Run(ctx); err != nil {
			t.Error(err)
		}
		s.executor.Close()
	})
}

func BenchmarkStatusOfManyJobs(b *testing.B) {
	s := &site{records: jobtest.NewRecords(), executor: jobtest.NewExecutor(), servers: map[string]*jobtest.Coordinator{}}
	s.settings = manager.Settings{Concurrent: 500, CheckInterval: time.Millisecond, ShutdownTimeout: time.Second}
	s.options = manager.Options{Dir: b.TempDir(), Records: s.records, Log: slog.New(slog.DiscardHandler)}
	s.add("a")
	for id := range int64(500) {
		j := s.job(id+1, time.Hour)
		s.servers["a"].Enqueue(j)
	}
	s.start()
	for len(s.m.Status().Jobs) < 500 {
		<-time.After(100 * time.Millisecond)
	}
	for b.Loop() {
		if s.m.Lag() < 0 || len(s.m.Status().Jobs) != 500 {
			b.Fatal("jobs are missing")
		}
	}
	s.m.Stop(errors.New("over"))
	<-s.done
	s.executor.Close()
}
