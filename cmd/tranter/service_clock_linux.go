//go:build linux

package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// monotonic is the time since the host was started, as systemd counts it.
func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
