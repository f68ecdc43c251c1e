package coordinator_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/coordinator"
)

// full lets all writing to a file fail as on a full disk, until the result is called.
func full(t *testing.T, path string) func() {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	_ = os.Rename(path, path+".away") // it may not be there
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		_ = os.Rename(path+".away", path)
	}
}

func TestAFullDisk(t *testing.T) {
	b := started(t, coordinator.Options{})
	id := b.start(stages(script("one", "build"), script("two", "test")))
	journal := filepath.Join(b.dir, "pipelines", fmt.Sprintf("%d.jsonl", id))

	free := full(t, journal)
	b.want(b.ask(), http.StatusInternalServerError)
	b.expect(id, map[string]coordinator.Status{"one": coordinator.Pending}) // a job that is not saved is not handed out
	free()
	j := b.take()

	free = full(t, filepath.Join(b.dir, "jobs", fmt.Sprint(j.ID), "trace"))
	b.want(b.patch(j, 0, "text"), http.StatusInternalServerError)
	free()
	b.want(b.patch(j, 0, "text"), http.StatusAccepted)

	free = full(t, journal)
	b.want(b.put(j, map[string]any{"state": "success"}), http.StatusInternalServerError)
	b.expect(id, map[string]coordinator.Status{"one": coordinator.Running, "two": coordinator.Created})
	b.want(b.upload(j, "", "a.zip", []byte("zip")), http.StatusServiceUnavailable)
	free()
	b.want(b.upload(j, "", "a.zip", []byte("zip")), http.StatusCreated)
	b.want(b.put(j, map[string]any{"state": "success"}), http.StatusOK)

	// What has happened to a job without its runner is saved as soon as it can be.
	free = full(t, journal)
	if err := b.c.Cancel(id, true); err == nil {
		t.Error("a change that could not be saved was reported as made")
	}
	free()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for saved := ""; !strings.Contains(saved, `"canceled"`); {
		select {
		case <-deadline.C:
			t.Fatal("never saved")
		case <-time.After(5 * time.Millisecond):
		}
		data, err := os.ReadFile(journal)
		if err != nil {
			t.Fatal(err)
		}
		saved = string(data)
	}
	b.server.Close()
	if err := b.c.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, coordinator.Options{Dir: b.dir})
	again.expect(id, map[string]coordinator.Status{"one": coordinator.Success, "two": coordinator.Canceled})
}
