package metrics

import (
	"context"
	"log/slog"
)

// CountLevels returns a handler that counts the warnings and errors that next writes.
func CountLevels(next slog.Handler, m *Metrics) slog.Handler {
	return &levelCounter{Handler: next, metrics: m.manager}
}

type levelCounter struct {
	slog.Handler

	metrics *managerMetrics
}

// Handle counts the record and passes it on.
func (h *levelCounter) Handle(ctx context.Context, r slog.Record) error {
	switch {
	case r.Level >= slog.LevelError:
		h.metrics.errors.WithLabelValues("error").Inc()
	case r.Level >= slog.LevelWarn:
		h.metrics.errors.WithLabelValues("warning").Inc()
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs counts as well.
func (h *levelCounter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &levelCounter{Handler: h.Handler.WithAttrs(attrs), metrics: h.metrics}
}

// WithGroup counts as well.
func (h *levelCounter) WithGroup(name string) slog.Handler {
	return &levelCounter{Handler: h.Handler.WithGroup(name), metrics: h.metrics}
}
