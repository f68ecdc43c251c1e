package view

import (
	"time"

	"github.com/tranter-ci/tranter"
)

// JobQuery selects jobs that have ended. The zero value selects all.
type JobQuery struct {
	Text    string // part of the name, the project, the ref or the number
	Runner  string // short token, or name
	Project string // full path
	State   tranter.JobState
	Reason  tranter.FailureReason
	Machine string
	Batch   string    // name of the allocation
	From    time.Time // ended at or after
	To      time.Time // ended before
	Before  string    // key of the last job of the page before
	Limit   int       // 0: 50
}

// EventQuery selects events, the latest first.
type EventQuery struct {
	Text    string
	Kind    string // a kind, or what it begins with
	Level   tranter.EventLevel
	Runner  string
	Job     string
	Machine string
	Batch   string
	From    time.Time
	To      time.Time
	Before  int64 // id of the last event of the page before
	Limit   int   // 0: 100
}

// Lane is a machine's life on the timeline.
type Lane struct {
	Machine string    `json:"machine"`
	Pool    string    `json:"pool"`
	Set     string    `json:"set,omitempty"`
	Made    time.Time `json:"made"`
	Gone    time.Time `json:"gone,omitzero"` // zero: it is there
	Spans   []Span    `json:"spans"`         // states, then leases, each in the order of time
}

// Span is a state of a machine, or a job on it.
type Span struct {
	State  string    `json:"state,omitempty"` // empty: a lease
	Job    string    `json:"job,omitempty"`   // key
	Reason string    `json:"reason,omitempty"`
	Start  time.Time `json:"start"`
	End    time.Time `json:"end,omitzero"` // zero: it lasts
}

// LaneQuery selects machines that were there in a time.
type LaneQuery struct {
	From, To time.Time
	Pool     string // empty: all
	Machine  string // empty: all; else the lives of the machines of that name
	Limit    int    // of lanes, the latest made first; 0: 200
}

// Chart is what has changed over a time, in steps of equal length.
type Chart struct {
	From   time.Time     `json:"from"`
	Step   time.Duration `json:"step"` // nanoseconds
	Unit   string        `json:"unit"` // machines, seconds, jobs, a currency
	Series []Series      `json:"series"`
}

// Series is a line of a chart. A step of which nothing is known is nil.
type Series struct {
	Name   string     `json:"name"`
	Values []*float64 `json:"values"`
}

// ChartQuery asks for a chart.
type ChartQuery struct {
	Name     string // one of Charts
	From, To time.Time
	Steps    int    // at most; 0: 200
	Runner   string // short token; empty: all
}

// Charts are the names of the charts: machines by state, p50 and p95 of the waits in seconds, jobs that ended in an hour by outcome,
// running and waiting jobs, cost of a step.
func Charts() []string { return []string{"machines", "waits", "jobs", "load", "cost"} }
