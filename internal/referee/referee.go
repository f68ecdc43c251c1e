// Package referee collects what a Prometheus server has measured of a job's environment while the job ran (runner
// contract, section 8.6). It knows neither jobs nor executors: its caller says which series are the job's, and uploads
// what it returns.
package referee

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The artifact in which measurements reach GitLab.
const (
	Filename = "metrics_referee.json"
	Type     = "metrics_referee"
	Format   = "gzip"
)

// Metrics is a Prometheus server and what to ask it.
type Metrics struct {
	Address  string        // of the server
	Interval time.Duration // between two values of a series
	Queries  []string      // name:expression, with {selector} and {interval}
	Client   *http.Client  // nil: http.DefaultClient
}

// maxAnswer bounds the answer to one query in bytes.
const maxAnswer = 16 << 20

// queryTime is what one query may take.
const queryTime = 30 * time.Second

// Collect returns, as JSON, for each query's name the values of the first series that the server has for the time span:
// pairs of seconds and the value as text. The selector, such as `instance="machine-1"`, says which series are the job's.
// Queries that fail are left out and told in the error; the JSON is nil if none has a result.
func (m Metrics) Collect(ctx context.Context, selector string, from, to time.Time) ([]byte, error) {
	results := map[string]json.RawMessage{}
	var failed error
	for _, q := range m.Queries {
		name, expression, ok := strings.Cut(q, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			failed = errors.Join(failed, fmt.Errorf("query %q: expected name:expression", q))
			continue
		}
		values, err := m.query(ctx, m.fill(expression, selector), from, to)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("query %s: %w", name, err))
			continue
		}
		if values != nil {
			results[name] = values
		}
	}
	if len(results) == 0 {
		return nil, failed
	}
	text, err := json.Marshal(results)
	return text, errors.Join(failed, err)
}

func (m Metrics) interval() time.Duration { return max(m.Interval, time.Second) }

func (m Metrics) fill(expression, selector string) string {
	seconds := strconv.FormatInt(int64(m.interval()/time.Second), 10) + "s"
	return strings.NewReplacer("{selector}", selector, "{interval}", seconds).Replace(expression)
}

// answer is Prometheus's answer to a query for a time span.
type answer struct {
	Status string `json:"status"`
	Error  string `json:"error"`
	Data   struct {
		Type   string `json:"resultType"`
		Result []struct {
			Values json.RawMessage `json:"values"`
		} `json:"result"`
	} `json:"data"`
}

// query returns the values of the first series; nil: there is none.
func (m Metrics) query(ctx context.Context, expression string, from, to time.Time) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	address, err := url.Parse(m.Address)
	if err != nil {
		return nil, errors.New("prometheus_address is no address")
	}
	address = address.JoinPath("api/v1/query_range")
	address.RawQuery = url.Values{
		"query": {expression}, "start": {unix(from)}, "end": {unix(to)}, "step": {strconv.FormatFloat(m.interval().Seconds(), 'f', -1, 64)},
	}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, err
	}
	client := m.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var a answer
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&a); err != nil {
		return nil, fmt.Errorf("the server answers %s: %w", resp.Status, err)
	}
	switch {
	case a.Status != "success":
		return nil, fmt.Errorf("the server answers %s: %s", resp.Status, a.Error)
	case a.Data.Type != "matrix":
		return nil, fmt.Errorf("the result is of type %q, not matrix", a.Data.Type)
	case len(a.Data.Result) == 0:
		return nil, nil
	}
	return a.Data.Result[0].Values, nil
}

func unix(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
