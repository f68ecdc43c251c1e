package tranter

import "time"

// JobHistory is what is told of a job to people, and kept of it after its end. No secret is in it.
type JobHistory struct {
	Key      string     `json:"key"`    // JobRecord.Key
	Runner   string     `json:"runner"` // short token of the runner that took the job
	Name     string     `json:"runner_name,omitempty"`
	Executor string     `json:"executor,omitempty"`
	Job      JobLabel   `json:"job"`
	Place    JobPlace   `json:"place,omitzero"`
	Times    JobTimes   `json:"times"`
	Stages   []JobStage `json:"stages,omitempty"` // in order; the last one of a job that runs has no end
	Usage    JobUsage   `json:"usage,omitzero"`
	Result   Result     `json:"result"` // JobRunning until it has ended
	Restarts int        `json:"restarts,omitempty"`
	LogBytes int64      `json:"log_bytes,omitempty"`
	Bill     *Bill      `json:"bill,omitempty"` // of a batch job
}

// JobLabel says which job of whom it is.
type JobLabel struct {
	ID        int64    `json:"id"`
	Name      string   `json:"name"`
	Stage     string   `json:"stage,omitempty"`
	URL       string   `json:"url,omitempty"` // of the job's page
	Pipeline  int64    `json:"pipeline,omitempty"`
	ProjectID int64    `json:"project_id,omitempty"`
	Project   string   `json:"project,omitempty"` // full path, or the name where the server tells no path
	Ref       string   `json:"ref,omitempty"`
	SHA       string   `json:"sha,omitempty"`
	User      string   `json:"user,omitempty"`
	Tags      []string `json:"tags,omitempty"`
	Public    string   `json:"visibility,omitempty"` // of the project: private, internal or public
	Queue     JobQueue `json:"queue,omitzero"`
}

// JobQueue is what GitLab has told of its queue as it handed out a job.
type JobQueue struct {
	ProjectJobs string `json:"project_jobs,omitempty"` // of the project that run on shared runners: a number, or "+Inf"
	Size        int64  `json:"size,omitempty"`
	Depth       int64  `json:"depth,omitempty"`
}

// JobPlace is where a job runs; a job on this host has none.
type JobPlace struct {
	Machine string `json:"machine,omitempty"`
	Set     string `json:"set,omitempty"`   // option set of the machine
	Batch   string `json:"batch,omitempty"` // name of the allocation
}

// Placed is a Session that is somewhere else than on this host.
type Placed interface{ Place() JobPlace }

// JobTimes are the turning points of a job's life; zero: not reached.
type JobTimes struct {
	Queued  time.Duration `json:"queued"` // in GitLab, before it was taken; nanoseconds
	Taken   time.Time     `json:"taken"`
	Placed  time.Time     `json:"placed,omitzero"`  // its environment was made
	Started time.Time     `json:"started,omitzero"` // its first script began
	Ended   time.Time     `json:"ended,omitzero"`   // its result was known
}

// Wait returns how long a job has waited from its creation to its environment, or as far as that is known until now.
func (t JobTimes) Wait(now time.Time) time.Duration {
	until := now
	switch {
	case !t.Placed.IsZero():
		until = t.Placed
	case !t.Ended.IsZero():
		until = t.Ended
	}
	return t.Queued + max(0, until.Sub(t.Taken))
}

// JobStage is one part of a job's life: what the manager did for it, or a phase that the agent worked through.
type JobStage struct {
	Name  string       `json:"name"`
	Start time.Time    `json:"start"`
	End   time.Time    `json:"end,omitzero"`
	Steps []StepRecord `json:"steps,omitempty"` // of a phase
}

// JobUsage is what a job's processes have used, as its agent has measured it. Samples are in the order of time, at most MaxSamples of
// them, whatever the length of the job; those of later phases follow those of earlier ones.
type JobUsage struct {
	CPUTime   time.Duration `json:"cpu_time,omitempty"`   // nanoseconds
	MaxMemory int64         `json:"max_memory,omitempty"` // bytes, of all processes together where the system tells, else of the largest
	MaxDisk   int64         `json:"max_disk,omitempty"`   // bytes that the disk of the builds directory had less than at the start
	Samples   []UsageSample `json:"samples,omitempty"`
}

// MaxSamples bounds JobUsage.Samples.
const MaxSamples = 120

// UsageSample is what was used at a time.
type UsageSample struct {
	At     time.Time `json:"at"`
	CPU    float64   `json:"cpu"`    // processors busy since the sample before
	Memory int64     `json:"memory"` // bytes
	Disk   int64     `json:"disk"`   // bytes less on the disk of the builds directory than at the start
}
