// Package image brings the images of jobs to an engine: what their names mean, which of them are allowed, in which order
// the pull policies are tried, which login goes with a pull, and what is to be said when there is no image in the end
// (runner contract, section 9.7). It makes no containers. The docker executor calls it.
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
)

// API is what a Store needs of an engine; *client.Client is one.
type API interface {
	ImageInspect(ctx context.Context, name string, options ...client.ImageInspectOption) (client.ImageInspectResult, error)
	ImagePull(ctx context.Context, name string, options client.ImagePullOptions) (client.ImagePullResponse, error)
	ImageTag(ctx context.Context, options client.ImageTagOptions) (client.ImageTagResult, error)
	ClientVersion() string // the version of the API that is spoken
}

// Options are what a Store does not find out itself.
type Options struct {
	Mirror   Mirror
	Stalled  time.Duration        // a pull that makes no progress for so long is given up; 0: 5 minutes
	Progress time.Duration        // between two lines of progress in a log; 0: 10 seconds
	Pause    func() time.Duration // before another attempt; nil: 2 to 10 seconds, by chance
}

// Mirror is a registry that holds copies of the images of another one. The zero value is none.
type Mirror struct {
	Address string // as the engine reaches it: host:port, with http:// or https:// before it or not
	Remote  string // the registry that it stands for; empty: docker.io
}

// Wanted is an image that a job needs.
type Wanted struct {
	Name     string   // as Reference returns it
	Policies []string // as Effective returns them; empty: always
	Platform string   // such as linux/arm64; empty: the engine's own
	What     string   // what it is for, in messages: build, helper, service NAME
	Logins   Logins
	Seen     *Seen // the images that the job has already got, which are not pulled again; nil: they are
}

// Facts are what an engine says of an image that it has.
type Facts struct {
	ID       string
	Name     string // as it was asked for
	Use      string // what to create containers from: a digest of the repository, or else the id
	Digest   string // sha256:... of the manifest; empty: the image came from no registry
	User     string
	OS, Arch string

	Entrypoint, Cmd, Env []string

	Ports   []int    // exposed TCP ports, sorted
	Volumes []string // sorted
	WorkDir string
}

// Seen remembers the images of one job.
type Seen struct {
	mu  sync.Mutex
	ids map[string]string // by name and platform
}

func (s *Seen) id(key string) string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ids[key]
}

func (s *Seen) add(key, id string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil {
		s.ids = map[string]string{}
	}
	s.ids[key] = id
}

// Store brings images to one engine. Its methods may be called at the same time.
type Store struct {
	api     API
	options Options
	mirror  *mirror // nil: none

	mu    sync.Mutex
	pulls map[string]*pull
}

// NewStore returns a Store for the engine that api talks to.
func NewStore(api API, o Options) *Store {
	if o.Stalled <= 0 {
		o.Stalled = 5 * time.Minute
	}
	if o.Progress <= 0 {
		o.Progress = 10 * time.Second
	}
	if o.Pause == nil {
		o.Pause = func() time.Duration { return 2*time.Second + rand.N(8*time.Second) }
	}
	return &Store{api: api, options: o, mirror: mirrorOf(o.Mirror), pulls: map[string]*pull{}}
}

// order is a Wanted that has been understood.
type order struct {
	Wanted
	name     name
	platform platform
	login    login
}

func (o order) key() string { return o.name.full() + "\n" + o.platform.String() }

// Get returns the facts of an image once the engine has it, and says in log what it does for that. The policies are
// tried in their order. The error is a *tranter.ConfigError where the name, the policies or the login are at fault, a
// *tranter.DependencyError where the registry or the way to it is, a *tranter.PullError where neither is known to be,
// ctx's own, or any other when the engine does not answer.
func (s *Store) Get(ctx context.Context, w Wanted, log io.Writer) (Facts, error) {
	o, err := understand(w)
	if err != nil {
		return Facts{}, err
	}
	fmt.Fprintf(log, "Using effective pull policy of [%s] for container %s\n", strings.Join(o.Policies, " "), o.Name)
	var failed []error
	for i, policy := range o.Policies {
		if i > 0 {
			fmt.Fprintf(log, "Attempt #%d: Trying %q pull policy\n", i+1, policy)
		}
		facts, err := s.try(ctx, policy, &o, log)
		if err == nil {
			o.Seen.add(o.key(), facts.ID)
			used(log, facts)
			return facts, nil
		}
		if ctx.Err() != nil {
			return Facts{}, fmt.Errorf("wait for the image %s: %w", o.Name, context.Cause(ctx))
		}
		if !verdict(err) { // the engine itself is at fault: another policy meets the same
			return Facts{}, fmt.Errorf("get the image %s from the engine: %w", o.Name, err)
		}
		if len(o.Policies) > 1 {
			warn(log, "Failed to pull image with policy %q: %v", policy, err)
		}
		failed = append(failed, err)
	}
	return Facts{}, refusal(o, failed)
}

// understand checks what is wanted.
func understand(w Wanted) (order, error) {
	n, err := parse(w.Name)
	if err != nil {
		return order{}, err
	}
	p, err := parsePlatform(w.Platform)
	if err != nil {
		return order{}, err
	}
	if len(w.Policies) == 0 {
		w.Policies = []string{Always}
	}
	if err := known("this image", w.Policies); err != nil {
		return order{}, err
	}
	return order{Wanted: w, name: n, platform: p}, nil
}

// verdict reports whether err is about the image, not about the engine.
func verdict(err error) bool {
	var c *tranter.ConfigError
	var d *tranter.DependencyError
	var p *tranter.PullError
	return errors.As(err, &c) || errors.As(err, &d) || errors.As(err, &p)
}

// refusal is the error of Get. When a pull has failed because of the registry, another attempt later may work, whatever
// the policies after it came to; so that decides about the kind of the error before the last policy does.
func refusal(o order, failed []error) error {
	kind := failed[len(failed)-1]
	for _, err := range failed {
		if d := (*tranter.DependencyError)(nil); errors.As(err, &d) {
			kind = err
		}
	}
	said := []string{failed[0].Error()}
	for _, err := range failed[1:] {
		if !slices.Contains(said, err.Error()) {
			said = append(said, err.Error())
		}
	}
	what := o.What
	if what == "" {
		what = "job"
	}
	whole := fmt.Errorf("failed to pull image %q for the %s container with specified policies [%s]: %s",
		o.Name, what, strings.Join(o.Policies, " "), strings.Join(said, "; "))
	var c *tranter.ConfigError
	var d *tranter.DependencyError
	switch {
	case errors.As(kind, &d):
		return &tranter.DependencyError{Err: whole}
	case errors.As(kind, &c):
		return &tranter.ConfigError{Err: whole}
	default:
		return &tranter.PullError{Err: whole}
	}
}

// try gets the image by one policy.
func (s *Store) try(ctx context.Context, policy string, o *order, log io.Writer) (Facts, error) {
	if policy != Always || o.name.isID() {
		facts, err := s.present(ctx, *o, log)
		if err == nil && policy == IfNotPresent && !o.name.isID() {
			fmt.Fprintf(log, "Using locally found image version due to %q pull policy\n", policy)
		}
		if err == nil || !cerrdefs.IsNotFound(err) {
			return facts, err
		}
		if err := mayPull(policy, *o); err != nil {
			return Facts{}, err
		}
	}
	if id := o.Seen.id(o.key()); id != "" {
		if facts, err := s.inspect(ctx, id, *o); err == nil {
			return facts, nil
		}
	}
	o.logIn(ctx, log)
	return s.pull(ctx, *o, log)
}

// logIn finds the login for the image, once for all policies.
func (o *order) logIn(ctx context.Context, log io.Writer) {
	if o.login.source != "" {
		return
	}
	if o.login = o.Logins.find(ctx, o.name, log); o.login.source != "" {
		fmt.Fprintf(log, "Authenticating with credentials from %s\n", o.login.source)
	}
}

// mayPull refuses to pull an image that the engine does not have.
func mayPull(policy string, o order) error {
	switch {
	case o.name.isID():
		return configError("the engine has no image with the id %s, and an image cannot be pulled by its id: name it by repository and tag or digest", o.Name)
	case policy == Never:
		return configError("the engine does not have the image %s%s, and the pull policy %q does not let it be pulled: pull or build it on the engine's machine, or allow the policy %q",
			o.Name, o.platform.suffix(), Never, IfNotPresent)
	default:
		return nil
	}
}

// present looks for the image on the engine. The error is one of those that cerrdefs.IsNotFound knows when it is not there.
func (s *Store) present(ctx context.Context, o order, log io.Writer) (Facts, error) {
	facts, err := s.inspect(ctx, o.name.String(), o)
	if cerrdefs.IsNotFound(err) && s.mirror.copies(o.name) && o.name.digest() != "" {
		facts, err = s.inspect(ctx, s.mirror.name(o.name), o) // a digest cannot be tagged: it is known by the mirror's name only
	}
	if other := (*otherPlatform)(nil); errors.As(err, &other) {
		fmt.Fprintf(log, "The engine has the image %s for %s, not for %s: it counts as not present\n", o.Name, other.has, o.platform)
		return Facts{}, fmt.Errorf("%w: %w", cerrdefs.ErrNotFound, err)
	}
	return facts, err
}

// used says what containers will be made from.
func used(log io.Writer, f Facts) {
	digest := f.Digest
	if strings.Contains(f.Use, "@") {
		digest = f.Use
	}
	if digest == "" {
		fmt.Fprintf(log, "Using docker image %s for %s ...\n", f.ID, f.Name)
		return
	}
	fmt.Fprintf(log, "Using docker image %s for %s with digest %s ...\n", f.ID, f.Name, digest)
}

// warn writes a warning to a job's log, in the colour of the runner's warnings (runner contract, section 4.4).
func warn(log io.Writer, format string, args ...any) {
	fmt.Fprintf(log, "\x1b[0;33mWARNING: %s\x1b[0;m\n", fmt.Sprintf(format, args...))
}

func configError(format string, args ...any) error {
	return &tranter.ConfigError{Err: fmt.Errorf(format, args...)}
}
