package janitor

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/tranter-ci/tranter/internal/diskspace"
)

// Thing is an image or a cache volume of an engine, as far as it matters for whether it may be removed.
type Thing struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"` // as people know it
	ID   string `json:"id"`   // of an image; the name of a volume
	// References are the other names of an image, which have to go before it does.
	References []string `json:"references,omitempty"`
	// Size is what its removal frees at most, in bytes; negative: not known.
	Size int64 `json:"size"`
	// Last is when a job used it last, or when it was made if no job has used it that we know of; zero: not known.
	Last time.Time `json:"last_used,omitzero"`
	// Ours says whether jobs of this manager have made or used it. What is not ours stays.
	Ours bool `json:"ours"`
	// Held says why it can't go now, such as that a container uses it; empty: it can.
	Held string `json:"held,omitempty"`
}

// names are all under which uses are noted.
func (t Thing) names() []string { return append([]string{t.ID}, t.References...) }

// Limits say when room is made, and how much.
type Limits struct {
	Bytes, Inodes             uint64        // below one of these it begins; 0: never for lack of that
	TargetBytes, TargetInodes uint64        // then it goes on to this, for what was below; at least the limit
	MinAge                    time.Duration // what was used less long ago stays
	All                       bool          // remove all that may go, whatever room there is
}

// restAge is how long a thing stays after its last use: another manager, whose holds we do not know, may be about to use
// what a job of its own has just pulled.
const restAge = time.Minute

// NewLimits are those of a guard: what is below is brought to twice as much, so that the next job does not make it begin
// again.
func NewLimits(bytes, inodes uint64) Limits {
	return Limits{Bytes: bytes, Inodes: inodes, TargetBytes: 2 * bytes, TargetInodes: 2 * inodes, MinAge: restAge}
}

// goal is the room that is to be reached; 0: there is enough of that.
type goal struct {
	bytes, inodes uint64
	all           bool
}

// goal is what is wanted where so much is free.
func (l Limits) goal(free diskspace.Room) goal {
	g := goal{all: l.All}
	if free.Bytes < l.Bytes {
		g.bytes = max(l.Bytes, l.TargetBytes)
	}
	if free.Counted && free.Inodes < l.Inodes {
		g.inodes = max(l.Inodes, l.TargetInodes)
	}
	return g
}

// met says whether nothing has to be removed any more.
func (g goal) met(free diskspace.Room) bool {
	return !g.all && free.Bytes >= g.bytes && (!free.Counted || free.Inodes >= g.inodes)
}

// Removal is a thing that is to go, and why.
type Removal struct {
	Thing

	Reason string `json:"reason"`
}

// Plan says what is to be removed, in this order: what was used longest ago comes first, and what is planned is no more
// than what the sizes say is needed. Things of unknown size, and a lack of inodes, can't be reckoned with: who carries the
// plan out looks at the room after each removal. What is held, used too recently, or not ours is never in it.
func Plan(things []Thing, free diskspace.Room, want Limits, now time.Time) []Removal {
	return plan(things, free, want.goal(free), want, now)
}

func plan(things []Thing, free diskspace.Room, g goal, want Limits, now time.Time) []Removal {
	if g.met(free) {
		return nil
	}
	can := slices.DeleteFunc(slices.Clone(things), func(t Thing) bool { return Stays(t, want.MinAge, now) != "" })
	slices.SortFunc(can, func(a, b Thing) int {
		return cmp.Or(a.Last.Compare(b.Last), cmp.Compare(b.Size, a.Size), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	})
	var out []Removal
	for _, t := range can {
		if g.met(free) {
			break
		}
		out = append(out, Removal{Thing: t, Reason: reason(t, free, g, now)})
		free = add(free, t.Size)
	}
	return out
}

// add is the room after something of that size is gone.
func add(free diskspace.Room, size int64) diskspace.Room {
	if size > 0 {
		free.Bytes += uint64(size)
	}
	return free
}

// Stays says in words why a thing is not removed whatever room is wanted; empty: it may go.
func Stays(t Thing, minAge time.Duration, now time.Time) string {
	switch {
	case !t.Ours:
		return "not ours"
	case t.Held != "":
		return t.Held
	case t.Last.IsZero():
		return "nobody knows when it was used"
	case now.Sub(t.Last) < minAge:
		return fmt.Sprintf("used %s ago", age(now.Sub(t.Last)))
	default:
		return ""
	}
}

func reason(t Thing, free diskspace.Room, g goal, now time.Time) string {
	unused := fmt.Sprintf("not used for %s", age(now.Sub(t.Last)))
	switch {
	case g.bytes > free.Bytes:
		return fmt.Sprintf("%s; %s are free, %s are wanted", unused, Bytes(free.Bytes), Bytes(g.bytes))
	case free.Counted && g.inodes > free.Inodes:
		return fmt.Sprintf("%s; %d inodes are free, %d are wanted", unused, free.Inodes, g.inodes)
	default:
		return unused
	}
}

// Bytes renders a size for people.
func Bytes(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	default:
		return fmt.Sprintf("%d KiB", n>>10)
	}
}

// age renders a time span for people, in its two largest units.
func age(d time.Duration) string {
	d = max(d, 0)
	switch days := int(d.Hours()) / 24; {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case days < 2:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days", days)
	}
}
