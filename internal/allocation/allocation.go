// Package allocation decides about batch jobs: how many are wanted for the jobs that wait, which job gets which place,
// and what has to go. It is pure: values in, values out.
//
// An allocation is one batch job of ours. It has places, each of which holds one CI job at a time. Two orders are known:
// allocate first, where jobs that wait in GitLab are a signal, and a job is taken once a place for it runs; and take first,
// where a job is taken, and a place is made for it. In a third way the allocations take their jobs themselves, and the
// jobs that wait are all that is seen of it.
package allocation

import (
	"time"

	"github.com/tranter-ci/tranter"
)

// Order says what comes first.
type Order string

// The orders.
const (
	AllocateFirst Order = "allocate-first" // a job is taken once a place for it runs
	TakeFirst     Order = "take-first"     // a job is taken, then a place is made for it
	SelfTaking    Order = "self-taking"    // what is launched takes the jobs by itself: we only see them wait
)

// Policy is what a configuration says of the allocations of one runner.
type Policy struct {
	Order       Order
	Prefix      string        // of the names of allocations
	Places      int           // most jobs side by side in one allocation; 0: 1
	PackWindow  time.Duration // for which a job waits for others to share an allocation with
	Linger      time.Duration // for which an allocation without a job stays, for the next one of its domain
	TakeTimeout time.Duration // for which an allocation that has started stays if it never gets a job; 0: 2 minutes
	MaxUses     int           // jobs after which an allocation takes no more; 0: no limit
	Margin      time.Duration // of walltime that is left when a job has to be over
	Walltime    time.Duration // of allocations whose shape names none, for the question what still fits; 0: unknown
	Limits      Limits
	Attempts    int           // allocations that are made for one job, one after the other; 0: 3
	NeverAfter  time.Duration // for which a reason that does not pass by itself has to stand; 0: 30 s
	LostAfter   time.Duration // without a sign of life of what was started; 0: 2 minutes
	// SubmitWithin is how long a submission may take: it is not known to have failed before. 0: 2 minutes.
	SubmitWithin time.Duration
	StartAfter   time.Duration // for which a batch job may run without a sign of life of ours; 0: 5 minutes
}

// Limits bound what is in flight. 0: no limit.
type Limits struct {
	Queued  int     // allocations that have not started
	Total   int     // allocations
	PerUser int     // allocations of one account, or without accounts of one domain
	Rate    float64 // submissions per second
	Burst   int     // submissions at once; 0: 1
}

// Want is what one CI job needs: one that waits in GitLab, or one that was taken.
type Want struct {
	ID       int64         `json:"id"`            // of the CI job; unique within a book
	Key      string        `json:"key,omitempty"` // of a job that was taken: tranter.SessionSpec.Name; empty: it waits in GitLab
	Name     string        `json:"name,omitempty"`
	Project  string        `json:"project,omitempty"`
	User     string        `json:"user,omitempty"`   // system account as whom it is to run; empty: ours
	Domain   string        `json:"domain,omitempty"` // jobs share an allocation only within one
	Pipeline int64         `json:"pipeline,omitempty"`
	Priority int           `json:"priority,omitempty"` // higher first
	Since    time.Time     `json:"since,omitzero"`
	Shape    tranter.Shape `json:"shape"`           // Walltime: how long the job may take, with everything
	Avoid    []string      `json:"avoid,omitempty"` // allocations on which it failed to begin

	// Lasts is how long the job itself may take, if more is known of that than Shape.Walltime; 0: Shape.Walltime. It decides
	// whether the job still fits into a batch job that has run for a while.
	Lasts time.Duration `json:"lasts,omitempty"`
}

// State is how an allocation stands.
type State string

// The states of allocations.
const (
	Planned    State = "planned"    // it is wanted; nothing was done
	Submitting State = "submitting" // the scheduler is asked; it may have it
	Queued     State = "queued"     // the scheduler has it
	Started    State = "started"    // what we run in it has said so
	Ending     State = "ending"     // it is told to end, or was cancelled
	Ended      State = "ended"      // the scheduler does not run it any more, or never did
)

// Lease is a job in a place of an allocation.
type Lease struct {
	Job   string        `json:"job"` // Want.Key
	ID    int64         `json:"id"`
	Shape tranter.Shape `json:"shape"`
	Since time.Time     `json:"since"`
	// Domain is the job's: an allocation that never had a job takes on that of its first.
	Domain string `json:"domain,omitempty"`
	Began  bool   `json:"began,omitempty"` // a phase of the job was started: it is not begun anew elsewhere
}

// Allocation is one batch job of ours.
type Allocation struct {
	Name    string        `json:"name"` // the batch job's
	Class   string        `json:"class,omitempty"`
	Order   Order         `json:"order"`
	User    string        `json:"user,omitempty"`
	Domain  string        `json:"domain,omitempty"`
	Shape   tranter.Shape `json:"shape"` // of the batch job
	Places  int           `json:"places"`
	State   State         `json:"state"`
	BatchID string        `json:"batch_id,omitempty"`
	Attempt int           `json:"attempt,omitempty"` // 1: the first for its jobs

	// For are the jobs that it was made for, or that have a place of it in prospect, by Want.ID: those that have begun there are
	// not in it any more.
	For    []int64 `json:"for,omitempty"`
	Leases []Lease `json:"leases,omitempty"`
	Uses   int     `json:"uses,omitempty"` // leases that were ever granted

	Times  Times            `json:"times"`
	Reason string           `json:"reason,omitempty"` // why it stands as it does, for people
	Drain  bool             `json:"drain,omitempty"`  // it takes no more jobs
	Absent int              `json:"absent,omitempty"` // lists in a row in which the scheduler did not name it
	Batch  tranter.BatchJob `json:"batch"`            // what the scheduler has said last
	Past   Past             `json:"past,omitzero"`
}

// Past is what lies behind an allocation.
type Past struct {
	// Avoid are nodes on which earlier attempts failed, as the scheduler writes them: for BatchSpec.Exclude.
	Avoid     []string `json:"avoid,omitempty"`
	Refused   bool     `json:"refused,omitempty"`   // the scheduler refuses it, or would never start it
	Refusals  int      `json:"refusals,omitempty"`  // how often the same was refused before
	Idle      bool     `json:"idle,omitempty"`      // it has ended as it should: not counted as an attempt that failed
	Spare     int      `json:"spare,omitempty"`     // looks at the jobs that wait, in a row, in which it was for nobody
	Waits     int      `json:"waits,omitempty"`     // lists in a row in which it waited still although it takes its jobs itself and was for nobody
	Accounted bool     `json:"accounted,omitempty"` // the accounting was asked after its end, and has answered
}

// Times are when an allocation came to its states.
type Times struct {
	Planned   time.Time `json:"planned,omitzero"`
	Asked     time.Time `json:"asked,omitzero"` // the scheduler was asked
	Queued    time.Time `json:"queued,omitzero"`
	Started   time.Time `json:"started,omitzero"`
	Until     time.Time `json:"until,omitzero"` // the end of its walltime
	Idle      time.Time `json:"idle,omitzero"`  // since when it has no job; zero: it has one, or never started
	Ending    time.Time `json:"ending,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Never     time.Time `json:"never,omitzero"`      // since when the scheduler says that it never starts
	LastSeen  time.Time `json:"last_seen,omitzero"`  // last sign of life of what runs in it
	NotBefore time.Time `json:"not_before,omitzero"` // of a planned one: back-off
	Ran       time.Time `json:"ran,omitzero"`        // since when the scheduler says that it runs
	Told      time.Time `json:"told,omitzero"`       // when it was last cancelled, or told to end
	Inquired  time.Time `json:"inquired,omitzero"`   // when the accounting was last asked for it
}
