package sizing

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Range is what a number may be. The zero Range allows nothing.
type Range struct {
	Min, Max int64
	Given    bool
}

// Holds tells whether a number is within the range.
func (r Range) Holds(n int64) bool { return r.Given && n >= r.Min && n <= r.Max }

// mostCount bounds numbers of things: far above what there is, far below what overflows.
const mostCount = 1_000_000

func count(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > mostCount {
		return 0, fmt.Errorf("%q is no number from 0 to %d", clip(s), mostCount)
	}
	return int64(n), nil
}

// Memory reads an amount of memory in bytes: a number and k, m, g or t, which may be followed by b or ib and are powers of
// 1024; or a number alone, in units.
func Memory(s string, unit int64) (int64, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz")
	factor := unit
	switch suffix := text[len(digits):]; suffix {
	case "":
	case "b":
		factor = 1
	default:
		i := strings.Index("kmgt", suffix[:1])
		if rest := suffix[1:]; i < 0 || rest != "" && rest != "b" && rest != "ib" {
			return 0, fmt.Errorf("%q is no amount of memory, such as 512M or 4G", clip(s))
		}
		factor = 1 << (10 * (i + 1))
	}
	n, err := strconv.ParseUint(digits, 10, 62)
	if err != nil || int64(n) > math.MaxInt64/8/factor {
		return 0, fmt.Errorf("%q is no amount of memory, such as 512M or 4G", clip(s))
	}
	return int64(n) * factor, nil
}

// longestTime bounds times, so that sums don't overflow.
const longestTime = 10 * 365 * 24 * time.Hour

// Time reads a time: as Slurm writes it (minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S; hpc, section 3.5), or with units, such
// as 90m or 1h30m. alone is what a number alone counts, and two what the first of two numbers does: time.Minute for Slurm.
func Time(s string, alone, two time.Duration) (time.Duration, error) {
	text := strings.TrimSpace(s)
	total, ok := unitTime(text)
	if !ok {
		total, ok = clockTime(text, alone, two)
	}
	if !ok || total < 0 || total > longestTime {
		return 0, fmt.Errorf("%q is no time, such as 90, 1:30:00, 1-12 or 90m", clip(s))
	}
	return total, nil
}

func unitTime(text string) (time.Duration, bool) {
	d, err := time.ParseDuration(text)
	return d, err == nil && strings.ContainsAny(text, "hms")
}

func clockTime(text string, alone, two time.Duration) (total time.Duration, ok bool) {
	units := []time.Duration{time.Hour, time.Minute, time.Second}
	days, rest, long := strings.Cut(text, "-")
	parts := strings.Split(rest, ":")
	if !long {
		parts = strings.Split(text, ":")
		days = "0"
		switch len(parts) {
		case 1:
			units = []time.Duration{alone}
		case 2:
			units = []time.Duration{two, two / 60}
		}
	}
	n, err := count(days)
	if err != nil || time.Duration(n) > longestTime/(24*time.Hour) || len(parts) > len(units) {
		return 0, false
	}
	total = time.Duration(n) * 24 * time.Hour
	for i, part := range parts {
		n, err := count(part)
		if err != nil {
			return 0, false
		}
		total += time.Duration(n) * units[i]
	}
	return total, true
}

// clip bounds what of a user's text is repeated.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "..."
	}
	return s
}
