package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

const (
	probeFirst = 10 * time.Millisecond // pauses between attempts
	probeLast  = 250 * time.Millisecond
	probeDial  = 3 * time.Second // one that gets no answer at all
)

// probe tries to reach the targets, all at the same time.
func probe(ctx context.Context, targets []Target, limit time.Duration) []Probed {
	ctx, stop := context.WithTimeoutCause(ctx, limit, fmt.Errorf("nothing answers within %v", limit))
	defer stop()
	probed := make([]Probed, len(targets))
	var all sync.WaitGroup
	for i, t := range targets {
		all.Go(func() {
			probed[i].Name = t.Name
			if err := t.reach(ctx); err != nil {
				probed[i].Err = tail(err.Error(), 2000)
			}
		})
	}
	all.Wait()
	return probed
}

// reach tries all ports of a target until one answers or ctx ends. The error is the last one that says something.
func (t Target) reach(ctx context.Context) error {
	if len(t.Ports) == 0 {
		return errors.New("it has no port to try")
	}
	var last error
	timer := time.NewTimer(0)
	defer timer.Stop()
	for wait := probeFirst; ; wait = min(2*wait, probeLast) {
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), last)
		case <-timer.C:
		}
		err := t.dial(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		timer.Reset(wait)
	}
}

// dial tries all ports at the same time.
func (t Target) dial(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, probeDial)
	defer stop()
	host := t.Address
	if host == "" {
		host = t.Name
	}
	answers := make(chan error, len(t.Ports))
	for _, port := range t.Ports {
		go func() { // ends with ctx at the latest
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
			if err == nil {
				err = c.Close()
			}
			answers <- err
		}()
	}
	var last error
	for range t.Ports {
		if last = <-answers; last == nil {
			return nil
		}
	}
	return last
}

// own gives paths and all below them to a user and a group.
func own(ctx context.Context, paths []string, uid, gid int) error {
	for _, path := range paths {
		err := filepath.WalkDir(path, func(name string, _ fs.DirEntry, err error) error {
			if err == nil {
				err = ctx.Err()
			}
			if err == nil {
				err = os.Lchown(name, uid, gid)
			}
			if errors.Is(err, os.ErrNotExist) { // it is gone by now, or never was
				return nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("give %s to user %d: %w", path, uid, err)
		}
	}
	return nil
}
