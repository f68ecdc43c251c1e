package measure

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// Pause waits, unless ctx ends before.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// Processor is the name of the machine's processor.
func Processor() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, []byte("model name")); ok {
			return string(bytes.TrimLeft(bytes.TrimSpace(rest), ": \t"))
		}
	}
	return "processor unknown"
}

// Percentile returns the time that a share p of the times, of which there is one at least, does not exceed.
func Percentile(times []time.Duration, p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(len(sorted)-1, int(float64(len(sorted))*p))]
}

// Millis writes a time in milliseconds.
func Millis(d time.Duration) string { return fmt.Sprintf("%.0f ms", 1000*d.Seconds()) }

// Quantiles says the time in the middle, and the 95th of 100.
func Quantiles(times []time.Duration) string {
	return Millis(Percentile(times, 0.5)) + " / " + Millis(Percentile(times, 0.95))
}

// Spread says the time in the middle and the range, in seconds.
func Spread(times []time.Duration) string {
	if len(times) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f s [%.2f..%.2f]", Percentile(times, 0.5).Seconds(), slices.Min(times).Seconds(), slices.Max(times).Seconds())
}
