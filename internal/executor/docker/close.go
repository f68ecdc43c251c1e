package docker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// removeTime is what the removal of something may take that nobody waits for.
const removeTime = time.Minute

// Close implements tranter.Session: everything that was made for the job is removed. What can't be removed because the
// engine does not answer is left to Sweep.
func (s *session) Close(ctx context.Context) error {
	s.stop()
	for _, place := range []tranter.Place{tranter.PlaceHelper, tranter.PlaceBuild} {
		if b := s.box(place); b != nil {
			b.close()
		}
	}
	s.owned.Wait()
	ctx, stop := context.WithTimeoutCause(ctx, removeTime, errEngineAway)
	defer stop()
	err := s.removeAll(ctx)
	s.letGo()
	if uses := s.host.uses; uses != nil {
		err = errors.Join(err, uses.Flush(time.Now()))
	}
	return err
}

// letGo ends the session's hold on images and volumes, and its life.
func (s *session) letGo() {
	s.stop()
	s.mu.Lock()
	release := s.release
	s.release = nil
	s.mu.Unlock()
	for _, f := range release {
		f()
	}
}

var errEngineAway = errors.New("the engine does not answer; it is removed once it does")

// removeAll removes containers, then what they have used.
func (s *session) removeAll(ctx context.Context) error {
	containers := append([]string(nil), s.ref.Services...)
	for _, name := range s.ref.Containers {
		containers = append(containers, name)
	}
	api := s.host.engine.API
	err := s.removeEach(ctx, containers, func(name string) error {
		_, err := api().ContainerRemove(ctx, name, client.ContainerRemoveOptions{Force: true, RemoveVolumes: !s.ref.KeepVolumes})
		return err
	})
	if s.ref.Network != "" {
		err = errors.Join(err, s.removeEach(ctx, []string{s.ref.Network}, func(name string) error {
			_, err := api().NetworkRemove(ctx, name, client.NetworkRemoveOptions{})
			return err
		}))
	}
	return errors.Join(err, s.removeEach(ctx, s.ref.Volumes, func(name string) error {
		_, err := api().VolumeRemove(ctx, name, client.VolumeRemoveOptions{Force: true})
		return err
	}))
}

// lateTime is what the making of something may take that nobody waits for any more.
const lateTime = 30 * time.Second

// finishing returns a context for what makes something on the engine: it ends a while after ctx. The engine goes on when
// nobody listens any more, so what is given up half-way would come to be after everything was removed.
func finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(lateTime):
			cancel(context.Cause(ctx))
		case <-late.Done():
		}
	})
	return late, func() {
		stop()
		cancel(nil)
	}
}

// removeEach removes what has the given names, all at the same time. That it is not there is fine.
func (s *session) removeEach(ctx context.Context, names []string, remove func(name string) error) error {
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { errs[i] = stubbornly(ctx, name, remove) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// stubbornly removes something also if the engine is away for a while, or busy with just that.
func stubbornly(ctx context.Context, name string, remove func(name string) error) error {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := remove(name)
		switch {
		case err == nil, engine.Missing(err), errors.Is(withLoss(err), tranter.ErrMachineLost):
			return nil
		case !engine.Gone(err) && !engine.Conflict(err):
			return fmt.Errorf("remove %s: %w", name, engine.Explain(err))
		}
		if !pause(ctx, wait) {
			return fmt.Errorf("remove %s: %w (%w)", name, engine.Explain(err), context.Cause(ctx))
		}
	}
}
