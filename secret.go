package tranter

import (
	"fmt"
	"log/slog"
	"strings"
)

// Secret is a string that must not be shown. Every text form of it (String, GoString, fmt verbs, slog) prints stars;
// only Reveal and the JSON encoding, which is for the wire and for files of mode 0600, give the text.
type Secret string

const stars = "******"

// Reveal returns the secret's text.
func (s Secret) Reveal() string { return string(s) }

// String returns stars, or nothing when the secret is empty.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return stars
}

// GoString returns what String returns.
func (s Secret) GoString() string { return s.String() }

// Format prints what String returns, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue keeps the text out of structured logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Short returns the short form of a token under which GitLab Runner shows it and names things by it
// (runner contract, section 1.4): known prefixes removed, the first 9 characters kept.
func (s Secret) Short() string {
	t := string(s)
	switch {
	case strings.HasPrefix(t, "glrt-"):
		t = trimPartition(t[len("glrt-"):])
	case strings.HasPrefix(t, "glrtr-"):
		t = t[len("glrtr-"):]
	default:
		t = trimPartition(t)
	}
	t = strings.TrimPrefix(t, "glcbt-")
	if len(t) >= 9 && strings.HasPrefix(t, "GR") && isHex(t[2:9]) {
		t = t[9:]
	}
	if len(t) > 9 {
		t = t[:9]
	}
	return t
}

// trimPartition removes the prefix t1_, t2_ or t3_ that names the kind of runner.
func trimPartition(t string) string {
	if len(t) >= 3 && t[0] == 't' && t[1] >= '1' && t[1] <= '3' && t[2] == '_' {
		return t[3:]
	}
	return t
}

func isHex(s string) bool {
	for _, c := range s {
		if !strings.ContainsRune("0123456789abcdefABCDEF", c) {
			return false
		}
	}
	return true
}
