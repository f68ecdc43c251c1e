package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/store"
)

func TestNamesOfMachines(t *testing.T) {
	for _, c := range []struct {
		token, pattern, name string
		match, begins        bool
	}{
		{"glrt-abcdefghijkl", "ci-%s", "runner-abcdefghi-ci-1790000000-1a2b3c4d", true, true},
		{"glrt-t1_XyZ-123_456789", "ci-%s", "runner-xyz-1234-ci-1790000000-1a2b3c4d", true, true},
		{"glrt-t1_XyZ-123_456789", "ci-%s", "runner-xyz-123_4-ci-1790000000-1a2b3c4d", false, false},
		{"glrt-abcdefghijkl", "a-%s", "runner-abcdefghi-a-b-1790000000-1a2b3c4d", false, true},
		{"glrt-abcdefghijkl", "ci-%s-x", "runner-abcdefghi-ci-1790000000-1a2b3c4d-x", true, true},
		{"glrt-abcdefghijkl", "ci-%s-x", "runner-abcdefghi-ci-1790000000-1a2b3c4d", false, true},
		{"glrt-abcdefghijkl", "%s", "runner-abcdefghi-1790000000-1a2b3c4d", true, true},
		{"glrt-abcdefghijkl", "ci-%s", "runner-abcdefghi-ci-1790000000-1a2b3c4", false, true},
		{"glrt-abcdefghijkl", "ci-%s", "runner-abcdefghi-ci--1a2b3c4d", false, true},
		{"glrt-abcdefghijkl", "ci-%s", "runner-zzzzzzzzz-ci-1790000000-1a2b3c4d", false, false},
		{"", "ci-%s", "runner--ci-1790000000-1a2b3c4d", false, false},
	} {
		r := config.Runner{Token: tranter.Secret(c.token), Machine: config.Machine{MachineName: c.pattern}}
		if n := namesOfMachines(r); n.match(c.name) != c.match || n.begins(c.name) != c.begins {
			t.Errorf("%s with %s: match %v, begins %v", c.name, c.pattern, n.match(c.name), n.begins(c.name))
		}
	}
}

// The hours of a week's periods are what they are on paper, whatever the time of the year.
func TestIdleMachinesOfPeriods(t *testing.T) {
	week := func(hours float64) float64 { return hours / 168 * monthHours }
	office := config.Autoscaling{Periods: []string{"* * 8-17 * * mon-fri *"}, Timezone: "Europe/Berlin", IdleCount: 10}
	weekend := config.Autoscaling{Periods: []string{"* * * * * sat,sun *"}, Timezone: "UTC", IdleCount: 1}
	for _, c := range []struct {
		name        string
		m           config.Machine
		limit       int
		least, most float64
	}{
		{"none", config.Machine{}, 5, 0, 0},
		{"always", config.Machine{IdleCount: 2}, 5, 2 * monthHours, 2 * monthHours},
		{"capped by the limit", config.Machine{IdleCount: 20}, 5, 5 * monthHours, 5 * monthHours},
		{"with a factor", config.Machine{IdleCount: 20, IdleScaleFactor: 0.5}, 0, monthHours, 20 * monthHours},
		{"in office hours", config.Machine{Autoscaling: []config.Autoscaling{office}}, 0, 10 * week(50), 10 * week(50)},
		{"the last one counts", config.Machine{Autoscaling: []config.Autoscaling{weekend, {Periods: []string{"* * * * * * *"}}}}, 0, 0, 0},
		{"two and the rest", config.Machine{IdleCount: 3, Autoscaling: []config.Autoscaling{office, weekend}}, 0, 10*week(50) + week(48) + 3*week(70), 10*week(50) + week(48) + 3*week(70)},
	} {
		got := idleCostFrom(config.Runner{Limit: c.limit, Machine: c.m}, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
		if near := func(a, b float64) bool { return a > b*0.99-0.5 && a < b*1.01+0.5 }; !near(got.Least, c.least) || !near(got.Most, c.most) {
			t.Errorf("%s: %.0f to %.0f machine-hours, want %.0f to %.0f", c.name, got.Least, got.Most, c.least, c.most)
		}
		hours := 0.0
		for _, p := range got.Parts {
			hours += p.Hours
		}
		if hours != monthHours && (hours < monthHours-0.01 || hours > monthHours+0.01) {
			t.Errorf("%s: the parts are %v hours", c.name, hours)
		}
	}
}

// migrating is a configuration and a store with one machine, in a directory of its own.
func migrating(t *testing.T) (dir string, migrate func(args ...string) (string, int)) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("HOME", dir)
	const name = "runner-abcdefghi-ci-1790000000-1a2b3c4d"
	folder := filepath.Join(dir, ".docker", "machine", "machines", name)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		filepath.Join(folder, "id_rsa"): "key",
		filepath.Join(folder, "config.json"): fmt.Sprintf(`{"ConfigVersion": 3, "Name": %q, "DriverName": "lab",
			"Driver": {"IPAddress": "10.0.0.5", "SSHUser": "ci", "SSHPort": 2222, "Password": "hunter2"}}`, name),
		filepath.Join(dir, "config.toml"): "[[runners]]\nurl = \"https://gitlab.example.com\"\ntoken = \"glrt-abcdefghijkl\"\nexecutor = \"docker+machine\"\nlimit = 1\n" +
			"[runners.docker]\nimage = \"alpine\"\n[runners.machine]\nMachineDriver = \"/no/driver\"\nMachineName = \"ci-%s\"\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, func(args ...string) (string, int) {
		var b bytes.Buffer
		args = append([]string{"migrate", filepath.Join(dir, "config.toml"), "--state-dir", filepath.Join(dir, "state")}, args...)
		code := run(t.Context(), args, streams{in: strings.NewReader(""), out: &b, err: &b})
		return b.String(), code
	}
}

func TestAnAdoptedMachineIsInTheBook(t *testing.T) {
	dir, migrate := migrating(t)
	before := time.Now()
	if out, code := migrate("--adopt"); code != 1 || !strings.Contains(out, ": adopted") || !strings.Contains(out, "not found: ") || strings.Contains(out, "hunter2") {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	st, err := store.Open(t.Context(), filepath.Join(dir, "state", "tranter.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	machines, err := st.Machines().Load(t.Context(), "abcdefghi")
	if err != nil || len(machines) != 1 {
		t.Fatal(machines, err)
	}
	m := machines[0]
	login := tranter.Login{Host: "10.0.0.5", Port: 2222, User: "ci", Identity: filepath.Join(dir, ".docker", "machine", "machines", m.Name, "id_rsa")}
	if d := cmp.Diff(login, m.Seen.Login); d != "" || m.State != fleet.Booting || m.Seen.Name != m.Name || m.Deadline.Before(before.Add(adoptionTime)) || m.Made.IsZero() {
		t.Errorf("%+v\n%s", m, d)
	}
	var ref struct {
		Driver  string
		Config  map[string]any
		Changed bool
	}
	if err := json.Unmarshal(m.Seen.Ref, &ref); err != nil || ref.Driver != "lab" || ref.Config["Password"] != "hunter2" || !ref.Changed {
		t.Errorf("reference %s: %v", m.Seen.Ref, err)
	}
	history, err := st.Machines().History(t.Context(), m.Name, 10)
	if err != nil || len(history) != 1 || history[0].Kind != fleet.MachineAdopted {
		t.Errorf("history %v, %v", history, err)
	}
	// A manager has the state directory now: the store above is open.
	if out, code := migrate("--adopt"); code != 1 || !strings.Contains(out, "a manager uses the state directory") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}
