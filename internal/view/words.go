package view

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Short renders a duration for people: 0.4s, 12.3s, 2m05s, 1h02m, 3d04h. What is negative is nothing.
func Short(d time.Duration) string {
	d = max(0, d)
	switch {
	case d < time.Minute-50*time.Millisecond:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		d = d.Round(time.Second)
		if d < time.Hour {
			return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
		}
		return "1h00m"
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
	}
}

// Since renders how long ago a time is, without a word around it: "2m05s"; "an unknown time" for the zero time.
func Since(t, now time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return Short(now.Sub(t))
}

// Ago renders when something was: "2m05s ago", or "never" for the zero time.
func Ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return Short(now.Sub(t)) + " ago"
}

// When renders a time in relation to now: "in 5m00s", "2m05s ago", or "-" for the zero time.
func When(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case t.Before(now):
		return Short(now.Sub(t)) + " ago"
	default:
		return "in " + Short(t.Sub(now))
	}
}

// Clock renders the time of day of t where now is; with the day if it is another one.
func Clock(t, now time.Time) string {
	t = t.In(now.Location())
	if t.Year() != now.Year() || t.YearDay() != now.YearDay() {
		return t.Format("2006-01-02 15:04")
	}
	return t.Format(time.TimeOnly)
}

// Bytes renders a size for people: 512 B, 1.5 KiB, 20 MiB, 3.2 GiB.
func Bytes(n int64) string {
	if n < 0 {
		return "0 B"
	}
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	size := float64(n)
	for _, unit := range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		size /= 1024
		switch {
		case size < 9.95:
			return fmt.Sprintf("%.1f %s", size, unit)
		case size < 1023.5:
			return fmt.Sprintf("%.0f %s", size, unit)
		}
	}
	return fmt.Sprintf("%.1f EiB", size/1024)
}

// Money renders an amount of a currency: "0.12 EUR", "<0.01 EUR", "-" for nothing. Without a currency it is the number alone.
func Money(amount float64, currency string) string {
	text := "-"
	switch {
	case math.IsNaN(amount) || math.IsInf(amount, 0) || amount <= 0:
		return text
	case amount < 0.005:
		text = "<0.01"
	default:
		text = strconv.FormatFloat(amount, 'f', 2, 64)
	}
	if currency = Printable(currency); currency != "" {
		text += " " + currency
	}
	return text
}

// Percent renders a share, 0 to 1: "12 %", "<1 %".
func Percent(share float64) string {
	switch {
	case math.IsNaN(share) || share <= 0:
		return "0 %"
	case share < 0.01:
		return "<1 %"
	default:
		return fmt.Sprintf("%.0f %%", min(share, 1e6)*100)
	}
}

// Count renders a number of things: "1 job", "3 jobs".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// Printable is a text of others, such as a job's name, as it can stand in a line: what a terminal would obey is replaced.
func Printable(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return unicode.ReplacementChar
	}, text)
}

// line is a text of others as a part of a sentence: on one line, without a full stop at its end, and not endless.
func line(text string) string {
	const most = 400
	text = strings.Map(func(c rune) rune {
		switch {
		case unicode.IsSpace(c):
			return ' '
		case unicode.IsPrint(c):
			return c
		default:
			return unicode.ReplacementChar
		}
	}, text)
	text = strings.TrimRight(strings.Join(strings.Fields(text), " "), ".;, ")
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return text
}

// StateWord is a state, or a stage of a job, as people read it. The words are those of the tables and of the flags that select by
// state: only underscores go.
func StateWord(state string) string {
	if state == "" {
		return "unknown"
	}
	return line(strings.ReplaceAll(state, "_", " "))
}

// ReasonWord is why jobs fail, in few words: "the script failed".
func ReasonWord(reason string) string {
	switch reason {
	case "script_failure":
		return "the script failed"
	case "runner_system_failure":
		return "a failure of the runner's system"
	case "job_execution_timeout":
		return "the job's time was over"
	case "image_pull_failure":
		return "the image could not be pulled"
	case "runner_configuration_error":
		return "the configuration does not allow it"
	case "runner_external_dependency_failure":
		return "something that it depends on failed"
	case "runner_interrupted":
		return "its machine or node was taken away"
	case "job_canceled":
		return "canceled"
	case "":
		return "no reason is known"
	default:
		return line(strings.ReplaceAll(reason, "_", " "))
	}
}
