package config

import (
	"fmt"
	"strconv"
	"strings"
)

// unit is what one field of a cron expression may hold.
type unit struct {
	name     string
	min, max int
	words    []string // names for the values from min
	days     bool     // L and W are allowed, or # for weekdays
}

func cronUnits(n int) []unit {
	months := []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
	weekdays := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	all := []unit{
		{name: "seconds", max: 59},
		{name: "minutes", max: 59},
		{name: "hours", max: 23},
		{name: "day of the month", min: 1, max: 31, days: true},
		{name: "month", min: 1, max: 12, words: months},
		{name: "day of the week", max: 7, words: weekdays, days: true},
		{name: "year", min: 1970, max: 2099},
	}
	switch n {
	case 5:
		return all[1:6]
	case 6:
		return all[1:]
	case 7:
		return all
	}
	return nil
}

// checkPeriod checks a cron expression: five fields, six with a year at the end, or seven with seconds at the start too.
func checkPeriod(text string) (problem, hint string) {
	switch strings.TrimSpace(text) {
	case "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly":
		return "", ""
	}
	fields := strings.Fields(strings.ToLower(text))
	units := cronUnits(len(fields))
	if units == nil {
		return fmt.Sprintf("a cron expression has 5 fields, or 6 with a year, or 7 with seconds and a year; this has %d", len(fields)),
			"Write for example \"* * 9-17 * * mon-fri *\": any second and minute from 9 to 17 o'clock, Monday to Friday."
	}
	for i, field := range fields {
		for item := range strings.SplitSeq(field, ",") {
			if !units[i].allows(item) {
				return fmt.Sprintf("%q does not fit the field for %s", item, units[i].name),
					fmt.Sprintf("It takes %d to %d, ranges with -, steps with /, lists with commas, and *.", units[i].min, units[i].max)
			}
		}
	}
	return "", ""
}

// allows tells whether an item of a comma list is valid: *, N, N-M, each perhaps with /STEP.
func (u unit) allows(item string) bool {
	item, step, stepped := strings.Cut(item, "/")
	if stepped {
		if n, err := strconv.Atoi(step); err != nil || n < 1 {
			return false
		}
	}
	if item == "*" || item == "?" && u.days {
		return true
	}
	if u.days && u.special(item) {
		return true
	}
	from, to, ranged := strings.Cut(item, "-")
	low, ok := u.value(from)
	if !ok || !ranged {
		return ok
	}
	high, ok := u.value(to)
	return ok && low <= high
}

// special tells whether an item is one of the forms for last days and nearest working days.
func (u unit) special(item string) bool {
	switch {
	case item == "l" || item == "lw" && u.min == 1:
		return true
	case u.min == 1:
		day, found := strings.CutSuffix(item, "w")
		_, ok := u.value(day)
		return found && ok
	}
	if day, found := strings.CutSuffix(item, "l"); found {
		_, ok := u.value(day)
		return ok
	}
	day, week, found := strings.Cut(item, "#")
	n, err := strconv.Atoi(week)
	_, ok := u.value(day)
	return found && ok && err == nil && n >= 1 && n <= 5
}

func (u unit) value(text string) (int, bool) {
	for i, word := range u.words {
		if text != "" && (text == word || len(text) > 3 && strings.HasPrefix(fullName(word), text)) {
			return u.min + i, true
		}
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= u.min && n <= u.max && !strings.HasPrefix(text, "+") && !strings.HasPrefix(text, "-")
}

// fullName returns the long name of a month or weekday.
func fullName(short string) string {
	for name := range strings.SplitSeq("january february march april may june july august september october november december sunday monday tuesday wednesday thursday friday saturday", " ") {
		if strings.HasPrefix(name, short) {
			return name
		}
	}
	return short
}
