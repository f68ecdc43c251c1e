package config

import (
	"cmp"
	"errors"
	"math"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// The errors of the parsers below; they are ends of sentences.
var (
	errMemory   = errors.New("is not an amount of memory")
	errNoUnit   = errors.New("has no unit")
	errNumber   = errors.New("is not a number")
	errDuration = errors.New("is not a duration")
	errReverse  = errors.New("ends before it begins")
)

var memory = lazy.Regexp(`(?i)^(\d{1,12}(?:\.\d{1,3})?) ?(?:([kmgtp])(?:i?b)?|b)$`)

// ParseMemory reads an amount of memory such as 512m or 1.5g, in bytes. Units are powers of 1024. A number without one is
// refused: it would be bytes to engines and megabytes to batch systems.
func ParseMemory(text string) (int64, error) {
	if strings.Trim(text, "0123456789") == "" && text != "" {
		return 0, errNoUnit
	}
	m := memory().FindStringSubmatch(text)
	if m == nil {
		return 0, errMemory
	}
	x, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, errMemory
	}
	if m[2] != "" {
		x *= math.Pow(1024, float64(1+strings.Index("kmgtp", strings.ToLower(m[2]))))
	}
	if x < 1 || x >= math.MaxInt64 {
		return 0, errMemory
	}
	return int64(x), nil
}

// ParseRange reads FROM-TO, or one number, of which neither is below 0.
func ParseRange(text string) (from, to int, err error) {
	return parseSpan(text, func(s string) (int, error) {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return 0, errNumber
		}
		return int(n), nil
	})
}

// ParseMemoryRange reads FROM-TO, or one amount, as ParseMemory does.
func ParseMemoryRange(text string) (from, to int64, err error) { return parseSpan(text, ParseMemory) }

// ParseDurationRange reads FROM-TO, or one duration such as 1h30m, each above 0.
func ParseDurationRange(text string) (from, to time.Duration, err error) {
	return parseSpan(text, func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return 0, errDuration
		}
		return d, nil
	})
}

func parseSpan[T cmp.Ordered](text string, parse func(string) (T, error)) (from, to T, err error) {
	first, last, two := strings.Cut(text, "-")
	if from, err = parse(strings.TrimSpace(first)); err != nil {
		return from, to, err
	}
	to = from
	if two {
		to, err = parse(strings.TrimSpace(last))
	}
	if err == nil && to < from {
		err = errReverse
	}
	return from, to, err
}

func checkMemory(text string) (problem, hint string) {
	_, err := ParseMemory(text)
	return spanFault(err, "Write a number with k, m, g or t: \"512m\".")
}

func checkRange(text string) (problem, hint string) {
	_, _, err := ParseRange(text)
	return spanFault(err, "Write FROM-TO, or one number: \"1-16\".")
}

func checkMemoryRange(text string) (problem, hint string) {
	_, _, err := ParseMemoryRange(text)
	return spanFault(err, "Write FROM-TO with units: \"512m-64g\".")
}

func checkDurationRange(text string) (problem, hint string) {
	_, _, err := ParseDurationRange(text)
	return spanFault(err, "Write FROM-TO with units: \"1m-4h\".")
}

func spanFault(err error, form string) (problem, hint string) {
	if err == nil {
		return "", ""
	}
	return err.Error(), form
}

// checkPattern checks a pattern of images' names.
func checkPattern(text string) (problem, hint string) {
	if !doublestar.ValidatePattern(text) {
		return "is not a pattern", "Write a name in which * stands for any text without a slash and ** for any text: \"registry.example.com/group/**\"."
	}
	return "", ""
}

// checkMount checks what can be told of a mount before the variables of a job are put into it.
func checkMount(text string) (problem, hint string) {
	const form = "Write SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro with absolute paths."
	parts := strings.Split(text, ":")
	for _, p := range parts[:min(2, len(parts))] {
		if !strings.HasPrefix(p, "$") && !path.IsAbs(p) {
			return "is not a mount", form
		}
	}
	if len(parts) > 3 || len(parts) == 3 && parts[2] != "ro" && parts[2] != "rw" {
		return "is not a mount", form
	}
	return "", ""
}
