package transfer

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/env"
	"github.com/tranter-ci/tranter/internal/joblog"
)

func TestMeter(t *testing.T) {
	tests := []struct {
		frequency string
		want      string // lines are divided by "|", trailing spaces are cut
	}{
		{"", ""},
		{"0", ""},
		{"-1s", ""},
		{"2s", "|up 2.0 MB/5.0 MB (1.0 MB/s)|up 4.0 MB/5.0 MB (1.0 MB/s)|up 5.0 MB/5.0 MB (1.0 MB/s)\n"},
		{"1ms", "|up 1.0 MB/5.0 MB (1.0 MB/s)|up 2.0 MB/5.0 MB (1.0 MB/s)|up 3.0 MB/5.0 MB (1.0 MB/s)|up 4.0 MB/5.0 MB (1.0 MB/s)|up 5.0 MB/5.0 MB (1.0 MB/s)\n"},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			e := &env.Env{Log: joblog.New(&out, tranter.LogFormat{}, time.Now), Environ: []string{"TRANSFER_METER_FREQUENCY=" + tt.frequency}}
			m := newMeter(e, "up", 5_000_000)
			w := m.writer(io.Discard)
			r := m.reader(bytes.NewReader(make([]byte, 2_500_000)))
			for range 5 {
				<-time.After(999 * time.Millisecond) // in all less than five seconds: no tick falls on the end
				_, _ = w.Write(make([]byte, 500_000))
				_, _ = io.ReadFull(r, make([]byte, 500_000))
			}
			m.end()
			var parts []string
			for part := range strings.SplitSeq(out.String(), "\r") {
				parts = append(parts, strings.TrimRight(strings.TrimSuffix(part, "\n"), " ")+part[len(strings.TrimSuffix(part, "\n")):])
			}
			if got := strings.Join(parts, "|"); got != tt.want {
				t.Errorf("%q: got %q, want %q", tt.frequency, got, tt.want)
			}
		})
	}
}

func TestMeterWithoutTotalAndWithAnUnknownFrequency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		e := &env.Env{Log: joblog.New(&out, tranter.LogFormat{}, time.Now), Environ: []string{"TRANSFER_METER_FREQUENCY=5s"}}
		m := newMeter(e, "down", 0)
		m.add(700)
		m.restart()
		m.add(999)
		<-time.After(time.Second)
		m.end()
		if got := strings.TrimSpace(out.String()); got != "down 999 B (999 B/s)" {
			t.Errorf("%q", got)
		}
		out.Reset()
		e.Environ = []string{"TRANSFER_METER_FREQUENCY=often"}
		if m := newMeter(e, "x", 1); m != nil || !strings.Contains(out.String(), `TRANSFER_METER_FREQUENCY: expected a time such as 5s, got "often"`) {
			t.Errorf("%v %q", m, out.String())
		}
	})
}

func TestReadable(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 1_234_567_890: "1.2 GB", 1 << 62: "4.6 EB"} {
		if got := readable(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
