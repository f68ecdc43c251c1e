package image

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestOnlyOneHasALock(t *testing.T) {
	dir := t.TempDir()
	var inside, most atomic.Int32
	var all sync.WaitGroup
	for range 4 { // as if they were processes
		l := &locks{dir: dir, mode: 0o700}
		for range 10 {
			all.Go(func() {
				_, k, err := l.take(t.Context(), "a", nil)
				if err != nil {
					t.Error(err)
					return
				}
				most.Store(max(most.Load(), inside.Add(1)))
				<-time.After(time.Millisecond)
				inside.Add(-1)
				k.release()
			})
		}
	}
	all.Wait()
	if entries, err := os.ReadDir(dir); most.Load() != 1 || err != nil || len(entries) != 0 {
		t.Errorf("%d at once; left: %v %v", most.Load(), entries, err)
	}
}

// dead makes a lock of a process that has ended without releasing it.
func deadLock(t *testing.T, dir string, change func(o *owner)) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	o := self()
	o.PID = cmd.Process.Pid
	change(&o)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := (&lock{dir: dir, me: o}).sign(); err != nil {
		t.Fatal(err)
	}
}

func TestTheLockOfADeadProcessIsBrokenAtOnce(t *testing.T) {
	l := &locks{dir: t.TempDir(), mode: 0o700}
	deadLock(t, filepath.Join(l.dir, "a"), func(*owner) {})
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	_, k, err := l.take(ctx, "a", nil)
	if err != nil {
		t.Fatal(err)
	}
	k.release()
}

func TestALockWithoutSignsOfLifeIsBrokenAfterAWhile(t *testing.T) {
	dir := t.TempDir()
	deadLock(t, filepath.Join(dir, "other"), func(o *owner) { o.Host, o.Where = "elsewhere", "another system" })
	if err := os.Mkdir(filepath.Join(dir, "unsigned"), 0o700); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		l := &locks{dir: dir, mode: 0o700}
		for name, host := range map[string]string{"other": "elsewhere", "unsigned": ""} {
			began, said := time.Now(), ""
			_, k, err := l.take(t.Context(), name, func(host string) { said += host })
			if err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(began); waited < deadAfter || waited > 2*deadAfter || said != host {
				t.Errorf("%s: after %s, said %q", name, waited, said)
			}
			k.release()
		}
	})
}

func TestALockThatIsHeldForLongStays(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ours, others := &locks{dir: dir, mode: 0o700}, &locks{dir: dir, mode: 0o700}
		_, k, err := ours.take(t.Context(), "a", nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 10*deadAfter)
		defer stop()
		said := 0
		if _, _, err := others.take(ctx, "a", func(string) { said++ }); !errors.Is(err, context.DeadlineExceeded) || said != 1 {
			t.Errorf("%v, said %d times", err, said)
		}
		k.release()
	})
}

func TestWhoLosesALockIsTold(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := &locks{dir: dir, mode: 0o700}
		ctx, k, err := l.take(t.Context(), "a", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(k.dir); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), errLockLost) {
			t.Error(context.Cause(ctx))
		}
		k.release()
	})
}

func TestALockMadeAnewIsNotBroken(t *testing.T) {
	l := &locks{dir: t.TempDir(), mode: 0o700}
	dir := filepath.Join(l.dir, "a")
	deadLock(t, dir, func(o *owner) { o.Token = "new" })
	if err := l.breakUp(dir, owner{Token: "old"}); err != nil {
		t.Fatal(err)
	}
	if got := (&lock{dir: dir}).holder(); got.Token != "new" {
		t.Errorf("%+v", got)
	}
}
