package janitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

const (
	// late is how long after its expiry a thing is removed whoever has made it: clocks differ, and its maker should do it.
	late = time.Hour
	// agentAge is the age from which an agent volume that nothing uses and that is not the current one goes.
	agentAge = 24 * time.Hour
	// atOnce bounds the removals that are under way: an engine that is asked for many at once takes no longer for one each.
	atOnce = 4
	// patience is how long one removal may take. A container whose processes hang in a file system's call takes for ever.
	patience = time.Minute
)

// Swept names what a sweep has removed.
type Swept struct {
	Containers, Networks, Volumes []string
}

// Count is the number of things removed.
func (s Swept) Count() int { return len(s.Containers) + len(s.Networks) + len(s.Volumes) }

// String is what the manager logs; empty if nothing was removed.
func (s Swept) String() string {
	var parts []string
	for _, p := range []struct {
		noun  string
		names []string
	}{{"container", s.Containers}, {"network", s.Networks}, {"volume", s.Volumes}} {
		if n := len(p.names); n > 0 {
			parts = append(parts, fmt.Sprintf("%s (%s)", counted(n, p.noun), shortened(p.names)))
		}
	}
	return strings.Join(parts, ", ")
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// shortened lists names, but not hundreds.
func shortened(names []string) string {
	const most = 10
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}

// Sweeping says what a sweep may remove.
type Sweeping struct {
	// Owner is whose things go when their job is not live. Empty: only what has expired goes.
	Owner string
	// Live says whether the job of that name (tranter.SessionSpec.Name) goes on. It is asked after the lists were made: a
	// job that is being prepared meanwhile is either live by then or not in the lists.
	Live func(name string) bool
	// Agent is the name of the volume with our current program, which stays. Of each other owner's the newest stays.
	Agent string
	// Preview has everything done but the removals.
	Preview bool
}

// Sweep removes the containers with their anonymous volumes, the networks and the temporary volumes of owner's jobs that
// are not live, and anybody's of ours that have expired more than an hour ago. Cache volumes stay, and so does a mirror.
// What is not there any more counts as removed. One failure does not stop the rest: what was removed is returned, and the
// errors are joined.
func Sweep(ctx context.Context, e *engine.Engine, owner string, live func(name string) bool) (Swept, error) {
	return Sweeping{Owner: owner, Live: live}.Run(ctx, e)
}

// Run is Sweep with more to choose.
func (s Sweeping) Run(ctx context.Context, e *engine.Engine) (Swept, error) {
	found, err := list(ctx, e.API())
	if err != nil {
		return Swept{}, fmt.Errorf("look for what jobs have left on the engine: %w", engine.Explain(err))
	}
	doomed := s.choose(found, time.Now())
	if s.Preview {
		return doomed.names(), nil
	}
	return doomed.remove(ctx, e.API())
}

// stock is what of ours is on an engine.
type stock struct {
	containers []container.Summary
	networks   []network.Summary
	volumes    []volume.Volume
}

// list asks the engine for what carries our labels. Engines differ in how they filter, so what comes back is checked.
func list(ctx context.Context, api *client.Client) (stock, error) {
	ours := client.Filters{}.Add("label", labelOwner)
	var s stock
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		r, err := api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: ours})
		s.containers = slices.DeleteFunc(r.Items, func(c container.Summary) bool { return c.Labels[labelOwner] == "" })
		return err
	})
	g.Go(func() error {
		r, err := api.NetworkList(ctx, client.NetworkListOptions{Filters: ours})
		s.networks = slices.DeleteFunc(r.Items, func(n network.Summary) bool { return n.Labels[labelOwner] == "" })
		return err
	})
	g.Go(func() error {
		r, err := api.VolumeList(ctx, client.VolumeListOptions{Filters: ours})
		s.volumes = slices.DeleteFunc(r.Items, func(v volume.Volume) bool { return v.Labels[labelOwner] == "" })
		return err
	})
	return s, g.Wait()
}

// choose returns what is to go.
func (s Sweeping) choose(found stock, now time.Time) stock {
	left := s.left(now)
	return stock{
		containers: only(found.containers, func(c container.Summary) bool { return left(c.Labels) }),
		networks:   only(found.networks, func(n network.Summary) bool { return left(n.Labels) }),
		volumes: append(only(found.volumes, func(v volume.Volume) bool {
			return v.Labels[labelTemporary] == "1" && v.Labels[labelStockType] != typeCache && left(v.Labels)
		}), s.oldAgents(found.volumes, now)...),
	}
}

func only[T any](all []T, want func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(all), func(t T) bool { return !want(t) })
}

// left returns what says of a thing's labels that nobody wants it any more. A job gets the same answer for all that it
// has.
func (s Sweeping) left(now time.Time) func(labels map[string]string) bool {
	verdicts := map[string]bool{}
	live := func(job string) bool {
		verdict, asked := verdicts[job]
		if !asked {
			verdict = s.Live == nil || s.Live(job)
			verdicts[job] = verdict
		}
		return verdict
	}
	return func(labels map[string]string) bool {
		switch job := labels[labelJob]; {
		case isMirror(labels):
			return false
		case s.Owner != "" && labels[labelOwner] == s.Owner && job != "":
			return !live(job)
		case s.Owner != "" && labels[labelOwner] == s.Owner: // made on the way, by this manager's clock
			end, ok := expiry(labels)
			return ok && now.After(end)
		default:
			end, ok := expiry(labels)
			return ok && now.After(end.Add(late))
		}
	}
}

// isMirror says whether something is a registry mirror's. A job's container has also the labels of its image, which may say
// anything but whose job it is.
func isMirror(labels map[string]string) bool {
	return labels[labelType] == typeMirror && labels[labelJob] == ""
}

// oldAgents are the volumes with programs of ours that were replaced. One that a container uses the engine does not
// remove.
func (s Sweeping) oldAgents(volumes []volume.Volume, now time.Time) []volume.Volume {
	newest := map[string]time.Time{}
	for _, v := range volumes {
		if v.Labels[labelType] == typeAgent && made(v).After(newest[v.Labels[labelOwner]]) {
			newest[v.Labels[labelOwner]] = made(v)
		}
	}
	var old []volume.Volume
	for _, v := range volumes {
		at := made(v)
		if v.Labels[labelType] != typeAgent || v.Name == s.Agent || at.IsZero() || now.Sub(at) < agentAge {
			continue
		}
		if known := s.Agent != "" && v.Labels[labelOwner] == s.Owner; known || at.Before(newest[v.Labels[labelOwner]]) {
			old = append(old, v)
		}
	}
	return old
}

// made is when a volume was made; zero if the engine does not say.
func made(v volume.Volume) time.Time {
	at, err := time.Parse(time.RFC3339, v.CreatedAt)
	if err != nil {
		return time.Time{}
	}
	return at
}

// nameOf is how people know a container.
func nameOf(c container.Summary) string {
	if len(c.Names) == 0 {
		return shortID(c.ID)
	}
	return strings.TrimPrefix(c.Names[0], "/")
}

func shortID(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 12)]
}

func (s stock) names() Swept {
	var out Swept
	for _, c := range s.containers {
		out.Containers = append(out.Containers, nameOf(c))
	}
	for _, n := range s.networks {
		out.Networks = append(out.Networks, n.Name)
	}
	for _, v := range s.volumes {
		out.Volumes = append(out.Volumes, v.Name)
	}
	return out
}

// remove removes containers, then networks, then volumes: each is free only when those before it are gone.
func (s stock) remove(ctx context.Context, api *client.Client) (Swept, error) {
	var out Swept
	var errs []error
	errs = append(errs, each(ctx, s.containers, &out.Containers, nameOf, func(ctx context.Context, c container.Summary) error {
		return removeContainer(ctx, api, c.ID)
	}))
	errs = append(errs, each(ctx, s.networks, &out.Networks, func(n network.Summary) string { return n.Name }, func(ctx context.Context, n network.Summary) error {
		return removeNetwork(ctx, api, n.ID)
	}))
	errs = append(errs, each(ctx, s.volumes, &out.Volumes, func(v volume.Volume) string { return v.Name }, func(ctx context.Context, v volume.Volume) error {
		err := removeVolume(ctx, api, v.Name)
		if v.Labels[labelType] == typeAgent && engine.Conflict(err) {
			return errInUse
		}
		return err
	}))
	return out, errors.Join(errs...)
}

// errInUse is what a removal that is not to be done now answers: neither a success nor a failure.
var errInUse = errors.New("in use")

// each removes things, a few at a time, and notes the names of those that are gone.
func each[T any](ctx context.Context, things []T, gone *[]string, name func(T) string, remove func(context.Context, T) error) error {
	var mu sync.Mutex
	var errs []error
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, t := range things {
		g.Go(func() error {
			ctx, stop := context.WithTimeout(ctx, patience)
			defer stop()
			err := remove(ctx, t)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				*gone = append(*gone, name(t))
			case !errors.Is(err, errInUse):
				errs = append(errs, fmt.Errorf("remove %s: %w", name(t), engine.Explain(err)))
			}
			return nil
		})
	}
	_ = g.Wait()
	slices.Sort(*gone)
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// removeContainer kills and removes a container and its anonymous volumes. When somebody else is at that already, it waits
// for the end.
func removeContainer(ctx context.Context, api *client.Client, id string) error {
	_, err := api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if !engine.Conflict(err) {
		return unlessMissing(err)
	}
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		_, looked := api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if looked != nil && ctx.Err() == nil {
			return unlessMissing(looked)
		}
		select {
		case <-ctx.Done():
			return err
		case <-again.C:
		}
	}
}

// removeNetwork removes a network, and what still hangs on it from it.
func removeNetwork(ctx context.Context, api *client.Client, id string) error {
	_, err := api.NetworkRemove(ctx, id, client.NetworkRemoveOptions{})
	if err == nil || engine.Missing(err) {
		return nil
	}
	found, looked := api.NetworkInspect(ctx, id, client.NetworkInspectOptions{})
	if looked != nil {
		return unlessMissing(looked)
	}
	for c := range found.Network.Containers {
		if _, err := api.NetworkDisconnect(ctx, id, client.NetworkDisconnectOptions{Container: c, Force: true}); unlessMissing(err) != nil {
			return err
		}
	}
	_, err = api.NetworkRemove(ctx, id, client.NetworkRemoveOptions{})
	return unlessMissing(err)
}

func removeVolume(ctx context.Context, api *client.Client, name string) error {
	_, err := api.VolumeRemove(ctx, name, client.VolumeRemoveOptions{})
	return unlessMissing(err)
}

func unlessMissing(err error) error {
	if engine.Missing(err) {
		return nil
	}
	return err
}
