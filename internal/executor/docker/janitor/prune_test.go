package janitor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/diskspace"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// cacheLabel marks a cache volume.
const cacheLabel = labelStockType + "=" + typeCache

// thing is what is known of one by its id.
func (b bench) thing(p Pruning, u *Uses, id string) Thing {
	b.t.Helper()
	things, err := p.Things(b.t.Context(), b.engine, u)
	if err != nil {
		b.t.Fatal(err)
	}
	i := slices.IndexFunc(things, func(t Thing) bool { return t.ID == id })
	if i < 0 {
		b.t.Fatalf("%s is not among %d things", id, len(things))
	}
	return things[i]
}

// hours ago, since when nothing has been used.
func hours(n int) time.Time { return time.Now().Add(-time.Duration(n) * time.Hour) }

// all removes all that may go. Nothing but what a test's log names may: the engine is shared.
func all(owner string) Pruning {
	return Pruning{Limits: Limits{All: true, MinAge: time.Hour}, Owner: owner}
}

func TestPruningRemovesWhatIsNotUsedAndStopsWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	u := openUses(t, "")
	var names []string
	for i, n := range []string{"newest", "old", "older", "oldest", "just-now", "held", "mounted"} {
		v := b.volume(n, b.labels("", cacheLabel))
		names = append(names, v)
		u.Used(Volume, v, hours(10*(i+1)))
	}
	foreign := b.volume("foreign", map[string]string{labelStockType: typeCache})
	u.Used(Volume, b.name("just-now"), time.Now())
	release := u.Hold(Volume, b.name("held"))
	defer release()
	u.last[keyOf(Volume, b.name("held"))] = hours(500)
	b.container("user", nil, mounting(b.name("mounted")))

	left := 3 // volumes that are free to go until there is room
	p := Pruning{Limits: NewLimits(100, 0), Owner: b.owner, Kinds: []Kind{Volume}}
	p.Room = func() (diskspace.Room, error) {
		left--
		if left > 1 {
			return diskspace.Room{Bytes: 1}, nil
		}
		return diskspace.Room{Bytes: 1000}, nil
	}
	pruned, err := p.Run(t.Context(), b.engine, u, diskspace.Room{Bytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range pruned.Removed {
		got = append(got, strings.TrimPrefix(r.Name, b.owner+"-"))
	}
	if strings.Join(got, " ") != "oldest older" {
		t.Errorf("removed %v", got)
	}
	for _, n := range names {
		gone := strings.HasSuffix(n, "-oldest") || strings.HasSuffix(n, "-older")
		if b.hasVolume(n) == gone {
			t.Errorf("%s: gone: %v", n, !gone)
		}
		if _, known := u.Last(Volume, n); known == gone {
			t.Errorf("%s: in the log: %v", n, known)
		}
	}
	if !b.hasVolume(foreign) || b.thing(p, u, foreign).Ours {
		t.Error("a volume of somebody else counts as ours")
	}
	if p.Foreign = true; !b.thing(p, u, foreign).Ours {
		t.Error("with Foreign, it does not")
	}
}

func TestPruningLeavesImages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	u := openUses(t, "")
	name, id := b.image("mine")
	p := all(b.owner)
	p.Kinds = []Kind{Image}
	if got := b.thing(p, u, id); got.Ours || got.Name != name || got.Size <= 0 {
		t.Errorf("an image that no job has used: %+v", got)
	}
	u.Used(Image, id, hours(100))
	if got := b.thing(p, u, id); !got.Ours || !strings.Contains(got.Held, "no registry") || got.Last.IsZero() {
		t.Errorf("one that was made here: %+v", got)
	}
	p.Foreign, p.Keep = true, []string{"docker.io/" + name}
	if got := b.thing(p, u, id); !strings.Contains(got.Held, "configuration") {
		t.Errorf("one that the configuration names: %+v", got)
	}
	p.Keep = nil
	release := u.Hold(Image, name)
	if got := b.thing(p, u, id); !strings.Contains(got.Held, "job") {
		t.Errorf("one that a job holds: %+v", got)
	}
	release()
	u.last = map[useKey]time.Time{keyOf(Image, id): hours(100)}
	cid := b.container("user", nil, func(o *createOptions) { o.Config.Image = b.busybox })
	busy, err := b.engine.API().ImageInspect(t.Context(), b.busybox)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.thing(p, u, busy.ID); !strings.Contains(got.Held, "used by container") {
		t.Errorf("one of which %s runs: %+v", cid, got)
	}
	pruned, err := p.Run(t.Context(), b.engine, u, diskspace.Room{})
	if err != nil || len(pruned.Removed) != 1 || pruned.Removed[0].ID != id || b.hasImage(id) || pruned.Freed == 0 {
		t.Errorf("%+v, %v", pruned, err)
	}
}

func TestAnImageWithManyNamesGoesWithAllOfThem(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	u := openUses(t, "")
	name, id := b.image("many")
	for _, more := range []string{name + "-b", "tranter-janitor/other-" + b.name("many") + ":1"} {
		if _, err := b.engine.API().ImageTag(t.Context(), client.ImageTagOptions{Source: id, Target: more}); err != nil {
			t.Fatal(err)
		}
	}
	u.Used(Image, name, hours(100))
	p := all(b.owner)
	p.Foreign, p.Kinds = true, []Kind{Image}
	pruned, err := p.Run(t.Context(), b.engine, u, diskspace.Room{})
	if err != nil || len(pruned.Removed) != 1 || b.hasImage(id) {
		t.Errorf("%+v, %v", pruned, err)
	}
}

// TestWhatATagHasNamedBeforeIsOurs has a tag name one image of a registry, then another.
func TestWhatATagHasNamedBeforeIsOurs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	u := openUses(t, "")
	ref := enginetest.Registry(t).Address + "/" + b.owner + ":moving"
	used := func(n string, ago int) string {
		name, id := b.image(n)
		if _, err := b.engine.API().ImageTag(t.Context(), client.ImageTagOptions{Source: id, Target: ref}); err != nil {
			t.Fatal(err)
		}
		push, err := b.engine.API().ImagePush(t.Context(), ref, client.ImagePushOptions{RegistryAuth: "e30="})
		if err == nil {
			err = push.Wait(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.engine.API().ImageRemove(t.Context(), name, client.ImageRemoveOptions{}); err != nil {
			t.Fatal(err)
		}
		u.Used(Image, id, hours(ago))
		return id
	}
	first, second := used("first", 3), used("second", 2)
	p := all(b.owner)
	p.Kinds = []Kind{Image}
	if got := b.thing(p, u, first); !got.Ours || got.Held != "" || slices.Contains(got.References, ref) {
		t.Errorf("%+v", got)
	}
	pruned, err := p.Run(t.Context(), b.engine, u, diskspace.Room{})
	if err != nil || len(pruned.Removed) != 2 || pruned.Removed[0].ID != first || b.hasImage(first) || b.hasImage(second) {
		t.Errorf("%+v, %v", pruned, err)
	}
}

func TestAThingThatIsTakenMeanwhileIsPassedOver(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	u := openUses(t, "")
	first, second := b.volume("first", b.labels("", cacheLabel)), b.volume("second", b.labels("", cacheLabel))
	third := b.volume("third", b.labels("", cacheLabel))
	for i, v := range []string{third, second, first} {
		u.Used(Volume, v, hours(10*(i+1)))
	}
	p := all(b.owner)
	p.Kinds = []Kind{Volume}
	var outcomes []Outcome
	p.Report = func(o Outcome) {
		if outcomes = append(outcomes, o); len(outcomes) == 1 {
			b.container("user", nil, mounting(second)) // after the list was made
			u.Hold(Volume, third)
		}
	}
	pruned, err := p.Run(t.Context(), b.engine, u, diskspace.Room{})
	if err != nil || len(pruned.Removed) != 1 || pruned.Removed[0].ID != first || len(outcomes) != 3 {
		t.Errorf("%+v, %v, %+v", pruned, err, outcomes)
	}
	if !InUse(outcomes[1].Err) || !InUse(outcomes[2].Err) || !b.hasVolume(second) || !b.hasVolume(third) {
		t.Errorf("%+v", outcomes)
	}
}

func TestSizesOfVolumesAreKnownWhenAskedFor(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	u := openUses(t, "")
	v := b.volume("sized", b.labels("", cacheLabel))
	id := b.container("writer", nil, func(o *createOptions) {
		mounting(v)(o)
		o.Config.Cmd = []string{"dd", "if=/dev/zero", "of=/" + v + "/x", "bs=1024", "count=3000"}
	})
	wait := b.engine.API().ContainerWait(t.Context(), id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	select {
	case err := <-wait.Error:
		t.Fatal(err)
	case <-wait.Result:
	}
	p := Pruning{Owner: b.owner, Kinds: []Kind{Volume}}
	if got := b.thing(p, u, v); got.Size != -1 || !got.Ours || time.Since(got.Last) > time.Hour {
		t.Errorf("%+v", got)
	}
	p.Sizes = true
	if got := b.thing(p, u, v); got.Size < 3_000_000 || got.Size > 4_000_000 {
		t.Errorf("%+v", got)
	}
}

func TestAnEndedContextEndsAPruning(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the manager ends")
	cancel(why)
	if _, err := all(b.owner).Run(ctx, b.engine, openUses(t, ""), diskspace.Room{}); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

func TestImagesThatWereInARegistry(t *testing.T) {
	t.Parallel()
	for digest, want := range map[string]bool{
		"registry.example.com/a@sha256:1": true, "localhost/a@sha256:1": false, "<none>@<none>": false, "localhost:5000/a@sha256:1": true,
	} {
		if got := pulled(image.Summary{RepoDigests: []string{digest}}); got != want {
			t.Errorf("%s: %v", digest, got)
		}
	}
}

func TestANameThatWasGivenHereKeepsItsImage(t *testing.T) {
	t.Parallel()
	const digest = "registry.example.com:5000/a@sha256:1"
	for _, c := range []struct {
		tags []string
		want bool
	}{
		{[]string{"registry.example.com:5000/a:1", "registry.example.com:5000/a:2"}, true},
		{[]string{"<none>:<none>"}, true},
		{[]string{"registry.example.com:5000/a:1", "tools:latest"}, false},
		{[]string{"registry.example.com:5000/b:1"}, false},
		{[]string{"registry.example.com:5000/a"}, true},
	} {
		if got := pulled(image.Summary{RepoTags: c.tags, RepoDigests: []string{digest}}); got != c.want {
			t.Errorf("%v: %v", c.tags, got)
		}
	}
}

func TestWhichImagesAreKept(t *testing.T) {
	t.Parallel()
	keep := Pruning{Keep: []string{"", "helper", "registry.example.com/helper:*", "*"}}
	for ref, want := range map[string]bool{
		"helper:latest": true, "docker.io/library/helper": true, "helper:2": false, "other/helper": false,
		"registry.example.com/helper:x86_64-1": true, "registry.example.com/helpers": false,
	} {
		if got := keep.keeps(Thing{ID: "sha256:0", References: []string{ref}}); got != want {
			t.Errorf("%s: %v", ref, got)
		}
	}
}

func TestFamiliarNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"busybox": "busybox:latest", "docker.io/library/busybox:1": "busybox:1", "localhost:5000/a": "localhost:5000/a:latest",
		"a/b@sha256:12": "a/b@sha256:12", "docker.io/a/b": "a/b:latest", "sha256:abc": "abc:latest",
	} {
		if got := familiar(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
