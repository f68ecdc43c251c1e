// Package cost works out what machines and batch jobs have cost, and whose share is whose. It is pure.
package cost

import (
	"time"

	"github.com/tranter-ci/tranter"
)

// Rate is what a machine costs.
type Rate struct {
	PerHour float64       `json:"per_hour"`
	Minimum time.Duration `json:"minimum,omitempty"` // a machine costs at least as much as for this time
	Step    time.Duration `json:"step,omitempty"`    // it is paid in whole multiples of this; 0: as it is
}

// Life is a machine from its creation to its end, with the jobs that held it.
type Life struct {
	Machine string
	Pool    string // short token of the runner
	Runner  string // its name
	Set     string
	Rate    Rate
	Made    time.Time
	Gone    time.Time // zero: it is there
	Holds   []Hold
}

// Hold is a job's time on a machine.
type Hold struct {
	Job        string // key
	Start, End time.Time
}

// Key is by what a report adds up.
type Key string

// What a report can add up by.
const (
	ByProject Key = "project"
	ByRunner  Key = "runner"
	ByJob     Key = "job" // by the job's name in its project
	ByUser    Key = "user"
	ByRef     Key = "ref"
	ByTag     Key = "tag"
	ByDay     Key = "day"
	ByMonth   Key = "month"
	ByMachine Key = "machine" // by machine and option set
)

// Query asks for a report.
type Query struct {
	By       Key
	From, To time.Time
	Project  string // only of that; empty: all
	Runner   string // name or short token; empty: all
}

// Report is what things have cost in a time.
type Report struct {
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	By       Key       `json:"by"`
	Currency string    `json:"currency"`
	Lines    []Line    `json:"lines"` // the dearest first; days and months in their order
	Total    Line      `json:"total"`
	// Idle is what nobody's job can be charged for: machines while they were made, idle and removed.
	Idle      Line    `json:"idle"`
	IdleShare float64 `json:"idle_share"` // of the cost of machines, 0 to 1
	Unpriced  int     `json:"unpriced"`   // jobs on machines without a price
}

// Line is one line of a report. Times are in nanoseconds.
type Line struct {
	Name         string        `json:"name"`
	Jobs         int           `json:"jobs"`
	Time         time.Duration `json:"time"`          // of jobs
	MachineTime  time.Duration `json:"machine_time"`  // that was paid
	CPUTime      time.Duration `json:"cpu_time"`      // that batch jobs held: processors by time
	GPUTime      time.Duration `json:"gpu_time"`      // likewise
	Minutes      float64       `json:"minutes"`       // charged, by the cost factors
	Cost         float64       `json:"cost"`          // of the jobs' shares of machines, and of batch jobs
	Waste        float64       `json:"waste"`         // of it, of jobs that failed for a reason of the system
	MachineHours float64       `json:"machine_hours"` // MachineTime, for people
}

// JobCost is what one job has cost.
type JobCost struct {
	Cost    float64       `json:"cost"`
	Priced  bool          `json:"priced"`
	Held    time.Duration `json:"held"` // its share of machine time, in nanoseconds
	Minutes float64       `json:"minutes"`
}

// Of is what a report is made of.
type Of struct {
	Jobs  []tranter.JobHistory // that ended in the time, or run
	Lives []Life               // of machines that were there in the time
}
