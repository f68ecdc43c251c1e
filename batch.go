package tranter

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Shape is what a batch job asks its scheduler for. What is zero or empty is left to the scheduler.
type Shape struct {
	Nodes       int           `json:"nodes,omitempty"`
	CPUs        int           `json:"cpus,omitempty"`   // altogether, on each node
	Memory      int64         `json:"memory,omitempty"` // bytes, on each node
	GPUs        int           `json:"gpus,omitempty"`   // on each node
	GPUType     string        `json:"gpu_type,omitempty"`
	Walltime    time.Duration `json:"walltime,omitempty"`  // nanoseconds; schedulers count in minutes: it is rounded up
	Partition   string        `json:"partition,omitempty"` // or queue
	Account     string        `json:"account,omitempty"`   // that pays
	QOS         string        `json:"qos,omitempty"`
	Constraint  string        `json:"constraint,omitempty"`
	Reservation string        `json:"reservation,omitempty"`
	Exclusive   bool          `json:"exclusive,omitempty"`
	Options     []string      `json:"options,omitempty"` // further ones of the scheduler's submit command, each one argument
}

// Account is the system user as whom something runs.
type Account struct {
	Name   string   `json:"name"`
	Home   string   `json:"home"`
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
}

// BatchSpec is a batch job to submit.
type BatchSpec struct {
	Name    string // chosen by us, unique: letters, digits and dashes; by it the job is found again
	Comment string // for people; no secret
	Script  string // begins with #!; no secret
	Output  string // file that gets what the script prints; absolute
	Dir     string // working directory; absolute
	Shape   Shape
	Exclude []string // nodes that are not to be used
	As      *Account // whose job it is; nil: ours
}

// BatchState is how a batch job stands, whatever its scheduler calls that.
type BatchState string

// The states of batch jobs. From BatchCompleted on they are final.
const (
	BatchUnknown     BatchState = "unknown"
	BatchQueued      BatchState = "queued"
	BatchRunning     BatchState = "running" // also while it starts or ends
	BatchCompleted   BatchState = "completed"
	BatchFailed      BatchState = "failed" // its script has; ExitCode and Signal say how
	BatchCancelled   BatchState = "cancelled"
	BatchTimedOut    BatchState = "timed out"
	BatchNodeLost    BatchState = "node lost"
	BatchPreempted   BatchState = "preempted"
	BatchOutOfMemory BatchState = "out of memory"
)

// Final says whether a batch job in this state has ended.
func (s BatchState) Final() bool {
	switch s {
	case BatchUnknown, BatchQueued, BatchRunning:
		return false
	default:
		return true
	}
}

// BatchJob is what a scheduler says of a batch job.
type BatchJob struct {
	ID     string     `json:"id"`
	Name   string     `json:"name"`
	State  BatchState `json:"state"`
	Native string     `json:"native,omitempty"` // the state in the scheduler's word
	Reason string     `json:"reason,omitempty"` // why it waits, or how it ended, in the scheduler's words
	Never  bool       `json:"never,omitempty"`  // it waits, and the reason is one that does not pass by itself
	Queue  string     `json:"queue,omitempty"`  // partition
	Nodes  string     `json:"nodes,omitempty"`  // on which it runs or ran, as the scheduler writes it
	// ExitCode and Signal are the script's, once it has ended.
	ExitCode  int       `json:"exit_code,omitempty"`
	Signal    int       `json:"signal,omitempty"`
	Submitted time.Time `json:"submitted,omitzero"`
	Expected  time.Time `json:"expected,omitzero"` // when the scheduler thinks that it will start
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Usage     Usage     `json:"usage,omitzero"`
}

// Usage is what a batch job has used, as far as its scheduler accounts for it.
type Usage struct {
	Nodes     int           `json:"nodes,omitempty"`
	CPUs      int           `json:"cpus,omitempty"`       // that were allocated, over all nodes
	CPUTime   time.Duration `json:"cpu_time,omitempty"`   // allocated: CPUs times run time; nanoseconds
	MaxMemory int64         `json:"max_memory,omitempty"` // bytes
}

// Bill is what one CI job has used of a batch system.
type Bill struct {
	BatchJob  string        `json:"batch_job"`       // the scheduler's id
	Nodes     string        `json:"nodes,omitempty"` // as the scheduler writes them
	Queue     string        `json:"queue,omitempty"` // partition
	CPUs      int           `json:"cpus,omitempty"`  // that the job had
	GPUs      int           `json:"gpus,omitempty"`
	Waited    time.Duration `json:"waited"`               // of the batch job, in the queue; nanoseconds
	Ran       time.Duration `json:"ran"`                  // of the CI job, in the batch job
	CPUTime   time.Duration `json:"cpu_time,omitempty"`   // that its processes have used
	MaxMemory int64         `json:"max_memory,omitempty"` // of its largest process, bytes
}

// CPUHours returns for how many hours of one processor the job has held what it had.
func (b Bill) CPUHours() float64 { return float64(max(1, b.CPUs)) * b.Ran.Hours() }

// String returns the bill as a line for people.
func (b Bill) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "Batch job %s", b.BatchJob)
	if b.Nodes != "" {
		fmt.Fprintf(&s, " on %s", b.Nodes)
	}
	fmt.Fprintf(&s, ": waited %s, ran %s, %.4f CPU hours", b.Waited.Round(time.Second), b.Ran.Round(time.Second), b.CPUHours())
	if b.GPUs > 0 {
		fmt.Fprintf(&s, ", %.4f GPU hours", float64(b.GPUs)*b.Ran.Hours())
	}
	if b.CPUTime > 0 {
		fmt.Fprintf(&s, ", %s of CPU time used", b.CPUTime.Round(10*time.Millisecond))
	}
	if b.MaxMemory > 0 {
		fmt.Fprintf(&s, ", largest process %d MiB", (b.MaxMemory+1<<20-1)>>20)
	}
	return s.String()
}

// Scheduler is a cluster's batch system. All methods may be called at the same time. Errors say what the scheduler has said.
type Scheduler interface {
	// Submit hands a batch job in, not to be started again by the scheduler, and returns its id. ErrRejected: it is refused as
	// it is; ErrNoCapacity: there are too many jobs already, by whatever limit. After any other error the job may be there: List
	// tells, by its name.
	Submit(ctx context.Context, spec BatchSpec) (id string, err error)
	// List returns, in one query, the jobs whose names begin with prefix: all that wait or run, and those that have ended and
	// that the scheduler still names. An error says nothing about any job.
	List(ctx context.Context, prefix string) ([]BatchJob, error)
	// Final returns what the accounting knows of jobs that List does not name any more. Those it does not know are left out.
	Final(ctx context.Context, ids []string) ([]BatchJob, error)
	// Cancel ends jobs, waiting and running ones, in one call. Those that are not there are no error.
	Cancel(ctx context.Context, ids []string) error
	// Check says without submitting it whether a job could ever run: ErrRejected with the scheduler's reason if not. Where the
	// scheduler can't tell, nil.
	Check(ctx context.Context, spec BatchSpec) error
}
