package main

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/store"
)

// costPast is a state directory in which a history has a machine without a price of its own, from 10:00 to 11:00 of the 10th of November,
// which a job of group/app held for half of the time, and a batch job of another project.
func costPast(t *testing.T) (flags []string) {
	t.Helper()
	dir := t.TempDir()
	h, err := store.OpenHistory(t.Context(), filepath.Join(dir, historyFile))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	at := func(minute int) time.Time { return time.Date(2026, 11, 10, 10, minute, 0, 0, time.UTC) }
	token := tranter.Secret("glrt-abcdefghijklmnopqrst").Short()
	for i, j := range []tranter.JobHistory{
		{Key: "1-a", Job: tranter.JobLabel{Name: "build", Project: "group/app", Public: "public"}, Place: tranter.JobPlace{Machine: "m1"}},
		{Key: "2-b", Job: tranter.JobLabel{Name: "simulate", Project: "=cmd|' /C calc'!A0"}, Bill: &tranter.Bill{CPUs: 4, Ran: 30 * time.Minute}},
	} {
		j.Runner, j.Name = token, "big"
		j.Times, j.Result.State = tranter.JobTimes{Taken: at(0), Placed: at(0), Ended: at(30 + i)}, tranter.JobSuccess
		if err := h.Keep(t.Context(), j); err != nil {
			t.Fatal(err)
		}
	}
	m := fleet.Machine{Name: "m1", State: fleet.Leased, Made: at(0), Since: at(0), Used: at(30), Leases: []fleet.Lease{{Job: "1-a", Since: at(0)}}}
	pool := store.Pool{Token: token, Name: "big"}
	for _, end := range []int{0, 30} {
		if m.Since = at(end); end > 0 {
			m.State, m.Leases = fleet.Idle, nil
		}
		if err := h.Machines(t.Context(), pool, []fleet.Machine{m}, nil, at(end)); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Machines(t.Context(), pool, nil, []string{"m1"}, at(60)); err != nil {
		t.Fatal(err)
	}
	configured := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(configured, []byte("[cost]\ncurrency = \"CHF\"\n[[cost.price]]\nrunner = \"big\"\nper_hour = 3.0\ncpu_hour = 0.5\n[[cost.factor]]\nvisibility = \"public\"\nfactor = 0.5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--state-dir", dir, "--config", configured}
}

func costOf(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e strings.Builder
	code = run(t.Context(), append([]string{"cost"}, args...), streams{in: strings.NewReader(""), out: &o, err: &e})
	return o.String(), e.String(), code
}

func TestWhatAProjectHasCostIsSaidInOneLine(t *testing.T) {
	past := costPast(t)
	out, errs, code := costOf(t, append(past, "--project", "group/app", "--from", "2026-11-09T00:00:00Z", "--to", "2026-11-16T00:00:00Z")...)
	if want := "group/app has cost 1.50 CHF from 2026-11-09 to 2026-11-16: 1 job, 30m00s, 0.5 machine hours.\n"; out != want || errs != "" || code != 0 {
		t.Errorf("%q %q %d", out, errs, code)
	}
}

func TestCostByProjectForPeopleAndPrograms(t *testing.T) {
	past := costPast(t)
	november := append(past, "--month", "2026-11")
	out, errs, code := costOf(t, append(november, "--output", "wide")...)
	for _, want := range []string{"PROJECT", "GPU HOURS", "group/app", "1.50 CHF", "1.00 CHF", "idle", "total", "4.00 CHF", "Idle machines are 50 % of the cost of machines."} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if code != 0 || errs != "" {
		t.Errorf("%d %q", code, errs)
	}
	out, _, _ = costOf(t, append(november, "--output", "json")...)
	var r cost.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Lines) != 2 || r.Total.Jobs != 2 || r.Currency != "CHF" || r.Lines[0].Name != "group/app" || r.Lines[0].Minutes != 15 {
		t.Errorf("%v %+v", err, r)
	}
	out, _, _ = costOf(t, append(november, "--output", "csv")...)
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(rows) != 5 {
		t.Fatalf("%v %q", err, out)
	}
	if want := "kind name jobs time_seconds machine_hours cpu_hours gpu_hours minutes cost wasted currency by from to"; strings.Join(rows[0], " ") != want {
		t.Errorf("%q", rows[0])
	}
	if want := []string{"line", "group/app", "1", "1800", "0.500000", "0.000000", "0.000000", "15.000000", "1.500000", "0.000000", "CHF", "project"}; !reflect.DeepEqual(rows[1][:12], want) {
		t.Errorf("%q", rows[1])
	}
	if rows[2][1] != "'=cmd|' /C calc'!A0" || rows[3][0] != "idle" || rows[4][0] != "total" || rows[4][8] != "4.000000" {
		t.Errorf("%q", rows)
	}
}

func TestTimesOfACostReport(t *testing.T) {
	place := time.FixedZone("there", 3600)
	now := time.Date(2026, 11, 29, 14, 0, 0, 0, place) // a Sunday
	for _, c := range []struct {
		flags    costFlags
		from, to string
	}{
		{costFlags{}, "2026-11-01T00:00:00+01:00", "2026-12-01T00:00:00+01:00"},
		{costFlags{month: "2026-02"}, "2026-02-01T00:00:00+01:00", "2026-03-01T00:00:00+01:00"},
		{costFlags{week: true}, "2026-11-23T00:00:00+01:00", "2026-11-30T00:00:00+01:00"},
		{costFlags{today: true}, "2026-11-29T00:00:00+01:00", "2026-11-30T00:00:00+01:00"},
		{costFlags{from: "2026-11-02"}, "2026-11-02T00:00:00+01:00", "2026-11-29T14:00:00+01:00"},
		{costFlags{from: "2026-11-02T08:00:00Z", to: "2026-11-02 12:30"}, "2026-11-02T08:00:00Z", "2026-11-02T12:30:00+01:00"},
	} {
		c.flags.by = "day"
		q, err := c.flags.query(now)
		if err != nil || q.From.Format(time.RFC3339) != c.from || q.To.Format(time.RFC3339) != c.to {
			t.Errorf("%+v: %v %v %v", c.flags, q.From, q.To, err)
		}
	}
	for want, flags := range map[string]costFlags{
		"is none of":    {by: "colour"},
		"is no month":   {by: "day", month: "November"},
		"needs --from":  {by: "day", to: "2026-11-01"},
		"is no date":    {by: "day", from: "yesterday"},
		"not after its": {by: "day", from: "2026-11-02", to: "2026-11-01"},
	} {
		if _, err := flags.query(now); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", flags, err)
		}
	}
}

func TestCostSaysWhatIsMissing(t *testing.T) {
	_, errs, code := costOf(t, "--state-dir", t.TempDir(), "--config", filepath.Join(t.TempDir(), "none.toml"))
	if code == 0 || !strings.Contains(errs, "nothing is known of the past") {
		t.Errorf("%d %q", code, errs)
	}
	past := costPast(t)
	out, errs, code := costOf(t, past[0], past[1], "--config", filepath.Join(t.TempDir(), "none.toml"), "--month", "2026-11")
	if code != 0 || !strings.Contains(errs, "No price is known") || !strings.Contains(out, "group/app") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if _, errs, code = costOf(t, append(past, "--week", "--today")...); code == 0 || !strings.Contains(errs, "week") {
		t.Errorf("%d %q", code, errs)
	}
	if out, _, code = costOf(t, append(past, "--month", "2026-10")...); code != 0 || !strings.Contains(out, "Nothing is known to have run") {
		t.Errorf("%d %q", code, out)
	}
}
