package worker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tranter-ci/tranter"
)

// Office is the manager's end of all allocations of one runner.
type Office struct {
	options Options
	root    *os.Root // of Options.Dir
	log     *slog.Logger
	program string
	listen  *listener // nil: all goes over the directory
	signs   chan Sign
	aside   aside

	underWay atomic.Int64 // calls

	mu       sync.Mutex
	holdings map[string]*holding
	order    []*holding // in which signs are looked for
}

// waitingSigns is how many signs may wait to be taken before looking for further ones waits too.
const waitingSigns = 64

// NewOffice makes the directory ready. With Listen the address is bound.
func NewOffice(o Options) (*Office, error) {
	if !filepath.IsAbs(o.Dir) {
		return nil, fmt.Errorf("the directory %q that is shared with the nodes is no absolute path", o.Dir)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	x := &Office{options: o, log: o.Log, signs: make(chan Sign, waitingSigns), holdings: map[string]*holding{}}
	if err := x.layOut(); err != nil {
		return nil, fmt.Errorf("make the directory %s ready: %w", o.Dir, err)
	}
	if o.Listen != "" {
		var err error
		if x.listen, err = x.bind(); err != nil {
			_ = x.root.Close()
			return nil, fmt.Errorf("listen for workers: %w", err)
		}
	}
	return x, nil
}

// layOut makes the directories. If we are root, other users run workers: they can get through, and leave a hint, but can
// neither see nor remove each other's.
func (o *Office) layOut() error {
	enter, hints := os.FileMode(0o700), os.FileMode(0o700)
	if os.Geteuid() == 0 {
		enter, hints = 0o711, 0o733|os.ModeSticky
	}
	_, err := os.Lstat(o.options.Dir)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(o.options.Dir, enter); err == nil {
			err = os.Chmod(o.options.Dir, enter)
		}
	}
	if err != nil {
		return err
	}
	if o.root, err = os.OpenRoot(o.options.Dir); err != nil {
		return err
	}
	o.aside = aside{root: o.root, log: o.log, more: make(chan struct{}, 1)}
	if err := ours(o.root, "."); err != nil {
		return err
	}
	for _, d := range []struct {
		name string
		mode os.FileMode
	}{{allocationsDir, enter}, {programsDir, enter}, {hintsDir, hints}} {
		if err := layOut(o.root, d.name, d.mode); err != nil {
			return err
		}
	}
	if o.program = o.options.Program; o.program == "" {
		o.program, err = o.copyProgram()
	}
	return errors.Join(err, o.beat())
}

// copyProgram puts a copy of this program where nodes find it, named by its content, and removes older ones.
func (o *Office) copyProgram() (string, error) {
	self, err := os.Open(o.options.Self)
	if err != nil {
		return "", fmt.Errorf("read this program: %w", err)
	}
	defer self.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, self); err != nil {
		return "", fmt.Errorf("read this program: %w", err)
	}
	name := "tranter-" + hex.EncodeToString(sum.Sum(nil))[:16]
	inside := filepath.Join(programsDir, name)
	path := filepath.Join(o.options.Dir, inside)
	if info, err := o.root.Lstat(inside); err == nil && info.Mode().IsRegular() {
		return path, nil
	}
	if _, err := self.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	temporary := inside + "." + rand.Text()[:8]
	to, err := o.root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(to, self)
	err = errors.Join(err, to.Chmod(0o755), to.Sync(), to.Close())
	if err == nil {
		err = o.root.Rename(temporary, inside)
	}
	if err != nil {
		_ = o.root.Remove(temporary)
		return "", fmt.Errorf("copy this program to the nodes: %w", err)
	}
	return path, nil
}

// There says whether the directory is still the one that was made ready.
func (o *Office) There() bool {
	was, err := o.root.Stat(".")
	if err != nil {
		return false
	}
	is, err := os.Stat(o.options.Dir)
	return err == nil && os.SameFile(was, is)
}

// written is the content of the assignment's file: what the worker has to know.
type written struct {
	Assignment
	Dir         string `json:"dir"`  // the shared one
	Hint        string `json:"hint"` // name of the hint that it leaves
	LocalDir    string `json:"local_dir,omitempty"`
	Connect     string `json:"connect,omitempty"`     // address of the manager
	Fingerprint string `json:"fingerprint,omitempty"` // of its certificate, SHA-256 in hexadecimal digits
}

// Prepare makes what the worker of an allocation needs, and returns the batch script. It may be repeated, until there is a
// worker. There is no secret in the script.
func (o *Office) Prepare(a Assignment) (script string, err error) {
	if err := checkName("allocation", a.Name); err != nil {
		return "", err
	}
	f, err := o.makeFolder(a)
	if err != nil {
		return "", fmt.Errorf("make the directory of allocation %s: %w", a.Name, err)
	}
	defer func() { _ = f.root.Close() }()
	w := written{Assignment: a, Dir: o.options.Dir, Hint: a.Name + "." + rand.Text(), LocalDir: o.options.LocalDir}
	if o.listen != nil {
		w.Connect, w.Fingerprint = o.listen.address, o.listen.fingerprint
	}
	if _, err := f.root.Lstat(assignmentFile); err == nil {
		return o.script(a), nil
	}
	content, err := json.Marshal(w)
	if err != nil {
		return "", err
	}
	files := map[string][]byte{requestsFile: nil, answersFile: nil, signFile: nil}
	if o.listen != nil {
		files[keyFile] = []byte(rand.Text() + rand.Text()) // 260 bits
	}
	for name, content := range files {
		if err := f.give(name, content, content != nil); err != nil {
			return "", fmt.Errorf("write %s of allocation %s: %w", name, a.Name, err)
		}
	}
	if err := f.give(assignmentFile, content, true); err != nil { // the last: with it all is there
		return "", fmt.Errorf("write %s of allocation %s: %w", assignmentFile, a.Name, err)
	}
	return o.script(a), nil
}

func (o *Office) makeFolder(a Assignment) (folder, error) {
	name := filepath.Join(allocationsDir, a.Name)
	if err := o.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return folder{}, err
	}
	root, err := o.root.OpenRoot(name)
	if err != nil {
		return folder{}, err
	}
	f := folder{root: root, as: a.As}
	if err = f.directory(bodiesDir); err == nil && a.As != nil {
		err = o.root.Lchown(name, int(a.As.UID), int(a.As.GID))
	}
	if err != nil {
		_ = root.Close()
	}
	return f, err
}

// script is what the batch system runs. What it execs gets the signals.
func (o *Office) script(a Assignment) string {
	before := strings.TrimRight(a.Before, "\n")
	if before != "" {
		before += "\n"
	}
	return "#!/bin/sh\n" + before + "exec " + quote(o.program) + " agent worker " + quote(filepath.Join(o.options.Dir, allocationsDir, a.Name)) + "\n"
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Follow has signs of an allocation looked for, after Prepare or a restart.
func (o *Office) Follow(name string) { _, _ = o.holding(name) }

// holding returns what we know about an allocation.
func (o *Office) holding(name string) (*holding, error) {
	if err := checkName("allocation", name); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if h := o.holdings[name]; h != nil {
		return h, nil
	}
	h := newHolding(o, name)
	o.holdings[name] = h
	o.order = append(slices.Clone(o.order), h)
	return h, nil
}

func (o *Office) followed(name string) *holding {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.holdings[name]
}

// Signs returns the signs of life of the allocations that are followed. They have to be taken.
func (o *Office) Signs() <-chan Sign { return o.signs }

// Executor returns the executor whose sessions are in the allocation.
func (o *Office) Executor(name string) (tranter.Executor, error) {
	h, err := o.holding(name)
	if err != nil {
		return nil, err
	}
	return &executor{h}, nil
}

// Lost says that the allocation is gone: all calls on it end with tranter.ErrMachineLost, but what it has left is still read.
func (o *Office) Lost(name string, cause error) {
	if h, err := o.holding(name); err == nil {
		h.lose(cause)
	}
}

// End has the worker end itself: what runs in it is ended in an orderly way first. One that has not started yet will do so at
// once when it does. End does not wait for it.
func (o *Office) End(ctx context.Context, name, reason string) error {
	h, err := o.holding(name)
	if err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := h.tell(reason); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, tranter.ErrMachineLost) {
		return fmt.Errorf("tell the worker of allocation %s to end: %w", name, err)
	}
	return nil
}

// Remove removes what there is of an allocation.
func (o *Office) Remove(name string) error {
	if err := checkName("allocation", name); err != nil {
		return err
	}
	o.mu.Lock()
	h := o.holdings[name]
	delete(o.holdings, name)
	o.order = slices.DeleteFunc(slices.Clone(o.order), func(x *holding) bool { return x == h })
	o.mu.Unlock()
	if h != nil {
		h.lose(errors.New("it was removed"))
		h.close()
	}
	if err := o.root.RemoveAll(filepath.Join(allocationsDir, name)); err != nil {
		return fmt.Errorf("remove the directory of allocation %s: %w", name, err)
	}
	return nil
}
