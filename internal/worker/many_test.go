//go:build unix

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

	"golang.org/x/sync/errgroup"

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
func TestManyAllocationsCostLittle(t *testing.T) {
	const n = 300
	s := newSite(t, worker.Options{})
	began := time.Now()
	var preparing errgroup.Group
	preparing.SetLimit(32)
	for i := range n {
		preparing.Go(func() error {
			name := fmt.Sprintf("tranter-%d", i)
			_, err := s.office.Prepare(worker.Assignment{Name: name})
			s.office.Follow(name)
			return err
		})
	}
	if err := preparing.Wait(); err != nil {
		t.Fatal(err)
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
	over("those that wait", time.Second)
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
	over("jobs that have run for a second", time.Second)
	stop()
	all.Wait()
}
