package janitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/diskspace"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

const (
	// tick is how often the room on the engine's disk is looked at.
	tick = time.Minute
	// sighting is how long what a job has reported holds. After that nobody knows, and a job may find out: else a disk of
	// another host that was full once would stop its runner for good.
	sighting = 10 * time.Minute
	// fruitless is the pause after a pruning that has not reached its target, however often room is asked for.
	fruitless = time.Minute
)

// GuardOptions say what a guard does. Floor is [disk_guard] min_free_*, Prune is prune_free_*.
type GuardOptions struct {
	Owner string
	Keep  []string // references of images that stay, such as the helper image's
	Floor diskspace.Room
	Prune Limits
	Log   *slog.Logger
}

// Guard watches the room on the disk of an engine, makes some when there is too little, and says whether jobs may be
// taken. How much there is it sees itself if the engine is on this host; otherwise jobs tell, by Saw.
type Guard struct {
	engine *engine.Engine
	uses   *Uses
	o      GuardOptions
	local  string // the engine's directory on this host; empty: it is elsewhere
	where  string // for messages
	wake   chan struct{}

	mu     sync.Mutex
	room   diskspace.Room // what was seen last, where local is empty
	seen   time.Time
	next   time.Time // no pruning before
	looked string    // what the last pruning has come to, for messages
}

// NewGuard returns the guard of one engine. Run has to be called for it to make room.
func NewGuard(e *engine.Engine, uses *Uses, o GuardOptions) *Guard {
	facts := e.Facts()
	g := &Guard{engine: e, uses: uses, o: o, wake: make(chan struct{}, 1), where: "the engine " + facts.Name}
	if i, err := os.Stat(facts.RootDir); facts.Local && facts.RootDir != "" && err == nil && i.IsDir() {
		g.local, g.where = facts.RootDir, facts.RootDir
	}
	return g
}

// Saw takes a job's report of the room on the engine's disk. It is not needed for an engine on this host.
func (g *Guard) Saw(room diskspace.Room) {
	if g.local != "" || room == (diskspace.Room{}) {
		return
	}
	g.mu.Lock()
	g.room, g.seen = room, time.Now()
	g.mu.Unlock()
	if !g.o.Prune.goal(room).met(room) {
		g.awake()
	}
}

func (g *Guard) awake() {
	select {
	case g.wake <- struct{}{}:
	default: // it is about to look
	}
}

// current is the room as far as it is known.
func (g *Guard) current(now time.Time) (diskspace.Room, bool) {
	if g.local != "" {
		room, err := diskspace.Of(g.local)
		return room, err == nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.room, !g.seen.IsZero() && now.Sub(g.seen) < sighting
}

// Check returns nil while jobs may be taken, also when nobody knows how much room there is; else an error that says what
// is missing where.
func (g *Guard) Check() error {
	room, known := g.current(time.Now())
	if !known {
		return nil
	}
	var what string
	switch {
	case room.Bytes < g.o.Floor.Bytes:
		what = fmt.Sprintf("only %d MiB are free on the disk of %s, and disk_guard.min_free_mib is %d", room.Bytes>>20, g.where, g.o.Floor.Bytes>>20)
	case room.Counted && room.Inodes < g.o.Floor.Inodes:
		what = fmt.Sprintf("only %d inodes are free on the disk of %s, and disk_guard.min_free_inodes is %d", room.Inodes, g.where, g.o.Floor.Inodes)
	default:
		return nil
	}
	g.awake()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.looked != "" {
		what += " (" + g.looked + ")"
	}
	return errors.New(what + ": free some, or lower it; \"tranter docker prune --dry-run\" shows what could go")
}

// Run makes room whenever there is too little, until the context ends, and writes the log of uses.
func (g *Guard) Run(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		if err := g.Tick(ctx, time.Now()); err != nil && ctx.Err() == nil {
			g.o.Log.Warn("Room on the engine's disk could not be made", "disk", g.where, "error", err)
		}
		select {
		case <-ctx.Done():
			if err := g.uses.Save(); err != nil {
				g.o.Log.Warn("The log of used images was not saved", "error", err)
			}
			return
		case <-t.C:
		case <-g.wake:
		}
	}
}

// Tick makes room if there is too little at that time.
func (g *Guard) Tick(ctx context.Context, now time.Time) error {
	saved := g.uses.Flush(now)
	room, known := g.current(now)
	if !known || g.o.Prune.goal(room).met(room) {
		g.remember("")
		return saved
	}
	if g.resting(now) {
		return saved
	}
	pruned, err := g.prune(ctx, room)
	g.settle(pruned, room)
	return errors.Join(saved, err)
}

func (g *Guard) resting(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return now.Before(g.next)
}

func (g *Guard) remember(looked string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.looked = looked
}

func (g *Guard) prune(ctx context.Context, room diskspace.Room) (Pruned, error) {
	p := Pruning{Limits: g.o.Prune, Owner: g.o.Owner, Keep: g.o.Keep, Sizes: g.local == ""}
	if g.local != "" {
		p.Room = func() (diskspace.Room, error) { return diskspace.Of(g.local) }
	}
	p.Report = func(o Outcome) {
		if o.Err == nil {
			g.o.Log.Info("Removed to make room", "kind", string(o.Kind), "name", o.Name, "disk", g.where, "reason", o.Reason)
		} else if InUse(o.Err) {
			g.o.Log.Info("Not removed, as it is in use", "kind", string(o.Kind), "name", o.Name, "disk", g.where)
		}
	}
	return p.Run(ctx, g.engine, g.uses, room)
}

// settle notes what pruning has come to. Room that is not seen is what it was and what has become free; inodes that have
// become free nobody can tell, so they do not count until a job reports again.
func (g *Guard) settle(pruned Pruned, before diskspace.Room) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.looked = "nothing is left that may be removed"
	if n := len(pruned.Removed); n > 0 {
		g.looked = fmt.Sprintf("%s removed to make room", counted(n, "image or volume"))
	}
	g.next = time.Now().Add(fruitless)
	if g.local == "" && len(pruned.Removed) > 0 {
		g.room = diskspace.Room{Bytes: before.Bytes + pruned.Freed}
	}
}
