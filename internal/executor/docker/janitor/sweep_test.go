package janitor

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"

	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// tarball is a file system with one file of that content.
func tarball(t *testing.T, content string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "content", Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// Containers have the labels of their images as well, and what a job runs in can be an image of its own.
func TestTheLabelsOfAnImageKeepNothing(t *testing.T) {
	left := Sweeping{Owner: "me", Live: func(string) bool { return false }}.left(time.Now())
	mirror := map[string]string{labelType: typeMirror, labelOwner: "me"}
	disguised := map[string]string{labelType: typeMirror, labelOwner: "me", labelJob: "dead"}
	if left(mirror) || !left(disguised) || isMirror(disguised) {
		t.Errorf("a mirror goes: %v; a job's container in its disguise goes: %v", left(mirror), left(disguised))
	}
}

func TestWhatADeadJobHasLeftGoesAndALiveJobsStays(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	temporary, cache := labelTemporary+"=1", labelStockType+"="+typeCache
	network := b.network("network", b.labels("dead"))
	liveNetwork := b.network("live-network", b.labels("live"))
	scratch := b.volume("scratch", b.labels("dead", temporary))
	kept := b.volume("cache", b.labels("dead", cache, temporary))
	plain := b.volume("plain", b.labels("dead"))
	liveScratch := b.volume("live-scratch", b.labels("live", temporary))
	dead := b.container("build", b.labels("dead"), func(o *createOptions) { on(network)(o); mounting(scratch, kept)(o) })
	live := b.container("live-build", b.labels("live"), on(liveNetwork))
	stranger := b.container("stranger", nil, on(network)) // somebody else's in a network of ours

	swept, err := Sweep(t.Context(), b.engine, b.owner, func(name string) bool { return name == "live" })
	if err != nil {
		t.Fatal(err)
	}
	if b.mine(swept.Containers) != "build" || b.mine(swept.Networks) != "network" || b.mine(swept.Volumes) != "scratch" {
		t.Errorf("swept: %s", swept)
	}
	if b.hasContainer(dead) || b.hasNetwork(network) || b.hasVolume(scratch) {
		t.Error("something of the dead job is still there")
	}
	if !b.hasContainer(live) || !b.hasContainer(stranger) || !b.hasNetwork(liveNetwork) || !b.hasVolume(liveScratch) {
		t.Error("something of the live job, or of somebody else, is gone")
	}
	if !b.hasVolume(kept) || !b.hasVolume(plain) {
		t.Error("a volume that is not temporary is gone")
	}
}

func TestAnybodysThingsThatHaveExpiredGo(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	now := time.Now()
	long := b.container("long-expired", b.labels("job", expires(now.Add(-2*time.Hour))), nil)
	just := b.container("just-expired", b.labels("job", expires(now.Add(-30*time.Minute))), nil)
	never := b.container("mirror", b.labels("", labelType+"="+typeMirror), nil)
	odd := b.container("odd", b.labels("job", labelExpires+"=tomorrow"), nil)

	// It may be another test's sweep that removes it.
	if _, err := Sweep(t.Context(), b.engine, "somebody-else", func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if b.hasContainer(long) || !b.hasContainer(just) || !b.hasContainer(never) || !b.hasContainer(odd) {
		t.Error("the wrong containers went")
	}
}

func TestAJobThatIsMadeWhileASweepListsStays(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.container("old", b.labels("old"), nil)
	var fresh string
	swept, err := Sweep(t.Context(), b.engine, b.owner, func(string) bool {
		fresh = b.container("fresh", b.labels("fresh"), nil) // a job that nobody calls live yet
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.mine(swept.Containers); got != "old" || !b.hasContainer(fresh) {
		t.Errorf("swept %q", got)
	}
}

func TestTwoSweepsAtTheSameTimeAreOne(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var ids []string
	for _, n := range []string{"a", "b", "c", "d", "e", "f"} {
		ids = append(ids, b.container(n, b.labels("dead"), nil))
	}
	var sweeps sync.WaitGroup
	for range 3 {
		sweeps.Go(func() {
			if _, err := Sweep(t.Context(), b.engine, b.owner, func(string) bool { return false }); err != nil {
				t.Error(err)
			}
		})
	}
	sweeps.Wait()
	for _, id := range ids {
		if b.hasContainer(id) {
			t.Errorf("%s is still there", id)
		}
	}
}

func TestOneThatCanNotBeRemovedStopsNoOther(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stuck := b.volume("stuck", b.labels("dead", labelTemporary+"=1"))
	free := b.volume("free", b.labels("dead", labelTemporary+"=1"))
	user := b.container("user", nil, mounting(stuck))
	swept, err := Sweep(t.Context(), b.engine, b.owner, func(string) bool { return false })
	if err == nil || !strings.Contains(err.Error(), stuck) {
		t.Errorf("error: %v", err)
	}
	if b.mine(swept.Volumes) != "free" || b.hasVolume(free) || !b.hasVolume(stuck) || !b.hasContainer(user) {
		t.Errorf("swept: %s", swept)
	}
}

func TestAPreviewRemovesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	id := b.container("dead", b.labels("dead"), nil)
	swept, err := Sweeping{Owner: b.owner, Live: func(string) bool { return false }, Preview: true}.Run(t.Context(), b.engine)
	if err != nil || b.mine(swept.Containers) != "dead" || !b.hasContainer(id) {
		t.Errorf("%s, %v", swept, err)
	}
}

func TestNothingIsLeftOfASweptJob(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	n := b.network("network", b.labels("dead"))
	v := b.volume("volume", b.labels("dead", labelTemporary+"=1"))
	b.container("one", b.labels("dead"), on(n))
	b.container("two", b.labels("dead"), func(o *createOptions) { on(n)(o); mounting(v)(o) })
	swept, err := Sweep(t.Context(), b.engine, b.owner, func(string) bool { return false })
	// A sweep takes what has expired of other owners too, so there may be more.
	if err != nil || b.mine(swept.Containers) != "one two" && b.mine(swept.Containers) != "two one" || b.mine(swept.Networks) != "network" || b.mine(swept.Volumes) != "volume" {
		t.Fatalf("%s, %v", swept, err)
	}
	enginetest.Clean(t, enginetest.Host(t), labelOwner+"="+b.owner)
}

func TestWhichThingsAreLeft(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	over, soon := "1799990000", "1800090000"
	for name, c := range map[string]struct {
		labels map[string]string
		want   bool
	}{
		"dead":              {map[string]string{labelOwner: "me", labelJob: "dead"}, true},
		"live":              {map[string]string{labelOwner: "me", labelJob: "live"}, false},
		"live and expired":  {map[string]string{labelOwner: "me", labelJob: "live", labelExpires: over}, false},
		"other's":           {map[string]string{labelOwner: "you", labelJob: "dead"}, false},
		"other's, expired":  {map[string]string{labelOwner: "you", labelJob: "live", labelExpires: over}, true},
		"other's, for long": {map[string]string{labelOwner: "you", labelJob: "live", labelExpires: soon}, false},
		"no job":            {map[string]string{labelOwner: "me"}, false},
		"no job, expired":   {map[string]string{labelOwner: "me", labelExpires: over}, true},
		"mirror":            {map[string]string{labelOwner: "me", labelType: typeMirror, labelExpires: over}, false},
		"job as a mirror":   {map[string]string{labelOwner: "me", labelJob: "dead", labelType: typeMirror}, true}, // says its image
		"negative expiry":   {map[string]string{labelOwner: "you", labelExpires: "-5"}, false},
	} {
		s := Sweeping{Owner: "me", Live: func(job string) bool { return job == "live" }}
		got := s.choose(stock{
			containers: []container.Summary{{ID: "c", Labels: c.labels}},
			networks:   []network.Summary{{Network: network.Network{ID: "n", Labels: c.labels}}},
		}, now)
		if len(got.containers) == 1 != c.want || len(got.networks) == 1 != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestOldAgentVolumes(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	agent := func(name, owner string, old time.Duration) volume.Volume {
		return volume.Volume{Name: name, Labels: map[string]string{labelType: typeAgent, labelOwner: owner}, CreatedAt: now.Add(-old).Format(time.RFC3339)}
	}
	day := 24 * time.Hour
	all := []volume.Volume{
		agent("mine-current", "me", 9*day), agent("mine-newer", "me", 3*day), agent("mine-new", "me", time.Hour),
		agent("yours-old", "you", 5*day), agent("yours-newest", "you", 4*day),
		{Name: "undated", Labels: map[string]string{labelType: typeAgent, labelOwner: "me"}},
	}
	for name, c := range map[string]struct{ sweeping, want string }{
		"the current one is known":     {"mine-current", "mine-newer yours-old"},
		"the current one is not known": {"", "mine-current mine-newer yours-old"},
	} {
		got := Sweeping{Owner: "me", Agent: c.sweeping, Live: func(string) bool { return true }}.choose(stock{volumes: all}, now).names().Volumes
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWhatIsSweptIsNamedForTheLog(t *testing.T) {
	t.Parallel()
	many := Swept{Containers: []string{"a"}, Volumes: []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"}}
	if got := many.String(); got != "1 container (a), 11 volumes (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...)" || many.Count() != 12 {
		t.Errorf("%q", got)
	}
	if got := (Swept{}).String(); got != "" {
		t.Errorf("%q", got)
	}
}
