// Package worker runs jobs in batch jobs: it is both ends of what is between the manager and our own program in an
// allocation, over a directory that both see, or over a TLS connection that the worker makes (hpc, sections 5.3 to 5.6).
//
// Office is the manager's end, for all allocations of one runner. Serve is the worker, "tranter agent worker DIR". A
// session of Office.Executor is a session of the executor that the worker has: what is between them survives the
// manager, which may be killed and started again at any time.
package worker

import (
	"encoding/json"
	"log/slog"
	"time"

	"github.com/tranter-ci/tranter"
)

// Options say how workers are reached.
type Options struct {
	Dir      string // that this host and the nodes share; absolute
	Listen   string // address for connections of workers; "": all goes over Dir. Port 0: any, the same one after a restart
	LocalDir string // of a node, for jobs' files if there are connections; "": TMPDIR or /tmp
	Program  string // path of tranter on the nodes; "": a copy of Self in Dir/bin
	Self     string // path of this program
	Log      *slog.Logger
}

// Assignment is what the worker of one allocation is told.
type Assignment struct {
	Name        string           `json:"name"` // the allocation's: letters, digits, dashes, dots, underscores
	As          *tranter.Account `json:"as,omitempty"`
	Places      int              `json:"places,omitempty"`       // 0: 1
	TakeTimeout time.Duration    `json:"take_timeout,omitempty"` // 0: 2 minutes
	Linger      time.Duration    `json:"linger,omitempty"`
	LostAfter   time.Duration    `json:"lost_after,omitempty"` // 0: 2 minutes
	Walltime    time.Duration    `json:"walltime,omitempty"`   // 0: unknown
	Margin      time.Duration    `json:"margin,omitempty"`
	MaxUses     int              `json:"max_uses,omitempty"`
	Executor    json.RawMessage  `json:"executor,omitempty"` // for ServeOptions.Executor
	Before      string           `json:"-"`                  // lines of shell, in the script
	Environment []string         `json:"environment,omitempty"`
	IDVariable  string           `json:"id_variable,omitempty"` // environment variable that holds the batch job's id
}

// SignKind says what a sign tells.
type SignKind string

// The kinds of signs.
const (
	SignFirst SignKind = "first" // the worker has started; also the first sign after a restart of the manager
	SignAlive SignKind = "alive"
	SignEnded SignKind = "ended" // the worker ends, or has ended, by itself: Reason says why
)

// Sign is a sign of life of a worker.
type Sign struct {
	Name    string
	At      time.Time // when it was seen
	Kind    SignKind
	Until   time.Time // the end of the walltime, by the worker's clock; zero: unknown
	Host    string
	BatchID string
	Free    int // places for further jobs
	Reason  string
}

// ServeOptions say how the worker runs jobs.
type ServeOptions struct {
	Executor func(settings json.RawMessage) (tranter.Executor, error)
	Log      *slog.Logger
}
