package custom_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/custom"
	"github.com/tranter-ci/tranter/internal/executor/executortest"
)

func TestMain(m *testing.M) { os.Exit(executortest.Main(m)) }

// behaved is a driver that runs scripts on this host, and tells the exit codes of those that fail.
const behaved = `#!/bin/bash
case $1 in
prepare) echo "prepared" ;;
run)
	"$2" & wait $!
	code=$?
	[ $code -eq 0 ] && exit 0
	echo $code >"$BUILD_EXIT_CODE_FILE"
	exit "$BUILD_FAILURE_EXIT_CODE" ;;
cleanup) echo "cleaned" ;;
esac
`

// program writes an executable file.
func program(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "driver")
	// A process that another test starts meanwhile would hold the file open until its exec: "text file busy" for ours.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// alive says whether the process runs; one that has ended and is not waited for does not.
func alive(pid int) bool {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	_, state, _ := strings.Cut(string(data), ") ")
	return err == nil && !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// options are those of a driver that is one program with the stage as first argument.
func options(path string) custom.Options {
	command := func(stage string) custom.Command {
		return custom.Command{Exec: path, Args: []string{stage}, Timeout: time.Minute}
	}
	return custom.Options{
		Agent: []string{os.Args[0]}, Config: command("config"), Prepare: command("prepare"), Run: command("run"), Cleanup: command("cleanup"),
		Grace: 200 * time.Millisecond, Force: 10 * time.Second,
	}
}

func subject(o custom.Options, shell string) executortest.Subject {
	return executortest.Subject{
		Shell: shell,
		Alive: alive,
		New:   func(*testing.T) tranter.Executor { return custom.New(o) },
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	executortest.Run(t, subject(options(program(t, behaved)), "sh"))
}

func TestConformanceBash(t *testing.T) {
	t.Parallel()
	executortest.Run(t, subject(options(program(t, behaved)), "bash"))
}
