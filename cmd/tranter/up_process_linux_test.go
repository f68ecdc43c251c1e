package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
)

// As the first process of a container it passes signals on, and no process that has ended stays in the list.
func TestUpIsTheFirstProcessOfAContainer(t *testing.T) {
	t.Parallel()
	g := coordinatortest.New(t, withRegistration)
	p := newUpPlace(t, g.URL, "REGISTRATION_TOKEN="+registrationToken)
	p.attributes = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	u := p.start()
	u.says("Tranter takes jobs")
	// The shell ends before what it has started: that gets the first process as its parent, and ends after half a second.
	done := filepath.Join(p.dir, "done")
	g.Enqueue(coordinatortest.Script(fmt.Sprintf("(setsid sh -c 'sleep 0.2; touch %s' </dev/null >/dev/null 2>&1 &)", done)))
	eventually(t, func() bool { _, err := os.Stat(done); return err == nil }, u.said.String)
	eventually(t, func() bool { return len(zombies(t, u.cmd.Process.Pid)) == 0 }, func() string { return fmt.Sprint("left in the list: ", zombies(t, u.cmd.Process.Pid)) })
	u.signal(syscall.SIGTERM)
	if code := u.wait(); code != 0 || len(upRunners(g)) != 0 {
		t.Errorf("exit code %d:\n%s", code, u.said)
	}
	p.leftNothing()
	p.env = append(p.env, "REGISTRATION_TOKEN=wrong")
	if code, said := p.once(); code != 1 || strings.Count(said, "403") != 1 {
		t.Errorf("exit code %d:\n%s", code, said)
	}
}

// zombies are the children of a process that have ended and that it has not waited for.
func zombies(t *testing.T, parent int) []string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it is gone
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[0] == "Z" && fields[1] == fmt.Sprint(parent) {
			out = append(out, string(data))
		}
	}
	return out
}
