package container

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
)

// library is one that a program is linked with, or the loader that starts it.
type library struct {
	name string // in the image
	path string // on this machine
}

// needs returns the libraries that the program or library needs, and those that these need. It does what ldd does, but
// runs nothing.
func needs(program string) ([]library, error) {
	var all []library
	seen := map[string]bool{}
	for queue := []string{program}; len(queue) > 0; queue = queue[1:] {
		names, loader, err := imports(queue[0])
		if err != nil {
			return nil, err
		}
		if loader != "" && !seen[path.Base(loader)] {
			seen[path.Base(loader)] = true
			all = append(all, library{name: imagePath(loader), path: loader})
		}
		for _, name := range names {
			if seen[name] {
				continue
			}
			seen[name] = true
			found, ok := findLibrary(name)
			if !ok {
				return nil, fmt.Errorf("%s needs the library %s, which is in none of %s", queue[0], name, strings.Join(libraryDirs(), ", "))
			}
			all, queue = append(all, found), append(queue, found.path)
		}
	}
	return all, nil
}

// imports reads which libraries a file names, and the loader.
func imports(program string) (names []string, loader string, err error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", program, err)
	}
	defer func() { _ = f.Close() }()
	for _, part := range f.Progs {
		if part.Type != elf.PT_INTERP {
			continue
		}
		const longest = 4096
		data, err := io.ReadAll(io.LimitReader(part.Open(), longest))
		if err != nil {
			return nil, "", fmt.Errorf("read %s: %w", program, err)
		}
		loader = strings.TrimRight(string(data), "\x00")
	}
	names, err = f.ImportedLibraries()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, "", fmt.Errorf("read %s: %w", program, err)
	}
	return names, loader, nil
}

// libraryDirs are the directories in which the loader looks without being told: those of Debian and of others.
func libraryDirs() []string {
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu", "arm": "arm-linux-gnueabihf", "386": "i386-linux-gnu"}[runtime.GOARCH]
	var dirs []string
	if triplet != "" {
		dirs = append(dirs, "/usr/lib/"+triplet, "/lib/"+triplet)
	}
	return append(dirs, "/usr/lib64", "/lib64", "/usr/lib", "/lib")
}

func findLibrary(name string) (library, bool) {
	for _, dir := range libraryDirs() {
		at := filepath.Join(dir, name)
		if info, err := os.Stat(at); err == nil && info.Mode().IsRegular() && !strings.Contains(name, "/") {
			return library{name: imagePath(at), path: at}, true
		}
	}
	return library{}, false
}

// imagePath returns where in the image a path of this machine is: there all of /lib is in /usr/lib.
func imagePath(at string) string {
	at = strings.TrimPrefix(filepath.ToSlash(at), "/")
	if !strings.HasPrefix(at, "usr/") {
		at = "usr/" + at
	}
	return at
}
