package agent_test

import (
	"context"
	"fmt"
	"os/signal"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
)

// limitFiles makes writes fail that would let a file grow beyond a size, as if the disk were full.
func limitFiles(size string) {
	n, err := strconv.ParseUint(size, 10, 63)
	if err != nil {
		return
	}
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
		panic(err)
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("echo ready", "seq 1000000; echo not reached >reached; sleep 100"), afterScript("echo after"))
	p.launch.Env = append(p.launch.Env, fmt.Sprintf("TEST_FILE_LIMIT=%d", 100_000))
	started := time.Now()
	p.start(t)
	ctx, stop := context.WithTimeout(t.Context(), 40*time.Second)
	defer stop()
	r, err := agent.Attach(ctx, p.dir, 0, p.log)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != tranter.PhaseFailed || r.Reason != tranter.RunnerSystemFailure || !strings.Contains(r.Message, "log") || !strings.Contains(r.Message, "too large") {
		t.Errorf("result %+v", r)
	}
	if d := time.Since(started); d > 20*time.Second {
		t.Errorf("the job went on for %v without a log", d)
	}
	if r.LogBytes != int64(len(p.log.String())) {
		t.Errorf("the result says %d bytes, the journal has %d", r.LogBytes, len(p.log.String()))
	}
}
