package agent

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
)

func TestAProcessIsReadWhateverItIsCalled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stat    string
		cpu     time.Duration
		started string
	}{
		"plain":           {"12 (sh) S 1 12 12 0 -1 4194560 500 900 0 0 3 4 50 60 20 0 1 0 7700 2600000 200 18446744073709551615\n", 1170 * time.Millisecond, "7700"},
		"a nasty name":    {"12 (a) R 9 9 9 9 9 9 9 9 9 9 9 99 99 99 99) S 1 12 12 0 -1 4194560 500 900 0 0 1 0 0 0 20 0 1 0 88 2600000 200\n", 10 * time.Millisecond, "88"},
		"cut off":         {"12 (sh) S 1 12 12 0 -1 4194560 500 900 0 0 5", 50 * time.Millisecond, ""},
		"nothing":         {"", 0, ""},
		"no numbers":      {"12 (sh) S a b c d e f g h i j k l m n o p q r s t u v", 0, "s"},
		"it counts below": {"12 (sh) S 1 12 12 0 -1 4194560 500 900 0 0 -3 4 -50 60 20 0 1 0 7700 1\n", 640 * time.Millisecond, "7700"},
	} {
		if p := statOf([]byte(c.stat)); p.cpu != c.cpu || string(p.started) != c.started {
			t.Errorf("%s: %v, started %q", name, p.cpu, p.started)
		}
	}
	anonymous, shared := memoryOf([]byte("Name:\tRssAnon:\nVmRSS:\t 9 kB\nRssAnon:\t     300 kB\nRssFile:\t 7 kB\nRssShmem:\t      20 kB\nThreads:\t1\n"))
	if anonymous != 300<<10 || shared != 20<<10 {
		t.Errorf("%d and %d bytes", anonymous, shared)
	}
}

func TestTheTreeHasWhatIsBelowAndNotWhatIsSpared(t *testing.T) {
	t.Parallel()
	start := func() (*exec.Cmd, int) { // a shell with a child, which says its id
		cmd := exec.CommandContext(t.Context(), "bash", "-c", "sleep 60 & echo $!; wait")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var pid int
		buf := make([]byte, 20)
		n, _ := out.Read(buf)
		for _, c := range buf[:n] {
			if c >= '0' && c <= '9' {
				pid = 10*pid + int(c-'0')
			}
		}
		t.Cleanup(func() {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill()
			}
			_ = cmd.Wait()
		})
		return cmd, pid
	}
	old, oldChild := start()
	spared := processes{old.Process.Pid: readProcesses().started[old.Process.Pid]}
	mine, child := start()
	tr := newGauge(spared).(*tree)
	if _, memory, ok := tr.read(); !ok || memory < 100<<10 {
		t.Errorf("%d bytes, %v", memory, ok)
	}
	if !slices.Contains(tr.queue, mine.Process.Pid) || !slices.Contains(tr.queue, child) {
		t.Errorf("%v has not %d and %d", tr.queue, mine.Process.Pid, child)
	}
	if slices.Contains(tr.queue, oldChild) {
		t.Errorf("%v has %d, which is spared", tr.queue, oldChild)
	}
}

func TestThereAreNeverTooManySamplesAndTheHighestStay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &meter{every: sampleEvery, free: 1 << 40, samples: tranter.UsageSamples{{At: time.Now()}}}
		var cpu time.Duration
		var most, disk int64
		for range rapid.IntRange(0, 600).Draw(t, "looks") {
			cpu += time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "cpu"))
			memory, free := rapid.Int64Range(0, 1<<40).Draw(t, "memory"), rapid.Int64Range(0, 2<<40).Draw(t, "free")
			most, disk = max(most, memory), max(disk, 1<<40-free)
			m.take(cpu, memory, free)
		}
		if len(m.samples) >= tranter.MaxSamples || m.memory != most || m.disk != disk {
			t.Fatalf("%d samples, %d and %d, want %d and %d", len(m.samples), m.memory, m.disk, most, disk)
		}
		if len(m.samples) > 1 {
			top := slices.MaxFunc(m.samples, func(a, b tranter.UsageSample) int { return int(min(max(a.Memory-b.Memory, -1), 1)) })
			if top.Memory != most {
				t.Fatalf("the highest sample is %d, want %d", top.Memory, most)
			}
		}
		if m.every < sampleEvery || len(m.samples) > 1 && m.busy != cpu {
			t.Fatalf("every %v, busy %v of %v", m.every, m.busy, cpu)
		}
	})
}

func BenchmarkLookAtAPhase(b *testing.B) {
	for range 5 {
		cmd := exec.CommandContext(b.Context(), "sleep", "60")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
	g := newGauge(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := g.read(); !ok {
			b.Fatal("nothing was read")
		}
		freeIn("/tmp/not/there")
	}
}

func FuzzProcessFiles(f *testing.F) {
	f.Add([]byte("12 (sh) S 1 12 12 0 -1 4194560 500 900 0 0 3 4 50 60 20 0 1 0 7700 2600000 200\n"))
	f.Add([]byte("Name:\tx\nRssAnon:\t 9223372036854775807 kB\nRssShmem:\t -1 kB\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p := statOf(data); p.cpu < 0 {
			t.Errorf("%+v", p)
		}
		if anonymous, shared := memoryOf(data); anonymous < 0 || shared < 0 {
			t.Errorf("%d, %d", anonymous, shared)
		}
	})
}
