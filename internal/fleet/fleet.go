// Package fleet is the book of one pool: its machines, their leases, the jobs that wait. It is pure: events go in, nothing
// else changes it, and no clock is read.
//
// What should be done is for package scale to say; who does it is package pool.
package fleet

import (
	"encoding/json"
	"time"

	"github.com/tranter-ci/tranter"
)

// State is how far a machine's life has gone (docs/machines.md).
type State string

// The states, in their usual order.
const (
	Wanted   State = "wanted"   // recorded; the provider has been or will be asked to create it
	Booting  State = "booting"  // it exists, or is being started again, and is made ready for jobs
	Idle     State = "idle"     // ready, no job
	Stopped  State = "stopped"  // switched off, can be started again
	Leased   State = "leased"   // one job or more
	Draining State = "draining" // no new jobs; removed when the last one has left
	Removing State = "removing" // the provider is being told, until it says it is gone
)

// Machine is one entry of the book. It holds secrets (Seen.Ref, Kept).
type Machine struct {
	Name     string           `json:"name"`
	Set      string           `json:"set,omitempty"` // name of the option set that it was made with
	State    State            `json:"state"`
	Since    time.Time        `json:"since"`             // of the state
	Deadline time.Time        `json:"deadline,omitzero"` // by which the state must have been left
	Reason   string           `json:"reason,omitempty"`  // why it is in this state
	Made     time.Time        `json:"made"`              // when it was wanted
	Ready    time.Time        `json:"ready,omitzero"`    // when it was idle for the first time
	Used     time.Time        `json:"used,omitzero"`     // when the last lease ended, or it became idle
	Uses     int              `json:"uses,omitempty"`    // leases that were granted
	Leases   []Lease          `json:"leases,omitempty"`  // in the order in which they were granted
	Seen     tranter.Machine  `json:"seen"`              // what the provider said last
	Kept     json.RawMessage  `json:"kept,omitempty"`    // what provisioning needs to take it up again
	Boot     []tranter.Timing `json:"boot,omitempty"`    // the steps up to the first idle
	Tries    int              `json:"tries,omitempty"`   // removals that failed
	Retry    time.Time        `json:"retry,omitzero"`    // of the next removal; zero: none is due, one is under way
	Problem  string           `json:"problem,omitempty"` // the last error
	Orphan   bool             `json:"orphan,omitempty"`  // removed as far as could be; something may be left (tranter.OrphanError)
	Missed   int              `json:"missed,omitempty"`  // lists in a row that did not have it
	ByHand   bool             `json:"by_hand,omitempty"` // a person asked for it: it is not removed for being spare
}

// Lease is a job's hold on a machine.
type Lease struct {
	Job   string    `json:"job"` // key of the job's record
	Since time.Time `json:"since"`
}

// Waiting is a job that waits for a machine.
type Waiting struct {
	Job   string
	Since time.Time
	Avoid []string // machines that failed the job already

	place uint64 // in the queue
}

// Offer is what has been learned of an option set.
type Offer struct {
	Failures int       // creations in a row that failed
	Until    time.Time // nothing is created with it before
	Why      string    // the last failure
	Class    Class     // of the last failure
	Last     time.Time // when it failed last
}

// Book is a pool's state. It is one goroutine's. New makes one; what is exported is for reading.
type Book struct {
	Machines map[string]*Machine
	Waiting  []Waiting // in the order in which they came
	Offers   map[string]Offer
	Throttle time.Time // no creation at all before: the provider wants to be left alone

	homes  map[string]*Machine // by job that has a lease
	places map[string]uint64   // by job that waits
	queued uint64              // jobs so far
	tally  tally
}

// Stuck says whether the removal of a machine has failed so often that it is a leak: it is still tried, it is shown, and it
// does not count as capacity any more.
func (m *Machine) Stuck() bool { return m.State == Removing && m.Tries >= stuckAfter }

const stuckAfter = 3

// Kind is what has happened.
type Kind string

// The kinds of events. Each names the fields of Event that it has besides At, Machine and Reason.
const (
	MachineWanted   Kind = "machine_wanted"   // Set, Deadline, ByHand; unknown so far → wanted
	MachineNoted    Kind = "machine_noted"    // Seen.Ref: the provider has told more while it works
	MachineCreated  Kind = "machine_created"  // Seen, Deadline; wanted → booting
	MachineFailed   Kind = "machine_failed"   // Class, Retry; wanted or booting → removing
	MachineReady    Kind = "machine_ready"    // Kept, Boot; booting → idle
	MachineStopping Kind = "machine_stopping" // Deadline; idle → stopped; the provider is told next
	MachineStarting Kind = "machine_starting" // Deadline; stopped → booting
	MachineAdopted  Kind = "machine_adopted"  // Seen, Deadline; unknown so far → booting
	MachineSeen     Kind = "machine_seen"     // Seen: the provider has told again, such as a new address; Kept, if it has changed
	MachineMissed   Kind = "machine_missed"   // a list did not have it
	MachineDraining Kind = "machine_draining" // Deadline or none; idle, leased or stopped → draining: no new jobs
	MachineRemoving Kind = "machine_removing" // Retry, should nothing come of it, or none; any → removing; the provider is told next, perhaps again; leases that are left are lost
	RemovalFailed   Kind = "removal_failed"   // Retry
	MachineGone     Kind = "machine_gone"     // it leaves the book, unless Orphan: then it stays as a possible orphan
	JobQueued       Kind = "job_queued"       // Job, Avoid
	JobLeft         Kind = "job_left"         // Job: it waits no more
	LeaseGranted    Kind = "lease_granted"    // Job, which waits; idle or leased → leased
	LeaseReleased   Kind = "lease_released"   // Job, Clean; leased → idle, or if it is not clean draining and with the last lease removing
	Throttled       Kind = "throttled"        // Retry: of the provider, no machine
)

// Class is how a creation has failed.
type Class string

// The classes, from tranter.ErrNoCapacity, tranter.ErrRejected and the rest.
const (
	Passing    Class = "passing"
	NoCapacity Class = "no_capacity"
	Rejected   Class = "rejected"
	Unready    Class = "unready" // it was created, and could not be made ready
	// Deferred is of a removal: it was not tried, because the provider wants to be left alone.
	Deferred Class = "deferred"
)

// Event is one thing that has happened, or an intent that was recorded before the action.
type Event struct {
	At       time.Time        `json:"at"`
	Kind     Kind             `json:"kind"`
	Machine  string           `json:"machine,omitempty"`
	Job      string           `json:"job,omitempty"`
	Reason   string           `json:"reason,omitempty"` // words for people
	Avoid    []string         `json:"avoid,omitempty"`
	Set      string           `json:"set,omitempty"`
	Class    Class            `json:"class,omitempty"`
	Clean    bool             `json:"clean,omitempty"`
	ByHand   bool             `json:"by_hand,omitempty"`
	Orphan   bool             `json:"orphan,omitempty"`
	Deadline time.Time        `json:"deadline,omitzero"`
	Retry    time.Time        `json:"retry,omitzero"`
	Seen     *tranter.Machine `json:"-"` // with secrets: kept in the machine's entry, not in the history
	Kept     json.RawMessage  `json:"-"`
	Boot     []tranter.Timing `json:"boot,omitempty"`
}
