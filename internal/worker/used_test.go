//go:build unix

package worker_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/worker"
)

func TestASessionTellsWhatItsJobHasUsed(t *testing.T) {
	t.Parallel()
	ways(t, func(t *testing.T, listen string) {
		t.Helper()
		s := newSite(t, worker.Options{Listen: listen})
		s.submit(worker.Assignment{Name: "tranter-1"})
		session, spec, _ := s.open("tranter-1", "job-7")
		used := func(session tranter.Session) (time.Duration, int64) {
			t.Helper()
			u, ok := session.(interface {
				Used(ctx context.Context) (time.Duration, int64, error)
			})
			if !ok {
				t.Fatalf("%T does not tell", session)
			}
			cpu, memory, err := u.Used(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return cpu, memory
		}
		if cpu, memory := used(session); cpu != 0 || memory != 0 {
			t.Errorf("before a phase: %v, %d bytes", cpu, memory)
		}
		// A grandchild, so that what children have waited for is counted too; tail holds all that it is given.
		p := phase(spec, []string{"sh -c 'head -c 100000000 /dev/zero | tail -c 100000000 | wc -c; i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done'"})
		if r, log := s.run(session, p); r.Status != tranter.PhaseSucceeded {
			t.Fatalf("%+v\n%s", r, log)
		}
		cpu, memory := used(session)
		if cpu < 10*time.Millisecond || cpu > time.Minute || memory < 90<<20 || memory > 4<<30 {
			t.Errorf("%v, %d bytes", cpu, memory)
		}
		s.restart()
		again, err := s.executor("tranter-1").Reopen(t.Context(), session.Ref())
		if err != nil {
			t.Fatal(err)
		}
		p.ID = "2"
		if r, log := s.run(again, p); r.Status != tranter.PhaseSucceeded {
			t.Fatalf("%+v\n%s", r, log)
		}
		if more, same := used(again); more <= cpu || same < memory/2 {
			t.Errorf("after another phase: %v after %v, %d bytes", more, cpu, same)
		}
		p.ID, p.Steps = "3", phase(spec, []string{"exec sleep 60"}).Steps
		if err := again.Start(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if more, _ := used(again); more <= cpu {
			t.Errorf("while a phase runs: %v", more)
		}
		if err := again.Cancel(t.Context(), p.ID, true, time.Second); err != nil {
			t.Error(err)
		}
		if _, err := again.Attach(t.Context(), p.ID, 0, io.Discard); err != nil {
			t.Error(err)
		}
		if err := again.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAnOfficeThatIsNotUsedAnyMoreLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "shared", "t1")
	office := func() *worker.Office {
		t.Helper()
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		o, err := worker.NewOffice(worker.Options{Dir: dir, Self: self, Program: self, Listen: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		ended, stop := context.WithCancel(t.Context())
		stop()
		if err := o.Run(ended); err != nil { // it lets go of the address
			t.Fatal(err)
		}
		return o
	}
	if _, err := worker.Look(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
	o := office()
	if _, err := o.Prepare(worker.Assignment{Name: "tranter-1"}); err != nil {
		t.Fatal(err)
	}
	found, err := worker.Look(dir)
	if err != nil || len(found.Allocations) != 1 || found.Allocations[0] != "tranter-1" || time.Since(found.Beat) > time.Minute {
		t.Errorf("%+v, %v", found, err)
	}
	if err := worker.Retire(o); err == nil {
		t.Error("an office was removed in which an allocation is")
	}
	if _, err := os.Stat(filepath.Join(dir, "allocations", "tranter-1", "assignment.json")); err != nil {
		t.Error(err)
	}
	o = office()
	if err := o.Remove("tranter-1"); err != nil {
		t.Fatal(err)
	}
	if err := worker.Retire(o); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
}
