package container

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	tranter "github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// classed says what kind of error it is, and what was being done.
func classed(err error, doing string) error {
	if err == nil {
		return nil
	}
	explained := fmt.Errorf("%s: %w", doing, engine.Explain(err))
	switch {
	case errors.Is(err, tranter.ErrRejected), errors.Is(err, tranter.ErrNoCapacity):
		return explained
	case full(err):
		return fmt.Errorf("%w: %w", tranter.ErrNoCapacity, explained)
	case rejected(err):
		return fmt.Errorf("%w: %w", tranter.ErrRejected, explained)
	}
	return explained
}

// full says whether the engine's machine has no room for another machine. Engines say that in words only.
func full(err error) bool {
	text := strings.ToLower(err.Error())
	return slices.ContainsFunc([]string{
		"no space left on device", "disk quota exceeded", "cannot allocate memory", "no available ip", "no available ipv4",
		"resource temporarily unavailable", "too many open files", "exchange full", "address pools have been fully subnetted",
		"non-overlapping ipv4 address pool",
	}, func(words string) bool { return strings.Contains(text, words) })
}

// rejected says whether asking again as it is does not help.
func rejected(err error) bool {
	_, missing := errors.AsType[*MissingError](err)
	return missing || engine.Missing(err) || engine.Invalid(err) || engine.Refused(err)
}
