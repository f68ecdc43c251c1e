package filelock

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// farAway is where the locked byte lies: Windows keeps others from reading what is locked.
const farAway = 1 << 30

// Try takes the lock of f until f is closed. The error is ErrLocked while somebody else has it.
func Try(f *os.File) error {
	at := &windows.Overlapped{Offset: farAway}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrLocked
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}
