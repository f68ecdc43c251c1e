package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/tranter-ci/tranter/internal/metrics"
)

// logOptions say how the process logs. The command line wins over config.toml.
type logOptions struct {
	level, format string
	debug         bool
}

func addLogFlags(flags *pflag.FlagSet) {
	flags.Bool("debug", false, "log everything")
	flags.StringP("log-level", "l", "", "least level that is logged: debug, info, warn, error, fatal or panic")
	flags.String("log-format", "", "format of the log: runner, text or json")
	withEnv(flags, "debug", "RUNNER_DEBUG")
	withEnv(flags, "log-level", "LOG_LEVEL")
	withEnv(flags, "log-format", "LOG_FORMAT")
}

// logFlags reads what addLogFlags has defined.
func logFlags(flags *pflag.FlagSet) logOptions {
	var o logOptions
	o.debug, _ = flags.GetBool("debug")
	o.level, _ = flags.GetString("log-level")
	o.format, _ = flags.GetString("log-format")
	return o
}

// or fills what is not set from defaults.
func (o logOptions) or(defaults logOptions) logOptions {
	if o.level == "" {
		o.level = defaults.level
	}
	if o.format == "" {
		o.format = defaults.format
	}
	return o
}

// leastLevel is the least level that is logged. An unknown one is an error that names the known ones.
func (o logOptions) leastLevel() (slog.Level, error) {
	if o.debug {
		return slog.LevelDebug, nil
	}
	return logLevel(o.level)
}

// logger writes to w as o says; level is set, and may be changed later. An unknown level or format is an error that
// names the known ones.
func (o logOptions) logger(w io.Writer, level *slog.LevelVar) (*slog.Logger, error) {
	least, err := o.leastLevel()
	if err != nil {
		return nil, err
	}
	level.Set(least)
	options := &slog.HandlerOptions{Level: level}
	switch o.format {
	case "", "runner":
		return counted(&lineHandler{out: &lockedWriter{w: w}, level: level, color: isTerminal(w)}), nil
	case "text":
		return counted(slog.NewTextHandler(w, options)), nil
	case "json":
		return counted(slog.NewJSONHandler(w, options)), nil
	default:
		return nil, fmt.Errorf("log format %q is not known: use runner, text or json", o.format)
	}
}

// counted is a logger whose warnings and errors the metrics count.
func counted(h slog.Handler) *slog.Logger { return slog.New(metrics.CountLevels(h)) }

func logLevel(name string) (slog.Level, error) {
	switch strings.ToLower(name) {
	case "", "info":
		return slog.LevelInfo, nil
	case "debug", "trace":
		return slog.LevelDebug, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error", "fatal", "panic":
		return slog.LevelError, nil
	default:
		return 0, fmt.Errorf("log level %q is not known: use debug, info, warn, error, fatal or panic", name)
	}
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// lineHandler writes one line per record as GitLab Runner does: the message, padded, then key=value pairs.
type lineHandler struct {
	out   *lockedWriter
	level slog.Leveler
	color bool
	attrs []slog.Attr
}

func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	if !h.color {
		b.WriteString(r.Time.UTC().Format(time.RFC3339) + " ")
	}
	message := r.Message
	switch {
	case r.Level >= slog.LevelError:
		message = "ERROR: " + message
	case r.Level >= slog.LevelWarn:
		message = "WARNING: " + message
	}
	start, end := h.paint(r.Level)
	fmt.Fprintf(&b, "%s%-50s%s", start, message, end)
	for _, a := range h.attrs {
		writeAttr(&b, a)
	}
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, a)
		return true
	})
	line := append(bytes.TrimRight(b.Bytes(), " "), '\n')
	_, err := h.out.Write(line)
	return err
}

func (h *lineHandler) paint(l slog.Level) (start, end string) {
	switch {
	case !h.color || l == slog.LevelInfo:
		return "", ""
	case l >= slog.LevelError:
		return "\x1b[31;1m", "\x1b[0;m"
	case l >= slog.LevelWarn:
		return "\x1b[33m", "\x1b[0;m"
	default:
		return "\x1b[2m", "\x1b[0;m"
	}
}

func writeAttr(b *bytes.Buffer, a slog.Attr) {
	value := a.Value.Resolve().String()
	unprintable := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) } // such as what a terminal acts upon
	if value == "" || strings.ContainsAny(value, " \"=") || strings.ContainsFunc(value, unprintable) {
		value = fmt.Sprintf("%q", value)
	}
	fmt.Fprintf(b, " %s=%s", a.Key, value)
}

func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs = append(append([]slog.Attr{}, h.attrs...), attrs...)
	return &with
}

// WithGroup keeps the attributes flat: the log has no nested keys.
func (h *lineHandler) WithGroup(string) slog.Handler { return h }
