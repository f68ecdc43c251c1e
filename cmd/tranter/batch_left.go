package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/view"
	"github.com/tranter-ci/tranter/internal/worker"
)

// batchLeft is what is left of batch jobs that no manager looks after any more.
type batchLeft struct {
	Dir         string    `json:"dir"`
	Ours        bool      `json:"ours,omitempty"` // a runner of this manager uses the directory; it does not know these batch jobs
	Allocations []string  `json:"allocations"`    // names of batch jobs of which there are files
	Beat        time.Time `json:"beat,omitzero"`  // when a manager was at work there last
}

// othersBeat is for how long after its last sign another manager is thought to be at work.
const othersBeat = time.Minute

// leftIn looks for what is left beside and in the directories of runners, of which those that are known have these clusters.
func leftIn(offices []string, all []cluster.Status) []batchLeft {
	known := map[string][]string{} // names of allocations by class
	for _, s := range all {
		names := []string{}
		for _, a := range s.Allocations {
			names = append(names, a.Name)
		}
		known[s.Class] = names
	}
	var parents []string
	for _, dir := range offices {
		parents = append(parents, filepath.Dir(dir))
	}
	slices.Sort(parents)
	var left []batchLeft
	for _, parent := range slices.Compact(parents) {
		entries, err := os.ReadDir(parent)
		if err != nil {
			continue
		}
		for _, e := range entries {
			t, err := worker.Look(filepath.Join(parent, e.Name()))
			if err != nil {
				continue // it is none
			}
			names, ours := known[e.Name()]
			t.Allocations = slices.DeleteFunc(t.Allocations, func(name string) bool { return slices.Contains(names, name) })
			if ours && len(t.Allocations) == 0 || !ours && time.Since(t.Beat) < othersBeat {
				continue
			}
			left = append(left, batchLeft{Dir: filepath.Join(parent, e.Name()), Ours: ours, Allocations: append([]string{}, t.Allocations...), Beat: t.Beat})
		}
	}
	return left
}

// shownLeft is how many names of what is left are told.
const shownLeft = 5

// printLeft tells what is left.
func printLeft(w io.Writer, left []batchLeft, now time.Time) {
	for _, l := range left {
		what := "files of no batch job"
		if n := len(l.Allocations); n > 0 {
			names := strings.Join(l.Allocations[:min(n, shownLeft)], ", ")
			if n > shownLeft {
				names += ", ..."
			}
			what = fmt.Sprintf("files of %s (%s)", view.Count(n, "batch job"), view.Printable(names))
		}
		if l.Ours {
			fmt.Fprintf(w, "Left in %s: %s that this manager does not know. If they are not in the batch system's queue either, they can be removed.\n",
				view.Printable(filepath.Join(l.Dir, "allocations")), what)
			continue
		}
		since := "was never at work there"
		if !l.Beat.IsZero() {
			since = "was at work there last " + view.Short(max(0, now.Sub(l.Beat))) + " ago"
		}
		fmt.Fprintf(w, "Left in %s by a manager that is not there any more (it %s): %s. If they are not in the batch system's queue either, the directory can be removed.\n",
			view.Printable(l.Dir), since, what)
	}
}
