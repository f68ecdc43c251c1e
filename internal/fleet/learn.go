package fleet

import "time"

// learnFailure notes that a creation has failed, and how long its set is passed over.
func (b *Book) learnFailure(m *Machine, e Event) {
	o := b.Offers[m.Set]
	// Many are created at once: those that were under way when one failed say the same thing again, not a worse one.
	if o.Failures == 0 || !m.asked().Before(o.Last) {
		o.Failures++
	}
	until := e.Retry
	if until.IsZero() {
		until = e.At.Add(passOver(e.Class, o.Failures))
	}
	o.Until = later(o.Until, until)
	o.Last, o.Class, o.Why = e.At, e.Class, e.Reason
	b.Offers[m.Set] = o
}

// learnReady notes that a creation has gone well. One that was under way when there was no capacity left, or a request was
// rejected, does not prove that there is some again.
func (b *Book) learnReady(m *Machine) {
	o, ok := b.Offers[m.Set]
	if !ok {
		return
	}
	if o.Class == NoCapacity || o.Class == Rejected {
		if m.asked().Before(o.Last) {
			return
		}
	}
	delete(b.Offers, m.Set)
}

// asked is when the provider was asked for what the machine is doing now: to be created, or to be started again.
func (m *Machine) asked() time.Time {
	if m.Ready.IsZero() {
		return m.Made
	}
	return m.Since
}

// passOver is how long a set is passed over after so many failures in a row.
func passOver(c Class, failures int) time.Duration {
	switch c {
	case NoCapacity:
		return double(5*time.Minute, failures-1, time.Hour)
	case Rejected:
		return double(10*time.Minute, failures-1, time.Hour)
	default:
		if failures <= 2 {
			return 0
		}
		return double(5*time.Second, failures-3, 5*time.Minute)
	}
}

// RemovalRetry is how long after a removal has failed, so many times in a row, it is tried again: 1 s, 5 s, 30 s, then 60 s
// doubling up to 10 min.
func RemovalRetry(failures int) time.Duration {
	switch failures {
	case 0, 1:
		return time.Second
	case 2:
		return 5 * time.Second
	case 3:
		return 30 * time.Second
	}
	return double(time.Minute, failures-4, 10*time.Minute)
}

// double doubles d so many times, up to most.
func double(d time.Duration, times int, most time.Duration) time.Duration {
	for range times {
		if d *= 2; d >= most {
			return most
		}
	}
	return d
}
