package metrics

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Call is one try of a call of GitLab's API.
type Call struct {
	Endpoint string // request_job, update_job, patch_trace, reset_token or other
	Method   string
	Status   int // -1: there was no answer
	Took     time.Duration
}

// callMetrics count calls of GitLab.
type callMetrics struct {
	statuses *prometheus.CounterVec
	took     *prometheus.HistogramVec
}

func newCallMetrics(f factory) *callMetrics {
	return &callMetrics{
		statuses: f.systemCounter("gitlab_runner_api_request_statuses_total", "Calls of GitLab's API by the status of the answer; -1: there was none.",
			"runner", "endpoint", "status", "method"),
		took: f.systemHistogram("gitlab_runner_api_request_duration_seconds", "How long calls of GitLab's API took; a held request for a job takes long.",
			[]float64{0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60}, "runner", "endpoint", "status_class", "method"),
	}
}

// Call counts a call of GitLab's API that a runner, by its short token and its name, has made.
func (m *Metrics) Call(token, name string, c Call) {
	r := m.runners.of(token, name, "")
	status, class := statusLabels(c.Status)
	endpoint, method := oneOf(c.Endpoint, endpoints()), oneOf(strings.ToLower(c.Method), methods())
	m.calls.statuses.WithLabelValues(r.token, endpoint, status, method).Inc()
	m.calls.took.WithLabelValues(r.token, endpoint, class, method).Observe(c.Took.Seconds())
}

func endpoints() []string { return []string{"request_job", "update_job", "patch_trace", "reset_token"} }

func methods() []string { return []string{"get", "post", "put", "patch", "delete", "head"} }

// statusLabels returns a status and its class. A server could send any number: only those with a meaning are told apart.
func statusLabels(status int) (exact, class string) {
	if status < 100 || status > 599 {
		return "-1", "error"
	}
	return strconv.Itoa(status), strconv.Itoa(status/100) + "xx"
}

// oneOf returns a value if it is one of the known ones, else other.
func oneOf(value string, known []string) string {
	if slices.Contains(known, value) {
		return value
	}
	return other
}
