package scale

import "time"

// horizon is how far NextChange looks ahead.
const horizon = 366 * 24 * time.Hour

const daySeconds = 24 * 60 * 60

// Match tells whether the expression fires within the second that follows t, in t's zone: so GitLab Runner tells whether a
// period holds (docker-machine, section 3.5).
func (c Cron) Match(t time.Time) bool {
	s := t.Unix() + 1
	_, offset := time.Unix(s, 0).In(t.Location()).Zone()
	return c.fires(s + int64(offset))
}

// NextChange returns when Match, in t's zone, next says something else than it does at t. If it always says the same for a
// year and a day, that is what it returns: when to ask again.
func (c Cron) NextChange(t time.Time) time.Time {
	is := c.Match(t)
	s := t.Unix() + 1
	end := s + int64(horizon/time.Second)
	for s < end {
		// The clocks are what they are until the zone's offset changes: as long, it is plain arithmetic.
		at := time.Unix(s, 0).In(t.Location())
		_, offset := at.Zone()
		stop := end
		if _, change := at.ZoneBounds(); !change.IsZero() {
			stop = min(end, change.Unix())
		}
		found := c.find(s+int64(offset), stop+int64(offset), !is) - int64(offset)
		if found < stop {
			return time.Unix(found-1, 0).In(t.Location())
		}
		s = stop
	}
	return time.Unix(end, 0).In(t.Location())
}

// fires tells whether the expression fires at a second of the wall clock, counted as if in UTC.
func (c *Cron) fires(wall int64) bool {
	day, second := split(wall)
	return c.onDay(day) && has(c.hour, second/3600) && has(c.minute, second/60%60) && has(c.second, second%60)
}

// split splits seconds into days and the seconds of the last one.
func split(wall int64) (day int64, second int) {
	second = int((wall%daySeconds + daySeconds) % daySeconds)
	return (wall - int64(second)) / daySeconds, second
}

// find returns the first second of [from, end) at which the expression fires, or does not; end if there is none.
func (c *Cron) find(from, end int64, fires bool) int64 {
	day, second := split(from)
	for day*daySeconds < end {
		on := c.onDay(day)
		at := -1
		switch {
		case on && fires:
			at = c.firesAt(second)
		case on:
			at = c.restsAt(second)
		case !fires:
			at = second
		}
		if at >= 0 {
			return min(end, day*daySeconds+int64(at))
		}
		day, second = day+1, 0
	}
	return end
}

// firesAt returns the first second of a day, not before from, at which the expression fires on such days; -1 if there is none.
func (c *Cron) firesAt(from int) int {
	for h := next(c.hour, from/3600); h >= 0; h = next(c.hour, h+1) {
		m0, s0 := 0, 0
		if h == from/3600 {
			m0, s0 = from/60%60, from%60
		}
		for m := next(c.minute, m0); m >= 0; m = next(c.minute, m+1) {
			if m != m0 {
				s0 = 0
			}
			if s := next(c.second, s0); s >= 0 {
				return h*3600 + m*60 + s
			}
		}
	}
	return -1
}

// restsAt returns the first second of a day, not before from, at which the expression does not fire; -1 if there is none.
func (c *Cron) restsAt(from int) int {
	const all = 1<<60 - 1
	for at := from; at < daySeconds; {
		switch {
		case !has(c.hour, at/3600) || !has(c.minute, at/60%60) || !has(c.second, at%60):
			return at
		case c.second != all:
			at++
		case c.minute != all:
			at += 60 - at%60
		default:
			at += 3600 - at%3600
		}
	}
	return -1
}

// onDay tells whether the expression fires at some time of a day.
func (c *Cron) onDay(day int64) bool {
	date := time.Unix(day*daySeconds, 0).UTC()
	y, m, d := date.Date()
	if y < firstYear || y >= firstYear+192 || !has(c.year[(y-firstYear)/64], (y-firstYear)%64) || !has(c.month, int(m)) {
		return false
	}
	w := int(date.Weekday())
	last := time.Date(y, m+1, 0, 0, 0, 0, 0, time.UTC).Day()
	if c.day.anyOfMonth && c.day.anyOfWeek {
		return true
	}
	return !c.day.anyOfMonth && c.day.inMonth(d, w, last) || !c.day.anyOfWeek && c.day.inWeek(d, w, last)
}

// inMonth tells whether the day of the month fits; w is its day of the week, last the month's last day.
func (s *days) inMonth(d, w, last int) bool {
	if has(s.ofMonth, d) || s.last && d == last || s.lastWork && d == workday(last, weekdayOf(last, d, w), last) {
		return true
	}
	for day := next(s.nearest, 1); day >= 0 && day <= last; day = next(s.nearest, day+1) {
		if d == workday(day, weekdayOf(day, d, w), last) {
			return true
		}
	}
	return false
}

func (s *days) inWeek(d, w, last int) bool {
	return has(s.ofWeek, w) || has(s.lastWeek, w) && d+7 > last || has(s.nth, (d-1)/7*7+w)
}

// weekdayOf returns the day of the week of a day in the same month as d, which is a w.
func weekdayOf(day, d, w int) int { return ((w+day-d)%7 + 7) % 7 }

// workday returns the working day of the month that is nearest to a day, which is a w.
func workday(day, w, last int) int {
	switch {
	case w == int(time.Saturday) && day > 1:
		return day - 1
	case w == int(time.Saturday):
		return day + 2
	case w == int(time.Sunday) && day < last:
		return day + 1
	case w == int(time.Sunday):
		return day - 2
	}
	return day
}

func has(set uint64, bit int) bool { return set>>bit&1 != 0 }
