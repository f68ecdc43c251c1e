package manager_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job/jobtest"
	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/plan"
)

// site is a manager with its surroundings in memory.
type site struct {
	t        *testing.T
	records  *jobtest.Records
	executor *jobtest.Executor
	servers  map[string]*jobtest.Coordinator
	settings manager.Settings
	options  manager.Options
	m        *manager.Manager
	done     chan error
}

func newSite(t *testing.T, concurrent int, runners ...string) *site {
	s := &site{t: t, records: jobtest.NewRecords(), executor: jobtest.NewExecutor(), servers: map[string]*jobtest.Coordinator{}}
	s.settings = manager.Settings{Concurrent: concurrent, CheckInterval: 3 * time.Second, ShutdownTimeout: 30 * time.Second}
	s.options = manager.Options{Dir: t.TempDir(), Records: s.records, Log: slog.New(slog.DiscardHandler)}
	for _, name := range runners {
		s.add(name)
	}
	return s
}

// add puts a runner into the settings.
func (s *site) add(name string) *jobtest.Coordinator {
	server := s.servers[name]
	if server == nil {
		server = jobtest.NewCoordinator()
		s.servers[name] = server
	}
	s.settings.Runners = append(s.settings.Runners, manager.Runner{
		Name: name, URL: "https://" + name + ".example.com", Token: tranter.Secret("token-" + name), Coordinator: server, Executor: s.executor,
		Plan: plan.Settings{Executor: "memory", Shell: "bash", OutputLimit: 1 << 20, Dirs: plan.DirSettings{Builds: "/builds", Cache: "/cache"}},
	})
	return server
}

func (s *site) start() {
	s.m = manager.New(s.options, s.settings)
	s.done = make(chan error, 1)
	go func() { s.done <- s.m.Run(context.Background()) }()
}

// end stops the manager and checks that it leaves nothing running.
func (s *site) end() {
	s.t.Helper()
	s.m.Stop(errors.New("the test is over"))
	if err := <-s.done; err != nil {
		s.t.Errorf("the manager ended with %v", err)
	}
	s.executor.Close()
}

func (s *site) job(id int64, takes time.Duration) *tranter.Job {
	s.executor.Set(id, jobtest.Work{Takes: takes, Output: []string{fmt.Sprintf("job %d\n", id)}})
	return &tranter.Job{
		ID: id, Token: tranter.Secret(fmt.Sprint("job-token-", id)), Info: tranter.JobInfo{Name: "test", ProjectID: id % 2}, Runner: tranter.RunnerInfo{Timeout: 3600},
		Git:       tranter.GitInfo{RepoURL: "https://gitlab.example.com/group/project.git", SHA: "0123456789abcdef"},
		Variables: []tranter.Variable{{Key: "GIT_STRATEGY", Value: "none"}},
		Steps:     []tranter.JobStep{{Name: "script", Script: []string{"true"}}},
	}
}

// want checks how a job ended.
func (s *site) want(server string, id int64, state tranter.JobState, reason tranter.FailureReason) {
	s.t.Helper()
	u, ok := s.servers[server].Final(id)
	if !ok || u.State != state || u.Reason != reason {
		s.t.Errorf("job %d: reported %+v (%v), want %s %s", id, u, ok, state, reason)
	}
}

func TestJobsRunWithinTheLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3, "a")
		for id := range int64(12) {
			s.servers["a"].Enqueue(s.job(id+1, time.Minute))
		}
		s.start()
		time.Sleep(10 * time.Minute)
		for id := range int64(12) {
			s.want("a", id+1, tranter.JobSuccess, "")
		}
		if most := s.executor.Most(); most != 3 {
			t.Errorf("%d jobs at the same time, want 3", most)
		}
		s.end()
	})
}

func TestTheRunnersOwnLimitHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 10, "a")
		s.settings.Runners[0].Limits.Jobs = 2
		for id := range int64(6) {
			s.servers["a"].Enqueue(s.job(id+1, time.Minute))
		}
		s.start()
		time.Sleep(10 * time.Minute)
		s.want("a", 6, tranter.JobSuccess, "")
		if most := s.executor.Most(); most != 2 {
			t.Errorf("%d jobs at the same time, want 2", most)
		}
		s.end()
	})
}

// With fewer places than runners, and servers that hold requests, each runner still gets to ask.
func TestNoRunnerStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a", "b", "c", "d")
		for _, server := range s.servers {
			server.Hold = 50 * time.Second
		}
		s.start()
		time.Sleep(time.Minute)
		for name, server := range s.servers {
			if n := len(server.Asked()); n < 10 {
				t.Errorf("runner %s asked %d times in a minute", name, n)
			}
		}
		for i, name := range []string{"a", "b", "c", "d"} {
			s.servers[name].Enqueue(s.job(int64(i+1), time.Second))
		}
		time.Sleep(30 * time.Second)
		for i, name := range []string{"a", "b", "c", "d"} {
			s.want(name, int64(i+1), tranter.JobSuccess, "")
		}
		s.end()
	})
}

func TestARunnerAloneLetsItsServerHoldTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		s.servers["a"].Hold = 50 * time.Second
		s.start()
		time.Sleep(5 * time.Minute)
		if n := len(s.servers["a"].Asked()); n > 7 {
			t.Errorf("%d requests in five minutes although each is held for 50 s", n)
		}
		s.servers["a"].Enqueue(s.job(1, time.Second))
		time.Sleep(2 * time.Second)
		if !s.servers["a"].Accepted(1) {
			t.Error("the job was not taken at once")
		}
		s.end()
	})
}

// Hundreds of runners that poll would keep a processor busy, and the server.
func TestAllRequestsAreHeldWhereThereArePlacesForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 5, "a", "b", "c", "d")
		for _, server := range s.servers {
			server.Hold = 50 * time.Second
		}
		s.start()
		time.Sleep(5 * time.Minute)
		for name, server := range s.servers {
			if n := len(server.Asked()); n > 8 {
				t.Errorf("runner %s asked %d times in five minutes although each request may be held for 50 s", name, n)
			}
		}
		s.servers["a"].Enqueue(s.job(1, time.Minute))
		s.servers["b"].Enqueue(s.job(2, time.Minute))
		time.Sleep(10 * time.Second)
		s.servers["a"].Enqueue(s.job(3, time.Second))
		time.Sleep(10 * time.Second)
		if !s.servers["a"].Accepted(3) {
			t.Error("a runner that has a job could not ask for another one while the requests of others are held")
		}
		time.Sleep(time.Minute)
		s.end()
	})
}

func TestRequestsAreSpacedByTheCheckInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 4, "a")
		s.settings.Runners[0].Limits.Requests = 4
		s.start()
		time.Sleep(time.Minute)
		asked := s.servers["a"].Asked()
		if len(asked) < 19 || len(asked) > 21 {
			t.Errorf("%d requests in a minute, want 20", len(asked))
		}
		s.end()
	})
}

func TestARefusedRunnerPausesAndTheOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2, "good", "bad")
		s.servers["bad"].Fail(tranter.ErrForbidden)
		s.start()
		time.Sleep(30 * time.Minute)
		if n := len(s.servers["bad"].Asked()); n != 3 {
			t.Errorf("%d requests with a refused token, want 3", n)
		}
		for _, r := range s.m.Status().Runners {
			if (r.Name == "bad") != (r.Paused != nil) || (r.Name == "bad") != (r.Problem != "") {
				t.Errorf("status %+v", r)
			}
		}
		s.m.Reload(s.settings) // does not make the token good
		s.servers["bad"].Fail(nil)
		s.servers["bad"].Enqueue(s.job(1, time.Second))
		time.Sleep(31 * time.Minute)
		s.want("bad", 1, tranter.JobSuccess, "")
		s.end()
	})
}

func TestAServerThatIsAwayIsAskedAgainAtOnceWhenItIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		s.servers["a"].Fail(errors.New("connection refused"))
		s.start()
		time.Sleep(30 * time.Minute)
		s.servers["a"].Fail(nil)
		s.servers["a"].Enqueue(s.job(1, time.Millisecond))
		time.Sleep(4 * time.Second)
		if !s.servers["a"].Accepted(1) {
			t.Error("no job was taken within one check interval")
		}
		s.end()
	})
}

func TestAServersWishForAPauseIsHeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		s.servers["a"].Fail(&tranter.UnavailableError{RetryAfter: 2 * time.Minute, Err: errors.New("too many requests")})
		s.start()
		time.Sleep(10 * time.Minute)
		if n := len(s.servers["a"].Asked()); n < 5 || n > 6 {
			t.Errorf("%d requests in ten minutes, want one each two minutes", n)
		}
		s.end()
	})
}

func TestDrainFinishesWhatRunsAndTakesNothingNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2, "a")
		s.servers["a"].Enqueue(s.job(1, time.Hour))
		s.start()
		time.Sleep(time.Minute)
		s.m.Drain()
		time.Sleep(time.Second) // a job that is handed out in the very moment of the drain would be run
		s.servers["a"].Enqueue(s.job(2, time.Second))
		if err := <-s.done; err != nil {
			t.Error(err)
		}
		s.want("a", 1, tranter.JobSuccess, "")
		if s.servers["a"].Accepted(2) {
			t.Error("a job was taken after the drain")
		}
		s.executor.Close()
	})
}

// A job may be on its way to us when we are told to take no more: it is run after a drain and reported after a stop.
func TestAJobThatArrivesLateIsNotLeftHanging(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(*manager.Manager)
		state  tranter.JobState
		reason tranter.FailureReason
	}{
		"drain": {(*manager.Manager).Drain, tranter.JobSuccess, ""},
		"stop":  {func(m *manager.Manager) { m.Stop(errors.New("told to")) }, tranter.JobFailed, tranter.RunnerSystemFailure},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, 1, "a")
				s.servers["a"].Delay = 2 * time.Second
				s.servers["a"].Enqueue(s.job(1, time.Minute))
				s.start()
				time.Sleep(time.Second) // the job has been given to us, its answer is under way
				c.end(s.m)
				if err := <-s.done; err != nil {
					t.Error(err)
				}
				s.want("a", 1, c.state, c.reason)
				s.executor.Close()
			})
		})
	}
}

func TestStopEndsJobsWithinTheShutdownTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2, "a")
		s.servers["a"].Enqueue(s.job(1, time.Hour), s.job(2, time.Hour))
		s.executor.Set(2, jobtest.Work{Takes: time.Hour, Deaf: true})
		s.start()
		time.Sleep(time.Minute)
		before := time.Now()
		s.m.Stop(errors.New("received terminated"))
		if err := <-s.done; err != nil {
			t.Error(err)
		}
		if took := time.Since(before); took > 31*time.Second {
			t.Errorf("it took %v", took)
		}
		if _, told := s.servers["a"].Final(2); told {
			t.Error("a job that goes on was reported as ended")
		}
		s.want("a", 1, tranter.JobFailed, tranter.UnknownFailure) // the server does not know runner_interrupted
		// The deaf one goes on by itself and is taken up at the next start.
		s.start()
		time.Sleep(2 * time.Hour)
		if _, told := s.servers["a"].Final(2); !told {
			t.Error("the job was not taken up")
		}
		s.end()
	})
}

func TestLeaveLetsJobsGoOnAndLosesNoneThatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3, "a")
		s.servers["a"].Enqueue(s.job(1, time.Hour))
		s.servers["a"].Delay, s.servers["a"].Hold = 2*time.Second, time.Hour
		s.start()
		time.Sleep(time.Minute)
		s.servers["a"].Enqueue(s.job(2, time.Hour))
		time.Sleep(time.Second) // the second job has been given to us, its answer is under way
		s.m.Leave()
		if err := <-s.done; err != nil {
			t.Error(err)
		}
		left, _ := s.records.Jobs(t.Context())
		if len(left) != 2 {
			t.Fatalf("%d jobs are recorded", len(left))
		}
		for id := range int64(2) {
			if _, told := s.servers["a"].Final(id + 1); told {
				t.Errorf("job %d was reported as ended", id+1)
			}
		}
		s.start()
		time.Sleep(2 * time.Hour)
		for id := range int64(2) {
			s.want("a", id+1, tranter.JobSuccess, "")
		}
		s.end()
	})
}

func TestARestartTakesUpJobsAlsoOfRunnersThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2, "a", "b")
		s.settings.ShutdownTimeout = time.Millisecond
		for i, name := range []string{"a", "b"} {
			j := s.job(int64(i+1), time.Hour)
			s.executor.Set(j.ID, jobtest.Work{Takes: time.Hour, Deaf: true, Output: []string{"whole\n"}})
			s.servers[name].Enqueue(j)
		}
		s.start()
		time.Sleep(time.Minute)
		s.m.Stop(errors.New("crash"))
		<-s.done
		gone := s.settings.Runners[1]
		s.settings.Runners = s.settings.Runners[:1]
		s.options.Adopt = func(rec tranter.JobRecord) (manager.Runner, error) {
			if rec.URL != gone.URL {
				return manager.Runner{}, fmt.Errorf("unexpected %s", rec.URL)
			}
			return gone, nil
		}
		s.start()
		time.Sleep(2 * time.Hour)
		s.want("a", 1, tranter.JobSuccess, "")
		s.want("b", 2, tranter.JobSuccess, "")
		s.end()
	})
}

func TestReloadAddsRemovesAndResizesWithoutTouchingJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		s.servers["a"].Enqueue(s.job(1, time.Hour))
		s.start()
		time.Sleep(time.Minute)
		s.settings.Runners = nil
		s.add("b").Enqueue(s.job(2, time.Hour), s.job(3, time.Hour))
		s.settings.Concurrent = 3
		s.m.Reload(s.settings)
		time.Sleep(time.Minute)
		asked := len(s.servers["a"].Asked())
		if got := len(s.m.Status().Jobs); got != 3 {
			t.Errorf("%d jobs run, want 3", got)
		}
		time.Sleep(2 * time.Hour)
		s.want("a", 1, tranter.JobSuccess, "")
		s.want("b", 2, tranter.JobSuccess, "")
		s.want("b", 3, tranter.JobSuccess, "")
		if len(s.servers["a"].Asked()) != asked {
			t.Error("a removed runner goes on asking")
		}
		s.settings.Concurrent = 1
		s.m.Reload(s.settings) // does not wait for anything
		s.end()
	})
}

func TestAJobThatCantBeRecordedIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		s.records.Fail = errors.New("disk full")
		s.servers["a"].Enqueue(s.job(1, time.Hour))
		s.start()
		time.Sleep(time.Minute)
		s.want("a", 1, tranter.JobFailed, tranter.RunnerSystemFailure)
		if opened, _ := s.executor.Sessions(1); opened != 0 {
			t.Error("it was run")
		}
		s.end()
	})
}

// slowRecords take their time to save.
type slowRecords struct{ *jobtest.Records }

func (r slowRecords) Save(ctx context.Context, rec tranter.JobRecord) error {
	time.Sleep(time.Minute)
	return r.Records.Save(ctx, rec)
}

func TestAJobIsShownWholeWhileItIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		s.options.Records = slowRecords{s.records}
		s.servers["a"].Enqueue(s.job(7, time.Second))
		s.start()
		time.Sleep(30 * time.Second)
		if jobs := s.m.Status().Jobs; len(jobs) != 1 || jobs[0].ID != 7 || jobs[0].Name != "test" || jobs[0].Taken.IsZero() || jobs[0].Stage != "pending" {
			t.Errorf("shown as %+v", jobs)
		}
		time.Sleep(time.Hour)
		s.want("a", 7, tranter.JobSuccess, "")
		s.end()
	})
}

func TestMaxJobsAndMaxIdleEndTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		s.options.MaxJobs = 2
		s.servers["a"].Enqueue(s.job(1, time.Minute), s.job(2, time.Minute), s.job(3, time.Minute))
		s.start()
		if err := <-s.done; err != nil {
			t.Error(err)
		}
		s.want("a", 2, tranter.JobSuccess, "")
		if s.servers["a"].Accepted(3) {
			t.Error("a third job was taken")
		}

		s.options.MaxJobs, s.options.MaxIdle = 0, 10*time.Minute
		began := time.Now()
		s.start()
		<-s.done
		s.want("a", 3, tranter.JobSuccess, "")
		if took := time.Since(began); took < 11*time.Minute || took > 12*time.Minute {
			t.Errorf("ended after %v, want 10 min after a job of 1 min", took)
		}
		s.executor.Close()
	})
}

func TestFinalReportsDoNotKeepPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 1, "a")
		s.servers["a"].Verdicts(1, make([]tranter.Verdict, 0)...)
		var notYet []tranter.Verdict
		for range 1000 {
			notYet = append(notYet, tranter.NotYet)
		}
		s.servers["a"].Verdicts(1, notYet...)
		s.servers["a"].Enqueue(s.job(1, time.Second), s.job(2, time.Second))
		s.start()
		time.Sleep(time.Minute)
		s.want("a", 2, tranter.JobSuccess, "")
		if _, told := s.servers["a"].Final(1); told {
			t.Error("the first report was accepted: the test shows nothing")
		}
		s.end()
	})
}
