package scale

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// plainMatch tells the obvious way whether a time of the wall clock fits an expression of seven fields that is valid.
func plainMatch(expression string, t time.Time) bool {
	f := strings.Fields(strings.ToLower(expression))
	if !plainField(f[0], 0, 59, nil, t.Second()) || !plainField(f[1], 0, 59, nil, t.Minute()) || !plainField(f[2], 0, 23, nil, t.Hour()) ||
		!plainField(f[4], 1, 12, months(), int(t.Month())) || !plainField(f[6], 1970, 2099, nil, t.Year()) {
		return false
	}
	last := time.Date(t.Year(), t.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day()
	every := func(field string) bool {
		return slices.Contains(strings.Split(field, ","), "*") || slices.Contains(strings.Split(field, ","), "?")
	}
	day := plainField(f[3], 1, 31, nil, t.Day())
	for item := range strings.SplitSeq(f[3], ",") {
		switch {
		case item == "l":
			day = day || t.Day() == last
		case item == "lw":
			day = day || t.Day() == plainWorkday(t, last, last)
		case strings.HasSuffix(item, "w"):
			if n, _ := strconv.Atoi(strings.TrimSuffix(item, "w")); n <= last {
				day = day || t.Day() == plainWorkday(t, n, last)
			}
		}
	}
	week := plainField(f[5], 0, 7, weekdays(), int(t.Weekday())) || t.Weekday() == time.Sunday && plainField(f[5], 0, 7, weekdays(), 7)
	for item := range strings.SplitSeq(f[5], ",") {
		name, nth, isNth := strings.Cut(item, "#")
		final, isLast := strings.CutSuffix(item, "l")
		switch {
		case item == "l":
			week = week || t.Weekday() == time.Saturday
		case isNth:
			n, _ := strconv.Atoi(nth)
			week = week || plainValue(name, 0, weekdays())%7 == int(t.Weekday()) && t.Day() > 7*(n-1) && t.Day() <= 7*n
		case isLast:
			week = week || plainValue(final, 0, weekdays())%7 == int(t.Weekday()) && t.Day() > last-7
		}
	}
	switch {
	case every(f[3]) && every(f[5]):
		return true
	case every(f[3]):
		return week
	case every(f[5]):
		return day
	}
	return day || week
}

// plainWorkday walks from a day outwards to the first one in the month that is a working day.
func plainWorkday(t time.Time, day, last int) int {
	for _, by := range []int{0, -1, 1, 2, -2} {
		d := time.Date(t.Year(), t.Month(), day+by, 0, 0, 0, 0, time.UTC)
		if day+by >= 1 && day+by <= last && d.Weekday() != time.Saturday && d.Weekday() != time.Sunday {
			// From a Saturday back first, from a Sunday forth first.
			if start := time.Date(t.Year(), t.Month(), day, 0, 0, 0, 0, time.UTC); start.Weekday() == time.Sunday && by == -1 {
				continue
			}
			return day + by
		}
	}
	panic("no working day")
}

func plainValue(text string, low int, words []string) int {
	for i, word := range words {
		if len(text) >= 3 && strings.HasPrefix(word, text) {
			return low + i
		}
	}
	n, _ := strconv.Atoi(text)
	return n
}

func plainField(field string, low, high int, words []string, value int) bool {
	for item := range strings.SplitSeq(field, ",") {
		if strings.ContainsAny(item, "#") || len(item) < 3 && strings.ContainsAny(item, "lw") || high == 7 && strings.HasSuffix(item, "l") {
			continue
		}
		body, stepText, stepped := strings.Cut(item, "/")
		step := 1
		if stepped {
			step, _ = strconv.Atoi(stepText)
		}
		from, to, ranged := strings.Cut(body, "-")
		a, b := low, high
		if body != "*" && body != "?" {
			a = plainValue(from, low, words)
			switch {
			case ranged:
				b = plainValue(to, low, words)
			case !stepped:
				b = a
			}
		}
		if value >= a && value <= b && (value-a)%step == 0 {
			return true
		}
	}
	return false
}

func mustCron(t testing.TB, text string) Cron {
	t.Helper()
	c, err := ParseCron(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func drawCron(t *rapid.T) string {
	field := func(name string, low, high int, extra ...string) string {
		items := make([]string, rapid.IntRange(1, 2).Draw(t, name+" items"))
		for i := range items {
			a := rapid.IntRange(low, high).Draw(t, name)
			b := rapid.IntRange(a, high).Draw(t, name+" to")
			step := rapid.IntRange(1, 7).Draw(t, name+" step")
			items[i] = rapid.SampledFrom(append([]string{
				"*", "*", "*", fmt.Sprint(a), fmt.Sprintf("%d-%d", a, b), fmt.Sprintf("%d-%d/%d", a, b, step), fmt.Sprintf("*/%d", step), fmt.Sprintf("%d/%d", a, step),
			}, extra...)).Draw(t, name+" item")
		}
		return strings.Join(items, ",")
	}
	return strings.Join([]string{
		field("second", 0, 59), field("minute", 0, 59), field("hour", 0, 23),
		field("day", 1, 31, "?", "L", "LW", "15W", "1W", "31W", "29W", "30w"),
		field("month", 1, 12, "jan", "feb-april", "DEC"),
		field("weekday", 0, 7, "?", "L", "mon-fri", "5L", "friL", "0#1", "sun#5", "7#2", "tuesday", "7L"),
		field("year", 2024, 2028),
	}, " ")
}

func zones(t testing.TB) []*time.Location {
	var all []*time.Location
	for _, name := range []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, zone)
	}
	return all
}

func TestCronMatchesWhatAPlainReadingMatches(t *testing.T) {
	all := zones(t)
	rapid.Check(t, func(t *rapid.T) {
		text := drawCron(t)
		c := mustCronRapid(t, text)
		at := time.Date(2024, 1, 1, 0, 0, 0, rapid.IntRange(0, 999_999_999).Draw(t, "ns"), time.UTC).
			Add(time.Duration(rapid.Int64Range(0, 4*365*86400).Draw(t, "s")) * time.Second).In(rapid.SampledFrom(all).Draw(t, "zone"))
		for range 48 {
			next := at.Truncate(time.Second).Add(time.Second)
			if got, want := c.Match(at), plainMatch(text, next); got != want {
				t.Fatalf("%q at %s: %v, want %v", text, at, got, want)
			}
			at = at.Add(59*time.Minute + 7*time.Second)
		}
	})
}

func mustCronRapid(t *rapid.T, text string) Cron {
	c, err := ParseCron(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNextChangeIsTheFirstSecondThatDiffers(t *testing.T) {
	all := zones(t)
	// Round the changes of the clocks in the north and in the south, and at a year's end.
	starts := []time.Time{
		time.Date(2026, 3, 28, 22, 0, 0, 0, time.UTC), time.Date(2026, 10, 24, 22, 0, 0, 0, time.UTC), time.Date(2026, 4, 4, 12, 0, 0, 0, time.UTC),
		time.Date(2026, 10, 3, 12, 0, 0, 0, time.UTC), time.Date(2026, 11, 1, 4, 0, 0, 0, time.UTC), time.Date(2018, 11, 4, 1, 0, 0, 0, time.UTC), time.Date(2026, 12, 31, 20, 0, 0, 0, time.UTC),
	}
	rapid.Check(t, func(t *rapid.T) {
		c := mustCronRapid(t, drawCron(t))
		at := rapid.SampledFrom(starts).Draw(t, "start").Add(time.Duration(rapid.IntRange(0, 20_000_000).Draw(t, "ms")) * time.Millisecond).In(rapid.SampledFrom(all).Draw(t, "zone"))
		next := c.NextChange(at)
		if !next.After(at) {
			t.Fatalf("%s is not after %s", next, at)
		}
		is, end := c.Match(at), at.Add(3*time.Hour)
		for s := at.Truncate(time.Second).Add(time.Second); s.Before(end) && s.Before(next); s = s.Add(time.Second) {
			if c.Match(s) != is {
				t.Fatalf("it changes at %s, NextChange(%s) is %s", s, at, next)
			}
		}
		if next.Sub(at) < horizon && c.Match(next) == is {
			t.Fatalf("nothing changes at %s", next)
		}
	})
}

func TestCronForms(t *testing.T) {
	for _, test := range []struct{ cron, match, not string }{
		{"* * 9-17 * * mon-fri *", "2026-03-02T17:59:58Z", "2026-03-02T17:59:59Z"},
		{"* * 9-17 * * mon-fri *", "2026-03-02T08:59:59Z", "2026-03-02T08:59:58Z"},
		{"* * 9-17 * * mon-fri *", "2026-03-06T12:00:00Z", "2026-03-07T12:00:00Z"},
		{"* 9-17 * * *", "2026-03-07T12:34:56Z", "2026-03-07T18:00:00Z"},
		{"* 9-17 * * * 2026", "2026-03-07T12:34:56Z", "2027-03-07T12:00:00Z"},
		{"@daily", "2026-03-07T00:00:30Z", "2026-03-07T00:01:00Z"},
		{"@hourly", "2026-03-07T13:00:30Z", "2026-03-07T13:01:00Z"},
		{"@monthly", "2026-03-01T00:00:30Z", "2026-03-02T00:00:30Z"},
		{"@weekly", "2026-03-01T00:00:30Z", "2026-03-02T00:00:30Z"},
		{"@yearly", "2026-01-01T00:00:30Z", "2026-02-01T00:00:30Z"},
		{"* * * 13 * fri *", "2026-03-20T10:00:00Z", "2026-03-19T10:00:00Z"}, // one of both is enough
		{"* * * 13 * fri *", "2026-05-13T10:00:00Z", "2026-05-14T10:00:00Z"},
		{"* * * L * * *", "2028-02-29T10:00:00Z", "2028-02-28T10:00:00Z"},
		{"* * * LW * ? *", "2026-01-30T10:00:00Z", "2026-01-31T10:00:00Z"},
		{"* * * 15W * * *", "2026-02-16T10:00:00Z", "2026-02-15T10:00:00Z"},
		{"* * * 1W * * *", "2026-08-03T10:00:00Z", "2026-07-31T10:00:00Z"},
		{"* * * * * friL *", "2026-03-27T10:00:00Z", "2026-03-20T10:00:00Z"},
		{"* * * * * 1#2 *", "2026-03-09T10:00:00Z", "2026-03-02T10:00:00Z"},
		{"* * * * January-mar 7 *", "2026-03-01T10:00:00Z", "2026-04-05T10:00:00Z"},
		{"*/15 10/20 * * * * 2026-2030/2", "2028-03-01T10:30:14Z", "2027-03-01T10:30:14Z"},
	} {
		c := mustCron(t, test.cron)
		for text, want := range map[string]bool{test.match: true, test.not: false} {
			at, err := time.Parse(time.RFC3339, text)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Match(at); got != want {
				t.Errorf("%q at %s: %v", test.cron, text, got)
			}
		}
	}
}

func TestAnExpressionThatIsNoneIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "* * * *", "* * * * * * * *", "60 * * * * * *", "* * 24 * * * *", "* * * 0 * * *", "* * * * 13 * *", "* * * * * 8 *", "* * * * * * 2100", "*/0 * * * *",
		"5-3 * * * *", "a * * * *", "* * * * * mon#6 *", "? * * * *", "1, * * * *", "-1 * * * *", "+1 * * * *", "* * * * * W *", "@never", "* * W * *", "* * * mo *", "*/-1 * * * *",
	} {
		if c, err := ParseCron(text); err == nil {
			t.Errorf("%q: %+v", text, c)
		}
	}
}

func TestAPeriodThatNeverChangesIsAskedForAgainAfterAYear(t *testing.T) {
	at := start()
	for _, text := range []string{"* * * * * * *", "* * * 30 feb * *", "* * * * * * 1999"} {
		if got := mustCron(t, text).NextChange(at); got.Sub(at) != horizon+time.Second {
			t.Errorf("%q: %s", text, got)
		}
	}
}

func FuzzParseCron(f *testing.F) {
	for _, text := range []string{"* * 9-17 * * mon-fri *", "@daily", "0 0 29 feb *", "*/5 1-5/2 L,15W,LW jan-dec sun#5,5L ?", "1/99999999999 * * * *", "* * * * * * 1970-2099"} {
		f.Add(text, int64(1_772_445_600))
	}
	f.Fuzz(func(t *testing.T, text string, at int64) {
		c, err := ParseCron(text)
		if err != nil {
			return
		}
		// A step on a special day means nothing; the plain reading does not know of it.
		fields := strings.Fields(strings.ToLower(text))
		now := time.Unix(at%(1<<33), 0).UTC()
		if len(fields) == 7 && !strings.ContainsAny(fields[3]+fields[5], "/") && now.Year() >= 1970 {
			if got, want := c.Match(now.Add(-time.Second)), plainMatch(strings.Join(fields, " "), now); got != want {
				t.Fatalf("%q at %s: %v", text, now, got)
			}
		}
		if next := c.NextChange(now); !next.After(now) {
			t.Fatalf("%q: %s after %s", text, next, now)
		}
	})
}
