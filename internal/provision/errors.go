package provision

import (
	"fmt"
	"time"
)

// StepError means that a machine could not be made ready: another may do better.
type StepError struct {
	Machine string
	Step    string
	Reason  string
	Output  string // the end of what its programs have said
}

func (e *StepError) Error() string {
	text := fmt.Sprintf("prepare machine %s: step %s: %s", e.Machine, e.Step, e.Reason)
	if e.Output != "" {
		text += "; it said: " + e.Output
	}
	return text
}

// HeldError means that another manager looks after the machine: another state directory has it in its pool.
type HeldError struct {
	Machine string
	Owner   string // the other
	For     time.Duration
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("the machine %s is looked after by another manager (%s) for %v more after its last sign of life: take the machine out of one of the two pools", e.Machine, e.Owner, e.For)
}
