package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Selection says which files of a project to take.
type Selection struct {
	Paths   []string // patterns as in `artifacts:paths`: relative to the project, or absolute and inside of it
	Exclude []string // patterns of what to leave out again
	// Untracked writes the names of files that git does not track, each followed by a zero byte; nil: none are taken.
	Untracked func(ctx context.Context, names io.Writer) error
}

// Collect finds the files of sel in the project directory dir: directories with all that is in them, symbolic links as
// links. Patterns that match nothing, that lead out of the project or are malformed are warned about; only a project
// that cannot be opened and the end of ctx are errors.
func Collect(ctx context.Context, dir string, sel Selection, log Reporter) (Files, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Files{}, fmt.Errorf("open the project directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	c := &collector{dir: dir, root: root, fsys: root.FS(), log: log, files: map[string]File{}}
	for _, p := range sel.Exclude {
		c.exclude(p)
	}
	for _, p := range sel.Paths {
		if err := c.pattern(ctx, p); err != nil {
			return Files{}, err
		}
	}
	if sel.Untracked != nil {
		if err := c.untracked(ctx, sel.Untracked); err != nil {
			return Files{}, err
		}
	}
	for _, e := range c.excludes {
		if e.count > 0 {
			log.Plain("%s: excluded %d files", e.shown, e.count)
		}
	}
	return c.sorted(), nil
}

type collector struct {
	dir      string
	root     *os.Root
	fsys     fs.FS
	log      Reporter
	excludes []*exclusion
	files    map[string]File
	seen     map[string]struct{} // paths that the pattern at hand has met
	found    int                 // how many of them were taken
}

type exclusion struct {
	shown, pattern string
	count          int
}

// inside makes a pattern relative to the project, with slashes, and says whether it stays inside.
func (c *collector) inside(pattern string) (string, bool) {
	bases := []string{c.dir}
	if resolved, err := filepath.EvalSymlinks(c.dir); err == nil && resolved != c.dir {
		bases = append(bases, resolved)
	}
	if !filepath.IsAbs(pattern) {
		return local(filepath.Clean(pattern))
	}
	for _, base := range bases {
		if rel, err := filepath.Rel(base, pattern); err == nil {
			if p, ok := local(rel); ok {
				return p, true
			}
		}
	}
	return "", false
}

func local(rel string) (string, bool) {
	p := filepath.ToSlash(rel)
	return p, p != ".." && !strings.HasPrefix(p, "../") && !strings.HasPrefix(p, "/")
}

func (c *collector) exclude(pattern string) {
	p, ok := c.inside(pattern)
	switch {
	case !ok:
		c.log.Warning("%s: not inside the project directory (%s), excludes nothing", pattern, c.dir)
	case !doublestar.ValidatePattern(p):
		c.log.Warning("%s: malformed pattern, excludes nothing", pattern)
	default:
		c.excludes = append(c.excludes, &exclusion{shown: pattern, pattern: p})
	}
}

func (c *collector) pattern(ctx context.Context, pattern string) error {
	if pattern == "" {
		return nil
	}
	p, ok := c.inside(pattern)
	if !ok {
		c.log.Warning("%s: not inside the project directory (%s)", pattern, c.dir)
		return nil
	}
	if !doublestar.ValidatePattern(p) {
		c.log.Warning("%s: malformed pattern", pattern)
		return nil
	}
	c.seen, c.found = map[string]struct{}{}, 0
	if err := c.match(ctx, p); err != nil {
		return fmt.Errorf("look for %s: %w", pattern, err)
	}
	if c.found == 0 {
		c.log.Warning("%s: no matching files. Ensure that the artifact path is relative to the working directory (%s)", pattern, c.dir)
	} else {
		c.log.Plain("%s: found %d matching artifact files and directories", pattern, c.found)
	}
	return nil
}

// match takes what p matches. A plain name is looked up as it is, so that a link that leads nowhere is found too.
func (c *collector) match(ctx context.Context, p string) error {
	if !strings.ContainsAny(p, `*?[{\`) {
		return c.tree(ctx, p)
	}
	err := doublestar.GlobWalk(c.fsys, p, func(path string, _ fs.DirEntry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return c.tree(ctx, path)
	}, doublestar.WithNoFollow())
	if errors.Is(err, doublestar.ErrBadPattern) {
		return nil
	}
	return err
}

// tree takes path and, if it is a directory, all below it.
func (c *collector) tree(ctx context.Context, path string) error {
	if _, ok := c.seen[path]; ok {
		return ctx.Err() // a directory above it has been walked already
	}
	info, err := c.root.Lstat(filepath.FromSlash(path))
	if err != nil {
		return ctx.Err() // there is no such file, or a link on the way leads out: no match
	}
	if !info.IsDir() {
		c.take(path, info)
		return nil
	}
	return fs.WalkDir(c.fsys, path, func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return c.walked(path, d, err)
	})
}

// walked takes one file that a walk has come to. What cannot be read is left out.
func (c *collector) walked(path string, d fs.DirEntry, err error) error {
	if err == nil {
		if _, ok := c.seen[path]; ok && d.IsDir() {
			return fs.SkipDir
		}
		var info fs.FileInfo
		if info, err = d.Info(); err == nil {
			c.take(path, info)
			return nil
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		c.log.Warning("%s: %v", path, err)
	}
	if d != nil && d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// take adds one file, unless it is excluded or of a kind that no archive holds.
func (c *collector) take(path string, info fs.FileInfo) {
	if _, ok := c.seen[path]; ok {
		return
	}
	c.seen[path] = struct{}{}
	for _, e := range c.excludes {
		if ok, _ := doublestar.Match(e.pattern, path); ok {
			if _, counted := c.files[path]; !counted {
				e.count++
			}
			return
		}
	}
	kind := info.Mode().Type()
	if kind&^(fs.ModeDir|fs.ModeSymlink) != 0 {
		c.log.Warning("%s: neither a file, a directory nor a link, not archived", path)
		return
	}
	c.found++
	if path == "." {
		return // the project directory itself is where the archive is unpacked
	}
	f := File{Path: path, Mode: kind | info.Mode().Perm(), ModTime: info.ModTime()}
	if kind == fs.ModeSymlink {
		target, err := c.root.Readlink(filepath.FromSlash(path))
		if err != nil {
			c.log.Warning("%s: %v", path, err)
			return
		}
		f.Link = filepath.ToSlash(target)
	}
	if kind == 0 {
		f.Size = info.Size()
	}
	c.files[path] = f
}

func (c *collector) untracked(ctx context.Context, list func(context.Context, io.Writer) error) error {
	c.seen, c.found = map[string]struct{}{}, 0
	names := &splitter{yield: func(name string) {
		path := strings.TrimSuffix(name, "/") // a repository inside the project
		if info, err := c.root.Lstat(filepath.FromSlash(path)); err == nil {
			c.take(path, info)
		}
	}}
	if err := list(ctx, names); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("list untracked files: %w", ctx.Err())
		}
		c.log.Warning("untracked: %v", err)
	}
	if c.found == 0 {
		c.log.Plain("untracked: no files")
	} else {
		c.log.Plain("untracked: found %d files", c.found)
	}
	return nil
}

func (c *collector) sorted() Files {
	list := make([]File, 0, len(c.files))
	for _, f := range c.files {
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return Files{Dir: c.dir, List: list}
}

// splitter cuts what is written into names that end with a zero byte.
type splitter struct {
	rest  []byte
	yield func(string)
}

func (s *splitter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		name, after, ok := bytes.Cut(p, []byte{0})
		s.rest = append(s.rest, name...)
		if !ok {
			return n, nil
		}
		if len(s.rest) > 0 {
			s.yield(string(s.rest))
		}
		s.rest, p = s.rest[:0], after
	}
}
