//go:build unix

package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/executortest"
	"github.com/tranter-ci/tranter/internal/worker"
)

// ways are the two ways in which a worker is reached.
func ways(t *testing.T, test func(t *testing.T, listen string)) {
	t.Helper()
	for name, listen := range map[string]string{"directory": "", "connection": "127.0.0.1:0"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, listen)
		})
	}
}

// open opens a session in an allocation.
func (s *site) open(name, job string, vars ...tranter.Variable) (tranter.Session, tranter.SessionSpec, *bytes.Buffer) {
	s.t.Helper()
	spec, log := s.spec(job, vars...)
	session, err := s.executor(name).Open(s.t.Context(), spec)
	if err != nil {
		s.t.Fatalf("open: %v\n%s", err, s.workers[name].said.String())
	}
	return session, spec, log
}

func (s *site) spec(job string, vars ...tranter.Variable) (tranter.SessionSpec, *bytes.Buffer) {
	s.t.Helper()
	root := executortest.OpenDir(s.t)
	if err := os.Chmod(root, 0o777); err != nil { //nolint:gosec // workers may be those of another user
		s.t.Fatal(err)
	}
	project := filepath.Join(root, "builds", "project")
	log := &bytes.Buffer{}
	return tranter.SessionSpec{
		Name: job, Dir: filepath.Join(root, "job"), Job: &tranter.Job{ID: 7, Token: "glcbt-token"}, Log: log, Variables: vars,
		Dirs: tranter.Dirs{Builds: filepath.Join(root, "builds"), Project: project, Temp: project + ".tmp", Cache: filepath.Join(root, "cache")},
	}, log
}

func phase(spec tranter.SessionSpec, commands []string, after ...string) tranter.Phase {
	steps := []tranter.Step{
		{Name: "prepare_script", When: tranter.OnSuccess, Prepare: &tranter.PrepareStep{Greeting: "Running on %s..."}},
		{Name: "get_sources", When: tranter.OnSuccess, Sources: &tranter.SourcesStep{Strategy: "none"}},
		{Name: "step_script", When: tranter.OnSuccess, Script: &tranter.ScriptStep{Commands: commands, User: true}},
	}
	if len(after) > 0 {
		steps = append(steps, tranter.Step{Name: "after_script", When: tranter.AfterScript, Timeout: time.Minute, Script: &tranter.ScriptStep{Commands: after, User: true, After: true}})
	}
	return tranter.Phase{ID: "1", JobID: 7, Dirs: spec.Dirs, Shell: "sh", Steps: steps, JobToken: "glcbt-token"}
}

func (s *site) run(session tranter.Session, p tranter.Phase) (tranter.PhaseResult, string) {
	s.t.Helper()
	if err := session.Start(s.t.Context(), p); err != nil {
		s.t.Fatal(err)
	}
	var log bytes.Buffer
	r, err := session.Attach(s.t.Context(), p.ID, 0, &log)
	if err != nil {
		s.t.Fatalf("attach: %v\n%s", err, log.String())
	}
	return r, log.String()
}

// await follows a phase until its log has text in it.
func (s *site) await(session tranter.Session, text string) string {
	s.t.Helper()
	ctx, stop := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer stop()
	w := &watcher{text: text, stop: stop}
	if _, err := session.Attach(ctx, "1", 0, w); !strings.Contains(w.log.String(), text) {
		s.t.Fatalf("waiting for %q: %v\n%s", text, err, w.log.String())
	}
	return w.log.String()
}

type watcher struct {
	log  bytes.Buffer
	text string
	stop func()
}

func (w *watcher) Write(p []byte) (int, error) {
	n, err := w.log.Write(p)
	if strings.Contains(w.log.String(), w.text) {
		w.stop()
	}
	return n, err
}

// A job's first line comes soon after its batch script has started: what is measured is in the test's log.
func TestAJobBeginsSoonAfterItsBatchScript(t *testing.T) {
	for name, listen := range map[string]string{"directory": "", "connection": "127.0.0.1:0"} {
		t.Run(name, func(t *testing.T) {
			best := time.Hour
			for i := range 3 {
				s := newSite(t, worker.Options{Listen: listen})
				began := time.Now()
				s.submit(worker.Assignment{Name: "tranter-1", Linger: time.Minute})
				s.sign("tranter-1", worker.SignFirst)
				signed := time.Since(began)
				session, spec, _ := s.open("tranter-1", "job")
				opened := time.Since(began)
				p := phase(spec, []string{"echo first line; sleep 0.3"})
				if err := session.Start(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				started := time.Since(began)
				s.await(session, "\nfirst line")
				took := time.Since(began)
				t.Logf("%d: sign %v, opened %v, started %v, first line %v", i, signed, opened, started, took)
				best = min(best, took)
				if err := session.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				s.stop()
			}
			if best > 10*time.Second {
				t.Errorf("it took %v at best", best)
			}
		})
	}
}

func TestErrorsKeepTheirClass(t *testing.T) {
	ways(t, func(t *testing.T, listen string) {
		s := newSite(t, worker.Options{Listen: listen})
		s.submit(worker.Assignment{Name: "tranter-1", Linger: time.Minute})
		fails := func(kind string) error {
			spec, _ := s.spec("job", tranter.Variable{Key: "FAIL", Value: kind})
			session, err := s.executor("tranter-1").Open(t.Context(), spec)
			if session != nil || err == nil || !strings.Contains(err.Error(), "no "+kind) {
				t.Fatalf("%s: session %v, error %v", kind, session, err)
			}
			return err
		}
		var config *tranter.ConfigError
		var build *tranter.BuildError
		var pull *tranter.PullError
		var dependency *tranter.DependencyError
		if err := fails("config"); !errors.As(err, &config) {
			t.Errorf("config: %T", err)
		}
		if err := fails("build"); !errors.As(err, &build) || build.ExitCode != 3 {
			t.Errorf("build: %T", err)
		}
		if err := fails("pull"); !errors.As(err, &pull) {
			t.Errorf("pull: %T", err)
		}
		if err := fails("dependency"); !errors.As(err, &dependency) {
			t.Errorf("dependency: %T", err)
		}
		if err := fails("other"); errors.As(err, &config) || errors.Is(err, tranter.ErrMachineLost) {
			t.Errorf("other: %T", err)
		}
	})
}

func TestTheManagerSettlesAndHearsTheExecutor(t *testing.T) {
	ways(t, func(t *testing.T, listen string) {
		s := newSite(t, worker.Options{Listen: listen})
		s.submit(worker.Assignment{Name: "tranter-1", Linger: time.Minute})
		text := strings.Repeat("pulling\n", 20_000)
		spec, log := s.spec("job", tranter.Variable{Key: "SAY", Value: text}, tranter.Variable{Key: "SETTLE", Value: "/elsewhere"})
		var asked tranter.Surroundings
		spec.Settle = func(a tranter.Surroundings) (tranter.Dirs, []tranter.Variable, error) {
			asked = a
			return tranter.Dirs{Builds: a.Builds + "/settled"}, []tranter.Variable{{Key: "A", Internal: true}, {Key: "B"}}, nil
		}
		session, err := s.executor("tranter-1").Open(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if asked.Builds != "/elsewhere" || asked.SharedBuilds == nil || *asked.SharedBuilds {
			t.Errorf("asked %+v", asked)
		}
		if want := text + "settled: /elsewhere/settled, 2 variables\n"; !strings.HasPrefix(log.String(), want) {
			t.Errorf("the log has %d bytes, %d are wanted first", log.Len(), len(want))
		}
		if err := session.Close(t.Context()); err != nil {
			t.Error(err)
		}
		spec, _ = s.spec("job", tranter.Variable{Key: "SETTLE", Value: "/elsewhere"})
		spec.Settle = func(tranter.Surroundings) (tranter.Dirs, []tranter.Variable, error) {
			return tranter.Dirs{}, nil, &tranter.ConfigError{Err: errors.New("no such place")}
		}
		var config *tranter.ConfigError
		if _, err := s.executor("tranter-1").Open(t.Context(), spec); !errors.As(err, &config) {
			t.Errorf("the user's mistake: %v", err)
		}
	})
}

func TestAnOpenThatIsGivenUpLeavesNothing(t *testing.T) {
	ways(t, func(t *testing.T, listen string) {
		s := newSite(t, worker.Options{Listen: listen})
		s.submit(worker.Assignment{Name: "tranter-1", Linger: time.Minute})
		spec, _ := s.spec("job", tranter.Variable{Key: "HANG"})
		ctx, stop := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer stop()
		if _, err := s.executor("tranter-1").Open(ctx, spec); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		leaving := make(chan struct{})
		spec.Leaving = leaving
		close(leaving)
		if _, err := s.executor("tranter-1").Open(t.Context(), spec); err == nil || strings.Contains(err.Error(), "deadline") {
			t.Errorf("leaving: %v", err)
		}
		session, spec, _ := s.open("tranter-1", "job") // the place is free
		if r, log := s.run(session, phase(spec, []string{"true"})); r.Status != tranter.PhaseSucceeded {
			t.Errorf("result %+v\n%s", r, log)
		}
		if err := session.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A manager that is killed loses no byte and runs nothing twice.
func TestAJobGoesOnWithoutItsManager(t *testing.T) {
	ways(t, func(t *testing.T, listen string) {
		s := newSite(t, worker.Options{Listen: listen})
		s.submit(worker.Assignment{Name: "tranter-1", Linger: time.Minute})
		session, spec, _ := s.open("tranter-1", "job")
		p := phase(spec, []string{`echo ran >>runs`, `i=0; while test $i -lt 3000; do echo "line $i"; i=$((i+1)); test $((i % 100)) -ne 0 || sleep 0.02; done; wc -l <runs`})
		if err := session.Start(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		log := s.await(session, "\nline 50\n")
		ref := session.Ref()
		for n := 0; ; n++ {
			s.restart()
			again, err := s.executor("tranter-1").Reopen(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Start(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
			var part bytes.Buffer
			r, err := again.Attach(ctx, "1", int64(len(log)), &part)
			stop()
			log += part.String()
			if err == nil {
				if r.Status != tranter.PhaseSucceeded || r.LogBytes != int64(len(log)) || !strings.HasSuffix(strings.TrimSpace(log), "\n1") || n < 2 {
					t.Errorf("after %d restarts: result %+v, %d bytes, end %q", n, r, len(log), log[max(0, len(log)-50):])
				}
				if err := again.Close(t.Context()); err != nil {
					t.Error(err)
				}
				break
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("attach: %v", err)
			}
		}
		for i := range 3000 {
			if line := fmt.Sprintf("\nline %d\n", i); strings.Count(log, line) != 1 {
				t.Fatalf("%q is %d times in the log", line, strings.Count(log, line))
			}
		}
	})
}

func TestWhatAKilledWorkerHasFinishedIsNotLost(t *testing.T) {
	t.Parallel()
	s := newSite(t, worker.Options{})
	p := s.submit(worker.Assignment{Name: "tranter-1", Places: 2, Linger: time.Minute})
	done, spec, _ := s.open("tranter-1", "done")
	s.run(done, phase(spec, []string{"echo all"}))
	running, spec, _ := s.open("tranter-1", "running")
	if err := running.Start(t.Context(), phase(spec, []string{"echo $$ >pid; echo ready; exec sleep 1000"})); err != nil {
		t.Fatal(err)
	}
	s.await(running, "\nready")
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	attached := make(chan error, 1)
	go func() {
		_, err := running.Attach(t.Context(), "1", 0, io.Discard)
		attached <- err
	}()
	<-p.ended
	s.office.Lost("tranter-1", errors.New("node lost"))
	if err := <-attached; !errors.Is(err, tranter.ErrMachineLost) || !strings.Contains(err.Error(), "node lost") {
		t.Errorf("attach: %v", err)
	}
	var log bytes.Buffer
	if r, err := done.Attach(t.Context(), "1", 0, &log); err != nil || r.Status != tranter.PhaseSucceeded || !strings.Contains(log.String(), "\nall") {
		t.Errorf("what was over: %+v, %v\n%s", r, err, log.String())
	}
	s.restart()
	s.office.Lost("tranter-1", errors.New("node lost"))
	again, err := s.executor("tranter-1").Reopen(t.Context(), done.Ref())
	if err != nil {
		t.Fatal(err)
	}
	log.Reset()
	if r, err := again.Attach(t.Context(), "1", 0, &log); err != nil || r.Status != tranter.PhaseSucceeded || !strings.Contains(log.String(), "\nall") {
		t.Errorf("after a restart: %+v, %v\n%s", r, err, log.String())
	}
	if _, err := s.executor("tranter-1").Open(t.Context(), spec); !errors.Is(err, tranter.ErrMachineLost) {
		t.Errorf("open: %v", err)
	}
	pid, err := os.ReadFile(filepath.Join(spec.Dirs.Project, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	if err := running.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(s.options.Dir, "allocations", "tranter-1", "jobs", "running")); err == nil {
		t.Error("the files of the lost job are left")
	}
	var n int
	if _, err := fmt.Sscan(string(pid), &n); err == nil {
		_ = syscall.Kill(n, syscall.SIGKILL) // the batch system would
	}
	if err := s.office.Remove("tranter-1"); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(s.options.Dir, "allocations", "tranter-1")); err == nil {
		t.Error("the allocation's files are left")
	}
}

func TestASignalEndsJobsInAnOrderlyWay(t *testing.T) {
	ways(t, func(t *testing.T, listen string) {
		s := newSite(t, worker.Options{Listen: listen})
		p := s.submit(worker.Assignment{Name: "tranter-1", Linger: time.Minute, IDVariable: "HOME"})
		if first := s.sign("tranter-1", worker.SignFirst); first.BatchID != os.Getenv("HOME") || first.Free != 1 || first.Host == "" {
			t.Errorf("sign %+v", first)
		}
		session, spec, _ := s.open("tranter-1", "job")
		if err := session.Start(t.Context(), phase(spec, []string{"echo ready", "sleep 1000"}, `echo "status=$CI_JOB_STATUS"`)); err != nil {
			t.Fatal(err)
		}
		s.await(session, "\nready")
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		r, err := session.Attach(t.Context(), "1", 0, &log)
		if err != nil || r.Reason != tranter.RunnerInterrupted || !strings.Contains(r.Message, "terminated") || !strings.Contains(log.String(), "\nstatus=canceled") {
			t.Errorf("result %+v, %v\n%s", r, err, log.String())
		}
		if err := session.Close(t.Context()); err != nil {
			t.Errorf("close: %v", err)
		}
		if ended := s.sign("tranter-1", worker.SignEnded); !strings.Contains(ended.Reason, "terminated") {
			t.Errorf("sign %+v", ended)
		}
		<-p.ended
	})
}

func TestAWorkerEndsItself(t *testing.T) {
	for name, c := range map[string]struct {
		assignment worker.Assignment
		jobs       int
		stop, end  bool
		want       string
	}{
		"without a job":       {assignment: worker.Assignment{TakeTimeout: 300 * time.Millisecond}, want: "got no job"},
		"after its job":       {assignment: worker.Assignment{}, jobs: 1, want: "has run its jobs"},
		"after so many":       {assignment: worker.Assignment{Linger: time.Minute, MaxUses: 2}, jobs: 2, want: "has run 2 jobs"},
		"before its walltime": {assignment: worker.Assignment{Walltime: time.Second, Margin: time.Second}, want: "walltime"},
		"when it is told to":  {assignment: worker.Assignment{}, end: true, want: "told to: enough"},
		"without a manager":   {assignment: worker.Assignment{LostAfter: 400 * time.Millisecond}, stop: true, want: "no sign of the manager"},
	} {
		t.Run(name, func(t *testing.T) {
			ways(t, func(t *testing.T, listen string) {
				s := newSite(t, worker.Options{Listen: listen})
				assignment := c.assignment
				assignment.Name = "tranter-1"
				p := s.submit(assignment)
				for i := range c.jobs {
					session, spec, _ := s.open("tranter-1", fmt.Sprintf("job-%d", i))
					s.run(session, phase(spec, []string{"true"}))
					if err := session.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if c.end {
					if err := s.office.End(t.Context(), "tranter-1", "enough"); err != nil {
						t.Fatal(err)
					}
				}
				if c.stop {
					s.sign("tranter-1", worker.SignFirst)
					s.stop()
				} else if sign := s.sign("tranter-1", worker.SignEnded); !strings.Contains(sign.Reason, c.want) {
					t.Errorf("sign %+v", sign)
				}
				select {
				case <-p.ended:
				case <-time.After(20 * time.Second):
					t.Fatal("it goes on")
				}
				content, err := os.ReadFile(filepath.Join(s.options.Dir, "allocations", "tranter-1", "sign"))
				if err != nil || !json.Valid(content) || !strings.Contains(string(content), c.want) {
					t.Errorf("sign %s, %v", content, err)
				}
			})
		})
	}
}

func TestAnAllocationHasOneWorker(t *testing.T) {
	t.Parallel()
	s := newSite(t, worker.Options{})
	a := worker.Assignment{Name: "tranter-1", Before: "echo before >&2", Environment: []string{"FROM_SITE=secret value"}, Linger: time.Minute}
	script, err := s.office.Prepare(a)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.office.Prepare(a); err != nil || again != script || strings.Contains(script, "secret") || !strings.HasPrefix(script, "#!/bin/sh\necho before >&2\nexec '") {
		t.Errorf("script %q, again %q, %v", script, again, err)
	}
	s.submit(a)
	s.sign("tranter-1", worker.SignFirst)
	session, spec, _ := s.open("tranter-1", "job")
	if _, log := s.run(session, phase(spec, []string{`echo "site: $FROM_SITE"`})); !strings.Contains(log, "\nsite: secret value") {
		t.Errorf("log:\n%s", log)
	}
	if err := session.Close(t.Context()); err != nil {
		t.Error(err)
	}
	first := s.workers["tranter-1"]
	second := s.launch(worker.Assignment{Name: "tranter-1"}, script)
	<-second.ended
	s.workers["tranter-1"] = first
	if !strings.Contains(second.said.String(), "has, or had, a worker") {
		t.Errorf("the second one: %s", second.said.String())
	}
}
