package metrics_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tranter-ci/tranter/internal/metrics"
	"github.com/tranter-ci/tranter/internal/view"
)

const deploy = "../../deploy"

// promtool runs it on files in deploy/prometheus.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Dir = filepath.Join(deploy, "prometheus")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestTheRulesAreRight(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", "rules.yml")
	promtool(t, "check", "config", "scrape.yml")
	promtool(t, "test", "rules", "rules_test.yml", "rules_days_test.yml")
}

// rule is one of rules.yml.
type rule struct {
	Record, Alert, Expr string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(deploy, "prometheus", "rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

func TestEachAlertIsTestedAndSaysWhatToDo(t *testing.T) {
	var tests []byte
	for _, file := range []string{"rules_test.yml", "rules_days_test.yml"} {
		data, err := os.ReadFile(filepath.Join(deploy, "prometheus", file))
		if err != nil {
			t.Fatal(err)
		}
		tests = append(tests, data...)
	}
	alerts := 0
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		alerts++
		if n := strings.Count(string(tests), "alertname: "+r.Alert); n < 2 {
			t.Errorf("%s is tested at %d times: one at which it fires and one at which it does not are needed", r.Alert, n)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s: a summary, a description or a severity is missing", r.Alert)
		}
	}
	if alerts < 15 {
		t.Errorf("only %d alerts", alerts)
	}
}

var name = regexp.MustCompile(`\b(?:gitlab_runner|tranter)_[a-z0-9_]+\b`)

// What rules and dashboards ask for is something that there is.
func TestRulesAndDashboardsNameMetricsThatThereAre(t *testing.T) {
	known := map[string]bool{}
	for _, d := range metrics.Catalog() {
		known[d.Name] = true
		if d.Type == "histogram" {
			for _, end := range []string{"_bucket", "_sum", "_count"} {
				known[d.Name+end] = true
			}
		}
	}
	queries := map[string]string{}
	for _, r := range rules(t) {
		queries[r.Record+r.Alert] = r.Expr
	}
	for _, q := range dashboardQueries(t) {
		queries[q.panel] = q.expr
	}
	for where, q := range queries {
		for _, n := range name.FindAllString(q, -1) {
			if !known[n] {
				t.Errorf("%s asks for %s, which there is not", where, n)
			}
		}
	}
}

// query is one of a dashboard.
type query struct{ panel, expr string }

func dashboardQueries(t *testing.T) []query {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(deploy, "grafana", "*.json"))
	if err != nil || len(files) != 2 {
		t.Fatalf("dashboards: %v, %v", files, err)
	}
	var all []query
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Title  string
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
			Templating struct{ List []struct{ Name string } }
		}
		if err := json.Unmarshal(data, &d); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if len(d.Templating.List) != 3 {
			t.Errorf("%s has no choice of the data source, the manager and the runner", f)
		}
		for _, p := range d.Panels {
			for _, one := range p.Targets {
				all = append(all, query{d.Title + " / " + p.Title, one.Expr})
			}
		}
	}
	return all
}

// lively is a manager's side in the test: much happens as long as it is there.
type lively struct {
	m     *metrics.Metrics
	mu    sync.Mutex
	began time.Time
}

func (l *lively) Snapshot(context.Context) (view.Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	s := crowd(now, 28, 12)
	for i := range s.Machines {
		s.Machines[i].Made = l.began
		s.Machines[i].Cost = now.Sub(l.began).Hours() * 0.4
	}
	return s, nil
}

// prometheus starts the real one, and returns its address.
func prometheus(t *testing.T, target string) string {
	t.Helper()
	dir := t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	data, err := os.ReadFile(filepath.Join(deploy, "prometheus", "rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	conf, err := os.ReadFile(filepath.Join(deploy, "prometheus", "scrape.yml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("127.0.0.1:9252", target, "interval: 15s", "interval: 250ms").Replace(string(conf))
	for file, content := range map[string][]byte{"rules.yml": data, "prometheus.yml": []byte(text)} {
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	cmd := exec.Command("prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address="+address, "--log.level=warn") //nolint:noctx // it is ended below, in order
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		timer := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("Prometheus: %s", log.String())
		}
	})
	return "http://" + address
}

// ask runs a query and returns the values, without those that are no number.
func ask(ctx context.Context, server, q string) (values []string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/api/v1/query?query="+url.QueryEscape(q), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Status, Error string
		Data          struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("%w: %.300s", err, body)
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("%s: %s", answer.Status, answer.Error)
	}
	for _, one := range answer.Data.Result {
		if v := fmt.Sprint(one.Value[1]); v != "NaN" {
			values = append(values, v)
		}
	}
	return values, nil
}

// Each query of the dashboards, and each recording rule, returns data of a real Prometheus that scrapes our metrics.
func TestTheDashboardsShowData(t *testing.T) {
	t.Parallel()
	l := &lively{began: time.Now()}
	l.m = metrics.New(options(l))
	server := httptest.NewServer(l.m.Handler())
	defer server.Close()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var busy sync.WaitGroup
	defer busy.Wait()
	quiet, end := context.WithCancel(ctx)
	defer end()
	busy.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			happen(l.m, time.Now(), 4)
			select {
			case <-quiet.Done():
				return
			case <-tick.C:
			}
		}
	})
	at := prometheus(t, strings.TrimPrefix(server.URL, "http://"))
	left := dashboardQueries(t)
	if len(left) < 40 {
		t.Errorf("only %d queries", len(left))
	}
	for _, r := range rules(t) {
		if r.Record != "" {
			left = append(left, query{"rules", r.Record})
		}
	}
	fill := strings.NewReplacer("$instance", ".*", "$runner", ".*", "$__rate_interval", "3s", "$__range", "1h")
	var last error
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for len(left) > 0 && ctx.Err() == nil {
		left = slices.DeleteFunc(left, func(q query) bool {
			values, err := ask(ctx, at, fill.Replace(q.expr))
			if err != nil {
				last = err
			}
			return len(values) > 0
		})
		<-tick.C
	}
	for _, q := range left {
		t.Errorf("%s: %s returns nothing (last error: %v)", q.panel, q.expr, last)
	}
}
