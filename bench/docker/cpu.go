//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter/bench/measure"
)

// cgroups is where the kernel counts processor time of groups of processes; what has ended stays counted in its group.
const cgroups = "/sys/fs/cgroup"

// accounting returns the directory of the hierarchy that counts processor time, and whether it is one of version 1.
func accounting() (base string, first bool) {
	for _, name := range []string{"cpuacct", "cpu,cpuacct", "cpuacct,cpu"} {
		if _, err := os.Stat(filepath.Join(cgroups, name, "cpuacct.usage")); err == nil {
			return filepath.Join(cgroups, name), true
		}
	}
	return cgroups, false
}

// usage is the processor time that a group and those below it have used.
func usage(path string) time.Duration {
	base, first := accounting()
	if first {
		data, err := os.ReadFile(filepath.Join(base, path, "cpuacct.usage"))
		if err != nil {
			return 0
		}
		n, _ := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 64)
		return time.Duration(n)
	}
	data, err := os.ReadFile(filepath.Join(base, path, "cpu.stat"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return time.Duration(n) * time.Microsecond
		}
	}
	return 0
}

// group is one that all containers of the measurement are in, so that those of others are not counted.
type group struct {
	parent string // as the engine takes it; empty: there is none
	path   string // below the hierarchy
}

func newGroup(driver string) *group {
	random := strings.ToLower(rand.Text()[:10])
	switch driver {
	case "cgroupfs":
		return &group{parent: "/tranter-bench-" + random, path: "tranter-bench-" + random}
	case "systemd":
		return &group{parent: "tranterbench" + random + ".slice", path: "tranterbench" + random + ".slice"}
	}
	return &group{}
}

func (g *group) usable() bool { return g.parent != "" }

func (g *group) usage() time.Duration {
	if !g.usable() {
		return 0
	}
	return usage(g.path)
}

// remove removes the group, which the engine leaves when its containers are gone.
func (g *group) remove() {
	if !g.usable() {
		return
	}
	found, _ := filepath.Glob(filepath.Join(cgroups, "*", g.path))
	for _, dir := range append(found, filepath.Join(cgroups, g.path)) {
		_ = os.Remove(dir)
	}
}

// sample is processor time.
type sample struct {
	machine    time.Duration // of all that runs on it
	manager    time.Duration
	self       time.Duration // of this process: the coordinator, and git's side of the server
	engine     time.Duration // of the engine, and of what it starts besides what runs in containers
	containers time.Duration // inside containers
	daemons    time.Duration // of the engine's long-lived processes and their children that have ended
}

func (s sample) sub(b sample) sample {
	return sample{
		machine: s.machine - b.machine, manager: s.manager - b.manager, self: s.self - b.self,
		engine: s.engine - b.engine, containers: s.containers - b.containers, daemons: s.daemons - b.daemons,
	}
}

func (s sample) per(n int) sample {
	d := time.Duration(n)
	return sample{
		machine: s.machine / d, manager: s.manager / d, self: s.self / d,
		engine: s.engine / d, containers: s.containers / d, daemons: s.daemons / d,
	}
}

// other is what processes have used that have nothing to do with the measurement.
func (s sample) other() time.Duration {
	return s.machine - s.manager - s.self - s.engine - s.containers
}

// meter reads processor time.
type meter struct {
	group   *group
	daemons []int    // processes of the engine
	groups  []string // that hold the engine and nothing else; none: its share is what nobody else has used
}

func newMeter(socket string, g *group) *meter {
	m := &meter{group: g, daemons: daemons(socket)}
	for _, pid := range m.daemons {
		path := groupOf(pid)
		if path == "/" || path == "" || path == groupOf(os.Getpid()) {
			m.groups = nil
			return m
		}
		if !slices.Contains(m.groups, path) {
			m.groups = append(m.groups, path)
		}
	}
	return m
}

// exact says whether the engine's processor time is counted on its own.
func (m *meter) exact() bool { return len(m.groups) > 0 }

func (m *meter) method() string {
	containers := "that inside containers is that of a control group round all of this measurement's"
	if !m.group.usable() {
		containers = "that inside containers can't be told apart"
	}
	if m.exact() {
		return "that of the control groups it is in (" + strings.Join(m.groups, ", ") + "); " + containers
	}
	return "that of the whole machine without the manager's, this process's (coordinator and git's server) and the containers', so right on a quiet machine only; " + containers
}

func (m *meter) read(manager int) sample {
	s := sample{machine: usage(""), manager: treeTime(manager), self: selfTime(), containers: m.group.usage()}
	for _, pid := range m.daemons {
		s.daemons += treeTime(pid)
	}
	if !m.exact() {
		s.engine = s.machine - s.manager - s.self - s.containers
		return s
	}
	for _, path := range m.groups {
		s.engine += usage(path)
	}
	return s
}

// daemons returns the process that answers at the engine's socket, and its containerd: a child, or the system's.
func daemons(socket string) []int {
	engine := peer(socket)
	if name, _ := status(engine); engine <= 1 || name == "systemd" { // that only made the socket
		engine = child("dockerd", 1)
	}
	if engine == 0 {
		return nil
	}
	for _, parent := range []int{engine, 1} {
		if pid := child("containerd", parent); pid != 0 {
			return []int{engine, pid}
		}
	}
	return []int{engine}
}

// child returns a process by its name and its parent; 0: there is none.
func child(name string, parent int) int {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if n, p := status(pid); n == name && p == parent {
			return pid
		}
	}
	return 0
}

// peer returns the process that listens at a socket; 0: it is not known.
func peer(socket string) int {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return 0
	}
	defer c.Close() //nolint:errcheck // nothing was sent
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// status returns a process's name and its parent.
func status(pid int) (name string, parent int) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	_, rest, _ := strings.Cut(string(data), "(")
	end := strings.LastIndex(rest, ") ")
	if end < 0 {
		return "", 0
	}
	fields := strings.Fields(rest[end+1:])
	parent, _ = strconv.Atoi(fields[1])
	return rest[:end], parent
}

// groupOf returns the group in which a process's time is counted.
func groupOf(pid int) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return ""
	}
	defer f.Close()
	_, first := accounting()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) == 3 && (first && slices.Contains(strings.Split(parts[1], ","), "cpuacct") || !first && parts[0] == "0") {
			return parts[2]
		}
	}
	return ""
}

// treeTime is the processor time of a process and of all children that it has waited for.
func treeTime(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	end := bytes.LastIndex(data, []byte(") "))
	fields := bytes.Fields(data[end+1:])
	const tick = 10 * time.Millisecond
	var ticks int64
	for _, i := range []int{11, 12, 13, 14} { // utime, stime, cutime, cstime
		n, _ := strconv.ParseInt(string(fields[i]), 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * tick
}

// selfTime is the processor time of this process and of its children that have ended.
func selfTime() time.Duration {
	var total time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			total += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return total
}

// peakMemory is the most that a process has had in memory, in MiB.
func peakMemory(pid int) float64 { return float64(measure.MemoryOf(pid).Peak) / (1 << 20) }

// cpuModel is the name of the machine's processor.
func cpuModel() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimLeft(strings.TrimSpace(rest), ": \t")
		}
	}
	return "processor unknown"
}
