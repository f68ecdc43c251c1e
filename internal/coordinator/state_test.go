package coordinator_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

func TestADirectoryInUseSaysByWhom(t *testing.T) {
	dir := t.TempDir()
	open(t, coordinator.Options{Dir: dir})
	_, err := coordinator.Open(coordinator.Options{Dir: dir})
	if !errors.Is(err, coordinator.ErrInUse) {
		t.Fatalf("error: %v", err)
	}
	for _, want := range []string{dir, fmt.Sprintf("process %d", os.Getpid()), "since "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the message does not say %q: %v", want, err)
		}
	}
}

func TestTheStateIsPrivate(t *testing.T) {
	b := started(t, coordinator.Options{})
	b.start(stages(script("one", "test")))
	b.want(b.patch(b.take(), 0, "log"), http.StatusAccepted)
	err := filepath.WalkDir(b.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == b.dir {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAJobDirectoryThatCannotBeWritten(t *testing.T) {
	b := started(t, coordinator.Options{})
	b.start(stages(script("one", "test")))
	j := b.take()
	if err := os.WriteFile(filepath.Join(b.dir, "jobs", fmt.Sprint(j.ID)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.want(b.patch(j, 0, "text"), http.StatusInternalServerError)
	b.want(b.upload(j, "", "a.zip", []byte("zip")), http.StatusServiceUnavailable)
	b.finish(j, "success")
}

// A journal that ends anywhere, or in rubbish, opens again with what was whole, and can be gone on with.
func TestATornJournal(t *testing.T) {
	b := started(t, coordinator.Options{})
	id := b.start(stages(
		script("one", "build", func(j *pipeline.Job) { j.Retry.Max = 2 }), script("two", "test"), script("three", "deploy"),
	))
	b.finish(b.take(), "failed")
	b.finish(b.take(), "success")
	b.finish(b.take(), "success")
	b.server.Close()
	if err := b.c.Close(); err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(b.dir, "pipelines", fmt.Sprintf("%d.jsonl", id))
	whole, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	header := strings.IndexByte(string(whole), '\n') + 1
	dir, run := t.TempDir(), 0
	state, err := os.ReadFile(filepath.Join(b.dir, "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		end := rapid.IntRange(0, len(whole)).Draw(rt, "end")
		rubbish := rapid.SampledFrom([]string{"", "\x00\x00\x00\x00", "{\"id\":", "null\n", "{\"id\":9,\"definition\":7}\n", "\n\n"}).Draw(rt, "rubbish")
		run++
		sub := filepath.Join(dir, fmt.Sprint(run))
		write := func(name string, data []byte) {
			path := filepath.Join(sub, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
				rt.Fatal(err)
			}
		}
		write("state.json", state)
		write(fmt.Sprintf("pipelines/%d.jsonl", id), append(whole[:end:end], rubbish...))
		// Twice: what the first has made of it must be right for the second too.
		first := reopen(rt, sub, id, end < header)
		second := reopen(rt, sub, id, end < header)
		if first != second {
			rt.Fatalf("opened %s, then %s", first, second)
		}
	})
}

// reopen opens a state directory and returns the states of the jobs.
func reopen(t *rapid.T, dir string, id int64, none bool) string {
	c, err := coordinator.Open(coordinator.Options{Dir: dir, SweepEvery: time.Hour})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	v, err := c.Pipeline(id)
	if none {
		if !errors.Is(err, coordinator.ErrNotFound) {
			t.Fatalf("a pipeline without its first line: %+v, %v", v, err)
		}
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	latest, out := map[string]int{}, []string{}
	for _, j := range v.Jobs {
		if !j.Retried {
			latest[j.Name]++
		}
		out = append(out, fmt.Sprintf("%s %d %s %v", j.Name, j.ID, j.Status, j.Retried))
	}
	for name, n := range latest {
		if n != 1 {
			t.Fatalf("%d attempts of %s count", n, name)
		}
	}
	return strings.Join(out, ", ")
}

// The state is written in proportion to what changes, not to what there is.
func TestAChangeIsAppended(t *testing.T) {
	b := started(t, coordinator.Options{})
	var jobs []pipeline.Job
	for i := range 300 {
		jobs = append(jobs, script(fmt.Sprint("job ", i), "test"))
	}
	id := b.start(stages(jobs...))
	journal := filepath.Join(b.dir, "pipelines", fmt.Sprintf("%d.jsonl", id))
	size := func() int64 {
		info, err := os.Stat(journal)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	before := size()
	j := b.take()
	b.want(b.patch(j, 0, strings.Repeat("x", 100_000)), http.StatusAccepted)
	b.finish(j, "success")
	if grown := size() - before; grown <= 0 || grown > 4000 {
		t.Errorf("one job has made the journal grow from %d by %d bytes", before, grown)
	}
}

// A log that was there before, of a job that was lost with its pipeline, does not get into the log of another.
func TestALeftOverLogIsNotContinued(t *testing.T) {
	b := started(t, coordinator.Options{})
	if err := os.MkdirAll(filepath.Join(b.dir, "jobs", "1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "jobs", "1", "trace"), []byte("of somebody else, and long"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(stages(script("one", "test")))
	j := b.take()
	b.want(b.patch(j, 0, "mine"), http.StatusAccepted)
	log, err := b.c.Trace(j.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if data, _ := io.ReadAll(log); string(data) != "mine" {
		t.Errorf("log %q", data)
	}
}

// The checksum of a log goes on after a restart.
func TestTheChecksumSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	b := started(t, coordinator.Options{Dir: dir})
	b.start(stages(script("one", "test")))
	j := b.take()
	b.want(b.patch(j, 0, "1234"), http.StatusAccepted)
	b.server.Close()
	if err := b.c.Close(); err != nil {
		t.Fatal(err)
	}
	b2 := open(t, coordinator.Options{Dir: dir, VerifyLog: true})
	b2.want(b2.patch(j, 4, "56789"), http.StatusAccepted)
	b2.want(b2.put(j, map[string]any{"state": "success", "output": json.RawMessage(`{"checksum":"crc32:cbf43926","bytesize":9}`)}), http.StatusOK)
	if v, _ := b2.c.Job(j.ID); v.LogDamaged {
		t.Error("the log counts as damaged")
	}
}
