package tranter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// MachineSpec says which machine a provider is to create.
type MachineSpec struct {
	Name    string   // chosen by us, unique: letters, digits, dashes and dots; it is the machine's host name too
	Mark    Mark     // put on the machine in the same call that creates it, where the provider can
	Options []string // NAME=VALUE of the chosen option set; they come after the provider's own and win
}

// Mark says whose a machine is, for all who look at what a provider has.
type Mark struct {
	Owner string // of the state directory that remembers the machine
	Pool  string // of that owner's pools
}

// Login is how a machine is reached over SSH.
type Login struct {
	Host     string `json:"host"`
	Port     int    `json:"port,omitempty"`     // 0: 22
	User     string `json:"user,omitempty"`     // empty: root
	Identity string `json:"identity,omitempty"` // file with the private key
}

// Power is whether a machine runs, as its provider says.
type Power string

// The states that matter to us.
const (
	PowerOn      Power = "running"
	PowerChanges Power = "changing" // it starts or stops
	PowerOff     Power = "stopped"
	PowerUnknown Power = "unknown" // the provider could not be asked
)

// Machine is what a provider says of a machine.
type Machine struct {
	Name  string `json:"name"`
	ID    string `json:"id,omitempty"` // the provider's own, for people
	Power Power  `json:"power,omitempty"`
	Login Login  `json:"login"`
	// Ref is what the provider needs to find the machine again. It may hold secrets.
	Ref json.RawMessage `json:"ref,omitempty"`
}

// MachineRef names a machine to its provider. Ref is empty for one of which nothing was noted before a crash.
type MachineRef struct {
	Name string          `json:"name"`
	Ref  json.RawMessage `json:"ref,omitempty"`
}

// Provider creates and removes machines. All methods may be called at the same time, for different machines.
type Provider interface {
	// Create makes a machine and returns once it is there, though it may still boot. A second call with the same name
	// finds what the first has made. While it works it calls note, from one goroutine, whenever it has learned more of
	// what Destroy needs; the caller keeps that, durably. After an error something may be there: Destroy removes it.
	// Errors: ErrNoCapacity, ErrRejected, *ThrottledError; all else may pass.
	Create(ctx context.Context, spec MachineSpec, note func(ref json.RawMessage)) (Machine, error)
	// Destroy removes a machine. One that is not there is success. *OrphanError: all is removed that could be found, and
	// something may be left that nobody can name.
	Destroy(ctx context.Context, m MachineRef) error
	// List returns the machines that there are: those of known that the provider still has, and where it can tell, others
	// with the mark. One that could not be asked for is in it with PowerUnknown; one that is not there is not in it.
	List(ctx context.Context, mark Mark, known []MachineRef) ([]Machine, error)
}

// Starter is what a Provider may be besides: one whose machines can be stopped and started again.
type Starter interface {
	Start(ctx context.Context, m MachineRef) (Machine, error)
	Stop(ctx context.Context, m MachineRef) error
}

// Checker is what a Provider may be besides: one that can tell before anything is created whether its settings are right.
type Checker interface {
	Check(ctx context.Context) error
}

// How the creation of a machine fails, besides what may pass.
var (
	// ErrNoCapacity means that there is no room for such a machine now: another kind or zone may have some. Quotas are meant too.
	ErrNoCapacity = errors.New("no capacity")
	// ErrRejected means that the request itself is wrong, such as an unknown image or a login that is refused: asking again
	// as it is does not help.
	ErrRejected = errors.New("rejected")
)

// ThrottledError means that the provider wants to be asked less often.
type ThrottledError struct {
	RetryAfter time.Duration // 0: it does not say
	Err        error
}

func (e *ThrottledError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ThrottledError) Unwrap() error { return e.Err }

// OrphanError means that a machine may be left at a provider that nobody can name: its creation was cut off before its id
// was known. A person has to look.
type OrphanError struct {
	Name string
	Hint string // where to look and for what
}

func (e *OrphanError) Error() string {
	return fmt.Sprintf("machine %s may have been left behind: %s", e.Name, e.Hint)
}

// Timing is one step on a machine's way to its first job.
type Timing struct {
	Step string        `json:"step"`
	Took time.Duration `json:"took"` // nanoseconds
}

// ErrMachineLost means that a machine has gone, or can't be reached any more, while a job was on it.
var ErrMachineLost = errors.New("the machine was lost")
