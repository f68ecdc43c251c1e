package scale

import (
	"github.com/tranter-ci/tranter/internal/fleet"
)

// retire says what has to become of a machine for its own sake, whatever the jobs: the first rule that answers counts. The
// others have noted when they might.
func retire(d *decision, m *fleet.Machine) (Do, string) {
	for _, rule := range [...]func(*decision, *fleet.Machine) (Do, string){late, drained, again, worn, old, stray} {
		if do, why := rule(d, m); do != "" {
			return do, why
		}
	}
	return "", ""
}

// late removes what has not become ready in time.
func late(d *decision, m *fleet.Machine) (Do, string) {
	switch {
	case m.State == fleet.Wanted && d.due(m.Deadline):
		return Remove, "it was not created in time"
	case m.State == fleet.Booting && d.due(m.Deadline):
		return Remove, "it did not become ready in time"
	}
	return "", ""
}

// drained removes what has no jobs any more, or has had them for too long.
func drained(d *decision, m *fleet.Machine) (Do, string) {
	switch {
	case m.State != fleet.Draining:
	case len(m.Leases) == 0:
		return Remove, because("drained", m.Reason)
	case !m.Deadline.IsZero() && d.due(m.Deadline):
		return Remove, because("its jobs did not end in time to be drained", m.Reason)
	}
	return "", ""
}

func because(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}

// again repeats a removal.
func again(d *decision, m *fleet.Machine) (Do, string) {
	if m.State == fleet.Removing && !m.Orphan && !m.Retry.IsZero() && d.due(m.Retry) {
		return Remove, m.Reason
	}
	return "", ""
}

// worn ends a machine that has had its share of jobs (docker-machine, section 3.5: MaxBuilds).
func worn(d *decision, m *fleet.Machine) (Do, string) {
	if d.p.MaxUses == 0 || m.Uses < d.p.MaxUses {
		return "", ""
	}
	return end(m), d.p.wornText()
}

// old ends a machine that has become too old for another job.
func old(d *decision, m *fleet.Machine) (Do, string) {
	if d.p.MaxAge == 0 || end(m) == "" || !d.due(m.Made.Add(d.p.MaxAge)) {
		return "", ""
	}
	return end(m), "it is older than " + d.p.MaxAge.String()
}

// stray ends a machine that was taken out of the list of fixed ones.
func stray(d *decision, m *fleet.Machine) (Do, string) {
	if d.places == nil {
		return "", ""
	}
	if _, known := d.places[m.Name]; known {
		return "", ""
	}
	if m.State == fleet.Wanted || m.State == fleet.Booting {
		return Remove, "it is not configured any more"
	}
	return end(m), "it is not configured any more"
}

// end is how a machine that is ready is ended without harm to its jobs.
func end(m *fleet.Machine) Do {
	switch m.State {
	case fleet.Idle, fleet.Stopped:
		return Remove
	case fleet.Leased:
		return Drain
	default:
		return ""
	}
}
