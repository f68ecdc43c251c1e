package worker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Traces are what is found in the directory of an office.
type Traces struct {
	Allocations []string  // names of those whose directories there are, sorted
	Beat        time.Time // when a manager was at work there last
}

// maxTraces bounds how many allocations are looked at.
const maxTraces = 10000

// Look looks at the directory of an office, of whichever manager. The error is os.ErrNotExist if it is none.
func Look(dir string) (Traces, error) {
	var t Traces
	d, err := os.Open(filepath.Join(dir, allocationsDir))
	if err != nil {
		return t, fmt.Errorf("look for what was left in %s: %w", dir, err)
	}
	defer d.Close()
	t.Allocations, err = d.Readdirnames(maxTraces)
	if err != nil && !errors.Is(err, io.EOF) {
		return t, fmt.Errorf("look for what was left in %s: %w", dir, err)
	}
	t.Allocations = slices.DeleteFunc(t.Allocations, func(name string) bool { return checkName("allocation", name) != nil })
	slices.Sort(t.Allocations)
	if info, err := os.Lstat(filepath.Join(dir, managerFile)); err == nil {
		t.Beat = info.ModTime()
	}
	return t, nil
}

// Retire removes the directory of an office that is not used any more, unless something of an allocation is left in it. Run
// has to have ended.
func Retire(o *Office) error {
	err := o.root.Remove(allocationsDir)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		for _, name := range []string{programsDir, hintsDir, managerFile, ".new-" + managerFile, listenFile} {
			err = errors.Join(err, o.root.RemoveAll(name))
		}
		err = errors.Join(err, os.Remove(o.options.Dir))
	}
	if err = errors.Join(err, o.root.Close()); err != nil {
		return fmt.Errorf("remove the directory %s, which is not used any more: %w", o.options.Dir, err)
	}
	return nil
}
