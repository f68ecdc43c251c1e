package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/link"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/janitor"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

// reference is what Ref gives: where the containers are, so that a later process finds them, even one whose
// configuration does not name this engine any more.
type reference struct {
	Docker      engineAddress            `json:"docker"`
	Session     string                   `json:"session"` // label of all that belongs to it
	Containers  map[tranter.Place]string `json:"containers"`
	Images      map[tranter.Place]string `json:"images,omitempty"`
	Services    []string                 `json:"services,omitempty"`
	Network     string                   `json:"network,omitempty"`
	Volumes     []string                 `json:"volumes,omitempty"` // to be removed with the session
	Follow      []followed               `json:"follow,omitempty"`
	HandOver    bool                     `json:"hand_over,omitempty"` // the sources are to belong to the build container's user
	Dirs        tranter.Dirs             `json:"dirs"`
	KeepVolumes bool                     `json:"keep_volumes,omitempty"`
}

// engineAddress says which engine a session is on.
type engineAddress struct {
	Host     string `json:"host,omitempty"`
	CertPath string `json:"cert_path,omitempty"`
	Verify   bool   `json:"verify,omitempty"`
	Machine  string `json:"machine,omitempty"` // whose engine it is, in place of all that
}

// session is one job's containers.
type session struct {
	host  *host
	life  context.Context //nolint:containedctx // of what goes on in the background until Close
	stop  context.CancelFunc
	owned sync.WaitGroup // goroutines that end with life

	mu      sync.Mutex // guards what follows, and the maps in ref
	ref     reference
	boxes   map[tranter.Place]*box
	starts  map[tranter.Place]*starting
	places  map[string]tranter.Place // of phases that were started by this process
	running string                   // the phase whose journal takes notes
	cancels map[string]cancelRequest // that may have to be told again over another connection
	quiet   bool                     // the phase that was started last has come to its end by itself
	release []func()                 // of images and volumes that are in use
}

func newSession(ctx context.Context, h *host, ref reference) *session {
	s := &session{
		host: h, ref: ref, boxes: map[tranter.Place]*box{}, starts: map[tranter.Place]*starting{},
		places: map[string]tranter.Place{}, cancels: map[string]cancelRequest{},
	}
	s.life, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	return s
}

func (s *session) addBox(place tranter.Place, name, image string) *box {
	b := &box{host: s.host, place: place, name: name, image: image, starts: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ref.Containers[place], s.ref.Images[place], s.boxes[place] = name, image, b
	return b
}

func (s *session) box(place tranter.Place) *box {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.boxes[place]
}

// hold keeps something from being removed to make room until the session is closed.
func (s *session) hold(h *host, kind janitor.Kind, name string) {
	if h.uses == nil {
		return
	}
	release := h.uses.Hold(kind, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release = append(s.release, release)
}

type cancelRequest struct {
	abort bool
	grace time.Duration
}

// starting is a container that is being started in the background.
type starting struct {
	done chan struct{}
	err  error // once done
}

// begin starts a container in the background, once after is closed: its agent is needed when the sources are there, and
// two that start at the same time are both slower. What comes of it is known to await.
func (s *session) begin(b *box, after <-chan struct{}) {
	st := &starting{done: make(chan struct{})}
	s.mu.Lock()
	s.starts[b.place] = st
	s.mu.Unlock()
	s.owned.Go(func() {
		defer close(st.done)
		b.spare = s.host.engine.Spare(s.life)
		defer b.spare.Close()
		if st.err = waitFor(s.life, after); st.err == nil {
			st.err = b.start(s.life)
		}
	})
}

// await waits for a container that is being started in the background.
func (s *session) await(ctx context.Context, place tranter.Place) error {
	s.mu.Lock()
	st := s.starts[place]
	s.mu.Unlock()
	if st == nil {
		return nil
	}
	select {
	case <-st.done:
		return st.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// placeOf returns where a phase runs.
func (s *session) placeOf(p tranter.Phase) tranter.Place {
	place := tranter.PlaceBuild
	if p.Container != nil && p.Container.Place != "" {
		place = p.Container.Place
	}
	if s.box(place) == nil {
		place = tranter.PlaceBuild
	}
	return place
}

// Start implements tranter.Session. In the build container, the image's entrypoint comes first.
func (s *session) Start(ctx context.Context, p tranter.Phase) error {
	place := s.placeOf(p)
	if err := s.await(ctx, place); err != nil && !passing(err) { // else the container is started below, if it was not
		return err
	}
	b := s.box(place)
	err := s.patiently(ctx, func() error {
		c, err := s.connect(ctx, b)
		if err != nil {
			return err
		}
		hello, err := b.enter(ctx, environ(p.Variables, s.ref.Dirs), nil)
		if err != nil {
			return err
		}
		if err := s.handOver(ctx, place, hello); err != nil {
			return err
		}
		return b.told(c, c.Start(ctx, s.begunBy(p, place, hello)))
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.places[p.ID], s.running, s.quiet = place, p.ID, false
	s.mu.Unlock()
	return nil
}

// begunBy returns a phase whose log begins with what the image's entrypoint has printed, if it is the container's first.
func (s *session) begunBy(p tranter.Phase, place tranter.Place, hello link.Hello) tranter.Phase {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, other := range s.places {
		if other == place && id != p.ID {
			return p
		}
	}
	c := tranter.Container{Place: place}
	if p.Container != nil {
		c = *p.Container
	}
	c.Said = hello.Said
	if c.Said != "" {
		p.Container = &c
	}
	return p
}

// handOver gives the sources to the build container's user, where the configuration wants that instead of files that
// everybody may write to (FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR).
func (s *session) handOver(ctx context.Context, place tranter.Place, build link.Hello) error {
	helper := s.box(tranter.PlaceHelper)
	if !s.ref.HandOver || helper == nil || place != tranter.PlaceBuild || build.UID <= 0 {
		return nil
	}
	c, err := helper.client(ctx)
	if err != nil {
		return err
	}
	return helper.told(c, c.Own(ctx, []string{s.ref.Dirs.Project, s.ref.Dirs.Temp}, build.UID, build.GID))
}

// connect returns a connection to the agent, in a container that is started if nobody has: a manager that was killed may
// have made it only.
func (s *session) connect(ctx context.Context, b *box) (*connection, error) {
	c, err := b.client(ctx)
	if errors.Is(err, errNeverStarted) {
		if err := b.start(ctx); err != nil {
			return nil, err
		}
		return b.client(ctx)
	}
	return c, err
}

// Attach implements tranter.Session. An engine that does not answer for longer than the configuration allows counts as
// the loss of the agent.
func (s *session) Attach(ctx context.Context, phaseID string, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	b := s.box(s.placeOfID(phaseID))
	count := &counter{w: w, offset: offset}
	var result tranter.PhaseResult
	err := s.patiently(ctx, func() error {
		c, err := b.client(ctx)
		if err != nil {
			return err
		}
		s.repeatCancel(ctx, c, phaseID)
		before := count.offset
		result, err = c.Attach(ctx, phaseID, count.offset, count)
		if count.err != nil { // the log can't be written: that is not the connection's fault
			b.broken(c)
			return count.err
		}
		err = b.told(c, err)
		if count.offset > before && err != nil {
			return &progressError{err}
		}
		return err
	})
	if err == nil && result.ExitCode == killedCode {
		result.Message = b.whyKilled(ctx, result.Message)
	}
	s.mu.Lock()
	s.quiet = err == nil && (result.Status == tranter.PhaseSucceeded || result.Status == tranter.PhaseFailed)
	s.mu.Unlock()
	return result, err
}

// Quiet says that the job's phases have come to their end by themselves: agents have ended what scripts had left, and
// nothing but the containers, with services in them, is there any more.
func (s *session) Quiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.quiet
}

func (s *session) placeOfID(phaseID string) tranter.Place {
	s.mu.Lock()
	defer s.mu.Unlock()
	if place, ok := s.places[phaseID]; ok {
		return place
	}
	return tranter.PlaceBuild
}

// counter knows how much of a journal has been copied, over several connections.
type counter struct {
	w      io.Writer
	offset int64
	err    error
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.offset += int64(n)
	c.err = err
	return n, err
}

// progressError is a lost connection over which something has come: the engine was there.
type progressError struct{ error }

func (e *progressError) Unwrap() error { return e.error }

const (
	firstWait = 100 * time.Millisecond
	lastWait  = 2 * time.Second
)

// patiently calls f until it succeeds, or fails for another reason than a connection that is gone, or has failed for so
// long that the engine counts as lost.
func (s *session) patiently(ctx context.Context, f func() error) error {
	wait, since := firstWait, time.Time{}
	for {
		err := f()
		if _, progress := errors.AsType[*progressError](err); progress {
			since, wait = time.Time{}, firstWait
		}
		switch {
		case errors.Is(withLoss(err), tranter.ErrMachineLost):
			return withLoss(err)
		case err == nil, errors.Is(err, tranter.ErrAgentLost), !passing(err):
			return err
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > s.host.patience:
			return fmt.Errorf("the engine has not answered for %v: %w: %w", s.host.patience, err, s.host.lost())
		}
		if !pause(ctx, wait) {
			return context.Cause(ctx)
		}
		wait = min(2*wait, lastWait)
	}
}

// withLoss returns the error so that it is tranter.ErrMachineLost if the machine is lost: the client of the engine's API
// leaves out why there is no connection.
func withLoss(err error) error {
	if explained := engine.Explain(err); errors.Is(explained, tranter.ErrMachineLost) {
		return explained
	}
	return err
}

// passing says whether an error may be gone when the same is tried over a new connection.
func passing(err error) bool {
	return errors.Is(err, link.ErrBroken) || engine.Gone(err)
}

// cancelTime is how long an agent may take to answer a request to end a phase, for which it has to write a small file.
const cancelTime = 5 * time.Second

// Cancel implements tranter.Session. While the connection to the agent is lost, it is told once there is one again.
func (s *session) Cancel(ctx context.Context, phaseID string, abort bool, grace time.Duration) error {
	s.mu.Lock()
	known := s.cancels[phaseID]
	s.cancels[phaseID] = cancelRequest{abort: abort || known.abort, grace: grace}
	s.mu.Unlock()
	b := s.box(s.placeOfID(phaseID))
	ctx, stop := context.WithTimeoutCause(ctx, cancelTime, errSlow)
	defer stop()
	c, err := b.client(ctx)
	if err == nil {
		err = b.told(c, c.Cancel(ctx, phaseID, abort, grace))
	}
	if passing(err) {
		return nil // Attach repeats it
	}
	return err
}

func (s *session) repeatCancel(ctx context.Context, c *connection, phaseID string) {
	s.mu.Lock()
	request, asked := s.cancels[phaseID]
	s.mu.Unlock()
	if asked {
		ctx, stop := context.WithTimeoutCause(ctx, cancelTime, errSlow)
		defer stop()
		_ = c.Cancel(ctx, phaseID, request.abort, request.grace) // if it is lost, so is what follows
	}
}

// Ref implements tranter.Session.
func (s *session) Ref() json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, _ := json.Marshal(s.ref)
	return data
}

// phaseDir is where a phase lies in its container.
func phaseDir(id string) string { return path.Join(spec.AgentRoot, "phase-"+id) }
