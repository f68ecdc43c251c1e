//go:build unix

package agent

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// used returns the CPU time of this process and of all that it has seen the end of, and the memory of the largest one of those in
// bytes; Linux says no less than what this process has. Without a system that gives orphans to the agent, what a script has
// left behind is not in it.
func used() (cpu time.Duration, memory int64) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) != nil {
			continue
		}
		cpu += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		memory = int64(u.Maxrss) //nolint:unconvert // not on all systems of this size
	}
	if runtime.GOOS != "darwin" { // there it is in bytes
		memory <<= 10
	}
	return cpu, memory
}
