// Package filelock keeps a second process from what one is at work on, by a lock on an open file that ends with its
// process, whatever the cause of that end.
//
// It waits for nobody and names no files. Packages agent and coordinator use it.
package filelock

import "errors"

// ErrLocked means that another process, or another open file of this one, has the lock.
var ErrLocked = errors.New("locked by another process")
