//go:build !linux

package agent

import (
	"context"
	"os"
	"strconv"
	"strings"
)

// reapsAll says that a process of a job may get away from its agent.
const reapsAll = false

// becomeReaper does nothing where the system has no such thing: processes that leave their group stay.
func becomeReaper() error { return nil }

// processes are known by their ids.
type processes struct{}

func others() processes { return processes{} }

func endLeftovers(context.Context, processes) int { return 0 }

// Reap does nothing where processes do not come to this one.
func Reap() {}

// Wake does nothing where processes of a job can't be found.
func Wake() {}

// wakeMarked does nothing where processes of a job can't be found.
func wakeMarked(string) {}

// endMarked kills the agent of the phase in dir.
func endMarked(dir string) error {
	d := directory(dir)
	running, err := d.running()
	if err != nil || !running {
		return err
	}
	data, err := os.ReadFile(d.file(lockFile))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return nil //nolint:nilerr // the agent has not written its process id: it is about to start or end
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil //nolint:nilerr // it has ended
	}
	return p.Kill()
}
