package pipeline

import (
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/lazy"
)

var (
	durationPart  = lazy.Regexp(`^([0-9]*\.?[0-9]+)\s*([a-z]*)`)
	durationClock = lazy.Regexp(`^\d+(?::\d+){1,5}(?:\.\d+)?$`)
)

const (
	day  = 24 * time.Hour
	year = 31557600 * time.Second
)

// unitOf returns the length of a unit of time; the words are those that GitLab understands.
func unitOf(word string) (time.Duration, bool) {
	switch word {
	case "", "s", "sec", "secs", "second", "seconds":
		return time.Second, true
	case "m", "min", "mins", "minute", "minutes":
		return time.Minute, true
	case "h", "hr", "hrs", "hour", "hours":
		return time.Hour, true
	case "d", "dy", "day", "days":
		return day, true
	case "w", "wk", "wks", "week", "weeks":
		return 7 * day, true
	case "mo", "mos", "month", "months":
		return 30 * day, true
	case "y", "yr", "yrs", "year", "years":
		return year, true
	}
	return 0, false
}

func numberWord(word string) string {
	for i, w := range []string{"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"} {
		if w == word {
			return strconv.Itoa(i)
		}
	}
	return ""
}

// parseDuration reads a human duration such as "1h 30m", "90 minutes", "2 weeks and 3 days", "12:30:00" or "3600"
// (seconds).
func parseDuration(s string) (time.Duration, bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	if durationClock().MatchString(s) {
		return clockDuration(s)
	}
	for w := range strings.FieldsSeq(s) {
		if n := numberWord(w); n != "" {
			s = strings.Replace(s, w, n, 1)
		}
	}
	total, found := 0.0, false
	for s = strings.TrimLeft(s, " ,"); s != ""; s = strings.TrimLeft(s, " ,") {
		if rest, ok := filler(s); ok {
			s = rest
			continue
		}
		m := durationPart().FindStringSubmatch(s)
		if m == nil {
			return 0, false
		}
		n, err := strconv.ParseFloat(m[1], 64)
		unit, known := unitOf(m[2])
		if err != nil || !known {
			return 0, false
		}
		total, found = total+n*float64(unit), true
		s = s[len(m[0]):]
	}
	if !found || total <= 0 || total > float64(100*year) {
		return 0, false
	}
	return time.Duration(total), true
}

// filler drops the words that join the parts of a duration.
func filler(s string) (string, bool) {
	for _, w := range []string{"and ", "with ", "plus "} {
		if rest, ok := strings.CutPrefix(s, w); ok {
			return rest, true
		}
	}
	return s, false
}

func clockDuration(s string) (time.Duration, bool) {
	parts := strings.Split(s, ":")
	units := []time.Duration{time.Second, time.Minute, time.Hour, day, 30 * day, year}
	total := 0.0
	for i, p := range parts {
		n, err := strconv.ParseFloat(p, 64)
		if err != nil {
			return 0, false
		}
		total += n * float64(units[len(parts)-1-i])
	}
	if total <= 0 || total > float64(100*year) {
		return 0, false
	}
	return time.Duration(total), true
}
