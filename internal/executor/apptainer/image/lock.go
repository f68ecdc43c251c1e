package image

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	heartbeat = 10 * time.Second
	// deadAfter is how long nothing is heard of the holder of a lock until others take it.
	deadAfter = time.Minute
	firstWait = 10 * time.Millisecond
	lastWait  = 500 * time.Millisecond
)

// errLockLost means that somebody else has taken a lock for dead and broken it.
var errLockLost = errors.New("the lock was taken by another process, which saw no sign of life of this one")

// owner is what the file in a lock's directory says. Beat changes with each sign of life.
type owner struct {
	Host  string `json:"host"`
	Where string `json:"where"` // tells systems and namespaces apart in which a process id means something
	PID   int    `json:"pid"`
	Token string `json:"token"`
	Beat  int64  `json:"beat"`
}

// lock is a directory that somebody has made: that can be done only once, on file systems that are shared, too.
type lock struct {
	dir   string
	me    owner
	lost  context.CancelCauseFunc
	done  chan struct{}
	ended sync.WaitGroup
	next  chan struct{} // the turn of the others in this process
}

// locks are the locks in a directory.
type locks struct {
	dir   string
	mode  fs.FileMode
	mu    sync.Mutex
	turns map[string]chan struct{}
}

// turn waits until no other goroutine of this process has the lock or waits for it at the file system.
func (l *locks) turn(ctx context.Context, name string) (chan struct{}, error) {
	l.mu.Lock()
	if l.turns == nil {
		l.turns = map[string]chan struct{}{}
	}
	c := l.turns[name]
	if c == nil {
		c = make(chan struct{}, 1)
		l.turns[name] = c
	}
	l.mu.Unlock()
	select {
	case c <- struct{}{}:
		return c, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// take waits for a lock. waiting is called once, with the host that has it, if that is somebody else. The context that it
// returns ends if the lock is lost.
func (l *locks) take(ctx context.Context, name string, waiting func(host string)) (context.Context, *lock, error) {
	turn, err := l.turn(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	k := &lock{dir: filepath.Join(l.dir, name), me: self(), done: make(chan struct{}), next: turn}
	if err := l.acquire(ctx, k, waiting); err != nil {
		<-turn
		return nil, nil, err
	}
	ctx, k.lost = context.WithCancelCause(ctx)
	k.ended.Go(k.beat)
	return ctx, k, nil
}

func (l *locks) acquire(ctx context.Context, k *lock, waiting func(host string)) error {
	var seen owner
	since, pause := time.Now(), firstWait
	for {
		if taken, err := k.try(l.mode); taken || err != nil {
			return err
		}
		has := k.holder()
		if has != seen {
			seen, since = has, time.Now()
		}
		if has.dead() || time.Since(since) > deadAfter {
			if err := l.breakUp(k.dir, has); err != nil {
				return err
			}
			continue
		}
		if waiting != nil && has.Host != "" {
			waiting(has.Host)
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		pause = min(2*pause, lastWait)
	}
}

// try makes the lock, unless it is there.
func (k *lock) try(mode fs.FileMode) (taken bool, err error) {
	err = os.Mkdir(k.dir, mode)
	switch {
	case errors.Is(err, fs.ErrExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("make a lock: %w", err)
	}
	if err := k.sign(); err != nil {
		_ = os.RemoveAll(k.dir) // others break it after a while
		return false, fmt.Errorf("sign a lock: %w", err)
	}
	return true, nil
}

// breakUp takes a lock away whose holder is dead. Of several who try, one gets it, by renaming it first; a lock that was
// made anew in the meantime is put back.
func (l *locks) breakUp(dir string, dead owner) error {
	aside := filepath.Join(l.dir, ".broken-"+rand.Text())
	if err := os.Rename(dir, aside); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("break the lock of a dead process: %w", err)
	}
	if got := (&lock{dir: aside}).holder(); got.Token != dead.Token {
		if os.Rename(aside, dir) == nil {
			return nil
		}
	}
	return os.RemoveAll(aside)
}

// self is this process, as a new owner.
func self() owner {
	host, _ := os.Hostname()
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	space, _ := os.Readlink("/proc/self/ns/pid")
	return owner{Host: host, Where: strings.TrimSpace(string(boot)) + " " + space, PID: os.Getpid(), Token: rand.Text()}
}

// dead says whether the owner is a process of this system that is not there any more. Of others nothing is known.
func (o owner) dead() bool {
	if me := self(); o.PID <= 0 || o.Where != me.Where || o.Host != me.Host || strings.TrimSpace(o.Where) == "" {
		return false
	}
	p, err := os.FindProcess(o.PID)
	if err != nil {
		return false
	}
	defer p.Release() //nolint:errcheck // there is nothing to do about it
	err = p.Signal(syscall.Signal(0))
	return errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH)
}

// holder reads who has the lock; what can't be read is nobody.
func (k *lock) holder() owner {
	var o owner
	data, err := readBounded(filepath.Join(k.dir, "owner"), 4096)
	if err != nil || json.Unmarshal(data, &o) != nil {
		return owner{}
	}
	return o
}

// sign writes a sign of life.
func (k *lock) sign() error {
	k.me.Beat = time.Now().UnixNano()
	data, err := json.Marshal(k.me)
	if err != nil {
		return err
	}
	next := filepath.Join(k.dir, "next-"+strconv.Itoa(os.Getpid()))
	if err := os.WriteFile(next, data, 0o644); err != nil { //nolint:gosec // who has a lock is for all to see
		return err
	}
	return os.Rename(next, filepath.Join(k.dir, "owner"))
}

// beat gives signs of life until the lock is released, or lost.
func (k *lock) beat() {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-k.done:
			return
		case <-tick.C:
		}
		if k.holder().Token != k.me.Token {
			k.lost(errLockLost)
			return
		}
		_ = k.sign() // the next one may work; if none does, others take the lock
	}
}

// release gives the lock to others.
func (k *lock) release() {
	close(k.done)
	k.ended.Wait()
	k.lost(context.Canceled)
	if k.holder().Token == k.me.Token {
		// By another name first: nobody is to see it without an owner.
		aside := k.dir + ".done-" + k.me.Token
		if os.Rename(k.dir, aside) == nil {
			_ = os.RemoveAll(aside) // it is nobody's lock any more
		}
	}
	<-k.next
}
