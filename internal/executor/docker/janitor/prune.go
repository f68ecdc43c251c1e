package janitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/diskspace"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// Pruning says what may be removed to make room.
type Pruning struct {
	Limits

	// Owner is the manager whose cache volumes are ours besides those that the log names.
	Owner string
	// Keep are references of images that stay, such as the helper image's. One that ends in a star stands for all that begin
	// like it.
	Keep []string
	// Kinds are what is looked at; nil: all kinds.
	Kinds []Kind
	// Sizes has the engine reckon how large volumes are, which takes long where they are.
	Sizes bool
	// Foreign counts all cache volumes of this runner and of GitLab Runner as ours, and lets images go that no registry has.
	Foreign bool
	// Room says how much is free on the engine's disk; nil, or an error from it: not known, and reckoned by sizes.
	Room func() (diskspace.Room, error)
	// Report is called after each removal; nil: nobody listens.
	Report func(Outcome)
}

// Outcome is how a removal went: Err is nil, or says why the thing is still there.
type Outcome struct {
	Removal

	Err error
}

// Pruned is what was removed, and what it has freed, in bytes, as far as sizes are known.
type Pruned struct {
	Removed []Removal
	Freed   uint64
}

// InUse says whether a removal failed only because something needs the thing.
func InUse(err error) bool { return errors.Is(err, errInUse) || engine.Conflict(err) }

// Things lists the images and cache volumes of an engine with what is known of them.
func (p Pruning) Things(ctx context.Context, e *engine.Engine, uses *Uses) ([]Thing, error) {
	if err := uses.reload(); err != nil {
		return nil, err
	}
	found, err := p.inventory(ctx, e.API())
	if err != nil {
		return nil, fmt.Errorf("list images and cache volumes of the engine: %w", engine.Explain(err))
	}
	return found.things(p, uses), nil
}

// Run makes room: it removes, what was not used for longest first, until the target is reached or nothing is left that
// may go. free is what is free now. What is in use after all is passed over; other errors are joined.
func (p Pruning) Run(ctx context.Context, e *engine.Engine, uses *Uses, free diskspace.Room) (Pruned, error) {
	r := &pruning{Pruning: p, uses: uses, to: p.goal(free), free: free, tried: map[string]bool{}}
	for range mostRounds {
		if r.to.met(r.free) || ctx.Err() != nil || !r.round(ctx, e) {
			break
		}
	}
	return r.done, errors.Join(append(r.errs, context.Cause(ctx))...)
}

// mostRounds bounds how often it is looked again: sizes promise more than comes of them where images share layers.
const mostRounds = 10

// pruning is a Pruning that is under way.
type pruning struct {
	Pruning

	uses  *Uses
	to    goal
	free  diskspace.Room
	tried map[string]bool // by id
	done  Pruned
	errs  []error
}

// round plans once and carries that out. It answers whether another one may find more to do.
func (r *pruning) round(ctx context.Context, e *engine.Engine) bool {
	things, err := r.Things(ctx, e, r.uses)
	if err != nil {
		r.errs = append(r.errs, err)
		return false
	}
	things = slices.DeleteFunc(things, func(t Thing) bool { return r.tried[t.ID] })
	steps := plan(things, r.free, r.to, r.Limits, time.Now())
	for _, step := range steps {
		if r.to.met(r.free) || ctx.Err() != nil {
			break
		}
		r.tried[step.ID] = true
		err := r.remove(ctx, e.API(), r.uses, step)
		if r.Report != nil {
			r.Report(Outcome{Removal: step, Err: err})
		}
		if err == nil {
			r.done.Removed = append(r.done.Removed, step)
			r.done.Freed += uint64(max(step.Size, 0))
			r.free = r.after(r.free, step.Size)
		} else if !InUse(err) {
			r.errs = append(r.errs, fmt.Errorf("remove %s %s: %w", step.Kind, step.Name, engine.Explain(err)))
		}
	}
	return len(steps) > 0 && !r.All // with All, whatever may go has been tried
}

// after is what is free once something is gone: what the disk says, else what the size says.
func (p Pruning) after(free diskspace.Room, size int64) diskspace.Room {
	if p.Room != nil {
		if now, err := p.Room(); err == nil {
			return now
		}
	}
	return add(free, size)
}

// remove removes one thing unless a job of ours has come to hold it.
func (p Pruning) remove(ctx context.Context, api *client.Client, uses *Uses, step Removal) error {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	done, ok := uses.claim(step.Kind, step.names())
	if !ok {
		return errInUse
	}
	defer done()
	var err error
	if step.Kind == Volume {
		err = removeVolume(ctx, api, step.ID)
	} else {
		err = removeImage(ctx, api, step.Thing)
	}
	if err == nil {
		uses.Forget(step.Kind, step.names()...)
	}
	return err
}

// removeImage removes an image with all its names. Nothing is forced: an image that a container uses stays, as the engine
// refuses, but it may have lost names by then; Things has looked for containers just before.
func removeImage(ctx context.Context, api *client.Client, t Thing) error {
	for _, name := range append(slices.Clone(t.References), t.ID) {
		_, err := api.ImageRemove(ctx, name, client.ImageRemoveOptions{PruneChildren: true})
		if unlessMissing(err) != nil {
			return err
		}
	}
	return nil
}

// inventory is what an engine has that may matter.
type inventory struct {
	containers []container.Summary
	images     []image.Summary
	volumes    []volume.Volume
}

func (p Pruning) wants(k Kind) bool { return len(p.Kinds) == 0 || slices.Contains(p.Kinds, k) }

// inventory lists images and volumes first and containers afterwards: what a container uses that is made meanwhile is seen.
func (p Pruning) inventory(ctx context.Context, api *client.Client) (inventory, error) {
	var out inventory
	if p.wants(Image) {
		r, err := api.ImageList(ctx, client.ImageListOptions{})
		if err != nil {
			return out, err
		}
		out.images = r.Items
	}
	if p.wants(Volume) {
		r, err := api.VolumeList(ctx, client.VolumeListOptions{Filters: client.Filters{}.Add("label", labelStockType+"="+typeCache)})
		if err != nil {
			return out, err
		}
		out.volumes = r.Items
	}
	if p.Sizes {
		out.measure(ctx, api)
	}
	r, err := api.ContainerList(ctx, client.ContainerListOptions{All: true})
	out.containers = r.Items
	return out, err
}

// measure fills in sizes where the engine can tell them: one that can't, or takes too long, leaves them unknown.
func (i *inventory) measure(ctx context.Context, api *client.Client) {
	r, err := api.DiskUsage(ctx, client.DiskUsageOptions{Images: true, Volumes: true, Verbose: true})
	if err != nil {
		return
	}
	sizes := map[string]*volume.UsageData{}
	for _, v := range r.Volumes.Items {
		sizes[v.Name] = v.UsageData
	}
	shared := map[string]int64{}
	for _, m := range r.Images.Items {
		shared[m.ID] = m.SharedSize
	}
	for n := range i.volumes {
		i.volumes[n].UsageData = sizes[i.volumes[n].Name]
	}
	for n := range i.images {
		i.images[n].SharedSize = shared[i.images[n].ID]
	}
}

// things judges what there is.
func (i inventory) things(p Pruning, uses *Uses) []Thing {
	usedImages, usedVolumes := map[string]string{}, map[string]string{}
	for _, c := range i.containers {
		usedImages[bare(c.ImageID)] = nameOf(c)
		for _, m := range c.Mounts {
			if m.Type == mount.TypeVolume || m.Type == "" {
				usedVolumes[m.Name] = nameOf(c)
			}
		}
	}
	var out []Thing
	for _, m := range i.images {
		t := p.image(m, uses)
		if by := usedImages[bare(m.ID)]; by != "" {
			t.Held = "used by container " + by
		}
		out = append(out, t)
	}
	for _, v := range i.volumes {
		if v.Labels[labelStockType] != typeCache || v.Labels[labelTemporary] == "1" {
			continue
		}
		t := p.volume(v, uses)
		if by := usedVolumes[v.Name]; by != "" {
			t.Held = "used by container " + by
		}
		out = append(out, t)
	}
	return out
}

// bare is an id without the algorithm's name, which some engines leave out.
func bare(id string) string { return strings.TrimPrefix(id, "sha256:") }

func (p Pruning) image(m image.Summary, uses *Uses) Thing {
	t := Thing{Kind: Image, ID: m.ID, Name: shortID(m.ID), Size: m.Size - max(m.SharedSize, 0)}
	for _, r := range slices.Concat(m.RepoTags, m.RepoDigests) {
		if r != "" && !strings.Contains(r, "<none>") {
			t.References = append(t.References, r)
		}
	}
	if len(t.References) > 0 {
		t.Name = t.References[0]
	}
	t.Last, t.Ours = uses.Last(Image, t.names()...)
	switch {
	case p.keeps(t):
		t.Held = "the configuration names it"
	case uses.Held(Image, t.names()...):
		t.Held = "a job needs it"
	case !p.Foreign && !pulled(m):
		t.Held = "no registry has it: it could not be pulled again"
	}
	return t
}

// pulled says whether an image could be pulled again under each of its names, as far as can be told: a name that was given
// here, as by docker tag, has no digest in its repository. Podman gives it one too, which shows only where it is under
// its own name for "here".
func pulled(m image.Summary) bool {
	var known []string
	for _, digest := range m.RepoDigests {
		repository, _, _ := strings.Cut(digest, "@")
		if repository != "<none>" && !strings.HasPrefix(repository, "localhost/") {
			known = append(known, repository)
		}
	}
	return len(known) > 0 && !slices.ContainsFunc(m.RepoTags, func(tag string) bool {
		repository := tag
		if colon := strings.LastIndexByte(tag, ':'); colon > strings.LastIndexByte(tag, '/') {
			repository = tag[:colon]
		}
		return repository != "<none>" && !slices.Contains(known, repository)
	})
}

// keeps says whether an image is one of those that stay.
func (p Pruning) keeps(t Thing) bool {
	return slices.ContainsFunc(p.Keep, func(keep string) bool {
		return slices.ContainsFunc(t.names(), func(name string) bool { return matches(keep, familiar(name)) })
	})
}

// matches says whether a familiar name is the one to keep, or begins as one that ends in a star does.
func matches(keep, name string) bool {
	if begin, ok := strings.CutSuffix(keep, "*"); ok {
		return begin != "" && strings.HasPrefix(name, begin)
	}
	return keep != "" && familiar(keep) == name
}

// familiar is a reference without what goes without saying.
func familiar(ref string) string {
	ref = strings.TrimPrefix(bare(ref), "docker.io/")
	ref = strings.TrimPrefix(ref, "library/")
	if last := ref[strings.LastIndexByte(ref, '/')+1:]; !strings.ContainsAny(last, ":@") {
		ref += ":latest"
	}
	return ref
}

func (p Pruning) volume(v volume.Volume, uses *Uses) Thing {
	t := Thing{Kind: Volume, Name: v.Name, ID: v.Name, Size: -1}
	if v.UsageData != nil {
		t.Size = v.UsageData.Size
	}
	last, used := uses.Last(Volume, v.Name)
	t.Last = last
	if !used {
		t.Last = made(v)
	}
	t.Ours = used || p.Foreign || p.Owner != "" && v.Labels[labelOwner] == p.Owner
	if uses.Held(Volume, v.Name) {
		t.Held = "a job needs it"
	}
	return t
}
