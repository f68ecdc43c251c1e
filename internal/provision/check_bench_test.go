package provision_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/provider/machinetest"
	"github.com/tranter-ci/tranter/internal/provision"
)

// One check of a machine against a real SSH server and engine: what it costs this process is what a pool pays for each of
// its machines once a minute.
func BenchmarkASignOfLife(b *testing.B) {
	m := machinetest.Start(b, machinetest.Options{})
	h, _, _ := open(b, m, provision.Settings{Owner: "feed", Linger: time.Hour}, nil)
	used := processorTime(b)
	n := 0
	for b.Loop() {
		if err := h.Check(b.Context()); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64((processorTime(b)-used).Microseconds())/float64(n), "cpu-us/op")
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
