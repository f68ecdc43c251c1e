package main

import (
	"sync"
	"time"

	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/store"
)

// machineRates are the rates with which the machines that are there were made: a later change of prices leaves them. It is safe for
// concurrent use.
type machineRates struct {
	mu    sync.Mutex
	known map[string]cost.Rate // by the machine's name
}

// learn takes in machines of a pool that have changed, and forgets those that have gone.
func (r *machineRates) learn(p store.Pool, changed []fleet.Machine, gone []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[string]cost.Rate{}
	}
	for i := range changed {
		if _, known := r.known[changed[i].Name]; !known {
			r.known[changed[i].Name] = p.Rate(changed[i].Set)
		}
	}
	for _, name := range gone {
		delete(r.known, name)
	}
}

// recall takes in what the history knows of machines that are still there.
func (r *machineRates) recall(lives []cost.Life) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[string]cost.Rate{}
	}
	for i := range lives {
		if lives[i].Gone.IsZero() {
			r.known[lives[i].Machine] = lives[i].Rate
		}
	}
}

// bill says what machines have cost so far, minimum and steps included. Nil, and what is not known, leaves them as they are.
func (r *machineRates) bill(machines []pool.MachineStatus, now time.Time) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range machines {
		m := &machines[i]
		if rate, known := r.known[m.Name]; known {
			_, m.Cost = cost.Paid(cost.Life{Machine: m.Name, Rate: rate, Made: m.Made}, now)
		}
	}
}
