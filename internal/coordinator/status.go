package coordinator

import (
	"slices"

	"github.com/tranter-ci/tranter/internal/pipeline"
)

// Status is the state of a job or of a pipeline (gitlab-server 1.8).
type Status string

// The states, in the order in which a job passes through them.
const (
	Created            Status = "created"
	WaitingForResource Status = "waiting_for_resource"
	Manual             Status = "manual"
	Scheduled          Status = "scheduled"
	Pending            Status = "pending"
	Running            Status = "running"
	Canceling          Status = "canceling"
	Success            Status = "success"
	Failed             Status = "failed"
	Canceled           Status = "canceled"
	Skipped            Status = "skipped"
)

// These two exist only while the state of several jobs is put together.
const (
	ignored Status = "ignored" // a manual job that nobody has to play
	warned  Status = "warned"  // failed or canceled, and allowed to
)

// Finished tells whether nothing more happens to a job by itself.
func (s Status) Finished() bool {
	return s == Success || s == Failed || s == Canceled || s == Skipped
}

// Executing tells whether a runner has the job.
func (s Status) Executing() bool { return s == Running || s == Canceling }

// holds tells whether a job in this state occupies its resource group.
func (s Status) holds() bool { return s == Pending || s.Executing() }

// FailureAllowed tells whether the failure of a job is only a warning (allow_failure, with or without exit codes).
func FailureAllowed(spec *pipeline.Job, status Status, exitCode int) bool {
	if spec.AllowFailureCodes != nil {
		return status == Failed && slices.Contains(spec.AllowFailureCodes, exitCode)
	}
	return spec.AllowFailure
}

// states is a set of states, to put one together from many.
type states map[Status]bool

func (s states) any(of ...Status) bool {
	return slices.ContainsFunc(of, func(x Status) bool { return s[x] })
}

func (s states) only(of ...Status) bool {
	for have := range s {
		if !slices.Contains(of, have) {
			return false
		}
	}
	return true
}

// counts is the state as which a job counts for others.
func (n *Node) counts() Status {
	switch {
	case n.Status == Manual && n.Spec.AllowFailure:
		return ignored
	case (n.Status == Failed || n.Status == Canceled) && FailureAllowed(n.Spec, n.Status, n.ExitCode):
		return warned
	}
	return n.Status
}

// together is the state of several jobs as one. With dag they are what one job needs (gitlab-server 5.2, scheduling).
func (s states) together(dag bool) Status {
	switch {
	case len(s) == 0:
		return Success
	case dag && s.any(Skipped, ignored):
		return Skipped // a job does not run when one of its needs does not run at all
	case dag && !s.only(Success, Failed, Canceled, warned):
		return Pending
	case s.only(Skipped, ignored):
		return Skipped
	case s.only(Success, Skipped, warned, ignored):
		return Success
	case s.only(Created, warned, ignored):
		return Created
	case s.only(Canceled, Success, Skipped, warned, ignored):
		return Canceled
	case s.only(Pending, Created, Skipped, warned, ignored):
		return Pending
	}
	return s.mixed()
}

func (s states) mixed() Status {
	switch {
	case s.any(Running, Pending):
		return Running
	case s.any(WaitingForResource):
		return WaitingForResource
	case s.any(Manual):
		return Manual
	case s.any(Scheduled):
		return Scheduled
	case s.any(Created):
		return Running
	case s.any(Canceling):
		return Canceling
	}
	return Failed
}

// PipelineStatus is the state of a pipeline whose jobs, in their latest attempts, are nodes.
func PipelineStatus(nodes []Node) Status {
	s := states{}
	for i := range nodes {
		s[nodes[i].counts()] = true
	}
	return s.together(false)
}
