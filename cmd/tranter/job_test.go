package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/manager"
)

// Who names a job does not get at the terminal of who looks at it, nor makes lines of other jobs up.
func TestNamesOfOthersAreNotObeyed(t *testing.T) {
	jobs := []manager.JobStatus{{ID: 7, Name: "größe\x1b]0;title\x07\n8  fake\tx\u202e", Project: "g/\x1b[2J\u009b1m", Stage: "job"}}
	runners := []manager.RunnerStatus{{Name: "r", Problem: "it said \x1b[2J\r\nnothing"}}
	var list, status bytes.Buffer
	printJobs(&list, withMachines(statusAnswer{Status: manager.Status{Jobs: jobs}, Leases: map[string]string{"": "m\x1b[1m"}}), false, time.Now())
	printStatus(&status, manager.Status{Jobs: jobs, Runners: runners}, false, time.Now())
	for name, c := range map[string]struct {
		text  string
		lines int
	}{"job list": {list.String(), 2}, "status": {status.String(), 7}} {
		if strings.ContainsAny(c.text, "\x1b\x07\r\t\u009b\u202e") || strings.Count(c.text, "\n") != c.lines || !strings.Contains(c.text, "größe") {
			t.Errorf("%s: %q", name, c.text)
		}
	}
}
