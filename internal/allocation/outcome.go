package allocation

import (
	"fmt"
	"strings"

	"github.com/tranter-ci/tranter"
)

// OutcomeKind is as what a job fails because of its allocation: one of tranter's failure reasons.
type OutcomeKind = tranter.FailureReason

// Fate is what the end of an allocation means for a job that had a place in it.
type Fate struct {
	Text string // for the job's log
	Kind OutcomeKind
	// Site: it is about what the cluster did, not about what the job did: another try may go better.
	Site bool
}

// Outcome says what the end of an allocation means for a job that had a place in it, for the job's log, and as what the
// job fails (hpc, section 5.4). hadBegun: a phase of the job had been started; otherwise it may be begun elsewhere.
func Outcome(a Allocation, hadBegun bool) (text string, kind OutcomeKind) {
	f := FateOf(a, "")
	text = f.Text
	if !hadBegun {
		return text + ", before the job had begun", tranter.RunnerSystemFailure
	}
	return text, f.Kind
}

// FateOf is Outcome for a job that had begun. said is what the allocation's own worker gave as its reason to end, if it did.
func FateOf(a Allocation, said string) *Fate {
	j := a.Batch
	f := &Fate{Text: fallen(j), Kind: tranter.RunnerSystemFailure, Site: true}
	switch j.State {
	case tranter.BatchTimedOut:
		f.Kind, f.Site = tranter.JobExecutionTimeout, false
		if a.Shape.Walltime > 0 {
			f.Text += fmt.Sprintf("; it had %s, which is what the job's timeout and the site's limit leave", a.Shape.Walltime)
		}
	case tranter.BatchOutOfMemory:
		f.Kind, f.Site = tranter.ScriptFailure, false
		if a.Shape.Memory > 0 {
			f.Text += fmt.Sprintf("; it had %d MiB", a.Shape.Memory>>20)
		}
		f.Text += ". Ask for more memory, or use less"
	case tranter.BatchCancelled:
		if !a.Times.Told.IsZero() && a.Reason != "" {
			f.Text = "the batch job was ended: " + a.Reason
		}
	case tranter.BatchUnknown, tranter.BatchQueued, tranter.BatchRunning, "":
		f.Text = "the batch job was lost"
		if reason := first(said, a.Reason); reason != "" {
			f.Text += ": " + reason
		}
	default:
	}
	if said != "" && !strings.Contains(f.Text, said) {
		f.Text += " (" + said + ")"
	}
	return f
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// fallen says in words how a batch job has ended.
func fallen(j tranter.BatchJob) string {
	text := ""
	switch j.State {
	case tranter.BatchCompleted:
		text = "the batch job has ended"
	case tranter.BatchFailed:
		text = fmt.Sprintf("the batch job failed with exit code %d", j.ExitCode)
		if j.Signal != 0 {
			text = fmt.Sprintf("the batch job was killed by signal %d", j.Signal)
		}
	case tranter.BatchCancelled:
		text = "the batch job was cancelled by somebody else"
	case tranter.BatchTimedOut:
		text = "the batch job ran out of its time"
	case tranter.BatchNodeLost:
		text = "the batch job's node failed"
	case tranter.BatchPreempted:
		text = "the batch job had to make room for another one (it was preempted)"
	case tranter.BatchOutOfMemory:
		text = "the batch job used more memory than it has"
	default:
		return "the batch job was lost"
	}
	if j.Nodes != "" {
		text += ", on " + j.Nodes
	}
	if j.Reason != "" && j.Reason != "None" {
		text += " (" + j.Reason + ")"
	}
	return text
}
