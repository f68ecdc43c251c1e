package tracing

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/tranter-ci/tranter"
)

// Bounds of what a job, whose names its author chooses, can put into a trace.
const (
	maxText   = 1000 // bytes
	maxStages = 100
	maxSteps  = 100 // of a stage
)

// spanner makes the spans of one job.
type spanner struct {
	key   string
	trace []byte
	root  []byte
	spans []*tracepb.Span
}

// spansOf returns the trace of a job that has ended: the job, with what it waited for and its stages below it, and their steps.
func spansOf(j *tranter.JobHistory) []*tracepb.Span {
	sum := sha256.Sum256([]byte("trace " + j.Key))
	s := &spanner{key: j.Key, trace: sum[:16]}
	t := j.Times
	queued := t.Taken.Add(-max(0, t.Queued))
	ended := t.Ended
	if ended.IsZero() {
		ended = t.Taken
	}
	s.root = s.add(nil, "job", j.Job.Name, queued, ended)
	root := s.spans[0]
	root.Attributes, root.Status = jobAttributes(j), jobStatus(j.Result)
	if t.Queued > 0 {
		s.add(s.root, "queued", "queued in GitLab", queued, t.Taken)
	}
	if !t.Placed.IsZero() {
		s.add(s.root, "placed", "wait for a place", t.Taken, t.Placed)
		s.last().Attributes = placeAttributes(j.Place)
	}
	for i, stage := range j.Stages[:min(len(j.Stages), maxStages)] {
		s.stage(i, stage, ended)
	}
	return s.spans
}

func (s *spanner) last() *tracepb.Span { return s.spans[len(s.spans)-1] }

func (s *spanner) stage(i int, stage tranter.JobStage, ended time.Time) {
	end := stage.End
	if end.IsZero() {
		end = ended
	}
	id := s.add(s.root, fmt.Sprintf("stage %d", i), stage.Name, stage.Start, end)
	for n, step := range stage.Steps[:min(len(stage.Steps), maxSteps)] {
		s.add(id, fmt.Sprintf("stage %d step %d", i, n), step.Name, time.UnixMilli(step.Started), time.UnixMilli(step.Ended))
		one := s.last()
		one.Attributes = []*commonpb.KeyValue{text("ci.step.status", string(step.Status))}
		if step.Attempts > 0 {
			one.Attributes = append(one.Attributes, number("ci.step.attempts", int64(step.Attempts)))
		}
		if step.Status != tranter.PhaseSucceeded && step.Status != "" {
			one.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: clip(string(step.Status))}
		}
	}
}

// add adds a span below another one, and returns its id, which comes from what it is.
func (s *spanner) add(parent []byte, what, name string, start, end time.Time) []byte {
	sum := sha256.Sum256([]byte("span " + s.key + "\x00" + what))
	id := sum[:8]
	s.spans = append(s.spans, &tracepb.Span{
		TraceId: s.trace, SpanId: id, ParentSpanId: parent, Name: clip(name), Kind: tracepb.Span_SPAN_KIND_INTERNAL,
		StartTimeUnixNano: nanos(start), EndTimeUnixNano: max(nanos(start), nanos(end)), // a clock may have been set back
	})
	return id
}

func nanos(t time.Time) uint64 {
	if t.Year() < 1970 || t.Year() > 2200 {
		return 0
	}
	return uint64(max(0, t.UnixNano()))
}

// jobAttributes are named as OpenTelemetry's conventions for CI/CD and version control have them; what those have no name for is ci.*.
func jobAttributes(j *tranter.JobHistory) []*commonpb.KeyValue {
	l := j.Job
	all := []*commonpb.KeyValue{
		text("cicd.pipeline.task.name", l.Name),
		text("cicd.pipeline.task.run.id", fmt.Sprint(l.ID)),
		text("cicd.pipeline.task.run.url.full", l.URL),
		text("cicd.pipeline.task.run.result", resultWord(j.Result)),
		text("cicd.pipeline.name", l.Project),
		text("cicd.worker.name", j.Name),
		text("vcs.repository.name", l.Project),
		text("vcs.ref.head.name", l.Ref),
		text("vcs.ref.head.revision", l.SHA),
		text("ci.job.stage", l.Stage),
		text("ci.job.key", j.Key),
		text("ci.user", l.User),
		text("ci.runner", j.Runner),
		text("ci.runner.name", j.Name),
		text("ci.executor", j.Executor),
		text("ci.failure_reason", string(j.Result.Reason)),
		text("ci.tags", strings.Join(l.Tags, ",")),
		number("ci.job.id", l.ID),
		number("ci.exit_code", int64(j.Result.ExitCode)),
	}
	if l.Pipeline != 0 {
		all = append(all, text("cicd.pipeline.run.id", fmt.Sprint(l.Pipeline)))
	}
	all = append(all, placeAttributes(j.Place)...)
	for name, n := range map[string]int64{
		"ci.restarts": int64(j.Restarts), "ci.cpu_time_ms": j.Usage.CPUTime.Milliseconds(), "ci.max_memory_bytes": j.Usage.MaxMemory, "ci.max_disk_bytes": j.Usage.MaxDisk,
	} {
		if n > 0 {
			all = append(all, number(name, n))
		}
	}
	return told(all)
}

func placeAttributes(p tranter.JobPlace) []*commonpb.KeyValue {
	return told([]*commonpb.KeyValue{text("ci.machine", p.Machine), text("ci.machine.set", p.Set), text("ci.batch", p.Batch)})
}

// told drops the attributes that say nothing.
func told(all []*commonpb.KeyValue) []*commonpb.KeyValue {
	kept := all[:0]
	for _, a := range all {
		if v, is := a.Value.Value.(*commonpb.AnyValue_StringValue); is && v.StringValue == "" {
			continue
		}
		kept = append(kept, a)
	}
	return kept
}

// resultWord is the convention's word for how a job has ended.
func resultWord(r tranter.Result) string {
	switch {
	case r.State == tranter.JobSuccess:
		return "success"
	case r.Reason == tranter.JobCanceled:
		return "cancellation"
	case r.Reason == tranter.JobExecutionTimeout:
		return "timeout"
	case r.Reason == "" || r.Reason == tranter.ScriptFailure:
		return "failure"
	}
	return "error"
}

func jobStatus(r tranter.Result) *tracepb.Status {
	if r.State == tranter.JobSuccess {
		return &tracepb.Status{Code: tracepb.Status_STATUS_CODE_OK}
	}
	message := string(r.Reason)
	if r.Message != "" {
		message = strings.TrimPrefix(message+": "+r.Message, ": ")
	}
	return &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: clip(message)}
}

func resource(service, version string) *resourcepb.Resource {
	return &resourcepb.Resource{Attributes: told([]*commonpb.KeyValue{text("service.name", service), text("service.version", version)})}
}

func scope(version string) *commonpb.InstrumentationScope {
	return &commonpb.InstrumentationScope{Name: "github.com/tranter-ci/tranter", Version: clip(version)}
}

func text(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: clip(value)}}}
}

func number(key string, value int64) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: value}}}
}

// clip bounds a text; what is not UTF-8 would make the whole batch unreadable.
func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "?")
}
