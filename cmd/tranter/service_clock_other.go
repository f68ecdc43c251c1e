//go:build !linux

package main

import "time"

// monotonic is for systemd, which is not on this system.
func monotonic() time.Duration { return 0 }
