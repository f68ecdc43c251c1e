package allocation

import (
	"errors"
	"fmt"
	"time"

	"github.com/tranter-ci/tranter"
)

// EventKind is what has happened to an allocation, or is about to be done with it.
type EventKind string

// The kinds of events. Each names the fields of Event that it has besides At, Allocation and Reason. An intent (Plan, Ask,
// Inquire, Tell) is stored before what it says is done.
const (
	Plan    EventKind = "plan"    // New; unknown so far → planned
	Ask     EventKind = "ask"     // the scheduler is about to be asked, perhaps again under the same name; planned or submitting → submitting
	Accept  EventKind = "accept"  // BatchID; → queued, unless it has come further already
	Reject  EventKind = "reject"  // it is refused as it is (tranter.ErrRejected): → ended
	Defer   EventKind = "defer"   // Until or none; there is no room for it now (tranter.ErrNoCapacity, *tranter.ThrottledError): → planned, with a back-off
	Saw     EventKind = "saw"     // Batch: what a list or the accounting says; a final state ends it; one that is submitting is accepted by it
	Missed  EventKind = "missed"  // a complete list, begun at At, does not name it
	Inquire EventKind = "inquire" // the accounting is about to be asked for it
	Silent  EventKind = "silent"  // the accounting does not know it: if it has not ended, it is lost
	Sign    EventKind = "sign"    // Until or none: a sign of life of what runs in it; the first one: → started
	Leave   EventKind = "leave"   // what runs in it says that it ends: → ending
	Grant   EventKind = "grant"   // Lease
	Began   EventKind = "began"   // Job: the first phase of the job is about to start
	Release EventKind = "release" // Job: its session has ended, or it was told that its allocation is lost
	Assign  EventKind = "assign"  // Jobs: those that it is for from now on
	Drain   EventKind = "drain"   // it takes no more jobs
	Tell    EventKind = "tell"    // it is about to be cancelled, or told to end; planned → ended, else → ending
	End     EventKind = "end"     // it does not run any more
	Fresh   EventKind = "fresh"   // no Allocation: all jobs that wait were looked up anew, and are wants of the next decision
)

// Event is one thing that has happened.
type Event struct {
	Kind       EventKind
	At         time.Time
	Allocation string
	Job        string // Want.Key
	Reason     string
	BatchID    string
	Batch      *tranter.BatchJob
	New        *Allocation
	Lease      *Lease
	Until      time.Time
	Jobs       []int64
}

// ErrUnfit is what every error of Apply is: the event is not possible as the book stands.
var ErrUnfit = errors.New("the event does not fit")

func unfit(e Event, form string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrUnfit, e.Kind, fmt.Sprintf(form, args...))
}
