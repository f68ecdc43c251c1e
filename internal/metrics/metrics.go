// Package metrics keeps and shows Prometheus metrics of a manager: GitLab Runner's names, types and labels where the meaning is
// the same (runner contract, section 12.7), and tranter_* for the rest.
//
// Counters and histograms grow with the events that Observe is told; they begin at 0 with each process. Gauges are read from a
// view.Snapshot at each scrape. No label has a value that a job, a user or a machine chooses.
package metrics

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// Source tells what is there now.
type Source interface {
	Snapshot(ctx context.Context) (view.Snapshot, error)
}

// Options say what there is to show. Only Source is needed. The functions are called at each scrape, and return at once; what has
// none is not shown.
type Options struct {
	Source   Source
	Version  Version
	SystemID string // of this manager in GitLab
	Currency string // of all prices
	// Log is the log whose lines are counted, if CountLevels has made its handler.
	Log *slog.Logger
	// Lag returns the bytes of jobs' logs that were written and that GitLab has not confirmed yet.
	Lag func() int64
	// Unkept returns how often the past could not be kept since the start.
	Unkept func() int64
	// Viewers returns how many people look at the web page or follow events.
	Viewers func() int
	// Disk returns the bytes that are free where the state directory is, and those that there are; an error: they are not shown.
	Disk func() (free, size uint64, err error)
	// BatchCost returns what a batch job has cost, and whether there is a price for it.
	BatchCost func(j tranter.JobHistory) (cost float64, priced bool)
}

// Version is what is told of the program.
type Version struct{ Version, Revision, Branch, Built string }

// Metrics are a manager's metrics. It is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	runners  *runnerBook
	jobs     *jobMetrics
	machines *machineMetrics
	calls    *callMetrics
	manager  *managerMetrics
	stand    *stand
}

// scrapeLimit is how long a scrape waits for the snapshot.
const scrapeLimit = 5 * time.Second

// New makes the metrics in a registry of their own.
func New(o Options) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), runners: newRunnerBook()}
	f := factory{registry: m.registry, system: prometheus.Labels{"system_id": o.SystemID}}
	m.jobs = newJobMetrics(f, o)
	m.machines = newMachineMetrics(f, o, m.jobs.cost)
	m.calls = newCallMetrics(f)
	m.manager = newManagerMetrics(f, o)
	m.stand = newStand(o, m)
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.stand,
	)
	return m
}

// Handler serves the metrics, in the text format or OpenMetrics, compressed if the client wants that.
func (m *Metrics) Handler() http.Handler {
	page := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, ErrorHandling: promhttp.ContinueOnError})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.stand.look(r.Context())
		page.ServeHTTP(w, r)
	})
}

// Observe counts an event.
func (m *Metrics) Observe(e tranter.Event) {
	m.manager.observe(e)
	if e.Past != nil {
		m.jobs.observe(e, m.runners.of(e.Past.Runner, e.Past.Name, e.Past.Executor))
	}
	if e.Kind == tranter.JobResumed {
		m.jobs.resumed(m.runners.of(e.Runner, "", ""))
	}
	if e.Machine != "" || e.Batch != "" {
		m.machines.observe(e, m.runners.of(e.Runner, "", ""))
	}
}

// Missed counts events that Observe was not told, since they came too fast.
func (m *Metrics) Missed(events int64) {
	if events > 0 {
		m.manager.missed.Add(float64(events))
	}
}

// Described is what there is to know of a metric.
type Described struct {
	Name, Type, Help string
	Labels           []string
}

// Catalog returns all metrics but those of the Go runtime and the process, in the order of their names.
func Catalog() []Described {
	f := factory{registry: prometheus.NewRegistry(), system: prometheus.Labels{"system_id": ""}, all: &[]Described{}}
	o := Options{Lag: func() int64 { return 0 }, Unkept: func() int64 { return 0 }, Viewers: func() int { return 0 }}
	jobs := newJobMetrics(f, o)
	newMachineMetrics(f, o, jobs.cost)
	newCallMetrics(f)
	newManagerMetrics(f, o)
	for _, g := range gauges() {
		f.note(g.name, "gauge", g.help, g.labels, g.system)
	}
	all := *f.all
	slices.SortFunc(all, func(a, b Described) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// factory makes metrics and registers them.
type factory struct {
	registry *prometheus.Registry
	system   prometheus.Labels // of the metrics that GitLab Runner gives a system_id
	all      *[]Described      // nil: nobody wants a list
}

func (f factory) note(name, kind, help string, labels []string, system bool) {
	if f.all == nil {
		return
	}
	labels = slices.Clone(labels)
	if system {
		labels = append(labels, "system_id")
	}
	*f.all = append(*f.all, Described{name, kind, help, labels})
}

func (f factory) counter(name, help string, labels ...string) *prometheus.CounterVec {
	return f.newCounter(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// systemCounter makes a counter that has the label system_id.
func (f factory) systemCounter(name, help string, labels ...string) *prometheus.CounterVec {
	return f.newCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: f.system}, labels)
}

func (f factory) newCounter(o prometheus.CounterOpts, labels []string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(o, labels)
	f.registry.MustRegister(v)
	f.note(o.Name, "counter", o.Help, labels, o.ConstLabels != nil)
	return v
}

func (f factory) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return f.newHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
}

// systemHistogram makes a histogram that has the label system_id.
func (f factory) systemHistogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return f.newHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets, ConstLabels: f.system}, labels)
}

func (f factory) newHistogram(o prometheus.HistogramOpts, labels []string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(o, labels)
	f.registry.MustRegister(v)
	f.note(o.Name, "histogram", o.Help, labels, o.ConstLabels != nil)
	return v
}

// systemGauge makes a gauge that has the label system_id.
func (f factory) systemGauge(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: f.system}, labels)
	f.registry.MustRegister(v)
	f.note(name, "gauge", help, labels, true)
	return v
}

// plain makes a counter without labels.
func (f factory) plain(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	f.registry.MustRegister(c)
	f.note(name, "counter", help, nil, false)
	return c
}

// outside shows what is known elsewhere.
func (f factory) outside(o Options) {
	gauge := func(name, help string, value func() float64) {
		f.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
		f.note(name, "gauge", help, nil, false)
	}
	if o.Lag != nil {
		gauge("tranter_journal_lag_bytes", "Bytes of jobs' logs that were written and that GitLab has not confirmed yet.", func() float64 { return float64(o.Lag()) })
	}
	if o.Viewers != nil {
		gauge("tranter_viewers", "People who look at the web page or follow events.", func() float64 { return float64(o.Viewers()) })
	}
	if o.Unkept != nil {
		const name, help = "tranter_history_failures_total", "Times that the past could not be kept."
		f.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(o.Unkept()) }))
		f.note(name, "counter", help, nil, false)
	}
}
