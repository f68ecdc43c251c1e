package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// sink writes members of an archive below one directory. Links are made when all files are written, modes and times of
// directories are set when the links are made. One goroutine calls its methods; write may be called by several.
type sink struct {
	root    *os.Root
	log     Reporter
	buf     []byte
	room    int64  // bytes that may be written in all
	at      string // the directory that here is; members of one directory mostly follow each other
	here    *place // nil: none
	links   []late
	dirs    []late
	madeIn  []string // directories that are new, outer ones first
	skipped int

	mu   sync.Mutex
	made []string // files and links that are new
}

// place is a directory that is kept open as long as somebody writes into it.
type place struct {
	root  *os.Root
	users atomic.Int32
	stays bool // it is the project itself
}

func (p *place) hold() *place {
	p.users.Add(1)
	return p
}

func (p *place) release() {
	if p.users.Add(-1) == 0 && !p.stays {
		_ = p.root.Close()
	}
}

type late struct {
	name string // local, clean
	entry
}

// refusal is an error that costs one member, not the archive.
type refusal string

func (r refusal) Error() string { return string(r) }

// shownSkips is how many refused members are named in the log.
const shownSkips = 10

// put unpacks one member, whose content body is. A refused one is warned about; errors are faults of the disk and of the
// archive.
func (s *sink) put(e entry, body io.Reader) error {
	name, err := s.prepare(e)
	if err == nil && name != "" {
		var at *place
		if at, err = s.enter(dirOf(name)); err == nil {
			err = s.write(at, baseOf(name), e, func(w io.Writer) error {
				_, err := io.CopyBuffer(onlyWriter{w}, body, s.buf)
				return err
			})
		}
	}
	return s.tolerate(e.name, err)
}

// tolerate warns about err and drops it if it is a refusal.
func (s *sink) tolerate(name string, err error) error {
	if why, ok := errors.AsType[refusal](err); ok {
		if s.skipped++; s.skipped <= shownSkips {
			s.log.Warning("%q: not extracted: %s", name, string(why))
		}
		return nil
	}
	return err
}

// summary says how many members were refused beyond those that were named.
func (s *sink) summary() {
	if s.skipped > shownSkips {
		s.log.Warning("%d more entries of the archive were not extracted", s.skipped-shownSkips)
	}
}

// prepare does all that there is to do for a member but to write a file: for one it returns the local name.
func (s *sink) prepare(e entry) (string, error) {
	name, err := localName(e.name)
	if err != nil {
		return "", err
	}
	if name == "." {
		return "", nil
	}
	kind := e.mode.Type()
	switch {
	case e.hard || kind == fs.ModeSymlink:
		if e.link == "" || len(e.link) > maxTarget || strings.ContainsRune(e.link, 0) {
			return "", refusal("a link without a usable target")
		}
		return "", remember(&s.links, late{name, e})
	case kind == fs.ModeDir:
		return "", s.dir(name, e)
	case kind != 0:
		return "", refusal("neither a file, a directory nor a link")
	}
	if e.mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		s.log.Warning("%q: extracted without its setuid and setgid bits", e.name)
	}
	return name, nil
}

func dirOf(name string) string  { return filepath.Dir(name) }
func baseOf(name string) string { return filepath.Base(name) }

// Limits of names on common systems. A name over them costs one member, not the archive.
const (
	maxBase = 255
	maxName = 4000
)

// localName turns the name of a member into a path of this system that stays below the directory.
func localName(name string) (string, error) {
	if name == "" || strings.ContainsRune(name, 0) {
		return "", refusal("it has no usable name")
	}
	if strings.HasPrefix(name, "/") || slices.Contains(strings.Split(name, "/"), "..") {
		return "", refusal("it leads out of the project directory")
	}
	clean, ok := localize(path.Clean(name))
	if !ok {
		return "", refusal("this system cannot have a file of this name")
	}
	if len(clean) > maxName || slices.ContainsFunc(strings.Split(clean, string(filepath.Separator)), func(part string) bool { return len(part) > maxBase }) {
		return "", refusal("its name is too long")
	}
	return clean, nil
}

func remember(list *[]late, l late) error {
	if len(*list) >= maxLate {
		return fmt.Errorf("%w: it has more than %d directories or links", ErrTooLarge, maxLate)
	}
	*list = append(*list, l)
	return nil
}

// dir makes a directory that can be written to until the archive is done.
func (s *sink) dir(name string, e entry) error {
	info, err := s.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := s.mkdir(name); err != nil {
			return err
		}
	case err != nil:
		return s.explain(name, err)
	case info.Mode().Type() == fs.ModeSymlink:
		if s.blocked(name) {
			return errThroughLink
		}
		return nil // a link of the project to a directory of the project: its mode is not the archive's business
	case !info.IsDir():
		return fmt.Errorf("make a directory: %w", &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist})
	case info.Mode().Perm()&0o700 != 0o700:
		if err := s.root.Chmod(name, info.Mode().Perm()|0o700); err != nil {
			return s.explain(name, err)
		}
	}
	return remember(&s.dirs, late{name, e})
}

const errThroughLink = refusal("it leads through a symbolic link out of the project directory, or to nowhere")

// explain returns errThroughLink if a link on the way to name is why it cannot be reached, else err.
func (s *sink) explain(name string, err error) error {
	if s.blocked(filepath.Dir(name)) {
		return errThroughLink
	}
	return err
}

// blocked says whether a component of the directory name is a link that does not lead to a directory inside.
func (s *sink) blocked(name string) bool {
	for end := range len(name) + 1 {
		if end < len(name) && !os.IsPathSeparator(name[end]) {
			continue
		}
		info, err := s.root.Lstat(name[:end])
		if err != nil {
			return false
		}
		if info.Mode().Type() == fs.ModeSymlink {
			if to, err := s.root.Stat(name[:end]); err != nil || !to.IsDir() {
				return true
			}
		}
	}
	return false
}

func (s *sink) mkdir(name string) error {
	first := len(s.madeIn)
	for dir := name; dir != "."; dir = filepath.Dir(dir) {
		if _, err := s.root.Lstat(dir); err == nil {
			break
		}
		s.madeIn = slices.Insert(s.madeIn, first, dir)
	}
	if err := s.root.MkdirAll(name, 0o777); err != nil {
		if s.blocked(name) {
			return errThroughLink
		}
		return err
	}
	return nil
}

// enter opens the directory name, which is made if need be. It stays open until the next call, and for those who hold it.
func (s *sink) enter(name string) (*place, error) {
	if s.here != nil && s.at == name {
		return s.here, nil
	}
	s.leave()
	if name == "." {
		s.at, s.here = name, (&place{root: s.root, stays: true}).hold()
		return s.here, nil
	}
	r, err := s.root.OpenRoot(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.mkdir(name); err != nil {
			return nil, err
		}
		r, err = s.root.OpenRoot(name)
	}
	if err != nil {
		if s.blocked(name) {
			return nil, errThroughLink
		}
		return nil, err
	}
	s.at, s.here = name, (&place{root: r}).hold()
	return s.here, nil
}

func (s *sink) leave() {
	if s.here != nil {
		s.here.release()
		s.here = nil
	}
}

// write writes a regular file, with the content that fill gives: always a new one, so that neither a link nor another
// name of an old file is written through.
func (s *sink) write(at *place, base string, e entry, fill func(io.Writer) error) error {
	f, err := at.root.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err := at.root.Remove(base); err != nil {
			return err
		}
		f, err = at.root.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return err
	}
	s.note(e.name)
	err = fill(f)
	if err == nil {
		err = f.Chmod(permissions(e.mode, 0o644))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return setTimes(at.root, base, e.modTime)
}

// note remembers a file that is new, by its name in the archive.
func (s *sink) note(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = append(s.made, name)
}

// permissions returns the mode's permissions, or those given for an archive that does not tell any.
func permissions(mode, without fs.FileMode) fs.FileMode {
	if p := mode.Perm(); p != 0 {
		return p
	}
	return without
}

// setTimes sets the time of a file if the archive tells one.
func setTimes(dir *os.Root, name string, t time.Time) error {
	if t.IsZero() || t.Unix() < 0 || t.Year() > 9999 {
		return nil
	}
	return dir.Chtimes(name, t, t)
}
