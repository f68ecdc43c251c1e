package source

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// mounted returns arguments for "git clean" by which it leaves alone what is mounted below a directory, such as a volume
// of the runner's configuration: a mount point can't be removed, and what is in it is to outlive the job.
func mounted(dir string) []string { return excludesOf(mountsBelow(dir)) }

func excludesOf(below []string) []string {
	var args []string
	for _, path := range below {
		if !strings.HasPrefix(path, ".git/") {
			args = append(args, "-e", "/"+literal(path))
		}
	}
	return args
}

// mountsBelow returns where something is mounted below a directory, from there. There is nothing where the system does
// not tell.
func mountsBelow(dir string) []string {
	resolved, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	return mountsIn(string(table), resolved)
}

// mountsIn finds in a table of mounts, as Linux has it, those below dir.
func mountsIn(table, dir string) []string {
	var out []string
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		below, found := strings.CutPrefix(unescaped(fields[4]), strings.TrimSuffix(dir, "/")+"/")
		if found && below != "" {
			out = append(out, below)
		}
	}
	return out
}

// removeAround deletes what is in a directory, but for the paths to keep, which are relative to it, and what leads there.
func removeAround(dir string, keep []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("empty a directory round what is mounted there: %w", err)
	}
	var errs []error
	for _, e := range entries {
		var below []string
		for _, k := range keep {
			if rest, found := strings.CutPrefix(k, e.Name()+"/"); found {
				below = append(below, rest)
			}
		}
		path := filepath.Join(dir, e.Name())
		switch {
		case slices.Contains(keep, e.Name()):
		case below != nil && e.IsDir():
			errs = append(errs, removeAround(path, below))
		default:
			errs = append(errs, removeTree(path))
		}
	}
	return errors.Join(errs...)
}

// unescaped decodes the table's way to write white space and backslashes: three octal digits after a backslash.
func unescaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if code, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// literal is a pattern of git's that matches just that path.
func literal(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, " ", `\ `).Replace(path)
}
