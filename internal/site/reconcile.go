package site

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Actual is a runner as the server shows it.
type Actual struct {
	ID              int64
	Description     string
	Tags            []string
	Paused          bool
	Locked          bool
	RunUntagged     bool
	AccessLevel     string
	MaximumTimeout  time.Duration // 0: none
	MaintenanceNote string
	Projects        []string // paths of the projects that a project runner serves
}

// Known is what our state says of a runner that we have made.
type Known struct {
	Token
	Scope   Scope
	ScopeID int64 // of the project or group at the server; 0: not known
	// Owner is whom the runner belonged to when it was last looked at; it is not stored.
}

// Facts are all that a reconciliation goes by, besides the site file.
type Facts struct {
	Owner string           // names the state directory that Known is from
	Known map[string]Known // by the runner's name in the file
	// Actual are the runners at the server by their ids: those of Known as far as they are there, and those that bear the mark of a
	// runner of the site.
	Actual map[int64]Actual
	Scopes map[Scope]int64 // ids of the scopes of the file, as far as they could be looked up
	Now    time.Time

	RotateBefore time.Duration // tokens that expire within it get replaced
	Rotate       []string      // names of runners whose tokens are replaced; "all": of all
	KeepRemoved  bool          // runners that are not in the file any more stay
	Adopt        bool          // runners of the site that another state directory has made are taken over
}

// StepKind says what a step does.
type StepKind string

// The kinds of steps.
const (
	Create StepKind = "create"
	Adopt  StepKind = "adopt" // of a runner that is there already, but whose token we do not have
	Update StepKind = "change"
	Rotate StepKind = "rotate"
	Delete StepKind = "delete"
	Forget StepKind = "forget" // in our state only
	Keep   StepKind = "keep"
)

// Change is one setting that differs.
type Change struct{ Setting, From, To string }

// Step is one thing to do, for one runner.
type Step struct {
	Kind    StepKind
	Runner  string // its name in the file, or in our state
	ID      int64  // at the server; 0: it has none yet
	Scope   Scope
	Reason  string   // why, for people; may be empty
	Changes []Change // of Update
	Set     Settings // what Create and Update set
	Assign  []Scope  // further projects that the runner is to serve and does not; it must not be locked meanwhile
	Lock    bool     // the runner is to be locked after Assign
}

// Settings are settings of a runner at the server; nil ones are not touched.
type Settings struct {
	Description     *string
	Tags            *[]string
	Paused          *bool
	Locked          *bool
	RunUntagged     *bool
	AccessLevel     *string
	MaximumTimeout  *time.Duration
	MaintenanceNote *string
}

// Plan is what makes the server have the runners of a site file. Steps are to be done in their order.
type Plan struct {
	Site     string
	Steps    []Step
	Problems []string // while there are any, nothing may be done
}

// Nothing tells whether there is nothing to do.
func (p Plan) Nothing() bool {
	return len(p.Problems) == 0 && !slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Kind != Keep })
}

// Deletes are the runners that would be removed at the server for good: not those that are made anew elsewhere.
func (p Plan) Deletes() (names []string) {
	for _, s := range p.Steps {
		if s.Kind == Delete {
			names = append(names, s.Runner)
		}
	}
	return names
}

// Reconcile compares what the site file wants with what our state knows and with what is at the server. It plans to change
// only what the file says, and to delete only what our state has made. It decides nothing by itself that an administrator of the
// server has decided: a setting that the file does not give stays.
func Reconcile(s Site, f Facts) Plan {
	r := &reconciliation{site: s, facts: f, plan: Plan{Site: s.Name}}
	r.checkRotate()
	for i := range s.Runners {
		r.runner(&s.Runners[i])
	}
	for _, name := range slices.Sorted(maps.Keys(f.Known)) {
		if !slices.ContainsFunc(s.Runners, func(want Runner) bool { return want.Name == name }) {
			r.removed(name, f.Known[name])
		}
	}
	return r.plan
}

type reconciliation struct {
	site  Site
	facts Facts
	plan  Plan
}

func (r *reconciliation) step(s Step) { r.plan.Steps = append(r.plan.Steps, s) }

func (r *reconciliation) problem(format string, args ...any) {
	r.plan.Problems = append(r.plan.Problems, fmt.Sprintf(format, args...))
}

func (r *reconciliation) checkRotate() {
	for _, name := range r.facts.Rotate {
		if name != everyRunner && !slices.ContainsFunc(r.site.Runners, func(want Runner) bool { return want.Name == name }) {
			r.problem("no runner of the site is called %s, whose token was to be replaced", name)
		}
	}
}

const everyRunner = "all"

// runner plans what one runner of the file needs.
func (r *reconciliation) runner(want *Runner) {
	if n := utf8.RuneCountInString(want.MaintenanceNote) + len(r.mark(want)) + 1; n > maxNote {
		r.problem("runner %s: its maintenance_note is too long: with our own mark it has %d characters, and %d are possible", want.Name, n, maxNote)
		return
	}
	known, have := r.facts.Known[want.Name]
	switch actual, there := r.facts.Actual[known.ID]; {
	case !have || known.ID == 0:
		r.newcomer(want, "")
	case !there:
		r.newcomer(want, fmt.Sprintf("runner %d is not at the server any more", known.ID))
	case r.foreign(want.Name, actual):
	case r.elsewhere(known, want):
		reason := fmt.Sprintf("it moves from %s to %s, which no runner can: it is made anew there", known.Scope, want.Scope)
		r.step(Step{Kind: Delete, Runner: want.Name, ID: known.ID, Scope: known.Scope, Reason: reason})
		r.newcomer(want, "in place of runner "+fmt.Sprint(known.ID))
	default:
		r.present(want, known, actual)
	}
}

// maxNote is how many characters GitLab lets a maintenance note have.
const maxNote = 1024

// foreign tells whether a runner that our state knows belongs to another one by now, which is a problem.
func (r *reconciliation) foreign(name string, actual Actual) bool {
	mark, ok := ReadMark(actual.MaintenanceNote)
	if !ok || mark.Owner == r.facts.Owner && mark.Site == r.site.Name || r.facts.Adopt {
		return false
	}
	r.problem("runner %s (%d) is managed by another site file or state directory (site %s, mark %s): two managers must not share runners. "+
		"Apply with the state directory that it belongs to, or take the site's runners over with --adopt, after which the other one can't use them any more",
		name, actual.ID, mark.Site, mark.Owner)
	return true
}

// elsewhere tells whether the file wants the runner in another scope than the one it is in. A project or group that was
// only renamed is the same one.
func (r *reconciliation) elsewhere(known Known, want *Runner) bool {
	if known.Scope == want.Scope || known.Scope.Kind == "" {
		return false // an imported runner is where it is
	}
	id, ok := r.facts.Scopes[want.Scope]
	return known.Scope.Kind != want.Scope.Kind || !ok || known.ScopeID == 0 || id != known.ScopeID
}

// newcomer plans to make a runner, or to take over the one that an earlier attempt has made.
func (r *reconciliation) newcomer(want *Runner, reason string) {
	found, mark := r.marked(want.Name)
	if found == nil {
		r.step(r.creation(want, reason))
		return
	}
	if mark.Owner != r.facts.Owner && !r.facts.Adopt {
		r.foreign(want.Name, *found)
		return
	}
	reason = "an earlier run made it and did not get to know its token: it gets a new one"
	if mark.Owner != r.facts.Owner {
		reason = "it is taken over from another state directory, which can't use it any more"
	}
	r.step(Step{Kind: Adopt, Runner: want.Name, ID: found.ID, Scope: want.Scope, Reason: reason})
	r.changes(want, *found, want.Scope)
}

// marked finds the oldest runner with the mark of a runner of the site that our state does not know, one of our own before others.
func (r *reconciliation) marked(name string) (*Actual, Mark) {
	var best *Actual
	var mark Mark
	for _, id := range slices.Sorted(maps.Keys(r.facts.Actual)) {
		actual := r.facts.Actual[id]
		m, ok := ReadMark(actual.MaintenanceNote)
		if !ok || m.Site != r.site.Name || m.Runner != name || r.inUse(id) {
			continue
		}
		if best == nil || mark.Owner != r.facts.Owner && m.Owner == r.facts.Owner {
			best, mark = &actual, m
		}
	}
	return best, mark
}

func (r *reconciliation) inUse(id int64) bool {
	for _, k := range r.facts.Known {
		if k.ID == id {
			return true
		}
	}
	return false
}

// present plans what a runner needs that is there and ours.
func (r *reconciliation) present(want *Runner, known Known, actual Actual) {
	rotates := false
	if reason := r.rotation(want.Name, known); reason != "" {
		rotates = true
		r.step(Step{Kind: Rotate, Runner: want.Name, ID: known.ID, Scope: want.Scope, Reason: reason})
	}
	if !r.changes(want, actual, want.Scope) && !rotates {
		r.step(Step{Kind: Keep, Runner: want.Name, ID: known.ID, Scope: want.Scope})
	}
}

// rotation is why a runner's token is to be replaced; empty: it is not.
func (r *reconciliation) rotation(name string, known Known) string {
	switch {
	case known.Token.Token == "":
		return "its token is not known"
	case slices.Contains(r.facts.Rotate, name) || slices.Contains(r.facts.Rotate, everyRunner):
		return "as asked for"
	case !known.ExpiresAt.IsZero() && !known.ExpiresAt.After(r.facts.Now):
		return "its token has expired at " + known.ExpiresAt.UTC().Format(time.RFC3339)
	case !known.ExpiresAt.IsZero() && known.ExpiresAt.Sub(r.facts.Now) <= r.facts.RotateBefore:
		return "its token expires at " + known.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return ""
}

// removed plans what becomes of a runner that the file has no more.
func (r *reconciliation) removed(name string, known Known) {
	actual, there := r.facts.Actual[known.ID]
	s := Step{Kind: Delete, Runner: name, ID: known.ID, Scope: known.Scope, Reason: "it is not in the file any more"}
	mark, marked := ReadMark(actual.MaintenanceNote)
	switch {
	case known.ID == 0 || !there:
		s.Kind, s.Reason = Forget, "it is neither in the file nor at the server any more"
	case marked && mark.Owner != r.facts.Owner:
		s.Kind, s.Reason = Forget, "it is not in the file any more, and another state directory manages it now"
	case r.facts.KeepRemoved:
		s.Kind, s.Reason = Keep, "it is not in the file any more and stays, as asked for"
	}
	r.step(s)
}

// String describes a plan for people: what is to be done first, then what stays as it is.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Site %s: %s\n", p.Site, p.summary())
	for _, s := range p.Steps {
		b.WriteString(s.String())
	}
	for _, problem := range p.Problems {
		fmt.Fprintf(&b, "  ! %s\n", problem)
	}
	return b.String()
}

func (p Plan) summary() string {
	count := map[StepKind]int{}
	for _, s := range p.Steps {
		count[s.Kind]++
	}
	var parts []string
	for _, kind := range []StepKind{Create, Adopt, Update, Rotate, Delete, Forget, Keep} {
		if n := count[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d to %s", n, kind))
		}
	}
	if p.Nothing() {
		parts = append([]string{"nothing to do"}, parts...)
	}
	if n := len(p.Problems); n > 0 {
		parts = append(parts, fmt.Sprintf("%d in the way", n))
	}
	return strings.Join(parts, ", ")
}

// String describes a step, its changes below it.
func (s Step) String() string {
	sign := map[StepKind]string{Create: "+", Adopt: "+", Update: "~", Rotate: "~", Delete: "-", Forget: "-", Keep: "="}[s.Kind]
	var b strings.Builder
	fmt.Fprintf(&b, "  %s %-6s %s", sign, s.Kind, s.Runner)
	if s.ID != 0 {
		fmt.Fprintf(&b, " (%d)", s.ID)
	}
	if s.Kind != Keep && s.Scope.Kind != "" {
		fmt.Fprintf(&b, " in %s", s.Scope)
	}
	if s.Reason != "" {
		fmt.Fprintf(&b, ": %s", s.Reason)
	}
	b.WriteString("\n")
	for _, c := range s.Changes {
		if s.Kind == Create {
			fmt.Fprintf(&b, "      %s: %s\n", c.Setting, cmp.Or(c.To, "none"))
			continue
		}
		fmt.Fprintf(&b, "      %s: %s -> %s\n", c.Setting, cmp.Or(c.From, "none"), cmp.Or(c.To, "none"))
	}
	return b.String()
}
