package worker

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// processors returns those that this process may use.
func processors() (all []int) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil
	}
	const most = 1024 // that a set has room for
	for i := range most {
		if set.IsSet(i) {
			all = append(all, i)
		}
	}
	return all
}

// on calls f so that processes that it starts, and theirs, use these processors. If the system does not let it, they use all.
func on(which []int, f func() error) error {
	var before, set unix.CPUSet
	if len(which) == 0 || unix.SchedGetaffinity(0, &before) != nil {
		return f()
	}
	for _, i := range which {
		set.Set(i)
	}
	runtime.LockOSThread()
	if unix.SchedSetaffinity(0, &set) != nil {
		runtime.UnlockOSThread()
		return f()
	}
	err := f()
	if unix.SchedSetaffinity(0, &before) == nil {
		runtime.UnlockOSThread() // else the thread ends with its goroutine
	}
	return err
}
