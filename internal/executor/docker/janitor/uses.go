package janitor

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/filelock"
)

// Kind is a kind of things that are removed to make room.
type Kind string

// The kinds.
const (
	Image  Kind = "image"
	Volume Kind = "volume"
)

const (
	// mostUses bounds the log: an engine has some hundreds of images and volumes. Beyond that, what was not used for longest
	// is forgotten, and so never removed.
	mostUses = 4000
	// mostBytes is what a log of mostUses with the longest names can have, and what of a file is read.
	mostBytes = 4 << 20
	longest   = 512
	// between is the shortest time between two writes that are not asked for by name.
	between = 3 * time.Second
	// lockTime is how long a write waits for another manager's.
	lockTime = time.Second
)

// Use is when jobs last used a thing.
type Use struct {
	Kind Kind      `json:"kind"`
	Name string    `json:"name"` // of a volume; an image's id, or a reference to it
	Last time.Time `json:"last"`
}

type useKey struct {
	kind Kind
	name string
}

// keyOf is the key of a thing by one of its names. An image may be named in more than one way.
func keyOf(kind Kind, name string) useKey {
	if kind == Image {
		name = familiar(name)
	}
	return useKey{kind, name}
}

// Uses is the log of what jobs have used on one engine, and who holds what right now. It may be shared: by goroutines, and
// its file by other managers.
type Uses struct {
	path string

	mu      sync.Mutex
	last    map[useKey]time.Time
	gone    map[useKey]time.Time // removed since the last write, and when: the file's entries up to then go too
	held    map[useKey]int
	claimed map[useKey]chan struct{} // being removed right now; closed when that is over
	changed bool
	written time.Time

	writing sync.Mutex // one write at a time; mu is not held over it
}

// UsesPath is where the log of an engine is, by the id that the engine has given itself.
func UsesPath(stateDir, engineID string) string {
	name := strings.Map(func(c rune) rune {
		if c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			return c
		}
		return '-'
	}, engineID)
	return filepath.Join(stateDir, "docker", cmp.Or(name[:min(len(name), 100)], "engine")+".json")
}

// OpenUses reads the log at path, which is made when it is first written; with an empty path nothing is read or written.
// What is damaged in it is left out: the worst
// that follows is that an image stays. An error means that the file can't be read at all.
func OpenUses(path string) (*Uses, error) {
	u := &Uses{path: path, last: map[useKey]time.Time{}, gone: map[useKey]time.Time{}, held: map[useKey]int{}, claimed: map[useKey]chan struct{}{}}
	if path == "" {
		return u, nil
	}
	read, err := readUses(path)
	if err != nil {
		return nil, fmt.Errorf("read the log of used images: %w", err)
	}
	for _, e := range read {
		u.last[keyOf(e.Kind, e.Name)] = e.Last
	}
	return u, nil
}

// Used notes that a job has used a thing. An earlier time than the known one changes nothing.
func (u *Uses) Used(kind Kind, name string, at time.Time) {
	if !validName(name) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.usedLocked(keyOf(kind, name), at)
}

func (u *Uses) usedLocked(k useKey, at time.Time) {
	if at.After(u.last[k]) {
		u.last[k], u.changed = at, true
	}
}

// Hold keeps a thing from being removed, also while no container of the engine needs it yet, until release is called. It
// counts as used at both ends. Hold first, then see whether the thing is there: while it is just being removed, Hold waits
// for the end of that, which is a minute at most.
func (u *Uses) Hold(kind Kind, name string) (release func()) {
	if !validName(name) {
		return func() {}
	}
	k := keyOf(kind, name)
	u.lockUnclaimed(k)
	defer u.mu.Unlock()
	u.held[k]++
	u.usedLocked(k, time.Now())
	return sync.OnceFunc(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.held[k]--; u.held[k] <= 0 {
			delete(u.held, k)
		}
		u.usedLocked(k, time.Now())
	})
}

// lockUnclaimed locks mu at a moment at which nobody removes the thing.
func (u *Uses) lockUnclaimed(k useKey) {
	for {
		u.mu.Lock()
		removing, claimed := u.claimed[k]
		if !claimed {
			return
		}
		u.mu.Unlock()
		<-removing
	}
}

// claim keeps a thing from being held while it is removed, until done is called; false if somebody holds it.
func (u *Uses) claim(kind Kind, names []string) (done func(), ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, n := range names {
		if u.held[keyOf(kind, n)] > 0 || u.claimed[keyOf(kind, n)] != nil {
			return nil, false
		}
	}
	over := make(chan struct{})
	for _, n := range names {
		u.claimed[keyOf(kind, n)] = over
	}
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		for _, n := range names {
			delete(u.claimed, keyOf(kind, n))
		}
		close(over)
	}, true
}

// Held says whether somebody holds a thing by one of its names.
func (u *Uses) Held(kind Kind, names ...string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.ContainsFunc(names, func(n string) bool { return u.held[keyOf(kind, n)] > 0 })
}

// Last is when a thing was last used under any of its names; false if no job has used it.
func (u *Uses) Last(kind Kind, names ...string) (time.Time, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var last time.Time
	for _, n := range names {
		if at := u.last[keyOf(kind, n)]; at.After(last) {
			last = at
		}
	}
	return last, !last.IsZero()
}

// Forget drops a thing that was removed just now.
func (u *Uses) Forget(kind Kind, names ...string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, n := range names {
		k := keyOf(kind, n)
		u.gone[k], u.changed = time.Now(), true
		delete(u.last, k)
	}
}

// List returns the log, what was used last first.
func (u *Uses) List() []Use {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.listLocked()
}

func (u *Uses) listLocked() []Use {
	out := make([]Use, 0, len(u.last))
	for k, at := range u.last {
		out = append(out, Use{Kind: k.kind, Name: k.name, Last: at})
	}
	slices.SortFunc(out, func(a, b Use) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// Flush is Save, but at most every few seconds.
func (u *Uses) Flush(now time.Time) error {
	u.mu.Lock()
	due := u.changed && now.Sub(u.written) >= between
	u.mu.Unlock()
	if !due {
		return nil
	}
	return u.Save()
}

// Save writes the log if something has changed: for when a job ends. What other managers have written meanwhile is kept
// and taken over.
func (u *Uses) Save() error {
	u.writing.Lock()
	defer u.writing.Unlock()
	u.mu.Lock()
	changed := u.changed
	u.mu.Unlock()
	if !changed || u.path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(u.path), 0o700); err != nil {
		return fmt.Errorf("save the log of used images: %w", err)
	}
	lock, err := locked(u.path + ".lock")
	if err != nil {
		return fmt.Errorf("save the log of used images: %w", err)
	}
	defer lock.Close()
	theirs, err := readUses(u.path)
	if err != nil {
		return fmt.Errorf("save the log of used images: %w", err)
	}
	out, forgotten := u.merge(theirs)
	if err := replace(u.path, out); err != nil {
		u.mu.Lock()
		u.changed = true
		maps.Copy(u.gone, forgotten)
		u.mu.Unlock()
		return fmt.Errorf("save the log of used images: %w", err)
	}
	return nil
}

// reload takes over what others have written.
func (u *Uses) reload() error {
	if u.path == "" {
		return nil
	}
	theirs, err := readUses(u.path)
	if err != nil {
		return fmt.Errorf("read the log of used images: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.takeLocked(theirs)
	return nil
}

func (u *Uses) takeLocked(theirs []Use) {
	for _, e := range theirs {
		k := keyOf(e.Kind, e.Name)
		if e.Last.After(u.gone[k]) && e.Last.After(u.last[k]) {
			u.last[k] = e.Last
		}
	}
}

// merge takes over what the file has, and returns what it is to have. forgotten is what is missing in that.
func (u *Uses) merge(theirs []Use) (out []Use, forgotten map[useKey]time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.takeLocked(theirs)
	out, forgotten = u.listLocked(), u.gone
	for _, e := range out[min(len(out), mostUses):] {
		delete(u.last, keyOf(e.Kind, e.Name))
	}
	u.gone, u.changed, u.written = map[useKey]time.Time{}, false, time.Now()
	return out[:min(len(out), mostUses)], forgotten
}

// locked takes the lock of a log, waiting a moment for another manager's write.
func locked(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	limit := time.NewTimer(lockTime)
	defer limit.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		err = filelock.Try(f)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, filelock.ErrLocked) {
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-again.C:
		case <-limit.C:
			return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
		}
	}
}

// readUses reads a log, leaving out what is damaged.
func readUses(path string) ([]Use, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, mostBytes))
	if err != nil {
		return nil, err
	}
	return decodeUses(data, time.Now()), nil
}

// decodeUses reads one entry a line, so that one that is damaged costs no other. A time in the future, which a clock that
// was wrong has left, becomes now: it would keep the thing for good.
func decodeUses(data []byte, now time.Time) []Use {
	var out []Use
	for line := range strings.Lines(string(data)) {
		var e Use
		if json.Unmarshal([]byte(line), &e) != nil || e.Kind != Image && e.Kind != Volume || !validName(e.Name) || e.Last.IsZero() {
			continue
		}
		if e.Last.After(now) {
			e.Last = now
		}
		if out = append(out, e); len(out) == mostUses {
			break
		}
	}
	return out
}

// validName says whether a name is one that an engine can have.
func validName(name string) bool {
	return name != "" && len(name) <= longest && !strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '\uFFFD' })
}

// replace writes a log beside the old one and puts it in its place.
func replace(path string, uses []Use) (err error) {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	encoder := json.NewEncoder(temp)
	for _, e := range uses {
		if err := encoder.Encode(e); err != nil {
			return errors.Join(err, temp.Close())
		}
	}
	if err := temp.Close(); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}
