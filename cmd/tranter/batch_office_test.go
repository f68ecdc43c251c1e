package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter/internal/allocation"
	"github.com/tranter-ci/tranter/internal/cluster"
	"github.com/tranter-ci/tranter/internal/worker"
)

func TestADirectoryThatWasRemovedOrReplacedIsMadeReadyAnew(t *testing.T) {
	t.Parallel()
	log := &logged{}
	cs := newBatchClusters("owner", nil, slog.New(slog.NewTextHandler(log, nil)))
	defer cs.close()
	dir := filepath.Join(t.TempDir(), "class")
	o, err := cs.office(worker.Options{Dir: dir, Program: "/bin/true", Log: cs.log})
	if err != nil {
		t.Fatal(err)
	}
	hands := o.hands(worker.Assignment{Executor: []byte("{}")})
	watching, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- hands.Watch(watching, func(cluster.Sign) {}) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the watch ends with %v", err)
		}
	}()
	prepare := func(name string) {
		t.Helper()
		script, err := hands.Prepare(allocation.Allocation{Name: name, Places: 1}, nil)
		if err != nil || !strings.Contains(script, name) {
			t.Fatalf("prepared with %v: %s", err, script)
		}
		if _, err := os.Stat(filepath.Join(dir, "allocations", name, "assignment.json")); err != nil {
			t.Error(err)
		}
	}
	prepare("t-1")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	prepare("t-2")
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	prepare("t-3")
	prepare("t-4")
	if n := strings.Count(log.String(), "made ready anew"); n != 2 {
		t.Errorf("it was made ready anew %d times:\n%s", n, log)
	}
}
