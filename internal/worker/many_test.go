package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/worker"
)

// cpu returns the processor time of this process.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The manager may have many allocations that wait, and many jobs that are silent: neither may cost much.
func TestAThousandAllocationsCostLittle(t *testing.T) {
	const n = 1000
	s := newSite(t, worker.Options{})
	began := time.Now()
	for i := range n {
		name := fmt.Sprintf("tranter-%d", i)
		if _, err := s.office.Prepare(worker.Assignment{Name: name}); err != nil {
			t.Fatal(err)
		}
		s.office.Follow(name)
	}
	t.Logf("to prepare one takes %v", time.Since(began)/n)
	over := func(what string, length time.Duration) {
		t.Helper()
		before, since := cpu(t), time.Now()
		<-time.After(length)
		share := float64(cpu(t)-before) / float64(time.Since(since))
		t.Logf("%s: %.1f %% of a processor", what, 100*share)
		if share > 0.5 {
			t.Errorf("%s takes %.0f %% of a processor", what, 100*share)
		}
	}
	over("1,000 that wait", 2*time.Second)
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range n {
		name := fmt.Sprintf("tranter-%d", i)
		ref, err := json.Marshal(map[string]string{"allocation": name, "job": "job", "attempt": "x"})
		if err != nil {
			t.Fatal(err)
		}
		session, err := s.executor(name).Reopen(ctx, ref)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() { _, _ = session.Attach(ctx, "1", 0, io.Discard) })
	}
	<-time.After(time.Second)
	over("1,000 jobs that have run for a second", 2*time.Second)
	stop()
	all.Wait()
}
