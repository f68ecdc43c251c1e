package main

import (
	"os"
	"testing"
)

func TestWhoeverIsNotWatchedSaysNothing(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if n := newNotifier(); n != nil {
		t.Errorf("without a socket: %+v", n)
	}
	var n *notifier
	n.reloading()()
	n.handOver()
	n.start(t.Context(), nil)()
}

func TestJobsDoNotHaveTheSocketOfSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/x")
	t.Setenv("WATCHDOG_USEC", "3000000")
	t.Setenv("WATCHDOG_PID", "1")
	n := newNotifier()
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if v, ok := os.LookupEnv(name); ok {
			t.Errorf("%s is still %q", name, v)
		}
	}
	if n.watchdog {
		t.Error("the watchdog of another process is fed")
	}
	n.handOver()
	if os.Getenv("NOTIFY_SOCKET") != "/run/x" || os.Getenv("WATCHDOG_PID") != "1" {
		t.Error("the next version would not hear of systemd")
	}
}
