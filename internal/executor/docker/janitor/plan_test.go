package janitor

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/diskspace"
)

// someThings are things as chance has them.
func someThings(r *rand.Rand, now time.Time) []Thing {
	var out []Thing
	for i := range r.IntN(30) {
		t := Thing{Kind: Image, ID: fmt.Sprintf("id-%d", i), Size: r.Int64N(100) << 20, Last: now.Add(-time.Duration(r.IntN(50)) * time.Hour), Ours: r.IntN(4) > 0}
		if r.IntN(2) == 0 {
			t.Kind, t.Size = Volume, -1
		}
		if r.IntN(4) == 0 {
			t.Held = "used"
		}
		if r.IntN(10) == 0 {
			t.Last = time.Time{}
		}
		out = append(out, t)
	}
	return out
}

// TestPropertiesOfPlans checks what has to hold of any plan.
func TestPropertiesOfPlans(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	some := 0
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		things := someThings(r, now)
		free := diskspace.Room{Bytes: r.Uint64N(400) << 20, Inodes: r.Uint64N(40), Counted: r.IntN(2) == 0}
		want := NewLimits(r.Uint64N(300)<<20, r.Uint64N(20))
		want.MinAge, want.All = time.Duration(r.IntN(10))*time.Hour, r.IntN(5) == 0
		got := Plan(things, free, want, now)
		some += len(got)
		if why := faultOf(got, things, free, want, now); why != "" {
			t.Fatalf("seed %d: %s\nfree %+v, want %+v\n%+v", seed, why, free, want, got)
		}
		r.Shuffle(len(things), func(i, j int) { things[i], things[j] = things[j], things[i] })
		if again := Plan(things, free, want, now); !reflect.DeepEqual(got, again) {
			t.Fatalf("seed %d: the order of things changes the plan:\n%+v\n%+v", seed, got, again)
		}
	}
	if some < 3000 {
		t.Errorf("only %d removals were looked at", some)
	}
}

func faultOf(got []Removal, things []Thing, free diskspace.Room, want Limits, now time.Time) string {
	short := free.Bytes < want.Bytes || free.Counted && free.Inodes < want.Inodes
	if !short && !want.All && len(got) > 0 {
		return "there was room enough"
	}
	planned, last, freed := map[string]bool{}, time.Time{}, int64(0)
	for i, r := range got {
		switch {
		case r.Held != "" || !r.Ours || r.Last.IsZero() || now.Sub(r.Last) < want.MinAge:
			return "one that has to stay"
		case r.Last.Before(last):
			return "one that was used later comes first"
		case planned[r.ID]:
			return "one twice"
		case r.Reason == "":
			return "no reason"
		case i > 0 && !want.All && (free.Inodes >= want.Inodes || !free.Counted) && free.Bytes+uint64(freed) >= want.TargetBytes:
			return "goes on when there is enough"
		}
		planned[r.ID], last = true, r.Last
		freed += max(r.Size, 0)
	}
	for _, thing := range things {
		may := thing.Ours && thing.Held == "" && !thing.Last.IsZero() && now.Sub(thing.Last) >= want.MinAge
		if want.All && may && !planned[thing.ID] {
			return "one is missing of all"
		}
		if may && !planned[thing.ID] && thing.Last.Before(last) {
			return "one that was used earlier is not in it"
		}
	}
	return ""
}

func TestReasonsAndSkips(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	old := Thing{Kind: Image, ID: "old", Ours: true, Size: 5 << 30, Last: now.Add(-100 * time.Hour)}
	for name, c := range map[string]struct {
		free diskspace.Room
		want Limits
		text string
	}{
		"bytes":  {diskspace.Room{Bytes: 1 << 30}, NewLimits(2<<30, 0), "not used for 4 days; 1.0 GiB are free, 4.0 GiB are wanted"},
		"inodes": {diskspace.Room{Bytes: 9 << 30, Inodes: 5, Counted: true}, NewLimits(2<<30, 100), "not used for 4 days; 5 inodes are free, 200 are wanted"},
		"all":    {diskspace.Room{Bytes: 9 << 30}, Limits{All: true}, "not used for 4 days"},
	} {
		if got := Plan([]Thing{old}, c.free, c.want, now); len(got) != 1 || got[0].Reason != c.text {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for text, thing := range map[string]Thing{
		"":                              old,
		"not ours":                      {Last: old.Last},
		"used by container x":           {Ours: true, Last: old.Last, Held: "used by container x"},
		"nobody knows when it was used": {Ours: true},
		"used 40m ago":                  {Ours: true, Last: now.Add(-40 * time.Minute)},
	} {
		if got := Stays(thing, time.Hour, now); got != text {
			t.Errorf("%q, want %q", got, text)
		}
	}
}

func TestSizesAndAges(t *testing.T) {
	t.Parallel()
	var got []string
	for _, n := range []uint64{0, 5000, 7 << 20, 3 << 29, 123 << 30} {
		got = append(got, Bytes(n))
	}
	for _, d := range []time.Duration{-1, 59 * time.Second, 59 * time.Minute, 47 * time.Hour, 480 * time.Hour} {
		got = append(got, age(d))
	}
	if s := strings.Join(got, ", "); s != "0 KiB, 4 KiB, 7 MiB, 1.5 GiB, 123 GiB, 0s, 59s, 59m, 47h, 20 days" {
		t.Error(s)
	}
}
