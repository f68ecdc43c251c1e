package coordinator

import (
	"slices"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

// Node is the latest attempt of one job, as much of it as scheduling depends on.
type Node struct {
	ID       int64
	Spec     *pipeline.Job // only read
	Status   Status
	Attempt  int       // how many earlier attempts there are
	Played   bool      // somebody asked to run a manual or delayed job now
	Due      time.Time // of a scheduled job
	Reason   tranter.FailureReason
	ExitCode int
}

// Graph is a pipeline at one moment.
type Graph struct {
	Now    time.Time
	Stages []string
	Nodes  []Node
	Busy   map[string]bool // resource groups that jobs of other pipelines occupy
}

// Decision is what is to happen to a job. With Retry a new attempt takes the place of the failed job, in state Status.
type Decision struct {
	ID     int64
	Status Status
	Due    time.Time // of Scheduled
	Retry  bool
}

// Advance decides all that follows from the state of a pipeline, in the order in which it follows. It gives no decision
// when nothing is to be done; applied, its decisions leave nothing to be done at the same time.
func Advance(g Graph) []Decision {
	a := newAdvance(g)
	for changed := true; changed; {
		changed = false
		for i := range a.Nodes {
			if d, ok := a.next(&a.Nodes[i]); ok {
				a.apply(i, d)
				changed = true
			}
		}
	}
	return a.decided
}

// advance is a graph with what makes looking at a job cheap, however many jobs there are.
type advance struct {
	Graph
	stage   map[string]int
	count   []map[Status]int // how many jobs of each stage are in each state
	named   map[string][]int // the nodes of a name
	held    map[string]bool  // resource groups occupied by this pipeline's own jobs
	decided []Decision
	at      map[int64]int // where in decided a job's decision is
}

func newAdvance(g Graph) *advance {
	a := &advance{
		Graph: g, stage: map[string]int{}, named: make(map[string][]int, len(g.Nodes)), held: map[string]bool{}, at: map[int64]int{},
		count: make([]map[Status]int, len(g.Stages)+1),
	}
	a.Nodes = slices.Clone(g.Nodes)
	for i, s := range g.Stages {
		a.stage[s] = i
	}
	for i := range a.count {
		a.count[i] = map[Status]int{}
	}
	for i := range a.Nodes {
		n := &a.Nodes[i]
		a.named[n.Spec.Name] = append(a.named[n.Spec.Name], i)
		a.count[a.stageOf(n)][n.counts()]++
		if n.Status.holds() {
			a.held[n.Spec.ResourceGroup] = true
		}
	}
	return a
}

func (a *advance) apply(i int, d Decision) {
	n := &a.Nodes[i]
	count := a.count[a.stageOf(n)]
	count[n.counts()]--
	n.Status, n.Due, n.Played = d.Status, d.Due, false
	count[n.counts()]++
	if d.Status.holds() {
		a.held[n.Spec.ResourceGroup] = true
	}
	if k, again := a.at[d.ID]; again {
		d.Retry = d.Retry || a.decided[k].Retry
		a.decided[k] = d
		return
	}
	a.at[d.ID] = len(a.decided)
	a.decided = append(a.decided, d)
}

func (a *advance) next(n *Node) (Decision, bool) {
	switch n.Status {
	case Failed:
		if !Retryable(n) {
			return Decision{}, false
		}
		d := a.enqueue(n)
		d.Retry = true
		return d, true
	case Created:
		return a.start(n)
	case Manual:
		return a.enqueue(n), n.Played
	case Scheduled:
		return a.enqueue(n), n.Played || !n.Due.After(a.Now)
	case WaitingForResource:
		d := a.enqueue(n)
		return d, d.Status == Pending
	default:
		return Decision{}, false
	}
}

// start decides about a job that has not been looked at, once all that it waits for is complete.
func (a *advance) start(n *Node) (Decision, bool) {
	before := a.before(n)
	if !before.Finished() {
		return Decision{}, false
	}
	if !runsAfter(n.Spec, before) {
		return Decision{ID: n.ID, Status: Skipped}, true
	}
	switch {
	case n.Played:
		return a.enqueue(n), true
	case n.Spec.When == pipeline.Manual:
		return Decision{ID: n.ID, Status: Manual}, true
	case n.Spec.When == pipeline.Delayed:
		return Decision{ID: n.ID, Status: Scheduled, Due: a.Now.Add(n.Spec.StartIn)}, true
	}
	return a.enqueue(n), true
}

func runsAfter(spec *pipeline.Job, before Status) bool {
	switch spec.When {
	case pipeline.Always:
		return before == Success || before == Failed || before == Skipped
	case pipeline.OnFailure:
		return before == Failed
	case pipeline.OnSuccess, pipeline.Manual, pipeline.Delayed:
	}
	return before == Success || before == Skipped && !spec.HasNeeds
}

// before is the state of what a job waits for: its needs, or all earlier stages.
func (a *advance) before(n *Node) Status {
	s := states{}
	if !n.Spec.HasNeeds {
		for _, stage := range a.count[:a.stageOf(n)] {
			for status, jobs := range stage {
				if jobs > 0 {
					s[status] = true
				}
			}
		}
		return s.together(false)
	}
	for _, need := range n.Spec.Needs { // one that is not in the pipeline was optional, or left out on demand
		for _, i := range a.named[need.Job] {
			s[a.Nodes[i].counts()] = true
		}
	}
	return s.together(true)
}

func (a *advance) stageOf(n *Node) int {
	if i, ok := a.stage[n.Spec.Stage]; ok {
		return i
	}
	return len(a.Stages)
}

// enqueue makes a job available to runners, unless another job occupies its resource group.
func (a *advance) enqueue(n *Node) Decision {
	group := n.Spec.ResourceGroup
	if group != "" && (a.held[group] || a.Busy[group]) {
		return Decision{ID: n.ID, Status: WaitingForResource}
	}
	return Decision{ID: n.ID, Status: Pending}
}

// neverRetried tells whether another attempt cannot end differently.
func neverRetried(reason tranter.FailureReason) bool {
	return slices.Contains([]tranter.FailureReason{
		missingDependency, noMatchingRunner, "ci_quota_exceeded", "failed_outdated_deployment_job", "environment_creation_failure",
	}, reason)
}

// schedulerRetries is how often a job is tried again that could not be handed out, whatever its own retry says.
const schedulerRetries = 2

// Retryable tells whether a failed job gets another attempt by itself (keyword retry).
func Retryable(n *Node) bool {
	if n.Status != Failed || neverRetried(n.Reason) {
		return false
	}
	r := n.Spec.Retry
	if n.Reason == schedulerFailure && n.Attempt < schedulerRetries {
		return true
	}
	if n.Attempt >= r.Max {
		return false
	}
	if n.ExitCode != 0 && slices.Contains(r.ExitCodes, n.ExitCode) {
		return true
	}
	if len(r.When) == 0 {
		return len(r.ExitCodes) == 0
	}
	// retry:when has one word for what are two reasons by now.
	silent := n.Reason == noUpdatesRunning && slices.Contains(r.When, string(stuckOrTimeout))
	return silent || slices.Contains(r.When, "always") || slices.Contains(r.When, string(n.Reason))
}

// Revived lists the skipped jobs that are to be looked at again because the job called name runs again.
func Revived(g Graph, name string) []int64 {
	a := newAdvance(g)
	first := len(g.Stages) + 1 // the earliest stage in which something runs again
	again := map[string]bool{name: true}
	for i := range g.Nodes {
		if g.Nodes[i].Spec.Name == name {
			first = a.stageOf(&g.Nodes[i])
		}
	}
	var ids []int64
	for changed := true; changed; {
		changed = false
		for i := range g.Nodes {
			n := &g.Nodes[i]
			if n.Status != Skipped || again[n.Spec.Name] || !follows(a, n, again, first) {
				continue
			}
			again[n.Spec.Name], changed = true, true
			ids = append(ids, n.ID)
		}
	}
	return ids
}

func follows(a *advance, n *Node, again map[string]bool, first int) bool {
	if !n.Spec.HasNeeds {
		return a.stageOf(n) > first
	}
	return slices.ContainsFunc(n.Spec.Needs, func(need pipeline.Need) bool { return again[need.Job] })
}
