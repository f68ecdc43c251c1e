//go:build unix

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// programsPerJob counts the programs that are started for a job, the agent included, in a working tree of an earlier job.
func programsPerJob(program string) error {
	strace, _ := exec.LookPath("strace")
	if strace == "" {
		fmt.Println("programs per job: not counted, strace is not installed")
		return nil
	}
	s, err := open(program, 1)
	if err != nil {
		return err
	}
	calls := filepath.Join(s.dir, "calls")
	s.runner.Path = strace
	s.runner.Args = append([]string{strace, "-f", "-qq", "-e", "trace=execve", "-e", "signal=none", "-s", "200", "-o", calls}, s.runner.Args...)
	if err := s.start(); err != nil {
		return err
	}
	if s.pid, err = childOf(s.runner.Process.Pid); err != nil {
		fmt.Printf("programs per job: not counted, strace may not watch here: %v\n%s", err, s.output.String())
		return nil
	}
	for range 4 {
		id, err := s.c.Enqueue(s.payload("echo MARK"))
		if err != nil {
			return err
		}
		if _, err := s.finish(id); err != nil {
			return err
		}
		settle(200 * time.Millisecond) // so that all of a job is over before the next begins
	}
	var names []string
	s.beforeRemoval = func() error {
		data, err := os.ReadFile(calls)
		names = lastJob(string(data))
		return err
	}
	if err := s.close(); err != nil {
		return err
	}
	fmt.Printf("programs per job: %d (%s)\n", len(names), strings.Join(names, ", "))
	return nil
}

// lastJob returns the programs that were started from the last start of an agent on.
func lastJob(calls string) []string {
	var names []string
	for line := range strings.Lines(calls) {
		_, call, ok := strings.Cut(line, "execve(\"")
		path, rest, _ := strings.Cut(call, "\"")
		if !ok || strings.Contains(rest, "= -1 ") { // looked for in a directory where it is not
			continue
		}
		if strings.Contains(rest, `"agent", "run"`) {
			names = nil
		}
		names = append(names, filepath.Base(path))
	}
	return names
}

// childOf returns the only child of a process.
func childOf(pid int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, errors.New("the kernel does not tell children")
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}
