package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/variables"
)

// reader reads the variables by which a job sets how it is run (runner contract, section 5.6). A bad value gives a
// warning and the default.
type reader struct {
	vars     variables.List // complete and expanded
	timeout  time.Duration  // of the job
	warnings []string
}

func (r *reader) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(r.warnings, text) {
		r.warnings = append(r.warnings, text)
	}
}

func (r *reader) boolean(key string, fallback bool) bool {
	s := strings.TrimSpace(r.vars.Get(key))
	if s == "" {
		return fallback
	}
	v, err := strconv.ParseBool(s)
	if err != nil {
		r.warn("%s: expected true or false, got %q; using the default value: %v", key, s, fallback)
		return fallback
	}
	return v
}

// attempts returns the total tries that a variable asks for, from 1 to 10 (runner contract, section 3.3).
func (r *reader) attempts(key string) int {
	s := strings.TrimSpace(r.vars.Get(key))
	if s == "" {
		return 1
	}
	n, err := strconv.Atoi(s)
	switch {
	case err != nil:
		r.warn("%s: expected a whole number from 1 to 10, got %q; using the default value: 1", key, s)
		return 1
	case n < 1:
		r.warn("%s: %d is below the minimum; using 1", key, n)
		return 1
	case n > 10:
		r.warn("%s: %d is over the maximum; using 10", key, n)
		return 10
	}
	return n
}

// duration returns the time limit that a variable sets; 0 and what is malformed keep the default (runner contract,
// section 3.4).
func (r *reader) duration(key string, fallback time.Duration) time.Duration {
	s := strings.TrimSpace(r.vars.Get(key))
	if s == "" {
		return fallback
	}
	d, err := time.ParseDuration(s)
	if n, numErr := strconv.Atoi(s); numErr == nil && n == 0 {
		d, err = 0, nil
	}
	switch {
	case err != nil || d < 0:
		r.warn("%s: expected a duration such as 90s or 1h30m, got %q; ignored", key, s)
		return fallback
	case d == 0:
		return fallback
	case d > r.timeout:
		r.warn("%s: %v is longer than the job's timeout of %v; ignored", key, d, r.timeout)
		return fallback
	}
	return d
}

func (r *reader) number(key string, fallback int) int {
	s := strings.TrimSpace(r.vars.Get(key))
	if s == "" {
		return fallback
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		r.warn("%s: expected a whole number, got %q; using the default value: %d", key, s, fallback)
		return fallback
	}
	return n
}

// words returns a list of flags that are separated by white space; "none" is an empty list.
func (r *reader) words(key string, fallback []string) []string {
	s := strings.TrimSpace(r.vars.Get(key))
	switch s {
	case "":
		return fallback
	case "none":
		return []string{}
	}
	return strings.Fields(s)
}

// limit returns the time limit of a stage from the configuration; 0: none of its own.
func (r *reader) limit(key string, d time.Duration) time.Duration {
	if d > r.timeout {
		r.warn("%s of %v is longer than the job's timeout of %v; the latter holds", key, d, r.timeout)
		return 0
	}
	return max(d, 0)
}

// when says whether something is to be kept of a job that succeeded, and of one that failed.
func (r *reader) when(what, value string) (success, failure bool) {
	switch value {
	case "", "on_success":
	case "on_failure":
		return false, true
	case "always":
		return true, true
	default:
		r.warn("%s:when: %q is not known; taken as on_success", what, value)
	}
	return true, false
}
