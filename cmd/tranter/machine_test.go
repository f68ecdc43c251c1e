package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/manager"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/store"
)

func TestMachinesAreListedAsTheyStand(t *testing.T) {
	builders, others := twoPools()
	var all []pool.MachineStatus
	for _, p := range []*fakePool{others, builders} {
		s, _ := p.Status(t.Context())
		all = append(all, s.Machines...)
	}
	sortMachines(all)
	var out bytes.Buffer
	printMachines(&out, all, false, fakeTime.Add(2*time.Hour))
	want := `NAME         STATE     AGE    JOBS  USES  COST  ADDRESS        REASON
runner-t1-a  idle      2h00m  0     0     1.00  10.0.0.1:2222  spare
runner-t1-b  leased    2h00m  1     3     1.00  10.0.0.2       -
runner-t1-c  removing  2h00m  0     0     1.00  -              LEAK: its removal has failed 4 times: quota �[2J
runner-t2-d  removing  2h00m  0     0     1.00  -              LEAK: something may have been left at the provider that can't be named: look for the tag tranter
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestTheListOfMachinesIsFiltered(t *testing.T) {
	t.Parallel()
	h := managed(t, fleetOf(twoPools()))
	for name, c := range map[string]struct {
		args  []string
		names []string
	}{
		"all":          {[]string{"ls"}, []string{"t1-a", "t1-b", "t1-c", "t2-d"}},
		"pool":         {[]string{"ls", "--pool", "t2"}, []string{"t2-d"}},
		"runner":       {[]string{"ls", "--pool", "builders"}, []string{"t1-a", "t1-b", "t1-c"}},
		"states":       {[]string{"ls", "--state", "idle,leased"}, []string{"t1-a", "t1-b"}},
		"both":         {[]string{"ls", "--state", "removing", "--pool", "builders"}, []string{"t1-c"}},
		"of no state":  {[]string{"ls", "--state", "stopped"}, nil},
		"other filter": {[]string{"list", "--state", "removing", "--state", "idle", "--pool", "t1"}, []string{"t1-a", "t1-c"}},
	} {
		out, code := h.run(append(c.args, "--output", "json")...)
		var all []pool.MachineStatus
		if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 || all == nil {
			t.Fatalf("%s: code %d, %v, %s", name, code, err, out)
		}
		var names []string
		for _, m := range all {
			names = append(names, strings.TrimPrefix(m.Name, "runner-"))
		}
		if strings.Join(names, " ") != strings.Join(c.names, " ") {
			t.Errorf("%s: %q", name, names)
		}
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no such state": {[]string{"ls", "--state", "ready"}, `--state: "ready" is none of wanted, booting, idle`},
		"no such pool":  {[]string{"ls", "--pool", "x"}, `there is no pool "x"; there is t1 (builders), t2 (others)`},
		"an argument":   {[]string{"ls", "x"}, "belongs to no flag"},
	} {
		if out, code := h.run(c.args...); code != 1 || !strings.Contains(out, c.want) {
			t.Errorf("%s: code %d, %s", name, code, out)
		}
	}
	if out, code := h.run("ls", "--state", "stopped"); code != 0 || out != "There is no machine.\n" {
		t.Errorf("code %d, %s", code, out)
	}
}

func TestAMachineIsInspectedWithoutItsSecrets(t *testing.T) {
	t.Parallel()
	h := managed(t, fleetOf(twoPools()))
	out, code := h.run("inspect", "t1-b") // a part of the name will do
	var e machineEntry
	if err := json.Unmarshal([]byte(out), &e); err != nil || code != 0 {
		t.Fatalf("code %d, %v, %s", code, err, out)
	}
	if e.Name != "runner-t1-b" || e.State != fleet.Leased || e.Login.Host != "10.0.0.2" || len(e.Leases) != 1 || e.Jobs[0] != "gitlab.example.com-7" {
		t.Errorf("%+v", e)
	}
	client := newControlClient(h.state)
	for _, path := range []string{"/machines", "/machines/runner-t1-a", "/machines/runner-t1-b", "/status"} {
		var raw json.RawMessage
		if err := client.call(t.Context(), http.MethodGet, path, &raw); err != nil || strings.Contains(string(raw), "hidden") {
			t.Errorf("%s: %v, %s", path, err, raw)
		}
	}
	for name, want := range map[string]string{"t9": `there is no machine "t9"`, "runner-t1": "is in the names of 3 machines: runner-t1-a, runner-t1-b", "": "there is no machine"} {
		if out, code := h.run("inspect", name); code != 1 || !strings.Contains(out, want) {
			t.Errorf("%q: code %d, %s", name, code, out)
		}
	}
}

func TestMachinesAreCreatedWithTimedSteps(t *testing.T) {
	t.Parallel()
	builders, others := twoPools()
	h := managed(t, fleetOf(builders, others))
	out, code := h.run("create", "--pool", "builders", "--set", "spot")
	want := `Creating 1 machine.
runner-t1-new-1  created after 3.0s at 10.0.0.9
runner-t1-new-1    ssh 2.0s
runner-t1-new-1    engine 1.5s
runner-t1-new-1  ready after 7.0s at 10.0.0.9
`
	if code != 0 || out != want {
		t.Errorf("code %d, got\n%swant\n%s", code, out, want)
	}
	out, code = h.run("create", "--pool", "t2", "--count", "3", "--output", "json")
	var made []pool.MachineStatus
	if err := json.Unmarshal([]byte(out), &made); err != nil || code != 0 || len(made) != 3 || made[2].State != fleet.Idle {
		t.Errorf("code %d, %v, %s", code, err, out)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"which pool":   {nil, "2 pools fit: name one with --pool"},
		"no such pool": {[]string{"--pool", "x/../y"}, `there is no pool "x/../y"; there is t1 (builders), t2 (others)`},
		"no such set":  {[]string{"--pool", "t1", "--set", "gold"}, `there is no option set "gold"`},
		"none":         {[]string{"--pool", "t1", "--count", "0"}, "--count: 0"},
		"many":         {[]string{"--pool", "t1", "--count", "1001"}, "--count: 1001"},
	} {
		if out, code := h.run(append([]string{"create"}, c.args...)...); code != 1 || !strings.Contains(out, c.want) {
			t.Errorf("%s: code %d, %s", name, code, out)
		}
	}
}

func TestAMachineThatCanNotBeCreatedSaysWhy(t *testing.T) {
	t.Parallel()
	p := &fakePool{name: "t1", fails: "no room in zone a"}
	h := managed(t, fleetOf(p))
	out, code := h.run("create", "--count", "2")
	if code != 1 || !strings.Contains(out, "runner-t1-new-1  failed: no room in zone a\n") || !strings.Contains(out, "2 of 2 machines could not be created") {
		t.Errorf("code %d, %s", code, out)
	}
	if n := len(p.machines); n != 0 {
		t.Errorf("%d machines that have failed are still there", n)
	}
	// What went so fast that nobody has seen it fail is known from its history.
	c := &machineClient{controlClient: newControlClient(h.state)}
	w := &machineWatch{client: c, out: &bytes.Buffer{}}
	p.fails = ""
	p.events = append(p.events, fleet.Event{At: fakeTime, Kind: fleet.MachineFailed, Machine: "gone-1", Class: fleet.NoCapacity, Reason: "InsufficientInstanceCapacity"})
	if _, err := w.created(t.Context(), []string{"gone-1", "gone-2"}); err == nil || w.failed != 2 ||
		!strings.Contains(w.out.(*bytes.Buffer).String(), "gone-1  failed: not created, as the provider has no room for it: InsufficientInstanceCapacity") {
		t.Errorf("%v, %s", err, w.out)
	}
}

func TestMachinesAreRemoved(t *testing.T) {
	t.Parallel()
	builders, others := twoPools()
	h := managed(t, fleetOf(builders, others))
	out, code := h.run("rm", "runner-t1-a", "runner-t1-b", "runner-t1-a")
	if code != 0 || strings.Count(out, "runner-t1-a  removed after ") != 1 || !strings.Contains(out, "runner-t1-b  takes no more jobs; it is removed when its job has ended\n") {
		t.Errorf("code %d, %s", code, out)
	}
	if m, err := builders.Machine(t.Context(), "runner-t1-b"); err != nil || m.State != fleet.Draining {
		t.Errorf("%+v, %v", m, err)
	}
	if out, code = h.run("rm", "--force", "runner-t1-b"); code != 0 || !strings.Contains(out, "runner-t1-b  removed after ") {
		t.Errorf("code %d, %s", code, out)
	}
	// One that stays, one that is not there, and one that is gone: the first two do not keep the third.
	if _, err := builders.Create(t.Context(), 1, ""); err != nil {
		t.Fatal(err)
	}
	out, code = h.run("rm", "runner-t1-c", "t1-new-1", "runner-t1-new-1")
	for _, want := range []string{
		"runner-t1-c  failed: LEAK: its removal has failed 4 times", `remove t1-new-1: there is no machine "t1-new-1"`, "runner-t1-new-1  removed after ",
		"1 machine could not be removed", "tranter machine leaks",
	} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("code %d, without %q: %s", code, want, out)
		}
	}
}

func TestAHostOfAListIsRemovedOnceItIsMadeReadyAnew(t *testing.T) {
	t.Parallel()
	builders, _ := twoPools()
	builders.listed = true
	h := managed(t, fleetOf(builders))
	if out, code := h.run("rm", "runner-t1-a"); code != 0 || !strings.Contains(out, "runner-t1-a  removed after ") {
		t.Errorf("code %d, %s", code, out)
	}
	if m, err := builders.Machine(t.Context(), "runner-t1-a"); err != nil || m.State == fleet.Removing {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestADrainedMachineIsWaitedForIfThatIsWanted(t *testing.T) {
	t.Parallel()
	builders, _ := twoPools()
	h := managed(t, fleetOf(builders))
	if out, code := h.run("drain", "runner-t1-b", "--reason", "its disk is slow"); code != 0 || out != "runner-t1-b  takes no more jobs\n" {
		t.Errorf("code %d, %s", code, out)
	}
	if m, err := builders.Machine(t.Context(), "runner-t1-b"); err != nil || m.State != fleet.Draining || m.Reason != "its disk is slow" {
		t.Errorf("%+v, %v", m, err)
	}
	if out, code := h.run("drain", "other"); code != 1 || !strings.Contains(out, "drain other: there is no machine") {
		t.Errorf("code %d, %s", code, out)
	}
	done := time.AfterFunc(300*time.Millisecond, func() {
		_ = builders.change("runner-t1-b", func(m *fleet.Machine) { m.Leases, m.State = nil, fleet.Removing })
	})
	defer done.Stop()
	if out, code := h.run("rm", "--wait", "runner-t1-b"); code != 0 || !strings.Contains(out, "it is removed when its job has ended\nrunner-t1-b  removed after ") {
		t.Errorf("code %d, %s", code, out)
	}
}

func TestTheHistoryOfAMachineIsTold(t *testing.T) {
	at := func(seconds float64) time.Time { return fakeTime.Add(time.Duration(seconds * float64(time.Second))) }
	clock := func(seconds float64) string { return at(seconds).Local().Format(time.TimeOnly) }
	story := machineStory{Name: "runner-t1-a", History: []fleet.Event{
		{At: at(0), Kind: fleet.MachineWanted, Set: "spot", Reason: "2 jobs wait"},
		{At: at(0.4), Kind: fleet.MachineNoted},
		{At: at(3), Kind: fleet.MachineCreated},
		{At: at(9), Kind: fleet.MachineReady, Reason: "ssh 4s", Boot: []tranter.Timing{{Step: "ssh", Took: 4 * time.Second}, {Step: "engine", Took: 1200 * time.Millisecond}}},
		{At: at(9), Kind: fleet.LeaseGranted, Job: "7"},
		{At: at(69), Kind: fleet.LeaseReleased, Job: "7", Clean: true},
		{At: at(70), Kind: fleet.MachineDraining, Reason: "the cloud takes it away", Deadline: at(190)},
		{At: at(71), Kind: fleet.MachineRemoving, Reason: "no more jobs"},
		{At: at(80), Kind: fleet.RemovalFailed, Reason: "quota\x1b[2J", Retry: at(110)},
		{At: at(3691), Kind: fleet.MachineGone, Reason: "the provider has it no more"},
	}}
	day := fakeTime.Local().Format(time.DateOnly) + " "
	var out bytes.Buffer
	printStory(&out, story, at(3701))
	want := "Machine runner-t1-a. It is gone: it went 10.0s ago, after 1h01m.\n" +
		day + clock(0) + "          wanted, with option set spot: 2 jobs wait\n" +
		day + clock(0.4) + "  +0.4s   the provider has named what it creates\n" +
		day + clock(3) + "  +2.6s   created; it boots\n" +
		day + clock(9) + "  +6.0s   ready for jobs (ssh 4.0s, engine 1.2s)\n" +
		day + clock(9) + "  +0.0s   lent to job 7\n" +
		day + clock(69) + "  +1m00s  job 7 has left, and left it clean\n" +
		day + clock(70) + "  +1.0s   takes no more jobs: the cloud takes it away; until " + clock(190) + "\n" +
		day + clock(71) + "  +1.0s   to be removed: no more jobs\n" +
		day + clock(80) + "  +9.0s   its removal has failed: quota�[2J; tried again " + clock(110) + "\n" +
		day + clock(3691) + "  +1h00m  gone: the provider has it no more\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
	for _, e := range []fleet.Event{
		{Kind: fleet.MachineWanted, ByHand: true},
		{Kind: fleet.MachineFailed},
		{Kind: fleet.MachineFailed, Class: fleet.Rejected},
		{Kind: fleet.MachineFailed, Class: fleet.Unready},
		{Kind: fleet.MachineStopping},
		{Kind: fleet.MachineStarting},
		{Kind: fleet.MachineAdopted},
		{Kind: fleet.MachineSeen},
		{Kind: fleet.MachineMissed},
		{Kind: fleet.LeaseReleased, Job: "7"},
		{Kind: fleet.MachineGone, Orphan: true},
		{Kind: fleet.Throttled},
		{Kind: "of_a_later_version"},
	} {
		if text := eventText(e); text == "" || strings.Contains(text, "_") {
			t.Errorf("%+v: %q", e, text)
		}
	}
}

func TestAMachineThatIsGoneIsStillExplained(t *testing.T) {
	t.Parallel()
	builders, others := twoPools()
	h := managed(t, fleetOf(builders, others))
	builders.note(fleet.MachineGone, "runner-t1-old", "it was spare")
	builders.note(fleet.MachineWanted, "runner-t1-a", "IdleCount is 1")
	if out, code := h.run("why", "runner-t1-old"); code != 0 || !strings.Contains(out, "gone: it was spare") || !strings.Contains(out, "It is gone") {
		t.Errorf("code %d, %s", code, out)
	}
	if out, code := h.run("why", "t1-a"); code != 0 || !strings.Contains(out, "wanted: IdleCount is 1") || !strings.HasPrefix(out, "Machine runner-t1-a. Idle for ") || !strings.Contains(out, ": spare.\n") {
		t.Errorf("code %d, %s", code, out)
	}
	out, code := h.run("why", "t1-a", "--output", "json")
	var story machineStory
	if err := json.Unmarshal([]byte(out), &story); err != nil || code != 0 || story.Now == nil || len(story.History) != 1 {
		t.Errorf("code %d, %v, %s", code, err, out)
	}
	if out, code := h.run("why", "runner-t1-none"); code != 1 || !strings.Contains(out, "nothing is known of a machine") {
		t.Errorf("code %d, %s", code, out)
	}
}

func TestLeaksFailTheCheck(t *testing.T) {
	t.Parallel()
	builders, others := twoPools()
	h := managed(t, fleetOf(builders, others))
	out, code := h.run("leaks")
	for _, want := range []string{"runner-t1-c  t1    fake      i-3  -", "runner-t2-d  t2", "look for the tag tranter", "tranter machine prune"} {
		if code != 1 || !strings.Contains(out, want) || strings.Contains(out, "runner-t1-a") || strings.Contains(out, "tranter: ") {
			t.Errorf("code %d, without %q: %s", code, want, out)
		}
	}
	out, code = h.run("leaks", "--output", "json", "--pool", "others")
	var found []leak
	if err := json.Unmarshal([]byte(out), &found); err != nil || code != 1 || len(found) != 1 || found[0].Provider != "fake" {
		t.Errorf("code %d, %v, %s", code, err, out)
	}
	if out, code := h.run("prune", "--dry-run"); code != 0 || !strings.Contains(out, "runner-t1-c") || strings.Contains(out, "Pruned") {
		t.Errorf("code %d, %s", code, out)
	}
	for input, want := range map[string]string{"no\n": "nothing was done", "": "nobody has answered", "\n": "nothing was done"} {
		if out, code := h.typed(input, "prune"); code != 1 || !strings.Contains(out, "Prune 2 machines?") || !strings.Contains(out, want) || strings.Contains(out, "Pruned") {
			t.Errorf("%q: code %d, %s", input, code, out)
		}
	}
	if out, code := h.run("prune", "--output", "json"); code != 1 || !strings.Contains(out, "--yes") {
		t.Errorf("code %d, %s", code, out)
	}
	if out, code := h.run("prune", "--pool", "t2", "--yes", "--output", "json"); code != 0 || !strings.Contains(out, `"runner-t2-d"`) || strings.Contains(out, "runner-t1-c") {
		t.Errorf("code %d, %s", code, out)
	}
	if out, code := h.typed("yes\n", "prune"); code != 0 || !strings.Contains(out, "Pruned 1 machine.") {
		t.Errorf("code %d, %s", code, out)
	}
	if out, code := h.run("leaks"); code != 0 || out != "There is no leak.\n" {
		t.Errorf("code %d, %s", code, out)
	}
	if out, code := h.run("prune"); code != 0 || !strings.Contains(out, "There is nothing to prune.") {
		t.Errorf("code %d, %s", code, out)
	}
}

// Status and the list of jobs say where the machines and the jobs are.
func TestStatusShowsTheMachines(t *testing.T) {
	t.Parallel()
	h := managed(t, fleetOf(twoPools()), manager.JobStatus{ID: 7, Key: "gitlab.example.com-7", Name: "build"}, manager.JobStatus{ID: 8, Key: "gitlab.example.com-8", Name: "test"})
	tranter := func(args ...string) string {
		var out bytes.Buffer
		if code := run(t.Context(), append(args, "--state-dir", h.state), streams{out: &out, err: &out}); code != 0 {
			t.Errorf("code %d, %s", code, out.String())
		}
		return out.String()
	}
	status := tranter("status")
	for _, want := range []string{
		"MACHINES OF  NAME      PROVIDER  ALL   COMING  IDLE  STOPPED  IN USE  GOING  LEAKS  JOBS WAITING  PROBLEM",
		"t1           builders  fake      3/10  0       1/2   0        1       1      1      0             -",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("without %q:\n%s", want, status)
		}
	}
	jobs := strings.Split(tranter("job", "ls"), "\n")
	if !strings.HasSuffix(jobs[0], "MACHINE") || !strings.HasSuffix(jobs[1], "runner-t1-b") || !strings.HasSuffix(jobs[2], "-") {
		t.Errorf("%q", jobs)
	}
	var listed []machineJob
	if err := json.Unmarshal([]byte(tranter("job", "ls", "--output", "json")), &listed); err != nil || len(listed) != 2 || listed[0].Machine != "runner-t1-b" || listed[0].ID != 7 {
		t.Errorf("%v, %+v", err, listed)
	}
}

// Without a manager what changes machines works on them in place, and what shows them reads the book.
func TestWithoutAManagerMachinesAreOpenedInPlace(t *testing.T) {
	t.Parallel()
	builders, _ := twoPools()
	h, opened := alone(t, fleetOf(builders))
	for _, c := range []struct {
		args []string
		code int
		need need
		want string
	}{
		{[]string{"ls"}, 0, fromBook, "No manager is running with the state directory"},
		{[]string{"why", "runner-t1-b"}, 1, fromBook, "nothing is known"},
		{[]string{"inspect", "runner-t1-b"}, 0, fromBook, `"state": "leased"`},
		{[]string{"leaks"}, 1, fromBook, "runner-t1-c"},
		{[]string{"create"}, 0, inPlace, "ready after 7.0s"},
		{[]string{"rm", "runner-t1-a"}, 0, inPlace, "removed after"},
		{[]string{"drain", "runner-t1-b"}, 0, inPlace, "takes no more jobs"},
		{[]string{"prune", "--yes"}, 0, inPlace, "Pruned 1 machine."},
		{[]string{"env", "runner-t1-b"}, 1, inPlace, "reach machine runner-t1-b, which is draining: it does not answer"},
		{[]string{"ssh", "runner-t1-b"}, 1, inPlace, "reach machine runner-t1-b, which is draining: it does not answer"},
	} {
		out, code := h.run(c.args...)
		if n := opened(); code != c.code || !strings.Contains(out, c.want) || n[len(n)-1] != c.need {
			t.Errorf("%q: code %d, opened %v, %s", c.args, code, n, out)
		}
	}
}

// What the last manager has left is read from its store, with runners that are in the configuration and not.
func TestTheBookOfAManagerThatHasEndedIsRead(t *testing.T) {
	t.Parallel()
	h := machineHarness{t: t, state: shortDir(t)}
	for _, args := range [][]string{{"ls"}, {"create"}, {"leaks"}} {
		if out, code := h.run(args...); code != 1 || !strings.Contains(out, "no manager is running") {
			t.Errorf("%q: code %d, %s", args, code, out)
		}
	}
	st, err := store.Open(t.Context(), filepath.Join(h.state, "tranter.db"))
	if err != nil {
		t.Fatal(err)
	}
	builders, others := twoPools()
	for _, p := range []*fakePool{builders, others} {
		e := []fleet.Event{{At: time.Now(), Kind: fleet.MachineWanted, Machine: p.machines[0].Name, Reason: "a job waits"}}
		if err := st.Machines().Append(t.Context(), p.name, e, p.machines, nil); err != nil {
			t.Fatal(err)
		}
	}
	if out, code := h.run("ls"); code != 1 || !strings.Contains(out, "another process uses the state directory") {
		t.Errorf("code %d, %s", code, out)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(h.state, "none.toml"), `[[runners]]
name = "builders"
url = "https://gitlab.example.com"
token = "t1"
executor = "docker+machine"
[runners.docker]
image = "alpine"
[runners.machine]
MachineDriver = "lab"
MachineName = "auto-%s"
price_per_hour = 2.0
[[runners.machine.option_sets]]
name = "spot"
price_per_hour = 0.5
`)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"ls"}, 0, "runner-t2-d"},
		{[]string{"ls", "--pool", "builders"}, 0, "runner-t1-a"},
		{[]string{"why", "runner-t1-a"}, 0, "wanted: a job waits"},
		{[]string{"inspect", "runner-t1-b"}, 0, `"cost": `},
		{[]string{"leaks"}, 1, "runner-t1-c  t1    lab       i-3"},
	} {
		if out, code := h.run(c.args...); code != c.code || !strings.Contains(out, c.want) || strings.Contains(out, "hidden") {
			t.Errorf("%q: code %d, %s", c.args, code, out)
		}
	}
}

func TestAnOlderManagerIsToldFromAMachineThatIsNotThere(t *testing.T) {
	t.Parallel()
	listener := newPipeListener()
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serveOn(ctx, listener, http.NewServeMux()) }()
	c := &machineClient{controlClient: controlClientOver("/state", listener.dial)}
	if _, err := c.machines(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "tranter upgrade") {
		t.Error(err)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := c.ping(t.Context()); err == nil {
		t.Error("what has ended answers")
	}
}

func TestShellsCompleteTheNamesOfMachines(t *testing.T) {
	t.Parallel()
	h := managed(t, fleetOf(twoPools()))
	complete := func(args ...string) string {
		var out bytes.Buffer
		args = append([]string{"__complete", "machine", args[0], "--state-dir", h.state}, args[1:]...)
		if code := run(t.Context(), args, streams{out: &out, err: io.Discard}); code != 0 {
			t.Errorf("%q: code %d", args, code)
		}
		return out.String()
	}
	for _, command := range []string{"rm", "ssh", "inspect", "env", "why", "drain"} {
		if out := complete(command, "runner-t1"); !strings.Contains(out, "runner-t1-b\tleased\n") {
			t.Errorf("%s: %s", command, out)
		}
	}
	if out := complete("why", "runner-t1-a", ""); strings.Contains(out, "runner") {
		t.Errorf("a second name: %s", out)
	}
}

func TestTheArgumentsOfACommandOnAMachineAreItsOwn(t *testing.T) {
	args := []string{"machine", "ssh", "runner-t1-a", "find", "/", "-name", "core", "-config"}
	if got := doubleDashes(newRoot(streams{}), args); strings.Join(got, " ") != strings.Join(args, " ") {
		t.Errorf("%q", got)
	}
}
