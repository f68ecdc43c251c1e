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
	"time"
)

// sink writes members of an archive below one directory. Links are made when all files are written, modes and times of
// directories are set when the links are made.
type sink struct {
	root    *os.Root
	log     Reporter
	buf     []byte
	at      string   // the directory that here is; members of one directory mostly follow each other
	here    *os.Root // nil: none
	links   []late
	dirs    []late
	made    []string // files and links that are new, and
	madeIn  []string // directories that are, outer ones first
	skipped int
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

// put unpacks one member. A refused one is warned about; errors are faults of the disk and of the archive.
func (s *sink) put(e entry, body io.Reader) error {
	return s.tolerate(e.name, s.place(e, body))
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

func (s *sink) place(e entry, body io.Reader) error {
	name, err := localName(e.name)
	if err != nil {
		return err
	}
	if name == "." {
		return nil
	}
	kind := e.mode.Type()
	switch {
	case e.hard || kind == fs.ModeSymlink:
		if e.link == "" || len(e.link) > maxTarget || strings.ContainsRune(e.link, 0) {
			return refusal("a link without a usable target")
		}
		return remember(&s.links, late{name, e})
	case kind == fs.ModeDir:
		return s.dir(name, e)
	case kind != 0:
		return refusal("neither a file, a directory nor a link")
	default:
		return s.file(name, e, body)
	}
}

// localName turns the name of a member into a path of this system that stays below the directory.
func localName(name string) (string, error) {
	if name == "" || strings.ContainsRune(name, 0) {
		return "", refusal("it has no usable name")
	}
	if strings.HasPrefix(name, "/") || slices.Contains(strings.Split(name, "/"), "..") {
		return "", refusal("it leads out of the project directory")
	}
	clean, err := filepath.Localize(path.Clean(name))
	if err != nil {
		return "", refusal("this system cannot have a file of this name")
	}
	return clean, nil
}

func remember(list *[]late, l late) error {
	if len(*list) >= maxLate {
		return fmt.Errorf("%w: %w", ErrDamaged, errTooManyEntries)
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

// enter opens the directory name, which is made if need be.
func (s *sink) enter(name string) (*os.Root, error) {
	if name == "." {
		return s.root, nil
	}
	if s.here != nil && s.at == name {
		return s.here, nil
	}
	s.leave()
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
	s.at, s.here = name, r
	return r, nil
}

func (s *sink) leave() {
	if s.here != nil {
		_ = s.here.Close()
		s.here = nil
	}
}

// file writes a regular file: always a new one, so that neither a link nor another name of an old file is written through.
func (s *sink) file(name string, e entry, body io.Reader) error {
	if e.mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		s.log.Warning("%q: extracted without its setuid and setgid bits", e.name)
	}
	dir, err := s.enter(filepath.Dir(name))
	if err != nil {
		return err
	}
	base := filepath.Base(name)
	f, err := dir.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err := dir.Remove(base); err != nil {
			return err
		}
		f, err = dir.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(onlyWriter{f}, body, s.buf)
	if err == nil {
		err = f.Chmod(permissions(e.mode, 0o644))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	s.made = append(s.made, name)
	if err != nil {
		return err
	}
	return setTimes(dir, base, e.modTime)
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
