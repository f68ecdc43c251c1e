package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit in which Linux tells processor time, on all of its machines.
const tick = time.Second / 100

// What no process has more of.
const (
	mostTicks     = 1 << 36
	mostKilobytes = 1 << 50
)

// mostRead is how many processes are looked at: those of a bomb are not worth more time.
const mostRead = 10000

// tree is the gauge of the agent and all processes below it. It looks at those only, however many others there are.
//
// The memory is what is written nowhere else: the anonymous pages of all processes, which each has for itself but for what was not written to
// since a fork, and the shared pages of the process that has most of them, so that a database's many processes do not count one buffer many
// times. What is a copy of files does not count: the system takes it back when it needs room.
type tree struct {
	spared processes
	queue  []int
	path   []byte
	buf    []byte
}

func newGauge(spared processes) gauge { return &tree{spared: spared, buf: make([]byte, 4096)} }

func (t *tree) read() (cpu time.Duration, memory int64, ok bool) {
	t.queue = append(t.queue[:0], os.Getpid())
	var shared int64
	for i := 0; i < len(t.queue) && i < mostRead; i++ {
		pid := t.queue[i]
		p := statOf(t.file(pid, "/stat"))
		if since, ok := t.spared[pid]; ok && since == string(p.started) {
			continue
		}
		cpu += p.cpu
		anonymous, common := memoryOf(t.file(pid, "/status"))
		memory += anonymous
		shared = max(shared, common)
		if !t.children(pid, p.threads) && i == 0 {
			t.all()
		}
	}
	return cpu, memory + shared, true
}

// file reads the beginning of a process's file; nothing if it has ended.
func (t *tree) file(pid int, name string) []byte {
	t.path = append(strconv.AppendInt(append(t.path[:0], "/proc/"...), int64(pid), 10), name...)
	return t.content()
}

// content reads the file with the path.
func (t *tree) content() []byte {
	fd, err := unix.Open(string(t.path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Close(fd) }()
	for n := 0; ; {
		if n == len(t.buf) {
			if n >= 1<<20 {
				return t.buf
			}
			t.buf = append(t.buf, make([]byte, n)...)
		}
		m, err := unix.Read(fd, t.buf[n:])
		if m <= 0 || err != nil {
			return t.buf[:n]
		}
		n += m
	}
}

// children puts those of a process into the queue. It is false where the system does not tell them.
func (t *tree) children(pid, threads int) bool {
	if threads == 1 {
		return t.childrenOf(pid, pid)
	}
	names, err := os.Open("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return true // it has ended
	}
	defer names.Close()
	all, _ := names.Readdirnames(mostRead)
	told := len(all) == 0
	for _, name := range all {
		if thread, err := strconv.Atoi(name); err == nil && t.childrenOf(pid, thread) {
			told = true
		}
	}
	return told
}

// childrenOf puts those into the queue that a thread of a process has started.
func (t *tree) childrenOf(pid, thread int) bool {
	t.path = append(strconv.AppendInt(append(t.path[:0], "/proc/"...), int64(pid), 10), "/task/"...)
	t.path = append(strconv.AppendInt(t.path, int64(thread), 10), "/children"...)
	list := t.content()
	for field := range bytes.FieldsSeq(list) {
		if child, err := strconv.Atoi(string(field)); err == nil {
			t.queue = append(t.queue, child)
		}
	}
	return list != nil
}

// all puts all processes below this one into the queue.
func (t *tree) all() {
	if _, err := os.Stat(filepath.Join("/proc/self/task", strconv.Itoa(os.Getpid()), "children")); err == nil {
		return // there are none
	}
	t.queue = append(t.queue, readProcesses().below(os.Getpid(), t.spared)...)
}

// stat is what a process's file of that name says.
type stat struct {
	cpu     time.Duration // of the process, and of its children that have ended
	threads int
	started []byte // is overwritten when the next file is read
}

func statOf(text []byte) (p stat) {
	const user, systemOfChildren, threads, start = 11, 14, 17, 19 // of the fields after the name
	i := 0
	for field := range bytes.FieldsSeq(text[max(0, bytes.LastIndexByte(text, ')')+1):]) {
		switch {
		case i >= user && i <= systemOfChildren:
			if n, err := strconv.ParseInt(string(field), 10, 64); err == nil && n > 0 && n < mostTicks {
				p.cpu += time.Duration(n) * tick
			}
		case i == threads:
			p.threads, _ = strconv.Atoi(string(field))
		case i == start:
			p.started = field
			return p
		}
		i++
	}
	return p
}

// memoryOf reads from a process's status its anonymous and its shared pages in bytes.
func memoryOf(status []byte) (anonymous, shared int64) {
	return kilobytes(status, "\nRssAnon:"), kilobytes(status, "\nRssShmem:")
}

func kilobytes(status []byte, name string) int64 {
	_, rest, ok := bytes.Cut(status, []byte(name))
	if !ok {
		return 0
	}
	for field := range bytes.FieldsSeq(rest) {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil || n < 0 || n > mostKilobytes {
			return 0
		}
		return n << 10
	}
	return 0
}
