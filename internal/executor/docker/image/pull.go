package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tranter-ci/tranter"
)

// attempts of a pull that fails because of the registry or the way to it (runner contract, section 9.7).
const attempts = 3

// mirrorShare is the part of the time without progress that a mirror gets: there is somewhere else to ask.
const mirrorShare = 5

// errStalled ends a pull that makes no progress.
var errStalled = errors.New("the pull makes no progress")

// pull is one pull that any number of jobs wait for. It has a goroutine that ends soon after the last of them has left.
type pull struct {
	order  order // of the first job
	cancel context.CancelFunc
	done   chan struct{} // closed when facts and err are there
	facts  Facts
	err    error
	said   said
	jobs   int // that wait for it; guarded by the mutex of the Store
}

// said is what a pull has said so far.
type said struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed at the next line
}

// Write takes whole lines.
func (s *said) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, string(line))
	if s.more != nil {
		close(s.more)
		s.more = nil
	}
	return len(line), nil
}

// from returns the lines from the given one on, and a channel that is closed when there are more.
func (s *said) from(line int) ([]string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.more == nil {
		s.more = make(chan struct{})
	}
	return s.lines[line:], s.more
}

// pull joins the pull of the same image for the same platform with the same login, or starts it. A login is never shared:
// what a job may have is what the registry gives for its own.
func (s *Store) pull(ctx context.Context, o order, log io.Writer) (Facts, error) {
	header, err := o.login.header()
	if err != nil {
		return Facts{}, configError("the login from %s for %s cannot be sent to the engine: %w", o.login.source, o.login.path, err)
	}
	key := fmt.Sprintf("%s\n%x", o.key(), sha256.Sum256([]byte(header)))
	p, joined := s.join(context.WithoutCancel(ctx), key, o, header)
	defer s.leave(key, p)
	if joined {
		fmt.Fprintf(log, "Waiting for the pull of %s that another job has begun\n", o.Name)
	}
	for line := 0; ; {
		lines, more := p.said.from(line)
		for _, text := range lines {
			_, _ = io.WriteString(log, text) // a log that is broken does not stop a pull
		}
		line += len(lines)
		select {
		case <-p.done:
			for lines, _ = p.said.from(line); len(lines) > 0; lines = lines[1:] {
				_, _ = io.WriteString(log, lines[0])
			}
			facts := p.facts
			facts.Name = o.Name
			return facts, explain(p.err, o)
		case <-ctx.Done():
			return Facts{}, ctx.Err()
		case <-more:
		}
	}
}

// join returns the pull with the given key. ctx carries values only.
func (s *Store) join(ctx context.Context, key string, o order, header string) (p *pull, joined bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p = s.pulls[key]; p != nil {
		p.jobs++
		return p, true
	}
	ctx, cancel := context.WithCancel(ctx)
	p = &pull{order: o, cancel: cancel, done: make(chan struct{}), jobs: 1}
	// A name stands for one platform at a time: what is pulled for another one must have been looked at before.
	var before []<-chan struct{}
	for _, other := range s.pulls {
		if other.order.name.full() == o.name.full() && other.order.platform != o.platform {
			before = append(before, other.done)
		}
	}
	s.pulls[key] = p
	go func() {
		defer close(p.done)
		defer cancel()
		if p.err = wait(ctx, before); p.err == nil {
			p.facts, p.err = s.carryOut(ctx, o, header, &p.said)
		}
		s.forget(key, p)
	}()
	return p, false
}

// leave takes a job off a pull. The last one ends it, and waits until it has ended.
func (s *Store) leave(key string, p *pull) {
	s.mu.Lock()
	p.jobs--
	last := p.jobs == 0
	if last && s.pulls[key] == p {
		delete(s.pulls, key)
	}
	s.mu.Unlock()
	if last {
		p.cancel()
		<-p.done
	}
}

func (s *Store) forget(key string, p *pull) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pulls[key] == p {
		delete(s.pulls, key)
	}
}

func wait(ctx context.Context, before []<-chan struct{}) error {
	for _, done := range before {
		select {
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// carryOut pulls an image, from the mirror if there is one, and asks the engine for its facts.
func (s *Store) carryOut(ctx context.Context, o order, header string, log io.Writer) (Facts, error) {
	if s.mirror.copies(o.name) {
		if facts, done, err := s.tryMirror(ctx, o, log); done {
			return facts, err
		}
	}
	fmt.Fprintf(log, "Pulling docker image %s ...\n", o.Name)
	for attempt := 1; ; attempt++ {
		err := s.fetch(ctx, o.name.full(), o, header, log)
		if err == nil {
			return s.pulled(ctx, o)
		}
		why := explain(err, o)
		if attempt == attempts || ctx.Err() != nil || !again(err, why) {
			return Facts{}, err
		}
		pause := s.options.Pause()
		warn(log, "%v; attempt %d of %d follows in %s", why, attempt+1, attempts, pause.Round(100*time.Millisecond))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return Facts{}, ctx.Err()
		}
	}
}

// again reports whether another attempt may be worth it. Who has waited for a registry that hangs has waited enough.
func again(err, why error) bool {
	var d *tranter.DependencyError
	return errors.As(why, &d) && !errors.Is(err, errStalled)
}

// tryMirror reports with done whether that was all: the image is there, nobody wants it any more, or the engine is at
// fault. Otherwise the original registry is to be asked. That is normal for what the mirror does not have, or does not
// give to everybody.
func (s *Store) tryMirror(ctx context.Context, o order, log io.Writer) (f Facts, done bool, err error) {
	f, err = s.fromMirror(ctx, o, log)
	copied := order{Wanted: Wanted{Name: s.mirror.name(o.name)}, name: s.mirror.parsed(o.name), platform: o.platform}
	why := explain(err, copied)
	if err == nil || ctx.Err() != nil || !verdict(why) {
		return f, true, err
	}
	if errors.Is(err, errStalled) || classify(err, copied).kind != absent {
		warn(log, "The registry mirror is not used for %s: %v", o.Name, why)
	}
	return Facts{}, false, nil
}

// pulled asks for what was just pulled.
func (s *Store) pulled(ctx context.Context, o order) (Facts, error) {
	facts, err := s.inspect(ctx, o.name.String(), o)
	if other := (*otherPlatform)(nil); errors.As(err, &other) {
		return Facts{}, configError("the image %s exists for %s only, not for %s: name an image for that platform, or change the platform in the job (image: docker: platform) or in the runner's configuration",
			o.Name, other.has, o.platform)
	}
	if cerrdefs.IsNotFound(err) && !strings.Contains(err.Error(), "platform") {
		return Facts{}, &tranter.PullError{Err: fmt.Errorf("the image %s was pulled, but something has removed it from the engine at once (%w): is there another program that cleans up there?", o.Name, err)}
	}
	return facts, err
}

// fromMirror pulls the mirror's copy, without a login, and gives it the name that it was asked for by.
func (s *Store) fromMirror(ctx context.Context, o order, log io.Writer) (Facts, error) {
	copied := s.mirror.name(o.name)
	fmt.Fprintf(log, "Pulling docker image %s from the registry mirror %s ...\n", o.Name, s.mirror.address)
	if err := s.fetch(ctx, copied, o, "", log); err != nil {
		return Facts{}, err
	}
	if o.name.digest() != "" {
		return s.inspect(ctx, copied, o) // a digest cannot be given to an image
	}
	if _, err := s.api.ImageTag(ctx, client.ImageTagOptions{Source: copied, Target: o.name.full()}); err != nil {
		return Facts{}, fmt.Errorf("name the mirror's copy %s: %w", o.Name, err)
	}
	return s.pulled(ctx, o)
}

// fetch has the engine pull what it calls name, and gives up when there is no progress for too long.
func (s *Store) fetch(ctx context.Context, name string, o order, header string, log io.Writer) error {
	limit := s.options.Stalled
	if name != o.name.full() {
		limit /= mirrorShare
	}
	watched, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	timer := time.AfterFunc(limit, func() { stop(fmt.Errorf("%w for %s", errStalled, limit)) })
	defer timer.Stop()
	options := client.ImagePullOptions{RegistryAuth: header}
	if o.platform.arch != "" {
		options.Platforms = []ocispec.Platform{o.platform.oci()}
	}
	err := func() error {
		stream, err := s.api.ImagePull(watched, name, options)
		if err != nil {
			return err
		}
		defer stream.Close()
		meter := newMeter(o.Name, s.options.Progress, log)
		return follow(stream, meter, func() { timer.Reset(limit) })
	}()
	if err != nil && ctx.Err() == nil && watched.Err() != nil {
		return context.Cause(watched)
	}
	return err
}
