// Package pool looks after the machines of one runner: a loop round packages fleet and scale that creates, prepares, lends,
// checks and removes them, remembers all that in its book, and after a restart goes on where it was.
//
// It knows providers by the root package's interface, and what is on a machine by the interfaces here: package main passes
// the adapters in.
package pool

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
)

// Book remembers a pool over restarts. Package store fills it.
type Book interface {
	// Load returns the machines of a pool.
	Load(ctx context.Context, pool string) ([]fleet.Machine, error)
	// Append keeps, in one transaction, what has happened and how the machines that it has changed stand; those named in
	// gone are forgotten, their events are not.
	Append(ctx context.Context, pool string, c Change) error
}

// Change is what Append keeps.
type Change struct {
	Events  []fleet.Event
	Changed []fleet.Machine
	Gone    []string
}

// Host is a machine that is ready, and the connection to it.
type Host interface {
	// Check asks the machine and its engine for a sign of life, and puts off the machine's own end.
	Check(ctx context.Context) error
	// Close gives the connection up. The machine is not touched.
	Close() error
}

// Preparer makes machines ready for jobs.
type Preparer interface {
	// Open connects to a machine. With kept empty it does all that makes it ready; otherwise it takes up what an earlier
	// call has made, whose kept it is. It calls report after each step.
	Open(ctx context.Context, m tranter.Machine, kept json.RawMessage, report func(tranter.Timing)) (Host, json.RawMessage, error)
}

// MachineStatus is one machine as it stands, for people and programs.
type MachineStatus struct {
	Name     string           `json:"name"`
	Pool     string           `json:"pool"`             // short token of the runner
	Runner   string           `json:"runner,omitempty"` // its name
	Provider string           `json:"provider"`
	Set      string           `json:"set,omitempty"`
	State    fleet.State      `json:"state"`
	Reason   string           `json:"reason,omitempty"` // why it is in that state
	Since    time.Time        `json:"since"`
	Deadline *time.Time       `json:"deadline,omitempty"` // of the state
	Made     time.Time        `json:"made"`
	Ready    *time.Time       `json:"ready,omitempty"`
	Jobs     []string         `json:"jobs"` // keys of the jobs on it
	Uses     int              `json:"uses"`
	Address  string           `json:"address,omitempty"`
	ID       string           `json:"id,omitempty"`   // the provider's
	Cost     float64          `json:"cost,omitempty"` // so far, in the currency of price_per_hour
	Boot     []tranter.Timing `json:"boot,omitempty"`
	Problem  string           `json:"problem,omitempty"`
	Tries    int              `json:"tries,omitempty"` // removals that failed
	Leak     string           `json:"leak,omitempty"`  // why it is a leak; empty: it is none
}

// Status is one pool as it stands.
type Status struct {
	Pool     string                 `json:"pool"`
	Runner   string                 `json:"runner,omitempty"`
	Provider string                 `json:"provider"`
	Machines []MachineStatus        `json:"machines"`
	Waiting  int                    `json:"waiting"` // jobs
	Limit    int                    `json:"limit,omitempty"`
	Target   int                    `json:"idle_target"` // idle machines wanted now
	Count    map[fleet.State]int    `json:"count"`
	Offers   map[string]fleet.Offer `json:"offers,omitempty"` // option sets that failed
	Throttle *time.Time             `json:"throttled_until,omitempty"`
	Problem  string                 `json:"problem,omitempty"` // of the provider
}
