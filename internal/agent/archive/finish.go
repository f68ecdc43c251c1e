package archive

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
)

// finish makes the links, then gives directories their modes and times, the deepest first.
func (s *sink) finish(ctx context.Context) error {
	slices.SortStableFunc(s.links, func(a, b late) int { // hard links first: they lead to files that are there by now
		switch {
		case a.hard == b.hard:
			return 0
		case a.hard:
			return -1
		default:
			return 1
		}
	})
	for _, l := range s.links {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.tolerate(l.entry.name, s.makeLink(l)); err != nil {
			return err
		}
	}
	s.leave()
	slices.SortStableFunc(s.dirs, func(a, b late) int { return len(b.name) - len(a.name) })
	for _, l := range s.dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.tolerate(l.entry.name, s.finishDir(l)); err != nil {
			return err
		}
	}
	return nil
}

// makeLink makes a link in place of what has its name. Where a symbolic link leads does not matter: nothing is ever
// written through it, and links out of the project are common, such as those to the interpreter of a Python environment.
func (s *sink) makeLink(l late) error {
	at, err := s.enter(dirOf(l.name))
	if err != nil {
		return err
	}
	if l.hard {
		return s.hardLink(l)
	}
	dir := at.root
	base := baseOf(l.name)
	if err := dir.Remove(base); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return refusal("a directory with files is in the place of the link")
	}
	if err := dir.Symlink(filepath.FromSlash(l.link), base); err != nil {
		return err
	}
	s.note(l.entry.name)
	return nil
}

func (s *sink) hardLink(l late) error {
	from, err := localName(l.link)
	if err != nil {
		return err
	}
	if info, err := s.root.Lstat(from); err != nil || !info.Mode().IsRegular() {
		return refusal("the file that it is another name of is not there")
	}
	if from == l.name {
		return nil
	}
	if err := s.root.Remove(l.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return refusal("a directory with files is in the place of the link")
	}
	if err := s.root.Link(from, l.name); err != nil {
		return s.explain(l.name, err)
	}
	s.note(l.entry.name)
	return nil
}

// undo removes what the archive has brought, as well as can be.
func (s *sink) undo() {
	s.leave()
	for _, member := range slices.Backward(s.made) {
		name, err := localName(member)
		if err != nil {
			continue
		}
		if info, err := s.root.Lstat(name); err == nil && !info.IsDir() {
			_ = s.root.Remove(name)
		}
	}
	for _, name := range slices.Backward(s.madeIn) {
		_ = s.root.Remove(name) // only if it is empty
	}
}

func (s *sink) finishDir(l late) error {
	info, err := s.root.Lstat(l.name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil // a later member of the same name has taken its place
	}
	if err != nil {
		return s.explain(l.name, err)
	}
	if err := s.root.Chmod(l.name, permissions(l.mode, 0o755)); err != nil {
		return err
	}
	return setTimes(s.root, l.name, l.modTime)
}
