package apptainer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// prepareLayer makes the directories of the layer, and in it what is mounted on: all of it may be there.
func (c container) prepareLayer() error {
	for _, dir := range []string{"upper", "work", "root", "ram"} {
		if err := os.MkdirAll(filepath.Join(c.Layer, dir), 0o755); err != nil { //nolint:gosec // the root directory of the container
			return fmt.Errorf("make the container's layer: %w", err)
		}
	}
	lower := filepath.Join(c.Layer, "lower")
	if err := os.Symlink(c.Image, lower); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the container's layer: %w", err)
	}
	upper, err := os.OpenRoot(filepath.Join(c.Layer, "upper"))
	if err != nil {
		return fmt.Errorf("make the container's layer: %w", err)
	}
	defer func() { _ = upper.Close() }()
	standard := []bind{{Source: "/", Target: "/proc"}, {Source: "/", Target: "/dev"}, {Source: "/", Target: "/sys"}, {Source: "/", Target: "/tmp"}}
	if c.Runtime == charliecloud { // it binds these by itself
		for _, f := range []string{"/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf"} {
			standard = append(standard, bind{Source: f, Target: f})
		}
	}
	for _, b := range standard {
		b.Target = resolve(c.Image, b.Target)
		if err := c.mountPoint(upper, b, nil); err != nil {
			return err
		}
	}
	for i, b := range c.Binds {
		if err := c.mountPoint(upper, b, c.Binds[:i]); err != nil {
			return err
		}
	}
	return nil
}

// mountPoint makes what b is mounted on: in the layer, or in that of the binds before it which it is below of. What is
// there already stays.
func (c container) mountPoint(upper *os.Root, b bind, before []bind) error {
	info, err := os.Stat(b.Source)
	if err != nil {
		return configError("what is to be mounted into the container is not there: %w", err)
	}
	for _, over := range slices.Backward(before) {
		rel, err := filepath.Rel(over.Target, b.Target)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		if rel == "." || filepath.Join(over.Source, rel) == b.Source {
			return nil // it is the same
		}
		on, err := os.OpenRoot(over.Source)
		if err != nil {
			return fmt.Errorf("mount %s into the container: %w", b.Target, err)
		}
		return errors.Join(touch(on, rel, info.IsDir()), on.Close())
	}
	target := b.Target
	if found, err := os.Lstat(filepath.Join(c.Image, target)); err == nil && found.IsDir() == info.IsDir() {
		return nil
	}
	return touch(upper, strings.TrimPrefix(target, "/"), info.IsDir())
}

// touch makes a directory, or an empty file, with the directories above it.
func touch(in *os.Root, name string, directory bool) error {
	parent := name
	if !directory {
		parent = path.Dir(name)
	}
	if err := in.MkdirAll(parent, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make %s to mount on: %w", name, err)
	}
	if directory {
		return nil
	}
	f, err := in.OpenFile(name, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return fmt.Errorf("make %s to mount on: %w", name, err)
	}
	return f.Close()
}

// mostLinks is how many symbolic links are followed, as in the kernel.
const mostLinks = 40

// resolve follows the symbolic links of an image as they are meant in it, and returns the path below it that target
// means. What does not exist is taken as it is.
func resolve(root, target string) string {
	done, todo := "/", strings.Split(path.Clean("/"+target), "/")
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		if part == "" || part == "." {
			continue
		}
		next := path.Join(done, part) // ".." at the top stays there
		to, err := os.Readlink(filepath.Join(root, next))
		if err != nil {
			done = next
			continue
		}
		if links++; links > mostLinks {
			return next
		}
		if path.IsAbs(to) {
			done = "/"
		}
		todo = append(strings.Split(to, "/"), todo...)
	}
	return done
}

// removeAll removes a directory, also where a job has taken its own rights to it away.
func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700) //nolint:gosec // before it is removed
		}
		return nil
	})
	return os.RemoveAll(dir)
}
