package scale

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Cron is a cron expression of 5, 6 (with a year) or 7 fields (with seconds, too), as GitLab Runner's periods have. Where no
// seconds are given, every one is meant.
type Cron struct {
	second, minute, hour uint64
	month                uint64
	year                 [3]uint64 // from firstYear
	day                  days
}

const firstYear = 1970

// days are the days on which a cron expression matches. If both the day of the month and the day of the week are given, one
// of them is enough.
type days struct {
	ofMonth  uint64
	nearest  uint64 // days of the month of which the nearest working day is meant
	last     bool   // the month's last day
	lastWork bool   // its last working day
	ofWeek   uint64
	lastWeek uint64 // days of the week of which the last in the month is meant
	nth      uint64 // days of the week of which the nth is meant: bit 7*(n-1)+day

	anyOfMonth, anyOfWeek bool
}

// ParseCron understands numbers, names, lists, ranges, steps, *, ?, L, W, # and the words @yearly to @hourly.
func ParseCron(text string) (Cron, error) {
	text = strings.ToLower(strings.TrimSpace(text))
	if full := cronWord(text); full != "" {
		text = full
	}
	fields := strings.Fields(text)
	switch len(fields) {
	case 5:
		fields = append(append([]string{"*"}, fields...), "*")
	case 6:
		fields = append([]string{"*"}, fields...)
	case 7:
	default:
		return Cron{}, fmt.Errorf("a cron expression has 5, 6 or 7 fields; this has %d", len(fields))
	}
	var c Cron
	for i, u := range cronUnits() {
		for item := range strings.SplitSeq(fields[i], ",") {
			if !u.add(&c, item) {
				return Cron{}, fmt.Errorf("%q does not fit the field for %s of a cron expression", item, u.name)
			}
		}
	}
	return c, nil
}

func cronWord(text string) string {
	switch text {
	case "@yearly", "@annually":
		return "0 0 1 1 *"
	case "@monthly":
		return "0 0 1 * *"
	case "@weekly":
		return "0 0 * * 0"
	case "@daily", "@midnight":
		return "0 0 * * *"
	case "@hourly":
		return "0 * * * *"
	}
	return ""
}

// unit is what one field of a cron expression may hold.
type unit struct {
	name      string
	low, high int
	words     []string // for the values from low
	set       func(c *Cron, value int)
	every     func(c *Cron)                   // the field has *, nil: that is all values
	special   func(c *Cron, item string) bool // what only days have
}

func cronUnits() [7]unit {
	return [7]unit{
		{name: "seconds", high: 59, set: func(c *Cron, v int) { c.second |= 1 << v }},
		{name: "minutes", high: 59, set: func(c *Cron, v int) { c.minute |= 1 << v }},
		{name: "hours", high: 23, set: func(c *Cron, v int) { c.hour |= 1 << v }},
		{
			name: "the day of the month", low: 1, high: 31, special: specialDay,
			set: func(c *Cron, v int) { c.day.ofMonth |= 1 << v }, every: func(c *Cron) { c.day.anyOfMonth = true },
		},
		{name: "the month", low: 1, high: 12, words: months(), set: func(c *Cron, v int) { c.month |= 1 << v }},
		{
			name: "the day of the week", high: 7, words: weekdays(), special: specialWeekday,
			set: func(c *Cron, v int) { c.day.ofWeek |= 1 << (v % 7) }, every: func(c *Cron) { c.day.anyOfWeek = true },
		},
		{name: "the year", low: firstYear, high: 2099, set: func(c *Cron, v int) { c.year[(v-firstYear)/64] |= 1 << ((v - firstYear) % 64) }},
	}
}

func months() []string {
	return strings.Fields("january february march april may june july august september october november december")
}

func weekdays() []string {
	return strings.Fields("sunday monday tuesday wednesday thursday friday saturday")
}

// add adds an item of a field's list: *, N, N-M, each perhaps with /STEP, or what is special.
func (u *unit) add(c *Cron, item string) bool {
	body, stepText, stepped := strings.Cut(item, "/")
	step := 1
	if stepped {
		n, err := strconv.Atoi(stepText)
		if err != nil || n < 1 {
			return false
		}
		step = min(n, 100_000) // more than any field has
	}
	if u.special != nil && u.special(c, body) {
		return true
	}
	low, high, ok := u.span(body, stepped)
	if !ok {
		return false
	}
	if !stepped && u.every != nil && (body == "*" || body == "?") {
		u.every(c)
	}
	for v := low; v <= high; v += step {
		u.set(c, v)
	}
	return true
}

// span returns the values from which to which an item without its step goes.
func (u *unit) span(body string, stepped bool) (low, high int, ok bool) {
	if body == "*" || body == "?" && u.special != nil {
		return u.low, u.high, true
	}
	from, to, ranged := strings.Cut(body, "-")
	low, ok = u.value(from)
	switch {
	case !ok:
		return 0, 0, false
	case ranged:
		high, ok = u.value(to)
		return low, high, ok && low <= high
	case stepped:
		return low, u.high, true
	}
	return low, low, true
}

// value reads a number or a name, which is known by three letters or more.
func (u *unit) value(text string) (int, bool) {
	for i, word := range u.words {
		if len(text) >= 3 && strings.HasPrefix(word, text) {
			return u.low + i, true
		}
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= u.low && n <= u.high && text[0] >= '0' && text[0] <= '9'
}

// specialDay reads L, LW and 15W.
func specialDay(c *Cron, item string) bool {
	switch item {
	case "l":
		c.day.last = true
		return true
	case "lw":
		c.day.lastWork = true
		return true
	}
	day, found := strings.CutSuffix(item, "w")
	u := unit{low: 1, high: 31}
	v, ok := u.value(day)
	if !found || !ok {
		return false
	}
	c.day.nearest |= 1 << v
	return true
}

// specialWeekday reads L, which is the last day of the week, 5L and 5#3.
func specialWeekday(c *Cron, item string) bool {
	u := unit{high: 7, words: weekdays()}
	if item == "l" {
		c.day.ofWeek |= 1 << time.Saturday
		return true
	}
	if day, found := strings.CutSuffix(item, "l"); found {
		v, ok := u.value(day)
		if ok {
			c.day.lastWeek |= 1 << (v % 7)
		}
		return ok
	}
	day, week, found := strings.Cut(item, "#")
	v, ok := u.value(day)
	n, err := strconv.Atoi(week)
	if !found || !ok || err != nil || n < 1 || n > 5 {
		return false
	}
	c.day.nth |= 1 << (7*(n-1) + v%7)
	return true
}

// next returns the first bit of a set that is not below from, or -1.
func next(set uint64, from int) int {
	if from > 63 {
		return -1
	}
	if rest := set >> from; rest != 0 {
		return from + bits.TrailingZeros64(rest)
	}
	return -1
}
