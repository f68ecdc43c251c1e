package cost

import (
	"time"

	"github.com/tranter-ci/tranter"
)

// Job returns what one job has cost, by the lives of the machines that it held.
func Job(h *tranter.JobHistory, lives []Life, t Table, now time.Time) JobCost {
	var c JobCost
	for i := range lives {
		l := &lives[i]
		rate := t.rate(l)
		there, paid := l.paidSpan(rate, now)
		l.walk(there, paid, func(s span, jobs []string) {
			for i, key := range jobs {
				if key == h.Key {
					d := part(s.length(), i, len(jobs))
					c.Held += d
					c.Cost += rate.price(d)
					c.Priced = c.Priced || rate.PerHour > 0
				}
			}
		})
	}
	if b := h.Bill; b != nil {
		cpuHour, gpuHour := t.Batch(h.Name, h.Runner)
		hours := max(0, b.Ran).Hours()
		c.Cost += hours * (bounded(cpuHour)*float64(max(1, b.CPUs)) + bounded(gpuHour)*float64(max(0, b.GPUs)))
		c.Priced = c.Priced || cpuHour > 0 || gpuHour > 0
	}
	end := h.Times.Ended
	if end.IsZero() {
		end = now
	}
	c.Minutes = max(0, end.Sub(h.Times.Taken)).Minutes() * t.Charged(h)
	return c
}
