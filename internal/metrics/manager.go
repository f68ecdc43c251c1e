package metrics

import (
	"cmp"
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tranter-ci/tranter"
)

// managerMetrics are about the process.
type managerMetrics struct {
	events  *prometheus.CounterVec
	loaded  prometheus.Counter
	refused prometheus.Counter
	missed  prometheus.Counter
	scrapes prometheus.Counter // that had no snapshot
}

func newManagerMetrics(f factory, o Options) *managerMetrics {
	m := &managerMetrics{
		events:  f.counter("tranter_events_total", "What the manager did or saw, by kind.", "kind", "level"),
		loaded:  f.plain("gitlab_runner_configuration_loaded_total", "Times that the configuration was read and used."),
		refused: f.plain("gitlab_runner_configuration_loading_error_total", "Times that a changed configuration was not used since something is wrong with it."),
		missed:  f.plain("tranter_events_missed_total", "Events that the metrics do not count, since they came too fast."),
		scrapes: f.plain("tranter_scrape_failures_total", "Scrapes that show no gauges, since the manager did not tell how it stands."),
	}
	f.countLog(o.Log)
	const name, help = "gitlab_runner_version_info", "The program; always 1."
	version := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: name, Help: help,
		ConstLabels: prometheus.Labels{
			"name": "tranter", "version": o.Version.Version, "revision": o.Version.Revision, "branch": o.Version.Branch, "built_at": o.Version.Built,
			"go_version": runtime.Version(), "os": runtime.GOOS, "architecture": runtime.GOARCH,
		},
	})
	version.Set(1)
	f.registry.MustRegister(version)
	f.note(name, "gauge", help, []string{"name", "version", "revision", "branch", "built_at", "go_version", "os", "architecture"}, false)
	f.outside(o)
	return m
}

func (m *managerMetrics) observe(e tranter.Event) {
	m.events.WithLabelValues(eventKind(e.Kind), cmp.Or(string(eventLevel(e.Level)), "info")).Inc()
	switch e.Kind {
	case tranter.ConfigLoaded:
		m.loaded.Inc()
	case tranter.ConfigRefused:
		m.refused.Inc()
	default: // is counted above only
	}
}

func eventLevel(l tranter.EventLevel) tranter.EventLevel {
	switch l {
	case tranter.EventInfo, tranter.EventWarning, tranter.EventError:
		return l
	}
	return other
}

// eventKind is the value of the label for a kind. Kinds are words of the program's own; their number is bounded by their form only
// for those of machines and batch jobs.
func eventKind(k tranter.EventKind) string {
	switch k {
	case tranter.ManagerStarted, tranter.ManagerDraining, tranter.ManagerStopping, tranter.ManagerEnded, tranter.ConfigLoaded, tranter.ConfigRefused,
		tranter.RunnerTrouble, tranter.RunnerRecovered, tranter.RunnerPaused, tranter.RunnerResumed, tranter.JobTaken, tranter.JobPlaced,
		tranter.JobResumed, tranter.JobCanceling, tranter.JobEnded:
		return string(k)
	}
	for _, family := range []string{"machine", "lease", "batch", "removal", "throttled", "job"} {
		if text := string(k); strings.HasPrefix(text, family) {
			if _, known := decisionOf(k); known {
				return text
			}
			return family + "_other"
		}
	}
	return other
}
