package web

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/url"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/view"
)

// funcs are what templates can call besides the language's own.
func funcs(a *assets) template.FuncMap {
	return template.FuncMap{
		"asset": a.url,
		"short": view.Short, "bytes": view.Bytes, "money": view.Money, "since": view.Since, "ago": view.Ago, "when": view.When,
		"clock": view.Clock, "percent": view.Percent, "count": view.Count, "state": view.StateWord, "reason": view.ReasonWord,
		"rfc3339": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"day":     func(t time.Time) string { return t.Format("2006-01-02") },
		"tone":    tone, "glyph": glyph,
		"words": func(s any) string { return strings.ReplaceAll(fmt.Sprint(s), "_", " ") },
		"join":  strings.Join, "path": url.PathEscape, "query": url.QueryEscape,
		"noticeTone": noticeTone,
		"hours":      hours,
		"dict":       dict, "list": func(v ...any) []any { return v },
		"json": func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
		"add":  func(x, y int) int { return x + y },
	}
}

// hours renders a time in hours, "-" for none.
func hours(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", d.Hours())
}

// noticeTone is the tone of a notice.
func noticeTone(l view.Level) string {
	switch l {
	case view.Error:
		return "bad"
	case view.Warning:
		return "warn"
	default:
		return "idle"
	}
}

// dict makes a map of names and values for a part of a page.
func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("dict got %d values, which are no pairs", len(pairs))
	}
	d := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		name, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("dict got %v as a name", pairs[i])
		}
		d[name] = pairs[i+1]
	}
	return d, nil
}

// tone is the colour of a state: ok, busy, wait, idle, warn, bad or gone. A shape and the word itself say the same (see glyph).
func tone(state any) string {
	switch fmt.Sprint(state) {
	case "success", "succeeded", "completed", "ended", "ok", "recovered":
		return "ok"
	case "running", "busy", "leased", "active", "assigned":
		return "busy"
	case "idle", "ready":
		return "idle"
	case "failed", "timed out", "node lost", "out of memory", "unknown", "error", "trouble", "leaked", "lost", "broken":
		return "bad"
	case "warning", "draining", "stopping", "paused", "held":
		return "warn"
	case "canceled", "cancelled", "preempted", "stopped", "gone", "removed", "skipped", "manual", "retired":
		return "gone"
	case "removing", "retiring", "destroying":
		return "gone"
	default: // creating, provisioning, booting, waiting, pending, queued, wanted
		return "wait"
	}
}

// glyph is the shape of a tone, for those who don't tell colours apart.
func glyph(tone string) string {
	switch tone {
	case "ok":
		return "✓"
	case "busy":
		return "▶"
	case "idle":
		return "○"
	case "bad":
		return "✕"
	case "warn":
		return "▲"
	case "gone":
		return "■"
	default:
		return "◔"
	}
}
