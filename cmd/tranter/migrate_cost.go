package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/scale"
	"github.com/tranter-ci/tranter/internal/view"
)

// idleCost is what idle machines of a runner amount to in a month, a twelfth of the year to come.
type idleCost struct {
	Least float64    `json:"machine_hours_least"` // while no job runs
	Most  float64    `json:"machine_hours_most"`  // the same, unless IdleScaleFactor wants more while jobs run
	Price float64    `json:"price_per_hour,omitempty"`
	Parts []idlePart `json:"parts"`
	Cap   float64    `json:"machine_hours_cap,omitempty"` // of limit machines that are always there; 0: there is no limit
}

// idlePart is the share of a period, or of the rest of the time.
type idlePart struct {
	Periods  []string `json:"periods,omitempty"` // empty: at all other times
	Timezone string   `json:"timezone,omitempty"`
	Hours    float64  `json:"hours"` // in a month
	Least    int      `json:"idle_least"`
	Most     int      `json:"idle_most"`
}

// monthHours is a twelfth of 365 days.
const monthHours = 365 * 24.0 / 12

func newIdleCost(r config.Runner) *idleCost { return idleCostFrom(r, time.Now()) }

// idleCostFrom looks at each minute of the 365 days from a time on: which entry holds then.
func idleCostFrom(r config.Runner, from time.Time) *idleCost {
	m := &r.Machine
	c := &idleCost{Price: m.PricePerHour, Cap: float64(r.Limit) * monthHours}
	policy := scale.Policy{Periods: periodsOf(m)}
	minutes := make([]int, len(policy.Periods)+1)
	from = from.Truncate(time.Minute).Add(30 * time.Second) // an expression may be about the beginning of each minute only
	for i := range 365 * 24 * 60 {
		minutes[policy.IdleAt(from.Add(time.Duration(i)*time.Minute)).Count]++
	}
	for i, n := range minutes {
		part := idlePart{Hours: float64(n) / 60 / 12}
		a := config.Autoscaling{IdleCount: m.IdleCount, IdleCountMin: m.IdleCountMin, IdleScaleFactor: m.IdleScaleFactor}
		if i > 0 {
			a = m.Autoscaling[i-1]
			part.Periods, part.Timezone = a.Periods, a.Timezone
		}
		part.Least, part.Most = idleRange(a, r.Limit)
		c.Least += part.Hours * float64(part.Least)
		c.Most += part.Hours * float64(part.Most)
		c.Parts = append(c.Parts, part)
	}
	return c
}

// periodsOf returns the entries of a configuration as periods whose Idle.Count is their number, from 1.
func periodsOf(m *config.Machine) []scale.Period {
	var out []scale.Period
	for i, a := range m.Autoscaling {
		p := scale.Period{Idle: scale.Idle{Count: i + 1}}
		if zone, err := time.LoadLocation(a.Timezone); err == nil { // else config.Parse has told
			p.Zone = zone
		}
		for _, text := range a.Periods {
			if cron, err := scale.ParseCron(text); err == nil {
				p.Times = append(p.Times, cron)
			}
		}
		out = append(out, p)
	}
	return out
}

// idleRange is how many machines wait while no job runs, and at most.
func idleRange(a config.Autoscaling, limit int) (least, most int) {
	least, most = a.IdleCount, a.IdleCount
	if a.IdleScaleFactor > 0 {
		least = min(max(1, a.IdleCountMin), a.IdleCount)
	}
	if limit > 0 {
		least, most = min(least, limit), min(most, limit)
	}
	return least, most
}

// lines say it to people.
func (c *idleCost) lines() []string {
	var out []string
	out = append(out, amount(c.Least, c.Most, c.Price)+" a month")
	for _, p := range c.Parts {
		if p.Hours == 0 && p.Periods != nil {
			out = append(out, fmt.Sprintf("  never in %s: another entry holds then, or the time does not come in a year", quotedList(p.Periods)))
			continue
		}
		when := "at all other times"
		if len(c.Parts) == 1 {
			when = "at all times"
		}
		if p.Periods != nil {
			when = "in " + quotedList(p.Periods) + ", " + p.Timezone
		}
		out = append(out, fmt.Sprintf("  %s idle %s (%.0f hours a month)", between(p.Least, p.Most), when, p.Hours))
	}
	if c.Cap > 0 {
		out = append(out, "  with those that have jobs, never more than "+amount(c.Cap, c.Cap, c.Price)+" a month: the limit")
	}
	return out
}

func between(least, most int) string {
	if least == most {
		return view.Count(most, "machine")
	}
	return fmt.Sprintf("%d to %s", least, view.Count(most, "machine"))
}

// amount is machine-hours with their price, if that is known.
func amount(least, most, price float64) string {
	if least == most {
		text := fmt.Sprintf("%.0f machine-hours", most)
		if price > 0 {
			text += fmt.Sprintf(", that is %.2f,", most*price)
		}
		return text
	}
	text := fmt.Sprintf("%.0f to %.0f machine-hours", least, most)
	if price > 0 {
		text += fmt.Sprintf(", that is %.2f to %.2f,", least*price, most*price)
	}
	return text
}

func quotedList(texts []string) string {
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = `"` + view.Printable(text) + `"`
	}
	return strings.Join(quoted, ", ")
}
