package coordinator_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

func TestForgetRemovesWhatIsOverAndKeepsTheCount(t *testing.T) {
	dir := t.TempDir()
	open := func() *coordinator.Coordinator {
		c, err := coordinator.Open(coordinator.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := open()
	job, err := c.Enqueue(tranter.Job{Info: tranter.JobInfo{Name: "job"}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Job(job)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Forget(t.Context(), v.Pipeline); !errors.Is(err, coordinator.ErrNotPossible) {
		t.Errorf("a pipeline with a pending job was forgotten: %v", err)
	}
	if err := c.Cancel(v.Pipeline, true); err != nil {
		t.Fatal(err)
	}
	if err := c.Forget(t.Context(), v.Pipeline); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Job(job); !errors.Is(err, coordinator.ErrNotFound) {
		t.Errorf("its job is still known: %v", err)
	}
	if err := c.Forget(t.Context(), v.Pipeline); !errors.Is(err, coordinator.ErrNotFound) {
		t.Errorf("forgetting it again: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "pipelines", "*")); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open()
	defer c.Close()
	again, err := c.Enqueue(tranter.Job{Info: tranter.JobInfo{Name: "job"}})
	if err != nil {
		t.Fatal(err)
	}
	if again <= job {
		t.Errorf("the next job has number %d, which is not after %d", again, job)
	}
	if _, err := os.Stat(filepath.Join(dir, "jobs")); err != nil {
		t.Error(err)
	}
}
