package view

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// WhyMachine tells in a sentence what a machine does, since when, and why it is there or goes.
func WhyMachine(s Snapshot, m Machine, now time.Time) string {
	since := Since(m.Since, now)
	var text string
	switch m.State {
	case "wanted":
		text = fmt.Sprintf("Wanted for %s, and the provider is making it%s%s", since, because(m.Reason), until(m, now, "; given up at %s unless it is there"))
	case "booting":
		text = fmt.Sprintf("Booting for %s: it is there, and is made ready for jobs%s%s", since, because(m.Reason), until(m, now, "; given up at %s unless it is ready"))
	case "idle":
		text = fmt.Sprintf("Idle for %s; %s", since, s.whyKept(m, now))
	case "stopped":
		text = fmt.Sprintf("Stopped for %s: it is switched off, and is started again when jobs need it%s", since, because(m.Reason))
	case "leased":
		text = fmt.Sprintf("Leased for %s to %s; it has had %s before", since, s.holders(m), Count(max(0, m.Uses-len(m.Jobs)), "job"))
	case "draining":
		text = fmt.Sprintf("Draining for %s: it takes no more jobs%s; removed when %s has left%s", since, because(m.Reason), s.holders(m), until(m, now, ", at %s at the latest"))
	case "removing":
		text = fmt.Sprintf("Removing for %s%s%s", since, because(m.Reason), until(m, now, "; the provider has until %s"))
	default:
		text = fmt.Sprintf("%s for %s%s", StateWord(m.State), since, because(m.Reason))
	}
	switch {
	case m.Leak != "":
		text += "; LEAK: " + line(m.Leak)
	case m.Problem != "" && m.Problem != m.Reason:
		text += "; its last problem: " + line(m.Problem)
	}
	return sentence(text)
}

// until says what the deadline of a machine's state is, if it has one.
func until(m Machine, now time.Time, format string) string {
	if m.Deadline == nil {
		return ""
	}
	if m.Deadline.Before(now) {
		return fmt.Sprintf("; it should have left that state %s", Ago(*m.Deadline, now))
	}
	return fmt.Sprintf(format, Clock(*m.Deadline, now))
}

// whyKept says why an idle machine is kept, and until when.
func (s Snapshot) whyKept(m Machine, now time.Time) string {
	p := s.pool(m.Pool)
	switch {
	case m.ByHand:
		return "kept until somebody removes it, as a person has made it"
	case p == nil:
		return "its runner is not in the configuration any more"
	case p.Fixed:
		return "kept because it is one of those that are always there"
	}
	older, others := s.idleRank(m)
	if spare := others + 1 - p.Target; older >= spare { // those that were idle longest go first
		verb := "are"
		if p.Target == 1 {
			verb = "is"
		}
		return fmt.Sprintf("kept because %s %s wanted (%d other idle)", Count(p.Target, "idle machine"), verb, others)
	}
	spare := fmt.Sprintf("more than the %d idle machines that are wanted (%d other idle)", p.Target, others)
	if p.Target == 0 {
		spare = fmt.Sprintf("not needed, as no idle machine is wanted (%d other idle)", others)
	}
	if at := m.Since.Add(p.IdleTime); at.After(now) {
		return fmt.Sprintf("%s; removed at %s, after %s idle, if no job comes", spare, Clock(at, now), Short(p.IdleTime))
	}
	return spare + "; removed at once"
}

// idleRank returns how many machines of the pool that may be removed have been idle longer, and how many others are idle.
func (s Snapshot) idleRank(m Machine) (older, others int) {
	for i := range s.Machines {
		o := &s.Machines[i]
		if o.State != "idle" || o.Pool != m.Pool || o.Name == m.Name {
			continue
		}
		others++
		if !o.ByHand && cmp.Or(o.Since.Compare(m.Since), strings.Compare(o.Name, m.Name)) < 0 {
			older++
		}
	}
	return older, others
}

// holders names the jobs that a machine has.
func (s Snapshot) holders(m Machine) string {
	const most = 3
	var names []string
	for _, key := range m.Jobs[:min(most, len(m.Jobs))] {
		label := key
		for i := range s.Jobs {
			if j := &s.Jobs[i]; j.Key == key {
				label = Label(j.Job.ID, j.Job.Name, j.Job.Project)
				break
			}
		}
		names = append(names, line(label))
	}
	switch rest := len(m.Jobs) - most; {
	case len(names) == 0:
		return "its last job"
	case rest > 0:
		return "job " + strings.Join(names, ", ") + " and " + strconv.Itoa(rest) + " more"
	}
	return "job " + strings.Join(names, " and ")
}

// Label names a job for people: "4711 (rspec of group/app)".
func Label(id int64, name, project string) string {
	text := strconv.FormatInt(id, 10)
	switch name, project = line(name), line(project); {
	case name != "" && project != "":
		return text + " (" + name + " of " + project + ")"
	case name != "" || project != "":
		return text + " (" + name + project + ")"
	}
	return text
}

// SchedulerReason says in plain words what Slurm's reasons for waiting mean (hpc, section 2.4); nothing for others.
func SchedulerReason(reason string) string {
	for _, known := range []struct{ prefix, means string }{
		{"Priority", "others with a higher priority come first"},
		{"Resources", "it is next, once enough processors, memory or other things are free"},
		{"ReqNodeNotAvail", "nodes that it needs are down or reserved"},
		{"PartitionDown", "the partition is down"},
		{"PartitionInactive", "the partition starts nothing at the moment"},
		{"PartitionTimeLimit", "it asks for more time than the partition allows"},
		{"PartitionNodeLimit", "it asks for more nodes than the partition has"},
		{"PartitionConfig", "the partition can't give what it asks for"},
		{"BadConstraints", "no node has what it asks for"},
		{"JobHeldUser", "somebody has put it on hold"},
		{"JobHeldAdmin", "an administrator has put it on hold"},
		{"BeginTime", "its time has not come"},
		{"Licenses", "it waits for a license"},
		{"Reservation", "it waits for its reservation"},
		{"QOS", "a limit of its QOS is reached"},
		{"Assoc", "a limit of its account is reached"},
		{"MaxJobs", "its user has as many jobs as may run"},
		{"None", "the scheduler has not looked at it yet"},
	} {
		if strings.HasPrefix(reason, known.prefix) {
			return known.means
		}
	}
	return ""
}
