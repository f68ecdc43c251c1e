package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// thisProcess tells this process from all others, also from one that had its number before; a process that becomes another
// program stays the same. Empty: that can't be told.
func thisProcess() string {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return ""
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	_, rest, ok := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')'):]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return ""
	}
	return fmt.Sprintf("%d %s %s", os.Getpid(), fields[19], strings.TrimSpace(string(boot))) // since boot, in ticks
}

// asInit does what the first process of a container has to do: it takes on the processes whose parents have ended, and runs
// this program once more, to which it passes all signals on. Its exit code is the program's.
func asInit() error {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	// A process group of its own: what a terminal sends to a group must not reach it twice.
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Files: files, Sys: &syscall.SysProcAttr{Setpgid: true}})
	if err != nil {
		return fmt.Errorf("start the program: %w", err)
	}
	for sig := range signals {
		number, ok := sig.(syscall.Signal)
		switch {
		case !ok || number == syscall.SIGURG || number == syscall.SIGPIPE: // the first is how Go's own scheduler interrupts itself
		case number == syscall.SIGCHLD:
			if code, ended := reap(child.Pid); ended {
				return initEnd(code)
			}
		default:
			_ = syscall.Kill(child.Pid, number)
		}
	}
	return nil
}

// initEnd is the end of the program with that exit code, which has said all.
func initEnd(code int) error {
	if code == 0 {
		return nil
	}
	return &exitError{code: code}
}

// reap waits for all processes that have ended. It says whether the one that counts is among them, and its exit code.
func reap(main int) (code int, ended bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || pid <= 0:
			return code, ended
		case pid == main && status.Signaled():
			code, ended = 128+int(status.Signal()), true
		case pid == main:
			code, ended = status.ExitStatus(), true
		}
	}
}
