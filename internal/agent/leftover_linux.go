package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// reapsAll says that no process of a job gets away from its agent.
const reapsAll = true

// becomeReaper makes this process the parent of all processes of the job that lose theirs, so that none gets away.
func becomeReaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of the job's processes: %w", err)
	}
	return nil
}

// processes are known by their ids, and by when they were started: an id is used again.
type processes map[int]string

// others returns the processes that are below this one now.
func others() processes {
	if !reap() {
		return nil
	}
	table := readProcesses()
	found := processes{}
	for _, pid := range table.below(os.Getpid(), nil) {
		found[pid] = table.started[pid]
	}
	return found
}

// Reap takes the exit states of children that this process has not started itself. It must not be called while a
// command is waited for.
func Reap() { reap() }

// Wake lets all processes below this one go on that a job has stopped, so that they can be ended.
func Wake() { signalAll(readProcesses().below(os.Getpid(), nil), unix.SIGCONT) }

// endLeftovers ends all processes below this one but the spared ones and those below them, kindly first. It must not be
// called while a command is waited for. It returns how many there were.
func endLeftovers(ctx context.Context, spared processes) int {
	left := func() []int {
		if !reap() {
			return nil
		}
		return readProcesses().below(os.Getpid(), spared)
	}
	found := left()
	if len(found) == 0 {
		return 0
	}
	signalAll(found, unix.SIGTERM)
	count := len(found)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	kind := time.NewTimer(leftoverGrace)
	defer kind.Stop()
	limit := time.NewTimer(leftoverGrace + 10*time.Second)
	defer limit.Stop()
	hard := ctx.Err() != nil
	for reap() {
		if hard || len(spared) > 0 {
			found := left()
			if len(found) == 0 {
				return count
			}
			if hard {
				signalAll(found, unix.SIGKILL)
			}
		}
		select {
		case <-kind.C:
			hard = true
		case <-limit.C:
			return count // in uninterruptible sleep; nothing more can be done
		case <-tick.C:
		}
	}
	return count
}

// reap takes the exit states of all ended children and says whether there are others.
func reap() bool {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return err == nil
		}
	}
}

func signalAll(pids []int, s unix.Signal) {
	for _, pid := range pids {
		_ = unix.Kill(pid, s)
	}
}

// processTable is what the system says about all processes.
type processTable struct {
	children map[int][]int
	started  map[int]string
}

func readProcesses() processTable {
	t := processTable{children: map[int][]int{}, started: map[int]string{}}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		// The command, in parentheses, may hold anything.
		_, rest, ok := bytes.Cut(data[max(0, bytes.LastIndexByte(data, ')')):], []byte(") "))
		fields := bytes.Fields(rest)
		if !ok || len(fields) < 20 {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		parent, _ := strconv.Atoi(string(fields[1]))
		t.children[parent] = append(t.children[parent], pid)
		t.started[pid] = string(fields[19])
	}
	return t
}

// below returns the processes below the one with the given id, without the spared ones and those below them.
func (t processTable) below(pid int, spared processes) []int {
	var out []int
	queue := t.children[pid]
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		if started, ok := spared[next]; ok && started == t.started[next] {
			continue
		}
		out = append(out, next)
		queue = append(queue, t.children[next]...)
	}
	return out
}

// endMarked kills all processes that carry the marker of the phase in dir.
func endMarked(dir string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 1000 { // the killed ones take their time, and new ones may appear meanwhile
		found := marked(dir)
		if len(found) == 0 {
			return nil
		}
		signalAll(found, unix.SIGKILL)
		<-tick.C
	}
	return fmt.Errorf("processes of the phase in %s can't be ended", dir)
}

// wakeMarked lets processes of the phase in dir go on that a job has stopped, so that they can be ended.
func wakeMarked(dir string) { signalAll(marked(dir), unix.SIGCONT) }

// marked returns the processes that carry the marker of the phase in dir, but this one.
func marked(dir string) []int {
	want := []byte(marker + "=" + dir)
	var found []int
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range environs {
		data, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(data, want) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		for kv := range bytes.SplitSeq(data, []byte{0}) {
			if bytes.Equal(kv, want) {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}
