package metrics

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// CountLevels returns a handler that counts the warnings and errors that next writes, for Options.Log.
func CountLevels(next slog.Handler) slog.Handler {
	return &levelCounter{Handler: next, levels: &levels{}}
}

// levels are how many lines of a log there were.
type levels struct{ warnings, errors atomic.Int64 }

type levelCounter struct {
	slog.Handler

	levels *levels
}

// Handle counts the record and passes it on.
func (h *levelCounter) Handle(ctx context.Context, r slog.Record) error {
	switch {
	case r.Level >= slog.LevelError:
		h.levels.errors.Add(1)
	case r.Level >= slog.LevelWarn:
		h.levels.warnings.Add(1)
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs counts as well.
func (h *levelCounter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &levelCounter{Handler: h.Handler.WithAttrs(attrs), levels: h.levels}
}

// WithGroup counts as well.
func (h *levelCounter) WithGroup(name string) slog.Handler {
	return &levelCounter{Handler: h.Handler.WithGroup(name), levels: h.levels}
}

// countLog shows the lines of a log by level. One whose handler does not count has none.
func (f factory) countLog(log *slog.Logger) {
	const name, help = "gitlab_runner_errors_total", "Lines of the log at the levels error and warning."
	seen := &levels{}
	if log != nil {
		if h, is := log.Handler().(*levelCounter); is {
			seen = h.levels
		}
	}
	for level, value := range map[string]func() int64{
		"error": seen.errors.Load, "warning": seen.warnings.Load, "fatal": nothing, "panic": nothing,
	} {
		f.registry.MustRegister(prometheus.NewCounterFunc(
			prometheus.CounterOpts{Name: name, Help: help, ConstLabels: prometheus.Labels{"level": level}}, func() float64 { return float64(value()) }))
	}
	f.note(name, "counter", help, []string{"level"}, false)
}

func nothing() int64 { return 0 }
