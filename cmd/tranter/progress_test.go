package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/view"
)

func TestPlainProgressPrintsEachChangeOnce(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	start := time.Unix(1000, 0)
	job := jobView{ID: 1, Name: "build", Stage: "build", State: "pending"}
	p.update([]jobView{job}, start)
	job.State, job.Started = "running", start
	p.update([]jobView{job}, start.Add(time.Second))
	p.update([]jobView{job}, start.Add(2*time.Second))
	job.State, job.Finished, job.ExitCode, job.Reason = "failed", start.Add(90*time.Second), 3, "script_failure"
	manual := jobView{ID: 2, Name: "publish", Stage: "release", State: "manual"}
	p.finish([]jobView{job, manual}, start.Add(2*time.Minute))
	want := []string{
		"  ● build  build    1.0s",
		"  ✗ build    build     1m30s   exit status 3",
		"  ▷ publish  release           manual: not run",
	}
	if got := strings.Split(strings.TrimSpace(out.String()), "\n"); strings.TrimSpace(strings.Join(got, "\n")) != strings.TrimSpace(strings.Join(want, "\n")) {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), strings.Join(want, "\n"))
	}
}

func TestCutKeepsEscapesAndCountsLetters(t *testing.T) {
	if got := cut("\x1b[32m✓\x1b[0m abcdef", 5); got != "\x1b[32m✓\x1b[0m ab" {
		t.Errorf("cut = %q", got)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{400 * time.Millisecond: "0.4s", 125 * time.Second: "2m05s", 62 * time.Minute: "1h02m"} {
		if got := view.Short(d); got != want {
			t.Errorf("view.Short(%v) = %q, want %q", d, got, want)
		}
	}
}
