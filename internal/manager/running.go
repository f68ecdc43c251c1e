package manager

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/job"
)

// running is a job that is not reported yet.
type running struct {
	runner      runnerKey
	name        string // of the runner
	job         *tranter.Job
	taken       time.Time
	slot        int // among the runner's jobs
	projectSlot int
	stage       string
	door        *job.Door
	history     *job.History
	freed       bool // it has given its place and numbers back: what is left is to report it
}

// recordKey names a job among all that the manager has, also if a server that was set up anew counts from 1 again.
func recordKey(url string, j *tranter.Job) string {
	sum := sha256.Sum256([]byte(url + "\n" + j.Token.Reveal()))
	return fmt.Sprintf("%d-%s", j.ID, hex.EncodeToString(sum[:6]))
}

// accept takes a job that a coordinator has handed out, together with the place of the request. It is recorded before
// anything is done with it; if it can't be, or the manager is to stop, it is reported failed. Access is what the
// coordinator was told with the request.
func (m *Manager) accept(r Runner, j *tranter.Job, access *tranter.Access) {
	log := m.options.Log.With("job", j.ID, "runner", r.Token.Short(), "project", j.Info.ProjectID)
	m.mu.Lock()
	m.lastJob = time.Now()
	stopping := m.state == Stopping
	m.mu.Unlock()
	rec := tranter.JobRecord{
		Key: recordKey(r.URL, j), Runner: r.Token.Short(), URL: r.URL, Job: j, Local: j.Local, Access: access, Taken: time.Now(),
	}
	if stopping {
		rec.Result = &tranter.Result{State: tranter.JobFailed, Reason: tranter.RunnerSystemFailure, Message: "the runner was stopping when it received the job"}
	}
	rec.RunnerSlot, rec.Slot = m.number(r, rec)
	if err := m.options.Records.Save(m.reports, rec); err != nil {
		log.Error("The job could not be recorded; it is reported as failed", "error", err)
		rec.Result = &tranter.Result{State: tranter.JobFailed, Reason: tranter.RunnerSystemFailure, Message: fmt.Sprintf("the runner could not record the job: %v", err)}
	}
	// Not before: a crash up to the record loses the job, whoever has read of it.
	log.Info("Checking for jobs... received", "name", j.Info.Name, "repo_url", j.CleanRepoURL())
	if h := historyOf(m, rec.Key); h != nil {
		past := h.Now()
		tellOf(m, tranter.JobTaken, past, "Checking for jobs... received "+about(past.Job))
	}
	m.launch(r, rec)
}

// number gives a job the lowest numbers that no other running job has: among those of its runner, and among those of
// them of its project (runner contract, section 1.9).
func (m *Manager) number(r Runner, rec tranter.JobRecord) (runner, inProject int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	byRunner, byProject := map[int]bool{}, map[int]bool{}
	for _, o := range m.running {
		if o.runner != r.key() || o.freed {
			continue
		}
		byRunner[o.slot] = true
		if o.job.Info.ProjectID == rec.Job.Info.ProjectID {
			byProject[o.projectSlot] = true
		}
	}
	rec.RunnerSlot, rec.Slot = lowest(byRunner), lowest(byProject)
	m.running[rec.Key] = entryOf(r, rec) // held from now on
	return rec.RunnerSlot, rec.Slot
}

func entryOf(r Runner, rec tranter.JobRecord) *running {
	return &running{
		runner: runnerKey{url: rec.URL, short: rec.Runner}, name: r.Name, job: rec.Job, taken: rec.Taken,
		slot: rec.RunnerSlot, projectSlot: rec.Slot, stage: "pending", door: job.NewDoor(), history: job.NewHistory(rec, r.Name, r.Plan.Executor),
	}
}

func lowest(used map[int]bool) int {
	n := 0
	for used[n] {
		n++
	}
	return n
}

// launch runs a job, or goes on with it, in a goroutine of its own.
func (m *Manager) launch(r Runner, rec tranter.JobRecord) {
	entry := enter(m, r, rec)
	m.owned.Go(func() { m.runJob(r, rec, entry) })
}

// enter lets a job be one of those that run, unless it is: since it was given its numbers, or was taken up.
func enter(m *Manager, r Runner, rec tranter.JobRecord) *running {
	m.mu.Lock()
	defer m.mu.Unlock()
	entry := m.running[rec.Key]
	if entry == nil {
		entry = entryOf(r, rec)
		m.running[rec.Key] = entry
	}
	return entry
}

func (m *Manager) runJob(r Runner, rec tranter.JobRecord, entry *running) {
	log := m.options.Log.With("job", rec.Job.ID, "runner", rec.Runner, "project", rec.Job.Info.ProjectID)
	var once sync.Once
	free := func() { once.Do(func() { m.free(entry) }) }
	defer forget(m, rec.Key)
	defer free()
	defer admit(m, rec, entry.door)()
	result, err := job.Run(m.jobs, m.reports, job.Task{
		Record: rec, Settings: r.Plan, Executor: r.Executor, Caches: r.Caches, Measure: r.Measure, Reporter: r.Coordinator, Records: m.options.Records, Secrets: m.options.Secrets,
		Dir: jobDir(m, rec.Key), Log: log,
		Stage: func(s string) { setStage(m, entry, s) }, Freed: free,
		Prepare: r.Limits.Prepare, Reporting: job.Reporting{
			DynamicForce: r.Plan.Flags["FF_USE_DYNAMIC_TRACE_FORCE_SEND_INTERVAL"],
			Tries:        r.Limits.Tries, Interval: r.Limits.Report, SignOfLife: r.Limits.Report,
		},
		Ties: job.Ties{
			History: entry.history, Past: m.options.Past, Logs: m.options.Logs,
			Placed: func() { placed(m, entry.history.Now(), log) },
		},
		Door: entry.door, Linger: m.options.Linger, Ending: m.polling.Done(),
	})
	if err != nil {
		leave(m, rec.Key) // before it is forgotten
		log.Warn("The job is left for the next start", "error", err)
		return
	}
	ended(m, entry.history.Now(), result, log)
}

func setStage(m *Manager, entry *running, stage string) {
	m.mu.Lock()
	entry.stage = stage
	m.mu.Unlock()
}

// free gives a job's place and numbers to others.
func (m *Manager) free(entry *running) {
	m.mu.Lock()
	entry.freed = true
	m.lastJob = time.Now()
	p := m.pollers[entry.runner]
	m.mu.Unlock()
	m.places.release()
	if p != nil {
		p.freed()
	}
}

func forget(m *Manager, key string) {
	m.mu.Lock()
	delete(m.running, key)
	m.mu.Unlock()
}
