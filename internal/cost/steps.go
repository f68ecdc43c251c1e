package cost

import "time"

// Grid is a time that is divided into N steps of equal length.
type Grid struct {
	From time.Time
	Step time.Duration
	N    int
}

// Steps is what was paid in each step: for machines that jobs held, for those that nobody held, and for batch jobs.
type Steps struct{ Busy, Idle, Batch []float64 }

// InSteps divides what was paid into steps.
func InSteps(of Of, t Table, g Grid, now time.Time) Steps {
	out := Steps{make([]float64, g.N), make([]float64, g.N), make([]float64, g.N)}
	d := divider{nanos(g.From), int64(max(1, g.Step)), g.N}
	for i := range of.Lives {
		l := &of.Lives[i]
		rate := t.rate(l)
		there, paid := l.paidSpan(rate, now)
		l.walk(there, paid, func(s span, jobs []string) {
			to := out.Idle
			if len(jobs) > 0 {
				to = out.Busy
			}
			d.divide(s, rate.PerHour, to)
		})
	}
	for i := range of.Jobs {
		h := &of.Jobs[i]
		if h.Bill == nil || h.Times.Ended.IsZero() {
			continue
		}
		cpuHour, gpuHour := t.Batch(h.Name, h.Runner)
		end := nanos(h.Times.Ended)
		d.divide(span{end - int64(min(max(0, h.Bill.Ran), longest)), end}, bounded(cpuHour)*float64(max(1, h.Bill.CPUs))+bounded(gpuHour)*float64(max(0, h.Bill.GPUs)), out.Batch)
	}
	return out
}

// divider divides times into steps.
type divider struct {
	from, step int64
	n          int
}

func (d divider) divide(s span, perHour float64, to []float64) {
	if perHour = bounded(perHour); perHour == 0 {
		return
	}
	s = s.cut(span{d.from, d.from + d.step*int64(d.n)})
	for at := s.from; at < s.to; {
		i := (at - d.from) / d.step
		next := min(s.to, d.from+(i+1)*d.step)
		to[i] += perHour * time.Duration(next-at).Hours()
		at = next
	}
}
