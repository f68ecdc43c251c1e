// Package scale decides what a pool should do: which job gets which machine, which machines are created, stopped, started,
// drained and removed, and when to look again. It is pure: a book, a policy and the time go in, actions with their reasons
// come out.
package scale

import (
	"time"
)

// Policy is what a pool's configuration wants (runner contract, section 11.5; docker-machine, section 3.5).
type Policy struct {
	Limit       int           // most machines at once, whatever state they are in, but for stuck ones; 0: no limit
	Growth      int           // most machines that are wanted or booting at once; 0: no limit
	Capacity    int           // jobs on a machine at once; at least 1
	MaxUses     int           // jobs after which a machine is removed; 0: no limit
	MaxAge      time.Duration // since it was wanted, after which a machine takes no more jobs; 0: no limit
	Idle        Idle
	Periods     []Period       // the last one that matches replaces Idle whole
	Sets        []Set          // option sets in the order in which they are tried; at least one
	Stopped     int            // machines that are kept switched off, ready to be started; 0: none
	StoppedTime time.Duration  // after which a stopped machine is removed; 0: never
	Fixed       []string       // names of the machines of a provider that neither creates nor removes: those that are missing are wanted, whatever the limit
	Places      map[string]int // jobs at once on machines of Fixed for which it is not Capacity
	Times       Times
}

// Idle is how many machines wait for jobs.
type Idle struct {
	Count  int
	Min    int           // with Factor: fewest, at least 1
	Factor float64       // 0: Count alone
	Time   time.Duration // that a machine is kept idle at least
}

// Period is an Idle that holds at certain times.
type Period struct {
	Times []Cron
	Zone  *time.Location
	Idle  Idle
}

// Set is one way to create a machine.
type Set struct {
	Name string
}

// Times are the deadlines of a machine's states.
type Times struct {
	Create time.Duration // wanted
	Boot   time.Duration // booting
	Drain  time.Duration // draining; 0: as long as its jobs take
}

// Do is what is to be done.
type Do string

// The actions.
const (
	Create Do = "create" // Set; a new machine: the caller chooses its name (or takes Machine, if that is given: one of Fixed, whose Set is its name)
	Start  Do = "start"  // Machine, which is stopped
	Stop   Do = "stop"   // Machine, which is idle
	Drain  Do = "drain"  // Machine
	Remove Do = "remove" // Machine; also again, when the time of its retry has come
	Lease  Do = "lease"  // Machine, Job
)

// Action is one thing that is to be done, and why.
type Action struct {
	Do      Do
	Machine string
	Job     string
	Set     string
	Reason  string
}

// Verdict says whether one more job could be run: at once or once a machine is made.
type Verdict struct {
	OK     bool
	Reason string    // why not, for people
	Retry  time.Time // when to ask again; zero: after the book has changed
}
