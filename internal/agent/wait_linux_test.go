package agent

import (
	"os"
	"os/exec"
	"sync"
	"testing"
)

// A manager has an agent for each of its jobs, and must not have a thread for each of those.
func TestWaitingForProgramsTakesNoThreads(t *testing.T) {
	const programs = 40
	before := threadCount(t)
	input, open, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	var ended sync.WaitGroup
	for range programs {
		cmd := exec.Command("cat")
		cmd.Stdin = input
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended.Go(func() {
			awaitExit(cmd)
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	during := threadCount(t)
	if err := open.Close(); err != nil {
		t.Fatal(err)
	}
	ended.Wait()
	if during-before > programs/2 {
		t.Errorf("%d threads with %d programs under way, %d without", during, programs, before)
	}
}

func threadCount(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
