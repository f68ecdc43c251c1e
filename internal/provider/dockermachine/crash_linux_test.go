package dockermachine

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
)

// TestMain makes a manager of the process that TestAKilledManagerLeavesWhatTheNextOneFinds kills.
func TestMain(m *testing.M) {
	settings := os.Getenv("TRANTER_TEST_MANAGER")
	if settings == "" {
		m.Run()
		return
	}
	var o Options
	if err := json.Unmarshal([]byte(settings), &o); err != nil {
		panic(err)
	}
	p, err := New(o)
	if err != nil {
		panic(err)
	}
	_, err = p.Create(context.Background(), tranter.MachineSpec{Name: os.Getenv("TRANTER_TEST_MACHINE")}, func(raw json.RawMessage) {
		fmt.Printf("%s\n", raw)
	})
	panic(err) // it was to be killed
}

func TestAKilledManagerLeavesWhatTheNextOneFinds(t *testing.T) {
	t.Parallel()
	b, m := newBench(t), name()
	b.switchOn("hang", "created")
	o := b.o
	o.Log = nil
	settings, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	manager := exec.Command(self)
	manager.Env = append(os.Environ(), "TRANTER_TEST_MANAGER="+string(settings), "TRANTER_TEST_MACHINE="+m)
	manager.Stderr = os.Stderr
	out, err := manager.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := manager.Start(); err != nil {
		t.Fatal(err)
	}
	known := tranter.MachineRef{Name: m}
	for notes := bufio.NewReader(out); ; {
		line, err := notes.ReadBytes('\n')
		if err != nil {
			t.Fatalf("the manager ends too soon: %v", err)
		}
		known.Ref = json.RawMessage(strings.TrimSpace(string(line)))
		if r, err := parseRef(known.Ref); err == nil && r.Changed {
			break
		}
	}
	plugins := childrenOf(t, manager.Process.Pid)
	if len(plugins) != 1 {
		t.Fatalf("processes of the manager: %v, want the driver's", plugins)
	}
	if err := manager.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = manager.Wait()
	b.waitFor("the end of the driver's process", func() bool { return !runs(plugins[0]) })
	b.wantContainers(1)
	if err := b.Destroy(t.Context(), known); err != nil {
		t.Error(err)
	}
	b.wantContainers(0)
}

func childrenOf(t *testing.T, pid int) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "ps", "-o", "pid=", "--ppid", fmt.Sprint(pid)).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// runs says whether a process is there and no zombie: whoever inherits it has to take its end.
func runs(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}
