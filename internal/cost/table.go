package cost

import (
	"time"

	"github.com/tranter-ci/tranter"
)

// Table is what is known of prices: [cost] of the configuration, and price_per_hour of the runners' machines.
type Table struct {
	Currency string
	Prices   []Price // the first one that fits holds
	Factors  []Factor
	// Fallback is the price of an hour of a machine for which no entry fits, by the short token of its runner.
	Fallback map[string]float64
}

// Price is an entry of the table of prices. Runner and Set are patterns with * and ?; an empty one fits all.
type Price struct {
	Runner  string // name or short token
	Set     string // option set
	Machine Rate
	CPUHour float64
	GPUHour float64
}

// Factor is an entry of the table of cost factors: how many minutes are charged for one.
type Factor struct {
	Runner     string // pattern of the name or the short token; empty: any
	Visibility string // of the project; empty: any
	Factor     float64
}

// Machine returns what a machine of a runner costs. An entry for which nobody has named a price of machines does not fit.
func (t Table) Machine(name, token, set string, fallbackPerHour float64) Rate {
	for _, p := range t.Prices {
		if p.Machine.PerHour > 0 && fitsRunner(p.Runner, name, token) && fits(p.Set, set) {
			return p.Machine
		}
	}
	return Rate{PerHour: max(0, fallbackPerHour)}
}

// Batch returns what an hour of a processor and of a GPU of a runner's batch jobs costs.
func (t Table) Batch(name, token string) (cpuHour, gpuHour float64) {
	for _, p := range t.Prices {
		if (p.CPUHour > 0 || p.GPUHour > 0) && fitsRunner(p.Runner, name, token) {
			return p.CPUHour, p.GPUHour
		}
	}
	return 0, 0
}

// Priced tells whether there is a price for anything.
func (t Table) Priced() bool {
	for _, p := range t.Prices {
		if p.Machine.PerHour > 0 || p.CPUHour > 0 || p.GPUHour > 0 {
			return true
		}
	}
	for _, perHour := range t.Fallback {
		if perHour > 0 {
			return true
		}
	}
	return false
}

// Charged returns how many minutes are charged for a minute of a job.
func (t Table) Charged(h *tranter.JobHistory) float64 {
	for _, f := range t.Factors {
		if fitsRunner(f.Runner, h.Name, h.Runner) && (f.Visibility == "" || f.Visibility == h.Job.Public) {
			return max(0, f.Factor)
		}
	}
	return 1
}

// rate is that of a life: as it was kept when the machine was made, else what the table says today.
func (t Table) rate(l *Life) Rate {
	if l.Rate.PerHour > 0 {
		return l.Rate
	}
	return t.Machine(l.Runner, l.Pool, l.Set, t.Fallback[l.Pool])
}

// paid is how long is paid for a machine that has been there for so long.
func (r Rate) paid(there time.Duration) time.Duration {
	there = max(there, r.Minimum, 0)
	if r.Step > 0 {
		if rest := there % r.Step; rest > 0 {
			there += r.Step - rest
		}
	}
	return there
}

// price is that of a time.
func (r Rate) price(d time.Duration) float64 { return bounded(r.PerHour) * d.Hours() }

// dearest bounds a price, so that no sum of prices is infinite.
const dearest = 1e9

// bounded is a price by the hour: what is none is 0.
func bounded(perHour float64) float64 {
	if !(perHour > 0) { // a NaN neither
		return 0
	}
	return min(perHour, dearest)
}

// Paid returns for how long a machine is paid until now, and what that costs: the minimum and whole steps, as its Rate says.
func Paid(l Life, now time.Time) (time.Duration, float64) {
	d := l.Rate.paid(l.end(now).Sub(l.Made))
	return d, l.Rate.price(d)
}

// end is that of a life, or now.
func (l *Life) end(now time.Time) time.Time {
	end := l.Gone
	if end.IsZero() {
		end = now
	}
	if end.Before(l.Made) {
		return l.Made
	}
	return end
}

// fitsRunner tells whether a pattern fits a runner's name or its short token.
func fitsRunner(pattern, name, token string) bool { return fits(pattern, name) || fits(pattern, token) }

// fits tells whether a pattern with * and ? fits a text. The time is at most the product of their lengths.
func fits(pattern, text string) bool {
	if pattern == "" {
		return true
	}
	p, t := []rune(pattern), []rune(text)
	star, mark, i := -1, 0, 0
	for j := 0; j < len(t); {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == t[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
