package slurmtest_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/batch"
	"github.com/tranter-ci/tranter/internal/batch/slurmtest"
)

func TestAClusterRunsJobsAndLosesNodes(t *testing.T) {
	c := slurmtest.Start(t, slurmtest.Options{Nodes: 2})
	out := filepath.Join(t.TempDir(), "out")
	submit := func(args ...string) string {
		t.Helper()
		id, err := c.Client().Run(t.Context(), batch.Call{
			Name: "sbatch", Args: append([]string{"--parsable", "-o", out, "--open-mode=append"}, args...), Stdin: "#!/bin/sh\necho on $SLURMD_NODENAME\nexec sleep 100\n",
		})
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(id)
	}
	submit("-w", "n1", "--no-requeue")
	submit("-w", "n2", "--no-requeue")
	until(t, func() bool {
		text, _ := os.ReadFile(out)
		return strings.Contains(string(text), "on n1") && strings.Contains(string(text), "on n2")
	})
	c.KillNode(2)
	c.Down(2)
	until(t, func() bool { return strings.Contains(c.Queue(), "NODE_FAIL") })
	c.StopController()
	impatient := c.Client()
	impatient.Timeout = 300 * time.Millisecond
	if _, err := impatient.Run(t.Context(), batch.Call{Name: "squeue"}); err == nil {
		t.Error("squeue has an answer without a controller")
	}
	c.StartController()
	c.StartNode(2)
	if q := c.Queue(); !strings.Contains(q, "RUNNING") {
		t.Errorf("the job on node 1 was forgotten: %s", q)
	}
	c.Slurm("scancel", "--state=RUNNING")
	c.WaitEmpty()
}

func until(t *testing.T, so func() bool) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 40*time.Second)
	defer stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-ctx.Done():
			t.Fatal("waited in vain")
		case <-tick.C:
		}
	}
}
