package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tranter-ci/tranter"
)

// jobMetrics count jobs as they are taken and end.
type jobMetrics struct {
	taken, failed, ended *prometheus.CounterVec
	duration             *prometheus.HistogramVec
	stages               *prometheus.HistogramVec // GitLab Runner's stages
	queue, wait          *prometheus.HistogramVec
	slow, mode           *prometheus.CounterVec
	queueSize            *prometheus.GaugeVec
	queueDepth           *prometheus.GaugeVec
	parts                *prometheus.HistogramVec // what the manager and the agent did
	recovered, restarts  *prometheus.CounterVec
	cpu, batchTime, cost *prometheus.CounterVec
	currency             string
	price                func(tranter.JobHistory) (float64, bool)
}

// traditional is the mode of all jobs: scripts, not GitLab's steps.
const traditional = "traditional"

// Buckets of histograms, in seconds (runner contract, section 12.7, gives their ends).
func jobBuckets() []float64 {
	return []float64{30, 60, 300, 600, 1800, 3600, 7200, 10800, 18000, 36000}
}

func waitBuckets() []float64 { return []float64{1, 3, 10, 30, 60, 120, 300, 900, 1800, 3600} }

func newJobMetrics(f factory, o Options) *jobMetrics {
	j := &jobMetrics{currency: o.Currency, price: o.BatchCost}
	j.gitlab(f)
	j.wait = f.histogram("tranter_job_wait_seconds", "How long jobs have waited from their creation in GitLab to their environment.", waitBuckets(), "runner", "runner_name")
	j.parts = f.histogram("tranter_job_stage_seconds", "How long each part of a job took, also what the manager does for it.",
		[]float64{0.1, 0.5, 1, 3, 10, 30, 60, 300, 900, 3600}, "runner", "runner_name", "stage")
	j.ended = f.counter("tranter_jobs_ended_total", "Jobs that have ended, by outcome: success, failed (by its own script), system (any other reason) or canceled.",
		"runner", "runner_name", "outcome")
	j.recovered = f.counter("tranter_jobs_recovered_total", "Jobs that were taken up after a restart of the manager.", "runner", "runner_name")
	j.restarts = f.counter("tranter_job_restarts_total", "Times that a job has begun anew because its machine was lost.", "runner", "runner_name")
	j.cpu = f.counter("tranter_job_cpu_seconds_total", "Processor time that jobs have used, as their agents have measured it.", "runner", "runner_name")
	j.batchTime = f.counter("tranter_batch_held_seconds_total", "Processors and GPUs that batch jobs have held, by time.", "runner", "runner_name", "resource")
	j.cost = f.counter("tranter_cost_total", "What machines and batch jobs have cost since the start of the process.", "runner", "runner_name", "kind", "currency")
	return j
}

// gitlab makes those that GitLab Runner has, too.
func (j *jobMetrics) gitlab(f factory) {
	j.taken = f.systemCounter("gitlab_runner_jobs_total", "Jobs that were taken.", "runner", "runner_name")
	j.failed = f.counter("gitlab_runner_failed_jobs_total", "Jobs that have failed, by the reason as it was found, whether GitLab knows it or not.",
		"runner", "runner_name", "failure_reason", "mode")
	j.duration = f.systemHistogram("gitlab_runner_job_duration_seconds", "How long jobs took, from when they were taken to their end.", jobBuckets(), "runner", "runner_name", "mode")
	j.stages = f.systemHistogram("gitlab_runner_job_stage_duration_seconds", "How long each stage of jobs took.", waitBuckets(), "runner", "runner_name", "stage")
	j.queue = f.systemHistogram("gitlab_runner_job_queue_duration_seconds", "How long jobs have waited in GitLab before they were taken.", waitBuckets(),
		"runner", "runner_name", "project_jobs_running")
	j.slow = f.systemCounter("gitlab_runner_acceptable_job_queuing_duration_exceeded_total",
		"Jobs that have waited in GitLab for longer than [[runners.monitoring.job_queuing_durations]] says is acceptable.", "runner", "runner_name")
	j.mode = f.counter("gitlab_runner_job_execution_mode_total", "Jobs by how they are run.", "mode", "executor")
	j.queueSize = f.systemGauge("gitlab_runner_job_queue_size", "Jobs in GitLab's queue for the runner, as it said when it last handed one out.", "runner", "runner_name")
	j.queueDepth = f.systemGauge("gitlab_runner_job_queue_depth", "How deep in GitLab's queue the last job was.", "runner", "runner_name")
}

func (j *jobMetrics) observe(e tranter.Event, r runner) {
	switch e.Kind {
	case tranter.JobTaken:
		j.took(e, r)
	case tranter.JobPlaced:
		j.wait.WithLabelValues(r.token, r.name).Observe(e.Past.Times.Wait(e.Time).Seconds())
	case tranter.JobEnded:
		j.end(e, r)
	default: // does not count here
	}
}

func (j *jobMetrics) took(e tranter.Event, r runner) {
	p := e.Past
	queue := p.Job.Queue
	j.taken.WithLabelValues(r.token, r.name).Inc()
	j.mode.WithLabelValues(traditional, r.executor).Inc()
	j.queue.WithLabelValues(r.token, r.name, projectJobs(queue.ProjectJobs)).Observe(p.Times.Queued.Seconds())
	if r.slowAt(e.Time, p.Times.Queued, queue.ProjectJobs) {
		j.slow.WithLabelValues(r.token, r.name).Inc()
	}
	j.queueSize.WithLabelValues(r.token, r.name).Set(float64(queue.Size))
	j.queueDepth.WithLabelValues(r.token, r.name).Set(float64(queue.Depth))
	j.slow.WithLabelValues(r.token, r.name).Add(0) // it is there before it is needed
}

func (j *jobMetrics) resumed(r runner) { j.recovered.WithLabelValues(r.token, r.name).Inc() }

func (j *jobMetrics) end(e tranter.Event, r runner) {
	p := e.Past
	if p.Result.State != tranter.JobSuccess {
		j.failed.WithLabelValues(r.token, r.name, failureReason(p.Result.Reason), traditional).Inc()
	}
	j.ended.WithLabelValues(r.token, r.name, outcome(p.Result)).Inc()
	ended := p.Times.Ended
	if ended.IsZero() {
		ended = e.Time
	}
	j.duration.WithLabelValues(r.token, r.name, traditional).Observe(max(0, ended.Sub(p.Times.Taken).Seconds()))
	if p.Restarts > 0 {
		j.restarts.WithLabelValues(r.token, r.name).Add(float64(p.Restarts))
	}
	j.cpu.WithLabelValues(r.token, r.name).Add(max(0, p.Usage.CPUTime.Seconds()))
	j.stagesOf(p, r)
	j.bill(p, r)
}

func (j *jobMetrics) stagesOf(p *tranter.JobHistory, r runner) {
	for _, s := range p.Stages {
		if s.End.IsZero() {
			continue
		}
		took := max(0, s.End.Sub(s.Start).Seconds())
		if len(s.Steps) == 0 {
			name := stageName(s.Name)
			j.parts.WithLabelValues(r.token, r.name, name).Observe(took)
			if name == "prepare_executor" {
				j.stages.WithLabelValues(r.token, r.name, name).Observe(took)
			}
			continue
		}
		for _, step := range s.Steps {
			took, name := max(0, float64(step.Ended-step.Started)/1000), stageName(step.Name)
			j.parts.WithLabelValues(r.token, r.name, name).Observe(took)
			j.stages.WithLabelValues(r.token, r.name, name).Observe(took)
		}
	}
}

// bill counts what a batch job has held and cost.
func (j *jobMetrics) bill(p *tranter.JobHistory, r runner) {
	if p.Bill == nil {
		return
	}
	held := p.Bill.Ran.Seconds()
	j.batchTime.WithLabelValues(r.token, r.name, "cpu").Add(max(0, held*float64(max(1, p.Bill.CPUs))))
	if p.Bill.GPUs > 0 {
		j.batchTime.WithLabelValues(r.token, r.name, "gpu").Add(max(0, held*float64(p.Bill.GPUs)))
	}
	if j.price == nil {
		return
	}
	if cost, priced := j.price(*p); priced {
		j.cost.WithLabelValues(r.token, r.name, "batch", j.currency).Add(max(0, cost))
	}
}

// outcome says how a job has ended, and whose fault a failure is.
func outcome(r tranter.Result) string {
	switch {
	case r.State == tranter.JobSuccess:
		return "success"
	case r.Reason == tranter.JobCanceled:
		return "canceled"
	case r.Reason == "" || r.Reason == tranter.ScriptFailure || r.Reason == tranter.JobExecutionTimeout:
		return "failed"
	}
	return "system"
}

// failureReason is the value of the label for a reason.
func failureReason(r tranter.FailureReason) string {
	switch r {
	case "":
		return string(tranter.ScriptFailure)
	case tranter.ScriptFailure, tranter.RunnerSystemFailure, tranter.JobExecutionTimeout, tranter.ImagePullFailure, tranter.RunnerConfigurationError,
		tranter.ExternalDependencyFailure, tranter.RunnerInterrupted, tranter.JobCanceled, tranter.UnknownFailure:
		return string(r)
	}
	return other
}

// projectJobs is the value of the label project_jobs_running: GitLab counts to a few and then says "+Inf"; larger numbers are rounded.
func projectJobs(text string) string {
	switch {
	case text == "":
		return "unknown"
	case text == "+Inf":
		return text
	case len(text) > 4 || strings.Trim(text, "0123456789") != "":
		return other
	case len(text) == 1:
		return text
	}
	return text[:1] + strings.Repeat("0", len(text)-1) + "+" // 10+, 20+ ... 900+
}

// stageName is the value of the label for a stage or a step: scripts have names that the job chooses.
func stageName(name string) string {
	switch name {
	case "accepting", "prepare_executor", "resolve_secrets", "prepare_script", "get_sources", "clear_worktree", "restore_cache", "download_artifacts",
		"step_script", "after_script", "archive_cache", "archive_cache_on_failure", "upload_artifacts_on_success", "upload_artifacts_on_failure",
		"cleanup_file_variables", "cleanup", "reporting", "job":
		return name
	}
	switch {
	case strings.HasPrefix(name, "step_"), name == "release":
		return "step_script"
	case strings.HasPrefix(name, "terminal"):
		return "terminal"
	case strings.HasPrefix(name, "upload_artifacts"):
		return "upload_artifacts"
	}
	return other
}
