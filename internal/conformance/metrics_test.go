package conformance

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
)

// traces is a collector of OpenTelemetry at the wire.
type traces struct {
	mu    sync.Mutex
	raw   string
	spans []*tracepb.Span
	auth  string
}

func (c *traces) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		return
	}
	data, _ := io.ReadAll(z)
	var got tracepb.TracesData
	if proto.Unmarshal(data, &got) != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw, c.auth = c.raw+string(data), r.Header.Get("Authorization")
	for _, rs := range got.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			c.spans = append(c.spans, ss.Spans...)
		}
	}
}

func (c *traces) seen() (spans []*tracepb.Span, raw, auth string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spans, c.raw, c.auth
}

// logLines reads the program's log, of which each line is JSON.
func logLines(t *testing.T, r *rig) []map[string]any {
	t.Helper()
	var all []map[string]any
	lines := bufio.NewScanner(strings.NewReader(r.output.String()))
	for lines.Scan() {
		var one map[string]any
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			t.Errorf("a line of the log is no JSON: %s", lines.Text())
			continue
		}
		all = append(all, one)
	}
	return all
}

// fetch gets a page of the program's.
func fetch(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(body)
}

// A job with secrets is in the metrics, in the log and in its trace, and its secrets are in none of them.
func TestAJobIsSeenInMetricsLogAndTracesAndItsSecretsAreNot(t *testing.T) {
	t.Parallel()
	collector := &traces{}
	server := httptest.NewServer(collector)
	defer server.Close()
	r := newRig(t, `log_level = "debug"
log_format = "json"
listen_address = "127.0.0.1:0"
[tracing]
  endpoint = "`+server.URL+`"
  [tracing.headers]
    Authorization = "Bearer collectors-secret"
`, "")
	r.start()
	job := script(`echo "$MASKED_ONE"; cat "$FILE_ONE"`, `exit 3`)
	job.Variables = append(job.Variables,
		tranter.Variable{Key: "MASKED_ONE", Value: "masked-secret-value", Masked: true},
		tranter.Variable{Key: "FILE_ONE", Value: "secret-in-a-file", File: true, Masked: true},
		tranter.Variable{Key: "UNMASKED_ONE", Value: "private-though-unmasked"})
	job.Credentials = []tranter.Credential{{Type: "registry", URL: "registry.example.com", Username: "u", Password: "registry-password"}}
	id := r.Enqueue(job)
	if got := r.Wait(id); got.Status != coordinator.Failed {
		t.Errorf("status %s", got.Status)
	}

	base := ""
	for _, line := range logLines(t, r) {
		if line["msg"] == "Metrics are served" {
			base = strings.TrimSuffix(line["url"].(string), "/metrics")
		}
	}
	if base == "" {
		t.Fatal("the log does not say where metrics are served")
	}
	var page string
	deadline := time.Now().Add(10 * time.Second)
	for {
		page = fetch(t, base+"/metrics")
		spans, _, _ := collector.seen()
		if strings.Contains(page, "\ngitlab_runner_failed_jobs_total{") && len(spans) > 0 || time.Now().After(deadline) {
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	for _, want := range []string{
		`failure_reason="script_failure",mode="traditional"`, "\ngitlab_runner_jobs_total{", "\ngitlab_runner_concurrent 4\n", `endpoint="request_job",method="post"`,
		`endpoint="patch_trace",method="patch"`, `stage="step_script"`, "\ntranter_job_wait_seconds_count{", `gitlab_runner_process_state_info{state="running"} 1`, `system_id="`, `gitlab_runner_errors_total{level="warning"} `,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the metrics lack %q", want)
		}
	}
	spans, raw, auth := collector.seen()
	if auth != "Bearer collectors-secret" || len(spans) < 4 {
		t.Errorf("the collector got %d spans, with %q", len(spans), auth)
	}
	jobs := 0
	for _, line := range logLines(t, r) {
		if line["job"] == nil {
			continue
		}
		jobs++
		if line["runner"] == nil {
			t.Errorf("a line about a job does not name its runner: %v", line)
		}
	}
	if jobs < 3 {
		t.Errorf("only %d lines of the log are about the job", jobs)
	}
	seen := map[string]string{"log": r.output.String(), "metrics": page, "list of jobs": fetch(t, base+"/debug/jobs/list"), "trace": raw}
	token := r.Calls(coordinatortest.Trace)[0].Header.Get("Job-Token")
	if len(token) < 8 {
		t.Fatalf("the job's token: %q", token)
	}
	for _, secret := range []string{
		"masked-secret-value", "secret-in-a-file", "private-though-unmasked", "registry-password", "collectors-secret", r.Token.Reveal(), token,
	} {
		for where, text := range seen {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in the %s", secret, where)
			}
		}
	}
}
