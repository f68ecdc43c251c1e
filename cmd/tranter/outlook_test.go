package main

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter/internal/config"
)

// TestTracesThatCannotBeSentAreAMistakeOfTheConfiguration needs what was opened before to be closed in order.
func TestTracesThatCannotBeSentAreAMistakeOfTheConfiguration(t *testing.T) {
	c := config.Default()
	c.Tracing.Endpoint, c.Tracing.CAFile = "https://127.0.0.1:1", "missing.pem"
	dir := t.TempDir()
	_, err := openOutlook(t.Context(), places{state: dir, config: dir, systemID: "s_test"}, c, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "tracing.ca_file") || !strings.Contains(err.Error(), "missing.pem") {
		t.Errorf("it said %v", err)
	}
}
