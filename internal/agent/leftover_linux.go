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

// endLeftovers ends all processes below this one, kindly first. It must not be called while a command is waited for. It
// returns how many there were.
func endLeftovers(ctx context.Context) int {
	if !reap() {
		return 0
	}
	found := descendants()
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
		if hard {
			signalAll(descendants(), unix.SIGKILL)
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

// descendants returns the processes below this one.
func descendants() []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		data, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		// The command, in parentheses, may hold anything.
		_, rest, ok := bytes.Cut(data[max(0, bytes.LastIndexByte(data, ')')):], []byte(") "))
		fields := bytes.Fields(rest)
		if !ok || len(fields) < 2 {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		parent, _ := strconv.Atoi(string(fields[1]))
		children[parent] = append(children[parent], pid)
	}
	var out []int
	queue := children[os.Getpid()]
	for len(queue) > 0 {
		out = append(out, queue[0])
		queue = append(queue[1:], children[queue[0]]...)
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
