package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/store"
)

// pastIn keeps jobs and events in a state directory.
func pastIn(t *testing.T, dir string) {
	t.Helper()
	h, err := store.OpenHistory(context.Background(), filepath.Join(dir, historyFile))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	now := time.Now()
	times := tranter.JobTimes{Taken: now.Add(-time.Hour), Placed: now.Add(-50 * time.Minute), Ended: now.Add(-40 * time.Minute)}
	for _, j := range []tranter.JobHistory{
		{
			Key: "71-a", Runner: "t1", Name: "builders", Job: tranter.JobLabel{ID: 71, Name: "rspec", Project: "group/app"}, Times: times,
			Result: tranter.Result{State: tranter.JobFailed, Reason: tranter.ScriptFailure, ExitCode: 3, Message: "exit status 3"},
		},
		{
			Key: "72-b", Runner: "t1", Name: "builders", Job: tranter.JobLabel{ID: 72, Name: "evil \x1b[2J", Project: "group/other"}, Times: times,
			Result: tranter.Result{State: tranter.JobSuccess},
		},
	} {
		if err := h.Keep(context.Background(), j); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Record(context.Background(), []tranter.Event{
		{Time: now.Add(-time.Hour), Kind: tranter.JobTaken, Job: "71-a", Text: "It was taken"},
		{Time: now.Add(-time.Minute), Kind: tranter.RunnerTrouble, Level: tranter.EventError, Runner: "t1", Text: "no route\x1b[2J to host"},
	}); err != nil {
		t.Fatal(err)
	}
}

func TestThePastIsToldWithoutAManager(t *testing.T) {
	dir := t.TempDir()
	none := filepath.Join(dir, "none.toml")
	if code, _, errs := command(t.Context(), "job", "why", "71", "--state-dir", dir, "-c", none); code != 1 || !strings.Contains(errs, `no job "71" is running, and nothing is known of the past`) {
		t.Errorf("without a history: code %d, %s", code, errs)
	}
	pastIn(t, dir)
	for args, want := range map[string]string{
		"job why 71":                           "Job 71 (rspec of group/app). It failed after 20m00s: the script failed, with exit code 3.\n",
		"job why 72-b":                         "Job 72 (evil \ufffd[2J of group/other). It succeeded after 20m00s.\n",
		"job why rspec --output json":          `"key": "71-a"`,
		"job ls --failed":                      "71   rspec  group/app  builders  failed  40m00s ago  20m00s  the script failed, exit code 3\n",
		"job ls --ended --project group/other": "72   evil \ufffd[2J  group/other",
		"job ls --ended --output wide":         "KEY",
		"job ls --ended --output json":         `"runner_name": "builders"`,
		"events":                               "error  runner_trouble  t1  no route\ufffd[2J to host\n",
		"events --level error --output json":   `"kind": "runner_trouble"`,
		"events --kind job_ --output wide":     "71-a",
		"job inspect rspec":                    `"exit_code": 3`,
	} {
		code, out, errs := command(t.Context(), append(strings.Split(args, " "), "--state-dir", dir, "-c", none)...)
		if code != 0 || !strings.Contains(onTheMinute(out), want) || strings.ContainsRune(out, '\x1b') && !strings.Contains(args, "json") {
			t.Errorf("%s: code %d, got\n%s%s\nwant %q", args, code, out, errs, want)
		}
	}
	for args, want := range map[string]string{
		"job why 99":            `no job "99" runs, waits or is known of the past`,
		"job cancel 71":         "job 71 (rspec of group/app) has ended already",
		"job log 71":            "the log of job 71 (rspec of group/app)",
		"events --level bad":    "is neither warning nor error",
		"events --limit 0":      "--limit: 0 is less than 1",
		"job ls --output table": "use text, wide or json",
		"top --interval 1ms":    "too short",
	} {
		if code, _, errs := command(t.Context(), append(strings.Split(args, " "), "--state-dir", dir, "-c", none)...); code != 1 || !strings.Contains(errs, want) {
			t.Errorf("%s: code %d, got %s\nwant %q", args, code, errs, want)
		}
	}
}

func TestPagesOfTheManualAreTheSameWheneverTheyAreMade(t *testing.T) {
	read := func() []byte {
		dir := t.TempDir()
		t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
		if code, _, errs := command(t.Context(), "docs", "--man", dir); code != 0 {
			t.Fatalf("code %d, %s", code, errs)
		}
		page, err := os.ReadFile(filepath.Join(dir, "tranter-job-why.1"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "tranter-agent.1")); err == nil {
			t.Error("a command that is hidden has a page")
		}
		return page
	}
	one := read()
	if !bytes.Equal(one, read()) {
		t.Error("two pages differ")
	}
	for _, want := range []string{`.TH "TRANTER\-JOB\-WHY" "1" "2023-11-14"`, ".SH EXAMPLES\n.nf\n  tranter job why 4711", ".SH SEE ALSO\n.BR tranter\\-job (1)"} {
		if !strings.Contains(string(one), want) {
			t.Errorf("%q is not there:\n%s", want, one)
		}
	}
}
