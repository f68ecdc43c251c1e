// Package measure is what the measurements of the built agent have in common: it lets an agent work through a phase and
// says what that took, makes the files that are packed, and writes the rows of a table.
package measure

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// Run is what an agent took for a phase, and what came of it.
type Run struct {
	Wall   time.Duration // from the agent's start to its end
	CPU    time.Duration // user and system, of the agent and of all processes that it started
	Memory Memory        // the agent's, each value the highest
	Result tranter.PhaseResult
}

// sampling is the time between two looks at an agent's memory.
const sampling = 4 * time.Millisecond

// Agent lets the built program work through a phase as an agent, in dir, which it makes. A phase that does not succeed
// is an error with the agent's journal in it. The caller removes dir.
func Agent(program, dir string, phase *tranter.Phase) (Run, error) {
	data, err := json.Marshal(phase)
	if err != nil {
		return Run{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Run{}, err
	}
	if err := os.WriteFile(filepath.Join(dir, "phase.json"), data, 0o600); err != nil {
		return Run{}, err
	}
	cmd := exec.Command(program, "agent", "run", dir)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return Run{}, err
	}
	var r Run
	r.Memory, err = watch(cmd)
	r.Wall = time.Since(began)
	if err != nil {
		return Run{}, fmt.Errorf("%w: %s", err, said.String())
	}
	r.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if data, err = os.ReadFile(filepath.Join(dir, "result.json")); err != nil {
		return Run{}, err
	}
	if err := json.Unmarshal(data, &r.Result); err != nil {
		return Run{}, fmt.Errorf("read the phase's result: %w", err)
	}
	if r.Result.Status != tranter.PhaseSucceeded {
		return Run{}, fmt.Errorf("the phase failed: %s\n%s", data, Journal(dir))
	}
	return r, nil
}

// Journal is what an agent has logged in dir; "" if it has nothing.
func Journal(dir string) string {
	data, _ := os.ReadFile(filepath.Join(dir, "journal"))
	return string(data)
}

// watch looks at a process's memory until it ends. The peak that the system tells of a process that has ended is no
// help: it is this process's own if that is larger.
func watch(cmd *exec.Cmd) (Memory, error) {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(sampling)
	defer tick.Stop()
	var most Memory
	for {
		select {
		case err := <-ended:
			return most, err
		case <-tick.C:
			now := MemoryOf(cmd.Process.Pid)
			most = Memory{RSS: max(most.RSS, now.RSS), Peak: max(most.Peak, now.Peak), Anon: max(most.Anon, now.Anon)}
		}
	}
}

// Memory is the resident memory of a process, in bytes.
type Memory struct {
	RSS  int64 // now
	Peak int64 // the most that RSS has been
	Anon int64 // the part of RSS that is no file's, and so the process's alone
}

// MemoryOf reads the memory of a process, which is zero for one that is gone and on systems other than Linux.
func MemoryOf(pid int) Memory {
	var m Memory
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m
	}
	fields := map[string]*int64{"VmRSS": &m.RSS, "VmHWM": &m.Peak, "RssAnon": &m.Anon}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		if field, wanted := fields[name]; wanted {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			*field = kib << 10
		}
	}
	return m
}
