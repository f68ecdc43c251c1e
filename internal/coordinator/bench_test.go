package coordinator_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// direct calls a coordinator without a network.
type direct struct {
	b *testing.B
	c *coordinator.Coordinator
	h http.Handler

	request []byte
}

func newDirect(b *testing.B) *direct {
	b.Helper()
	c, err := coordinator.Open(coordinator.Options{Dir: b.TempDir(), LongPoll: -1, MaxLog: 1 << 40})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := c.Close(); err != nil {
			b.Error(err)
		}
	})
	rn, err := c.CreateRunner(coordinator.RunnerSpec{RunUntagged: true})
	if err != nil {
		b.Fatal(err)
	}
	request, _ := json.Marshal(map[string]any{"token": rn.Token.Reveal(), "system_id": "s_0123456789ab"})
	return &direct{b: b, c: c, h: c.Handler(), request: request}
}

func (d *direct) call(status int, method, path string, body []byte, headers ...string) []byte {
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	d.h.ServeHTTP(w, r)
	if w.Code != status {
		d.b.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w.Body.Bytes()
}

// take lets a job come and takes it.
func (d *direct) take() *tranter.Job {
	payload := tranter.Job{Info: tranter.JobInfo{Name: "job"}, Steps: []tranter.JobStep{{Name: "script", Script: []string{"true"}}}}
	if _, err := d.c.Enqueue(payload); err != nil {
		d.b.Fatal(err)
	}
	var j tranter.Job
	if err := json.Unmarshal(d.call(http.StatusCreated, "POST", "/api/v4/jobs/request", d.request), &j); err != nil {
		d.b.Fatal(err)
	}
	return &j
}

func (d *direct) finish(j *tranter.Job) {
	d.call(http.StatusOK, "PUT", fmt.Sprintf("/api/v4/jobs/%d", j.ID), fmt.Appendf(nil, `{"token":%q,"state":"success"}`, j.Token.Reveal()))
}

// One job from its arrival to its end. It costs the same however many jobs have been there.
func BenchmarkRequest(b *testing.B) {
	for _, finished := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("finished=%d", finished), func(b *testing.B) {
			d := newDirect(b)
			for range finished {
				d.finish(d.take())
			}
			for b.Loop() {
				d.finish(d.take())
			}
		})
	}
}

// A runner that asks in vain.
func BenchmarkPoll(b *testing.B) {
	for _, finished := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("finished=%d", finished), func(b *testing.B) {
			d := newDirect(b)
			for range finished {
				d.finish(d.take())
			}
			for b.Loop() {
				d.call(http.StatusNoContent, "POST", "/api/v4/jobs/request", d.request)
			}
		})
	}
}

// One piece of a log costs the same however long the log is.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{0, 256 << 20} {
		b.Run(fmt.Sprintf("log=%dMiB", size>>20), func(b *testing.B) {
			d := newDirect(b)
			j := d.take()
			path := fmt.Sprintf("/api/v4/jobs/%d/trace", j.ID)
			offset := 0
			send := func(chunk []byte) {
				d.call(http.StatusAccepted, "PATCH", path, chunk, "Job-Token", j.Token.Reveal(), "Content-Range", fmt.Sprintf("%d-", offset))
				offset += len(chunk)
			}
			for big := make([]byte, 8<<20); offset < size; {
				send(big)
			}
			chunk := []byte(strings.Repeat("a line of a log, as they are\n", 140))
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				send(chunk)
			}
		})
	}
}

// What follows from the end of one job of a large pipeline.
func BenchmarkAdvance(b *testing.B) {
	for _, jobs := range []int{100, 1000} {
		b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) {
			g := coordinator.Graph{Now: time.Unix(0, 0), Stages: []string{"build", "test", "deploy"}}
			for i := range jobs {
				j := script(fmt.Sprint("job ", i), g.Stages[i*3/jobs])
				g.Nodes = append(g.Nodes, coordinator.Node{ID: int64(i + 1), Spec: &j, Status: coordinator.Success})
			}
			for i := range g.Nodes {
				if i >= jobs/3 {
					g.Nodes[i].Status = coordinator.Created
				}
			}
			for b.Loop() {
				if len(coordinator.Advance(g)) == 0 {
					b.Fatal("nothing follows")
				}
			}
		})
	}
}

// A start with many jobs that are over.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	c, err := coordinator.Open(coordinator.Options{Dir: dir, LongPoll: -1})
	if err != nil {
		b.Fatal(err)
	}
	rn, err := c.CreateRunner(coordinator.RunnerSpec{RunUntagged: true})
	if err != nil {
		b.Fatal(err)
	}
	request, _ := json.Marshal(map[string]any{"token": rn.Token.Reveal()})
	d := &direct{b: b, c: c, h: c.Handler(), request: request}
	for range 2000 {
		d.finish(d.take())
	}
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c, err := coordinator.Open(coordinator.Options{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
