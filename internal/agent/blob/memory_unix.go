//go:build unix

package blob

import "golang.org/x/sys/unix"

// allocate returns memory that the garbage collector does not know: it would let as much again fill up with garbage
// before it cleans, and an agent has not that much.
func allocate(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
}

func release(b []byte) { _ = unix.Munmap(b[:cap(b)]) }
