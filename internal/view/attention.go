package view

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Level says how urgent a notice is.
type Level string

// The levels, the worst first.
const (
	Error   Level = "error"   // jobs fail, or none can be taken
	Warning Level = "warning" // it goes on, but somebody should look
	Info    Level = "info"    // it is meant so, and worth to know
)

// rank orders levels, the worst first.
func (l Level) rank() int { return slices.Index([]Level{Error, Warning, Info}, l) }

// Notice is something that needs attention.
type Notice struct {
	Level Level  `json:"level"`
	Text  string `json:"text"`         // what is so, in one sentence with the numbers
	Do    string `json:"do,omitempty"` // what to do about it, in one sentence
	Link  string `json:"link"`         // path of the page where more is told
}

// Attention returns what needs attention, the worst first.
func Attention(s Snapshot, now time.Time) []Notice {
	b := &board{s: s, now: now}
	for _, look := range []func(*board){
		(*board).config, (*board).runners, (*board).leaks, (*board).pools, (*board).clusters, (*board).late, (*board).failures,
		(*board).waits, (*board).full, (*board).leaving, (*board).warnings,
	} {
		look(b)
	}
	slices.SortStableFunc(b.notices, func(a, b Notice) int { return cmp.Compare(a.Level.rank(), b.Level.rank()) })
	return b.notices
}

// board is where notices are put.
type board struct {
	s       Snapshot
	now     time.Time
	notices []Notice
}

func (b *board) put(level Level, link, do, format string, args ...any) {
	b.notices = append(b.notices, Notice{Level: level, Text: sentence(line(fmt.Sprintf(format, args...))), Do: sentence(line(do)), Link: link})
}

func (b *board) config() {
	m := b.s.Manager
	if m.ConfigProblem != "" {
		b.put(Error, "/runners", fmt.Sprintf("Mend it; \"tranter config check --config %s\" tells where it is wrong, and it is read again as soon as it is written", line(m.Config)),
			"The changed configuration is not used, and the one before it stays in force: %s", m.ConfigProblem)
	}
	if len(b.s.Runners) == 0 && len(b.s.Pipes) == 0 && m.State == "running" {
		b.put(Warning, "/runners", "Register one with \"tranter register\"", "There is no runner in the configuration, so that no job can be taken")
	}
}

func (b *board) runners() {
	for _, r := range b.s.Runners {
		who := name(r.Name, r.Runner)
		since := ""
		if r.Contact != nil {
			since = fmt.Sprintf("; the server has answered it %s", Ago(*r.Contact, b.now))
		}
		switch {
		case r.Backoff != nil && r.Backoff.After(b.now):
			b.put(Error, "/runners", "Look whether its token is still good, with \"tranter verify\"", "Runner %s is refused by %s, and asks again in %s: %s%s",
				who, r.URL, Short(r.Backoff.Sub(b.now)), cmp.Or(line(r.Problem), "no reason is known"), since)
		case r.Problem != "":
			b.put(Error, "/runners", "Look at the events of the runner, and whether the server and what the runner needs can be reached from this host",
				"Runner %s has trouble: %s%s", who, line(r.Problem), since)
		}
		if r.Paused != "" {
			b.put(Warning, "/runners", fmt.Sprintf("Let it take jobs again with \"tranter runner resume %s\"", cmp.Or(r.Runner, r.Name)),
				"Runner %s is paused by a person: %s", who, line(r.Paused))
		}
	}
}

// few names some things, and how many more there are.
func few(names []string) string {
	const most = 3
	for i, n := range names {
		names[i] = line(n)
	}
	if rest := len(names) - most; rest > 0 {
		return strings.Join(names[:most], ", ") + " and " + strconv.Itoa(rest) + " more"
	}
	return strings.Join(names, ", ")
}

func (b *board) leaks() {
	var names []string
	why := ""
	for _, m := range b.s.Machines {
		if m.Leak != "" {
			names = append(names, m.Name)
			why = cmp.Or(why, m.Leak)
		}
	}
	if n := len(names); n > 0 {
		b.put(Error, "/machines", "\"tranter machine leaks\" tells what may be left, and \"tranter machine prune\" removes what can be named",
			"%s may be left at the provider and cost money (%s): %s", Count(n, "machine"), few(names), line(why))
	}
}

func (b *board) pools() {
	for _, p := range b.s.Pools {
		who := name(p.Runner, p.Pool)
		if p.Problem != "" {
			b.put(Error, "/machines", "Look whether the provider can be reached with the configured credentials, and at the quota there",
				"The machines of runner %s have trouble with the provider %s while %s: %s", who, line(p.Provider), waits(p.Waiting), line(p.Problem))
		}
		if p.Throttle != nil && p.Throttle.After(b.now) {
			b.put(Warning, "/machines", "It passes by itself; ask the provider for a higher rate of requests if it comes often",
				"The provider %s of runner %s wants no requests for another %s while %s", line(p.Provider), who, Short(p.Throttle.Sub(b.now)), waits(p.Waiting))
		}
		if p.Limit > 0 && p.all() >= p.Limit && p.Waiting > 0 {
			b.put(Warning, "/machines", "Raise the runner's limit if the provider has room for more", "All %d machines that the limit of runner %s allows are there (%s) while %s",
				p.Limit, who, counts(p.Count), waits(p.Waiting))
		}
	}
}

func waits(jobs int) string {
	if jobs == 1 {
		return "1 job waits"
	}
	return Count(jobs, "job") + " wait"
}

func (b *board) clusters() {
	for _, c := range b.s.Clusters {
		who := name(c.Runner, c.Class)
		if c.Problem != "" {
			b.put(Error, "/runners", "Look whether the batch system's commands work for the user that runs the manager", "%s of runner %s does not answer while %s: %s",
				system(c), who, waits(c.Waiting+c.Taken), line(c.Problem))
		}
		if c.Full != "" && c.Waiting+c.Taken > 0 {
			b.put(Warning, "/runners", "It passes when batch jobs end; raise max_queued or max_allocations if the site allows more", "Runner %s makes no more batch jobs while %s: %s",
				who, waits(c.Waiting+c.Taken), line(c.Full))
		}
	}
}

// grace is how long after its deadline a machine is left alone: the pool acts on deadlines by itself.
const grace = time.Minute

// late finds machines that should have left their state.
func (b *board) late() {
	var names []string
	longest := time.Duration(0)
	for _, m := range b.s.Machines {
		if m.Deadline != nil && m.Leak == "" && b.now.Sub(*m.Deadline) > grace {
			names = append(names, m.Name+" ("+StateWord(m.State)+")")
			longest = max(longest, b.now.Sub(*m.Deadline))
		}
	}
	if n := len(names); n > 0 {
		b.put(Warning, "/machines", "\"tranter machine why NAME\" tells what has happened to one, and \"tranter machine rm NAME\" removes it",
			"%s should have left the state that it is in, the longest %s ago: %s", Count(n, "machine"), Short(longest), few(names))
	}
}

// failures finds jobs that failed through no fault of theirs.
func (b *board) failures() {
	r := b.s.Recent
	n := 0
	var parts []string
	for _, reason := range []string{"runner_system_failure", "image_pull_failure", "runner_external_dependency_failure", "runner_interrupted"} {
		if k := r.Failed[reason]; k > 0 {
			n += k
			parts = append(parts, fmt.Sprintf("%s: %d", ReasonWord(reason), k))
		}
	}
	if n >= 3 && n*20 >= r.Ended {
		b.put(Warning, "/jobs?state=failed", "\"tranter job ls --failed\" lists them, and \"tranter job why KEY\" tells why one failed",
			"%d of the %s that ended in the last 24 hours failed through no fault of theirs (%s)", n, Count(r.Ended, "job"), strings.Join(parts, "; "))
	}
}

// longWait is the shortest wait that is worth a notice, whatever is usual.
const longWait = 10 * time.Minute

// waits finds jobs that wait longer than is usual.
func (b *board) waits() {
	most := longWait
	usual := ""
	if r := b.s.Recent; r.Waits >= 10 {
		most = max(most, 2*r.WaitP95)
		usual = fmt.Sprintf("; 95 %% of the jobs waited %s or less lately", Short(r.WaitP95))
	}
	n := 0
	longest, label, why := time.Duration(0), "", ""
	for _, j := range b.s.Jobs {
		if d := j.Times.Wait(b.now); j.Times.Placed.IsZero() && !ended(j.JobHistory) && d > most {
			if n++; d > longest {
				longest, label, why = d, Label(j.Job.ID, j.Job.Name, j.Job.Project), WhyJob(b.s, j, b.now)
			}
		}
	}
	for _, w := range b.s.Waiting {
		if d := b.now.Sub(w.Since); !w.Since.IsZero() && d > most {
			if n++; d > longest {
				longest, label, why = d, Label(w.ID, w.Name, w.Project), WhyWaiting(b.s, w, b.now)
			}
		}
	}
	if n > 0 {
		b.put(Warning, "/jobs", "\"tranter job why JOB\" tells of each what it waits for", "%s waited for more than %s, the longest, job %s, for %s%s. %s",
			have(n, "job"), Short(most), label, Short(longest), usual, why)
	}
}

func have(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " has"
	}
	return Count(n, noun) + " have"
}

// full finds limits of ours that keep jobs waiting.
func (b *board) full() {
	n := len(b.s.Waiting)
	if n > 0 && b.s.full() {
		b.put(Warning, "/jobs", "Raise \"concurrent\" in the configuration if this host, or what the jobs run on, can do more",
			"The manager has %s, and \"concurrent\" is %d, while %s in GitLab", Count(len(b.s.Jobs), "job"), b.s.Manager.Concurrent, waits(n))
		return
	}
	for _, r := range b.s.Runners {
		if r.Limit == 0 || r.Jobs < r.Limit {
			continue
		}
		n := 0
		for _, w := range b.s.Waiting {
			if w.Runner == r.Runner {
				n++
			}
		}
		if n > 0 {
			b.put(Info, "/runners", "Raise the runner's \"limit\" if more may run at once", "Runner %s has %s, and its limit is %d, while %s in GitLab",
				name(r.Name, r.Runner), Count(r.Jobs, "job"), r.Limit, waits(n))
		}
	}
}

func (b *board) leaving() {
	switch b.s.Manager.State {
	case "draining":
		b.put(Info, "/jobs", "Wait, or start it anew to take jobs again", "The manager takes no more jobs, and ends after the %s that it has", Count(len(b.s.Jobs), "job"))
	case "stopping":
		b.put(Info, "/jobs", "Nothing: the next start takes up what is left", "The manager is stopping; it still has %s", Count(len(b.s.Jobs), "job"))
	}
}

func (b *board) warnings() {
	for _, r := range b.s.Runners {
		if n := len(r.Warnings); n > 0 {
			b.put(Info, "/runners", "\"tranter config check\" lists them with their places", "The configuration of runner %s has %s: %s",
				name(r.Name, r.Runner), Count(n, "warning"), line(r.Warnings[0]))
		}
	}
}
