package cost

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// What a line is called whose jobs have no name for what a report adds up by, or of which nothing is known but that they held a
// machine.
const (
	nameless = "(none)"
	unknown  = "(unknown)"
	thisHost = "(this host)"
	batches  = "(batch jobs)"
)

// maker makes one report.
type maker struct {
	q     Query
	in    span
	place *time.Location
	t     Table
	now   time.Time
	jobs  map[string]*billed
	lines map[string]*Line
	r     Report
	// machines is what the jobs have cost on machines, in which batch jobs are not.
	machines float64
}

// billed is a job in a report.
type billed struct {
	h      *tranter.JobHistory
	names  []string // of its lines, unless they go by time or machine
	priced bool
}

// Make makes a report. What was paid in a time is what was paid for the machines that were there in it, also for what a minimum or
// whole steps add, which comes behind a machine's end; so the reports of two halves of a time add up to that of the whole. Of a
// project, only what its jobs have cost is told: nobody's idle machine is that of a project. By tag, a job is in each line of its tags,
// so that those add up to more than the total.
func Make(q Query, of Of, t Table, now time.Time) Report {
	m := &maker{
		q: q, in: spanOf(q.From, q.To), place: now.Location(), t: t, now: now,
		jobs: make(map[string]*billed, len(of.Jobs)), lines: map[string]*Line{},
		r: Report{From: q.From, To: q.To, By: q.By, Currency: t.Currency, Lines: []Line{}, Total: Line{Name: "total"}, Idle: Line{Name: "idle"}},
	}
	if !q.From.IsZero() {
		m.place = q.From.Location()
	}
	for i := range of.Jobs {
		m.enter(&of.Jobs[i])
	}
	for i := range of.Lives {
		if l := &of.Lives[i]; q.Runner == "" || q.Runner == l.Runner || q.Runner == l.Pool {
			m.life(l)
		}
	}
	for _, b := range m.jobs {
		m.unpriced(b)
	}
	return m.finish()
}

// wants tells whether a job is in the report.
func (m *maker) wants(h *tranter.JobHistory) bool {
	return (m.q.Project == "" || m.q.Project == h.Job.Project) && (m.q.Runner == "" || m.q.Runner == h.Name || m.q.Runner == h.Runner)
}

// enter takes a job in: its time, and what it has cost as a batch job.
func (m *maker) enter(h *tranter.JobHistory) {
	if m.jobs[h.Key] != nil || !m.wants(h) {
		return
	}
	b := &billed{h: h, names: m.names(h)}
	m.jobs[h.Key] = b
	end, runs := h.Times.Ended, h.Times.Ended.IsZero()
	if runs {
		end = m.now
	}
	charged := m.t.Charged(h)
	m.add(b, "", spanOf(h.Times.Taken, end), func(l *Line, s span) {
		l.Time += time.Duration(s.length())
		l.Minutes += time.Duration(s.length()).Minutes() * charged
	})
	if m.in.has(end) {
		m.count(b, end)
	}
	if h.Bill != nil {
		m.batch(b, end)
	}
}

// count counts a job in the lines of the time at which it has ended, or of now.
func (m *maker) count(b *billed, end time.Time) {
	m.r.Total.Jobs++
	at := nanos(end)
	m.each(b, "", span{at, at + 1}, func(l *Line, _ span) { l.Jobs++ })
}

// batch adds what a batch job has held.
func (m *maker) batch(b *billed, end time.Time) {
	bill := b.h.Bill
	ran := min(max(0, bill.Ran), longest)
	held := span{nanos(end) - int64(ran), nanos(end)}
	cpus, gpus := max(1, bill.CPUs), max(0, bill.GPUs)
	cpuHour, gpuHour := m.t.Batch(b.h.Name, b.h.Runner)
	b.priced = cpuHour > 0 || gpuHour > 0
	waste := systemFailure(b.h.Result)
	m.add(b, batches, held, func(l *Line, s span) {
		hours := time.Duration(s.length()).Hours()
		l.CPUTime += time.Duration(s.length()) * time.Duration(cpus)
		l.GPUTime += time.Duration(s.length()) * time.Duration(gpus)
		l.charge(bounded(cpuHour)*hours*float64(cpus)+bounded(gpuHour)*hours*float64(gpus), waste)
	})
}

// life adds what a machine has cost to the lines of its jobs, and to what was idle.
func (m *maker) life(l *Life) {
	rate := m.t.rate(l)
	if rate.PerHour > 0 {
		for _, h := range l.Holds {
			if b := m.jobs[h.Job]; b != nil {
				b.priced = true
			}
		}
	}
	there, paid := l.paidSpan(rate, m.now)
	if paid.cut(m.in).length() == 0 {
		return
	}
	name := machineName(l.Machine, l.Set)
	l.walk(there, paid, func(s span, jobs []string) {
		if s = s.cut(m.in); s.length() == 0 {
			return
		}
		if len(jobs) == 0 {
			m.idle(time.Duration(s.length()), rate)
		}
		for i, key := range jobs {
			m.share(key, name, s, rate, [2]int{i, len(jobs)})
		}
	})
}

func (m *maker) idle(d time.Duration, rate Rate) {
	if m.q.Project != "" {
		return
	}
	for _, l := range []*Line{&m.r.Idle, &m.r.Total} {
		l.MachineTime += d
		l.Cost += rate.price(d)
	}
}

// share adds the part of a machine that a job had in a time, one of so many.
func (m *maker) share(key, machine string, s span, rate Rate, of [2]int) {
	b := m.jobs[key]
	if b == nil {
		if m.q.Project != "" {
			return
		}
		b = &billed{h: &tranter.JobHistory{Key: key}, names: []string{unknown}}
	}
	waste := systemFailure(b.h.Result)
	m.add(b, machine, s, func(l *Line, s span) {
		d := part(s.length(), of[0], of[1])
		l.MachineTime += d
		l.charge(rate.price(d), waste)
	})
	m.machines += rate.price(part(s.length(), of[0], of[1]))
}

func (l *Line) charge(cost float64, waste bool) {
	l.Cost += cost
	if waste {
		l.Waste += cost
	}
}

// add adds what happened in a time, as far as it is in the report, to a job's lines and to the total.
func (m *maker) add(b *billed, machine string, s span, to func(*Line, span)) {
	if s = s.cut(m.in); s.length() == 0 {
		return
	}
	to(&m.r.Total, s)
	m.each(b, machine, s, to)
}

// each does something with each line of a job in a time.
func (m *maker) each(b *billed, machine string, s span, do func(*Line, span)) {
	switch m.q.By {
	case ByDay, ByMonth:
		m.eachTime(s, do)
	case ByMachine:
		do(m.line(cmp.Or(machine, jobMachine(b.h))), s)
	default:
		for _, name := range b.names {
			do(m.line(name), s)
		}
	}
}

// eachTime divides a time into days or months.
func (m *maker) eachTime(s span, do func(*Line, span)) {
	for at := s.from; at < s.to; {
		y, mo, d := time.Unix(0, at).In(m.place).Date()
		form, next := time.DateOnly, time.Date(y, mo, d+1, 0, 0, 0, 0, m.place)
		if m.q.By == ByMonth {
			form, next = "2006-01", time.Date(y, mo+1, 1, 0, 0, 0, 0, m.place)
		}
		to := min(s.to, max(at+1, next.UnixNano()))
		do(m.line(time.Unix(0, at).In(m.place).Format(form)), span{at, to})
		at = to
	}
}

func (m *maker) line(name string) *Line {
	l := m.lines[name]
	if l == nil {
		l = &Line{Name: name}
		m.lines[name] = l
	}
	return l
}

// names are the names of the lines of a job.
func (m *maker) names(h *tranter.JobHistory) []string {
	j := &h.Job
	switch m.q.By {
	case ByRunner:
		return []string{cmp.Or(h.Name, h.Runner, nameless)}
	case ByJob:
		return []string{cmp.Or(j.Project, nameless) + ": " + cmp.Or(j.Name, nameless)}
	case ByUser:
		return []string{cmp.Or(j.User, nameless)}
	case ByRef:
		return []string{cmp.Or(j.Ref, nameless)}
	case ByTag:
		tags := slices.Clone(j.Tags)
		slices.Sort(tags)
		if tags = slices.Compact(tags); len(tags) > 0 {
			return tags
		}
		return []string{nameless}
	default:
		return []string{cmp.Or(j.Project, nameless)}
	}
}

func machineName(name, set string) string {
	if set == "" {
		return name
	}
	return name + " (" + set + ")"
}

// jobMachine is the machine of a job, for its time.
func jobMachine(h *tranter.JobHistory) string {
	switch {
	case h.Place.Machine != "":
		return machineName(h.Place.Machine, h.Place.Set)
	case h.Place.Batch != "" || h.Bill != nil:
		return batches
	}
	return thisHost
}

// unpriced counts a job that ended in the time for whose place there is no price.
func (m *maker) unpriced(b *billed) {
	end := b.h.Times.Ended
	if end.IsZero() {
		end = m.now
	}
	if placed := b.h.Place.Machine != "" || b.h.Bill != nil; placed && !b.priced && m.in.has(end) {
		m.r.Unpriced++
	}
}

func (m *maker) finish() Report {
	for _, l := range m.lines {
		l.MachineHours = l.MachineTime.Hours()
		m.r.Lines = append(m.r.Lines, *l)
	}
	byTime := m.q.By == ByDay || m.q.By == ByMonth
	slices.SortFunc(m.r.Lines, func(a, b Line) int {
		if byTime {
			return strings.Compare(a.Name, b.Name)
		}
		return cmp.Or(cmp.Compare(b.Cost, a.Cost), cmp.Compare(b.MachineTime, a.MachineTime), cmp.Compare(b.Time, a.Time), strings.Compare(a.Name, b.Name))
	})
	total, idle := &m.r.Total, &m.r.Idle
	total.MachineHours, idle.MachineHours = total.MachineTime.Hours(), idle.MachineTime.Hours()
	switch machines := m.machines + idle.Cost; {
	case machines > 0:
		m.r.IdleShare = idle.Cost / machines
	case total.MachineTime > 0: // nothing has a price: by time
		m.r.IdleShare = float64(idle.MachineTime) / float64(total.MachineTime)
	}
	return m.r
}

// systemFailure tells whether a job failed for no fault of its own.
func systemFailure(r tranter.Result) bool {
	if r.State != tranter.JobFailed {
		return false
	}
	switch r.Reason {
	case "", tranter.ScriptFailure, tranter.JobExecutionTimeout, tranter.JobCanceled:
		return false
	default:
		return true
	}
}
