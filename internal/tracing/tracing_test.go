package tracing_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/tracing"
)

// receiver is a collector at the wire.
type receiver struct {
	mu       sync.Mutex
	answers  []func(http.ResponseWriter) // of the first requests; then 200
	requests []time.Time
	header   http.Header
	path     string
	spans    []*tracepb.Span
	resource []*commonpb.KeyValue
	bad      error
}

func (c *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, time.Now())
	c.header, c.path = r.Header.Clone(), r.URL.Path
	if len(c.answers) > 0 {
		answer := c.answers[0]
		c.answers = c.answers[1:]
		if answer != nil {
			answer(w)
			return
		}
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		c.bad = err
		return
	}
	data, err := io.ReadAll(z)
	if err != nil {
		c.bad = err
		return
	}
	var request collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(data, &request); err != nil {
		c.bad = err
		return
	}
	for _, rs := range request.ResourceSpans {
		c.resource = rs.Resource.Attributes
		for _, ss := range rs.ScopeSpans {
			c.spans = append(c.spans, ss.Spans...)
		}
	}
	answer, _ := proto.Marshal(&collector.ExportTraceServiceResponse{})
	_, _ = w.Write(answer)
}

func (c *receiver) all(t *testing.T) []*tracepb.Span {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bad != nil {
		t.Error(c.bad)
	}
	return c.spans
}

func tracer(t *testing.T, o tracing.Options) *tracing.Tracer {
	t.Helper()
	tr, err := tracing.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func flush(t *testing.T, tr *tracing.Tracer) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	if err := tr.Close(ctx); err != nil {
		t.Error(err)
	}
}

func job(key string) tranter.JobHistory {
	taken := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return taken.Add(time.Duration(s) * time.Second) }
	return tranter.JobHistory{
		Key: key, Runner: "abcd1234", Name: "cloud", Executor: "docker+machine", Restarts: 1,
		Job: tranter.JobLabel{
			ID: 42, Name: "build: [arm64]", Stage: "build", URL: "https://gitlab.example.com/g/p/-/jobs/42", Pipeline: 7, Project: "g/p", Ref: "main", SHA: "0123abcd",
			User: "alice", Tags: []string{"linux", "arm"},
		},
		Place: tranter.JobPlace{Machine: "machine-3", Set: "large"},
		Times: tranter.JobTimes{Queued: 20 * time.Second, Taken: taken, Placed: at(15), Started: at(16), Ended: at(100)},
		Stages: []tranter.JobStage{
			{Name: "prepare_executor", Start: taken, End: at(15)},
			{Name: "job", Start: at(15), End: at(99), Steps: []tranter.StepRecord{
				{Name: "get_sources", Started: at(16).UnixMilli(), Ended: at(20).UnixMilli(), Status: tranter.PhaseSucceeded, Attempts: 2},
				{Name: "step_script", Started: at(20).UnixMilli(), Ended: at(99).UnixMilli(), Status: tranter.PhaseFailed},
			}},
			{Name: "cleanup", Start: at(99)},
		},
		Result: tranter.Result{State: tranter.JobFailed, Reason: tranter.ScriptFailure, ExitCode: 3, Message: "exit status 3"},
	}
}

func attributes(s *tracepb.Span) map[string]string {
	all := map[string]string{}
	for _, a := range s.Attributes {
		if v, is := a.Value.Value.(*commonpb.AnyValue_IntValue); is {
			all[a.Key] = fmt.Sprint(v.IntValue)
		} else {
			all[a.Key] = a.Value.GetStringValue()
		}
	}
	return all
}

func TestAJobIsATraceWithItsRealTimes(t *testing.T) {
	c := &receiver{}
	server := httptest.NewServer(c)
	defer server.Close()
	tr := tracer(t, tracing.Options{Endpoint: server.URL, Sample: 1, Version: "1.2.3", Headers: map[string]tranter.Secret{"Authorization": "Bearer of-secrets"}})
	tr.Job(job("k1"))
	flush(t, tr)
	spans := c.all(t)
	if c.path != "/v1/traces" || c.header.Get("Authorization") != "Bearer of-secrets" || c.header.Get("Content-Type") != "application/x-protobuf" {
		t.Errorf("path %s, header %v", c.path, c.header)
	}
	if len(c.resource) != 2 || c.resource[0].Value.GetStringValue() != "tranter" {
		t.Errorf("resource %v", c.resource)
	}
	var got []string
	names := map[string]string{"": "-"}
	for _, s := range spans {
		names[string(s.SpanId)] = s.Name
		start, end := time.Unix(0, int64(s.StartTimeUnixNano)).UTC(), time.Unix(0, int64(s.EndTimeUnixNano)).UTC()
		got = append(got, fmt.Sprintf("%s < %s %s-%s", s.Name, names[string(s.ParentSpanId)], start.Format("04:05"), end.Format("04:05")))
		if string(s.TraceId) != string(spans[0].TraceId) || len(s.TraceId) != 16 || len(s.SpanId) != 8 {
			t.Errorf("ids of %s: %x, %x", s.Name, s.TraceId, s.SpanId)
		}
	}
	want := []string{
		"build: [arm64] < - 59:40-01:40",
		"queued in GitLab < build: [arm64] 59:40-00:00",
		"wait for a place < build: [arm64] 00:00-00:15",
		"prepare_executor < build: [arm64] 00:00-00:15",
		"job < build: [arm64] 00:15-01:39",
		"get_sources < job 00:16-00:20",
		"step_script < job 00:20-01:39",
		"cleanup < build: [arm64] 01:39-01:40",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("spans:\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	about := attributes(spans[0])
	for key, value := range map[string]string{
		"cicd.pipeline.task.name": "build: [arm64]", "cicd.pipeline.run.id": "7", "cicd.pipeline.task.run.result": "failure", "vcs.ref.head.name": "main",
		"ci.runner": "abcd1234", "ci.machine": "machine-3", "ci.failure_reason": "script_failure", "ci.exit_code": "3", "ci.restarts": "1", "ci.tags": "linux,arm",
	} {
		if about[key] != value {
			t.Errorf("%s is %q, not %q", key, about[key], value)
		}
	}
	if s := spans[0].Status; s.Code != tracepb.Status_STATUS_CODE_ERROR || s.Message != "script_failure: exit status 3" {
		t.Errorf("status %v", s)
	}
	if s := spans[6].Status; s == nil || s.Code != tracepb.Status_STATUS_CODE_ERROR {
		t.Errorf("the status of the failed step is %v", s)
	}
}

func TestARepeatIsTheSameTrace(t *testing.T) {
	c := &receiver{}
	server := httptest.NewServer(c)
	defer server.Close()
	for _, key := range []string{"k1", "k1", "k2"} {
		tr := tracer(t, tracing.Options{Endpoint: server.URL + "/", Sample: 1})
		tr.Job(job(key))
		flush(t, tr)
	}
	spans := c.all(t)
	n := len(spans) / 3
	for i := range n {
		a, b, other := spans[i], spans[n+i], spans[2*n+i]
		if !bytes.Equal(a.SpanId, b.SpanId) || !bytes.Equal(a.TraceId, b.TraceId) {
			t.Errorf("%s has other ids the second time", a.Name)
		}
		if bytes.Equal(a.SpanId, other.SpanId) || bytes.Equal(a.TraceId, other.TraceId) {
			t.Errorf("%s has the ids of another job", a.Name)
		}
	}
}

func TestTheShareOfJobsIsTracedByTheirKeys(t *testing.T) {
	c := &receiver{}
	server := httptest.NewServer(c)
	defer server.Close()
	tr := tracer(t, tracing.Options{Endpoint: server.URL, Sample: 0.25})
	for i := range 1000 {
		tr.Job(tranter.JobHistory{Key: fmt.Sprint(i), Times: tranter.JobTimes{Taken: time.Now()}})
	}
	none := tracer(t, tracing.Options{Endpoint: server.URL})
	none.Job(job("k"))
	flush(t, tr)
	flush(t, none)
	if n := len(c.all(t)); n < 200 || n > 300 {
		t.Errorf("%d of 1000 jobs are traced", n)
	}
}

func TestTLSIsVerifiedWithTheGivenAuthorities(t *testing.T) {
	c := &receiver{}
	server := httptest.NewUnstartedServer(c)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	tr := tracer(t, tracing.Options{Endpoint: server.URL, Sample: 1, CA: ca})
	tr.Job(job("k"))
	flush(t, tr)
	if len(c.all(t)) == 0 {
		t.Error("nothing has arrived")
	}
	var log bytes.Buffer
	strict := tracer(t, tracing.Options{Endpoint: server.URL, Sample: 1, Log: slog.New(slog.NewTextHandler(&log, nil))})
	before := len(c.all(t))
	strict.Job(job("k"))
	flush(t, strict)
	if len(c.all(t)) != before || strict.Dropped() != 1 || !strings.Contains(log.String(), "certificate") {
		t.Errorf("an unknown authority is trusted, or it is not told: %s", log.String())
	}
	if _, err := tracing.New(t.Context(), tracing.Options{Endpoint: server.URL, CA: []byte("nonsense")}); err == nil {
		t.Error("a file without certificates is accepted")
	}
}

func TestEndpointsThatAreNoneAreRefused(t *testing.T) {
	for _, endpoint := range []string{"", "localhost:4318", "ftp://h/", "http://", "http://user:pass word@h:port", "unix:///x"} {
		_, err := tracing.New(t.Context(), tracing.Options{Endpoint: endpoint})
		if err == nil || strings.Contains(err.Error(), "pass") {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}

// memory is a transport to a receiver without a network, for virtual time.
func memory(c *receiver) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		return w.Result(), nil
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestABusyEndpointIsLeftAloneForAsLongAsItWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := func(status int, after string) func(http.ResponseWriter) {
			return func(w http.ResponseWriter) {
				w.Header().Set("Retry-After", after)
				w.WriteHeader(status)
			}
		}
		c := &receiver{answers: []func(http.ResponseWriter){busy(429, "40"), busy(503, ""), busy(502, time.Now().Add(90*time.Second).UTC().Format(http.TimeFormat))}}
		tr := tracer(t, tracing.Options{Endpoint: "http://h", Sample: 1, Transport: memory(c)})
		tr.Job(job("k"))
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
		defer stop()
		if err := tr.Close(ctx); err != nil {
			t.Fatal(err)
		}
		var gaps []int
		for i := 1; i < len(c.requests); i++ {
			gaps = append(gaps, int(c.requests[i].Sub(c.requests[i-1]).Seconds()))
		}
		if fmt.Sprint(gaps) != "[40 2 48]" || len(c.all(t)) == 0 {
			t.Errorf("waits %v, %d spans", gaps, len(c.spans))
		}
	})
}

// Jobs do not wait for an endpoint that is down; what there is no room for is counted, and told once a minute.
func TestAnEndpointThatIsDownDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		down := roundTrip(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
		tr := tracer(t, tracing.Options{
			Endpoint: "http://h?token=of-secrets", Sample: 1, Transport: down, Room: 10, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Headers: map[string]tranter.Secret{"X": "of-secrets"},
		})
		began := time.Now()
		for i := range 1000 {
			tr.Job(job(fmt.Sprint(i)))
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("jobs have waited for %v", took)
		}
		if n := tr.Dropped(); n < 900 {
			t.Errorf("%d dropped", n)
		}
		<-time.After(30 * time.Minute)
		ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
		defer stop()
		_ = tr.Close(ctx)
		if n := tr.Dropped(); n != 1000 {
			t.Errorf("%d of 1000 dropped", n)
		}
		if n := strings.Count(log.String(), "\n"); n == 0 || n > 10 || strings.Contains(log.String(), "of-secrets") {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

func TestTheEndWaitsNoLongerThanItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := roundTrip(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		tr := tracer(t, tracing.Options{Endpoint: "http://h", Sample: 1, Transport: slow})
		tr.Job(job("k"))
		began := time.Now()
		ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
		defer stop()
		if err := tr.Close(ctx); err == nil || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		tr.Job(job("later"))
		if tr.Dropped() == 0 {
			t.Error("what comes later is not counted")
		}
	})
}

func TestARefusalIsNotRepeated(t *testing.T) {
	var log bytes.Buffer
	c := &receiver{answers: []func(http.ResponseWriter){
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusUnauthorized) },
		func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://elsewhere.invalid/")
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
		func(w http.ResponseWriter) {
			data, _ := proto.Marshal(&collector.ExportTraceServiceResponse{PartialSuccess: &collector.ExportTracePartialSuccess{RejectedSpans: 5, ErrorMessage: "no"}})
			_, _ = w.Write(data)
		},
	}}
	server := httptest.NewServer(c)
	defer server.Close()
	for range 3 {
		tr := tracer(t, tracing.Options{Endpoint: server.URL, Sample: 1, Log: slog.New(slog.NewTextHandler(&log, nil))})
		tr.Job(job("k"))
		flush(t, tr)
	}
	if len(c.requests) != 3 {
		t.Errorf("%d requests", len(c.requests))
	}
	for _, want := range []string{"401 Unauthorized", "307 Temporary Redirect", "all but 5"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q: %s", want, log.String())
		}
	}
}

// Whatever is in a job's history: what is sent can be read.
func TestAnyHistoryIsATrace(t *testing.T) {
	c := &receiver{}
	server := httptest.NewServer(c)
	defer server.Close()
	tr := tracer(t, tracing.Options{Endpoint: server.URL, Sample: 1, Room: 10_000})
	rapid.Check(t, func(rt *rapid.T) {
		word := func() string { return string(rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(rt, "word")) }
		when := func() time.Time { return time.Unix(0, rapid.Int64().Draw(rt, "time")) }
		h := tranter.JobHistory{Key: word(), Name: word(), Job: tranter.JobLabel{Name: word(), Ref: word(), Tags: []string{word()}}, Result: tranter.Result{Message: word()}}
		h.Times = tranter.JobTimes{Queued: time.Duration(rapid.Int64().Draw(rt, "queued")), Taken: when(), Placed: when(), Ended: when()}
		for range rapid.IntRange(0, 4).Draw(rt, "stages") {
			h.Stages = append(h.Stages, tranter.JobStage{Name: word(), Start: when(), End: when(), Steps: []tranter.StepRecord{{Name: word(), Started: rapid.Int64().Draw(rt, "ms")}}})
		}
		tr.Job(h)
	})
	flush(t, tr)
	if len(c.all(t)) == 0 {
		t.Error("nothing has arrived")
	}
	for _, s := range c.all(t) {
		if s.EndTimeUnixNano < s.StartTimeUnixNano || len(s.Name) > 3000 {
			t.Fatalf("span %v", s)
		}
	}
}
