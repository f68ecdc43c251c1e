package main

import (
	"os"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter/internal/config"
)

func TestTheReferenceOfMetricsIsCurrent(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != metricsReference() {
		t.Error(`docs/reference/metrics.md is not what the code has: run "make gen"`)
	}
	if n := strings.Count(string(page), "\n| `"); n < 60 {
		t.Errorf("only %d metrics", n)
	}
}

func TestMetricsKnowTheRunnersOfTheConfiguration(t *testing.T) {
	slow := []config.JobQueuingDuration{{Threshold: 5}}
	got := metricRunners(config.Config{Runners: []config.Runner{{Name: "one", Token: "glrt-abcdefghijk", Executor: "shell", Monitoring: config.Monitoring{JobQueuingDurations: slow}}}})
	if len(got) != 1 || got[0].Name != "one" || got[0].Executor != "shell" || strings.Contains(got[0].Token, "ijk") || len(got[0].Slow) != 1 {
		t.Errorf("runners %+v", got)
	}
}
