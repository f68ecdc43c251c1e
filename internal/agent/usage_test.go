package agent_test

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

func TestWhatAPhaseUsesIsMeasured(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		return // other systems tell the end only
	}
	builds, err := os.MkdirTemp("/dev/shm", "tranter-test-") //nolint:usetesting // few others use that disk meanwhile
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(builds) })
	p := newPlay(t, userScript(
		`timeout 2.2 bash -c 'while :; do :; done' &`,
		`head -c 16000000 /dev/zero > '`+builds+`/file'`,
		`head -c 60000000 /dev/zero | tail -c 60000000 | (head -c 1; sleep 2.4; wc -c) > '`+builds+`/count'`,
	))
	p.phase.Dirs.Builds = builds
	before := time.Now()
	r := p.run(t)
	if r.Status != tranter.PhaseSucceeded || len(r.Samples) < 3 || len(r.Samples) > 10 {
		t.Fatalf("result %+v\n%s", r, p.log)
	}
	var memory, disk int64
	var cpu float64
	last := before.Add(-time.Millisecond)
	for i, s := range r.Samples {
		if s.At.Before(last) || s.At.After(time.Now()) {
			t.Errorf("sample %d is of %v, after one of %v", i, s.At, last)
		}
		cpu += s.CPU * s.At.Sub(last).Seconds()
		last = s.At
		memory, disk = max(memory, s.Memory), max(disk, s.Disk)
	}
	if r.MaxMemory < 60e6 || r.MaxMemory > 600e6 || memory < 60e6-1024 {
		t.Errorf("%d bytes of memory at most, %d in samples", r.MaxMemory, memory)
	}
	if r.MaxDisk < 10e6 || disk < 10e6 {
		t.Errorf("%d bytes of disk at most, %d in samples", r.MaxDisk, disk)
	}
	if spent := r.CPUTime.Seconds(); spent < 0.3 || cpu < spent/2 || cpu > spent*1.2+0.1 {
		t.Errorf("%v of processor time, %.2f s in samples", r.CPUTime, cpu)
	}
	if first := r.Samples[0]; first.CPU != 0 || first.Memory != 0 {
		t.Errorf("the first sample is %+v", first)
	}
}

func TestAShortPhaseHasItsEndsOnly(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("true"))
	r := p.run(t)
	if n := len(r.Samples); n != 2 || r.Samples[1].Memory <= 0 || r.MaxMemory <= 0 || r.CPUTime <= 0 {
		t.Errorf("%d samples: %+v", n, r)
	}
	if info, err := os.Stat(p.dir + "/result.json"); err != nil || info.Size() > 2000 {
		t.Errorf("the result is %v, %v", info, err)
	}
}
