package scale

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tranter-ci/tranter/internal/fleet"
)

var update = flag.Bool("update", false, "write golden files anew")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), -update writes it anew:\n%s", path, diff)
	}
}

func files(t testing.TB, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files match %s: %v", pattern, err)
	}
	return paths
}

// table is one case of a decision table: a policy, a book, a time.
type table struct {
	policy   Policy
	now      time.Time
	machines []fleet.Machine
	jobs     []fleet.Event
	offers   map[string]fleet.Offer
	throttle time.Time
}

// options reads words like limit=10 time=30s.
type options map[string]string

func readOptions(words []string) options {
	o := options{}
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		o[key] = value
	}
	return o
}

func (o options) number(key string) int { n, _ := strconv.Atoi(o[key]); return n }

func (o options) span(key string) time.Duration { d, _ := time.ParseDuration(o[key]); return d }

func (o options) list(key string) []string {
	if o[key] == "" {
		return nil
	}
	return strings.Split(o[key], ",")
}

func (o options) idle() Idle {
	factor, _ := strconv.ParseFloat(o["factor"], 64)
	return Idle{Count: o.number("idle"), Min: o.number("min"), Factor: factor, Time: o.span("idle-time")}
}

func (o options) policy() Policy {
	p := Policy{
		Limit: o.number("limit"), Growth: o.number("growth"), Capacity: max(1, o.number("capacity")), MaxUses: o.number("uses"), MaxAge: o.span("age"),
		Idle: o.idle(), Stopped: o.number("stopped"), StoppedTime: o.span("stopped-time"), Fixed: o.list("fixed"),
		Times: Times{Create: 20 * time.Minute, Boot: 10 * time.Minute},
	}
	for _, name := range o.list("sets") {
		p.Sets = append(p.Sets, Set{Name: name})
	}
	if len(p.Sets) == 0 {
		p.Sets = []Set{{}}
	}
	for _, place := range o.list("places") {
		name, n, _ := strings.Cut(place, ":")
		if p.Places == nil {
			p.Places = map[string]int{}
		}
		p.Places[name], _ = strconv.Atoi(n)
	}
	return p
}

// at reads a time that is counted from now, such as -30s; there is none if it is not given.
func (c *table) at(o options, key string) time.Time {
	if o[key] == "" {
		return time.Time{}
	}
	return c.now.Add(o.span(key))
}

func (c *table) read(t *testing.T, line string) {
	words := strings.Fields(line)
	o := readOptions(words[1:])
	switch words[0] {
	case "policy":
		c.policy = o.policy()
	case "period": // period <zone> idle=… | cron
		head, expression, _ := strings.Cut(line, "|")
		zone, err := time.LoadLocation(strings.Fields(head)[1])
		if err != nil {
			t.Fatal(err)
		}
		cron, err := ParseCron(expression)
		if err != nil {
			t.Fatal(err)
		}
		c.policy.Periods = append(c.policy.Periods, Period{Times: []Cron{cron}, Zone: zone, Idle: o.idle()})
	case "now":
		now, err := time.Parse(time.RFC3339, words[1])
		if err != nil {
			t.Fatal(err)
		}
		c.now = now
	case "machine":
		c.machine(words[1], fleet.State(words[2]), o)
	case "job":
		c.jobs = append(c.jobs, fleet.Event{At: c.now, Kind: fleet.JobQueued, Job: words[1], Avoid: o.list("avoid")})
	case "offer":
		c.offers[words[1]] = fleet.Offer{Failures: 1, Until: c.at(o, "until"), Why: "no capacity"}
	case "throttle":
		c.throttle = c.now.Add(readOptions([]string{"for=" + words[1]}).span("for"))
	default:
		t.Fatalf("what is %q?", line)
	}
}

func (c *table) machine(name string, s fleet.State, o options) {
	m := fleet.Machine{
		Name: name, State: s, Set: o["set"], Since: c.now.Add(-o.span("for")), Made: c.now.Add(-o.span("age")), Used: c.now.Add(-o.span("unused")),
		Uses: o.number("uses"), Tries: o.number("tries"), Deadline: c.at(o, "deadline"), Retry: c.at(o, "retry"), Reason: strings.ReplaceAll(o["why"], "_", " "),
	}
	_, m.ByHand = o["by-hand"]
	_, m.Orphan = o["orphan"]
	for _, job := range o.list("jobs") {
		m.Leases = append(m.Leases, fleet.Lease{Job: job, Since: c.now})
	}
	if s == fleet.Removing && m.Retry.IsZero() {
		m.Retry = c.now.Add(time.Hour) // as Restore has it that nothing is under way
	}
	c.machines = append(c.machines, m)
}

func (c *table) book(t *testing.T) *fleet.Book {
	b := fleet.New()
	b.Restore(c.machines)
	for _, e := range c.jobs {
		if err := b.Apply(e); err != nil {
			t.Fatal(err)
		}
	}
	b.Offers, b.Throttle = c.offers, c.throttle
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	return b
}

// result shows what is decided.
func (c *table) result(t *testing.T) string {
	var out strings.Builder
	b := c.book(t)
	do, wake := Decide(b, c.policy, c.now)
	for _, a := range do {
		fmt.Fprintf(&out, "> %s\n", actionText(a))
	}
	if len(do) == 0 {
		out.WriteString("> nothing\n")
	}
	fmt.Fprintf(&out, "> wake: %s\n", c.text(wake, "after an event"))
	v := Admit(b, c.policy, c.now)
	fmt.Fprintf(&out, "> one more job: %s", map[bool]string{true: "yes", false: "no"}[v.OK])
	if v.Reason != "" {
		fmt.Fprintf(&out, ", %s", v.Reason)
	}
	if !v.Retry.IsZero() {
		fmt.Fprintf(&out, "; again %s", c.text(v.Retry, ""))
	}
	out.WriteString("\n")
	w := newWorld(c.policy, c.now, func(string) fate { return fate{never: true} }, t.Errorf)
	w.book = b
	w.decide()
	return out.String()
}

func (c *table) text(t time.Time, never string) string {
	if t.IsZero() {
		return never
	}
	return "in " + t.Sub(c.now).String()
}

func actionText(a Action) string {
	words := []string{string(a.Do)}
	for _, word := range []string{a.Machine, a.Job, a.Set} {
		if word != "" {
			words = append(words, word)
		}
	}
	return strings.Join(words, " ") + ": " + a.Reason
}

// Each file is a list of cases: what is before the lines with > is given, those are what comes of it.
func TestDecisionTables(t *testing.T) {
	for _, path := range files(t, "testdata/decide/*.txt") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var out strings.Builder
			var c *table
			end := func() {
				if c != nil {
					out.WriteString(c.result(t))
				}
				c = nil
			}
			base := Policy{}
			var periods []Period
			for lines := bufio.NewScanner(f); lines.Scan(); {
				line := strings.TrimSpace(lines.Text())
				switch {
				case strings.HasPrefix(line, ">"):
					continue
				case line == "" || strings.HasPrefix(line, "#"):
					end()
				default:
					if c == nil {
						c = &table{now: start(), policy: base, offers: map[string]fleet.Offer{}}
						c.policy.Periods = periods
					}
					c.read(t, line)
					base, periods = c.policy, slices.Clip(c.policy.Periods)
				}
				out.WriteString(line + "\n")
			}
			end()
			golden(t, path, out.String())
		})
	}
}

// Each file is a run: its first line is the policy, each further one lets some jobs come; then follows all that was done.
func TestRuns(t *testing.T) {
	for _, path := range files(t, "testdata/runs/*.txt") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			given, _, _ := strings.Cut(string(data), "\n>")
			golden(t, path, strings.TrimSpace(given)+"\n"+play(t, given))
		})
	}
}

func play(t *testing.T, given string) string {
	var out strings.Builder
	var w *world
	most := 0
	for line := range strings.Lines(given) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		o := readOptions(words[1:])
		switch words[0] {
		case "policy":
			p := o.policy()
			w = newWorld(p, start(), nil, t.Errorf)
			w.told = func(now time.Time, a Action) {
				fmt.Fprintf(&out, "> %7s %s\n", now.Sub(start()), actionText(a))
				most = max(most, w.book.Live())
			}
		case "times":
			w.fate = func(what string) fate { return fate{took: o.span(what)} }
		case "jobs":
			w.run(start().Add(o.span("at")))
			w.push(o.number("n"))
		}
	}
	w.run(w.now.Add(24 * time.Hour))
	fmt.Fprintf(&out, "> in the end: %s; %s done; %d machines at most\n", w.states(), count(len(w.done), "job"), most)
	return out.String()
}
