package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/view"
)

func newHistory(t testing.TB) (h *store.History, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "history.db")
	return openHistory(t, path), path
}

func keep(t testing.TB, h *store.History, jobs ...tranter.JobHistory) {
	t.Helper()
	for _, j := range jobs {
		if err := h.Keep(t.Context(), j); err != nil {
			t.Fatal(err)
		}
	}
}

func keysOf(jobs []tranter.JobHistory) string {
	var out []string
	for _, j := range jobs {
		out = append(out, j.Key)
	}
	return strings.Join(out, " ")
}

func TestAJobIsKeptWhole(t *testing.T) {
	h, path := newHistory(t)
	job := someJob(7, sizeNow)
	job.Stages = []tranter.JobStage{{Name: "prepare", Start: sizeNow, End: sizeNow.Add(time.Second), Steps: []tranter.StepRecord{{Name: "x", Status: tranter.PhaseSucceeded}}}}
	job.Bill = &tranter.Bill{BatchJob: "77", CPUs: 4, Ran: time.Hour}
	keep(t, h, job)
	job.Result.Message = "kept again"
	keep(t, h, job)
	got, err := h.Job(t.Context(), job.Key)
	if err != nil || !reflect.DeepEqual(got, job) {
		t.Errorf("%v\n%+v\nnot\n%+v", err, got, job)
	}
	read, err := store.ReadHistory(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	all, err := read.Jobs(t.Context(), view.JobQuery{})
	job.Usage.Samples = nil
	if err != nil || len(all) != 1 || !reflect.DeepEqual(all[0], job) {
		t.Errorf("%v\n%+v", err, all)
	}
	bills, err := read.Billed(t.Context(), sizeNow.Add(-time.Hour), sizeNow.Add(time.Hour))
	if err != nil || len(bills) != 1 || !reflect.DeepEqual(bills[0].Bill, job.Bill) || !reflect.DeepEqual(bills[0].Job.Tags, job.Job.Tags) || bills[0].Times != job.Times {
		t.Errorf("%v %+v", err, bills)
	}
	if err := read.Keep(t.Context(), job); err == nil {
		t.Error("a history that is only read was written")
	}
	if _, err := h.Job(t.Context(), "nobody"); !errors.Is(err, tranter.ErrNotFound) {
		t.Error(err)
	}
	if err := h.Keep(t.Context(), tranter.JobHistory{Key: "runs"}); err == nil {
		t.Error("a job that runs was kept")
	}
}

func TestWhatIsKeptIsOnlyForItsOwner(t *testing.T) {
	h, path := newHistory(t)
	keep(t, h, someJob(1, sizeNow))
	for _, end := range []string{"", "-wal", "-shm"} {
		if info, err := os.Stat(path + end); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", end, info, err)
		}
	}
}

func TestNothingIsKeptYet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	if _, err := store.ReadHistory(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.ReadHistory(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestJobsAreFound(t *testing.T) {
	h, _ := newHistory(t)
	var all []tranter.JobHistory
	for i := range 120 {
		j := someJob(i, sizeNow.Add(-time.Duration(i/3)*time.Minute)) // three ended in the same millisecond
		switch i {
		case 11:
			j.Job.Name = `100%_done "quoted" it's`
		case 12:
			j.Job.Ref = "ÜBER/das-meer"
		case 20, 21, 47:
			j.Place = tranter.JobPlace{Batch: "tr-hpc-1"}
		}
		all = append(all, j)
	}
	keep(t, h, all...)
	for _, c := range []struct {
		q    view.JobQuery
		want func(tranter.JobHistory) bool
	}{
		{view.JobQuery{}, func(tranter.JobHistory) bool { return true }},
		{view.JobQuery{Project: all[5].Job.Project}, func(j tranter.JobHistory) bool { return j.Job.Project == all[5].Job.Project }},
		{view.JobQuery{Runner: "runner-2"}, func(j tranter.JobHistory) bool { return j.Runner == "runner-2" }},
		{view.JobQuery{Runner: "name of runner-2", State: tranter.JobFailed}, func(j tranter.JobHistory) bool {
			return j.Runner == "runner-2" && j.Result.State == tranter.JobFailed
		}},
		{view.JobQuery{Reason: tranter.ScriptFailure}, func(j tranter.JobHistory) bool { return j.Result.Reason == tranter.ScriptFailure }},
		{view.JobQuery{Machine: "m2", Text: "BUILD"}, func(j tranter.JobHistory) bool { return j.Place.Machine == "m2" && j.Job.Name == "build" }},
		{view.JobQuery{From: sizeNow.Add(-10 * time.Minute), To: sizeNow.Add(-5 * time.Minute)}, func(j tranter.JobHistory) bool {
			return !j.Times.Ended.Before(sizeNow.Add(-10*time.Minute)) && j.Times.Ended.Before(sizeNow.Add(-5*time.Minute))
		}},
		{view.JobQuery{Batch: "tr-hpc-1"}, func(j tranter.JobHistory) bool { return j.Place.Batch == "tr-hpc-1" }},
		{view.JobQuery{Batch: "tr-hpc-1", Text: "e", State: tranter.JobSuccess}, func(j tranter.JobHistory) bool {
			return j.Place.Batch == "tr-hpc-1" && j.Result.State == tranter.JobSuccess
		}},
		{view.JobQuery{Text: "unit"}, func(j tranter.JobHistory) bool { return j.Job.Name == "unit tests" }},
		{view.JobQuery{Text: "to"}, func(j tranter.JobHistory) bool { return strings.Contains(j.Job.Name, "to") }},
		{view.JobQuery{Text: `0%_d`}, func(j tranter.JobHistory) bool { return j.Job.ID == 11 }},
		{view.JobQuery{Text: `"quoted" it's`}, func(j tranter.JobHistory) bool { return j.Job.ID == 11 }},
		{view.JobQuery{Text: "über/DAS"}, func(j tranter.JobHistory) bool { return j.Job.ID == 12 }},
		{view.JobQuery{Text: "%%%"}, func(tranter.JobHistory) bool { return false }},
		{view.JobQuery{Text: `" OR "a`}, func(tranter.JobHistory) bool { return false }},
		{view.JobQuery{Text: "107"}, func(j tranter.JobHistory) bool {
			return strings.Contains(fmt.Sprint(j.Job.ID, j.Job.Ref, j.Job.Project), "107")
		}},
		{view.JobQuery{Text: "\x00\xff" + strings.Repeat("x", 10_000)}, func(tranter.JobHistory) bool { return false }},
		{view.JobQuery{Before: "no such key"}, func(tranter.JobHistory) bool { return false }},
	} {
		want := map[string]bool{}
		for _, j := range all {
			if c.want(j) {
				want[j.Key] = true
			}
		}
		c.q.Limit = 7
		got := map[string]bool{}
		last := sizeNow.Add(time.Hour)
		for range 100 {
			page, err := h.Jobs(t.Context(), c.q)
			if err != nil {
				t.Fatalf("%+v: %v", c.q, err)
			}
			for _, j := range page {
				if got[j.Key] || j.Times.Ended.After(last) {
					t.Fatalf("%+v: %s is twice, or in no order", c.q, j.Key)
				}
				got[j.Key], last = true, j.Times.Ended
				c.q.Before = j.Key
			}
			if len(page) < c.q.Limit {
				break
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v: %d found, not %d", c.q, len(got), len(want))
		}
	}
}

func TestADamagedRecordHidesNothing(t *testing.T) {
	h, path := newHistory(t)
	keep(t, h, someJob(1, sizeNow.Add(-time.Second)), someJob(2, sizeNow), someJob(3, sizeNow.Add(time.Second)))
	if _, err := rawDB(t, path).ExecContext(t.Context(), "UPDATE records SET record = x'00ff' WHERE id = (SELECT id FROM jobs WHERE job = 2)"); err != nil {
		t.Fatal(err)
	}
	jobs, err := h.Jobs(t.Context(), view.JobQuery{})
	if err != nil || len(jobs) != 3 {
		t.Fatalf("%v %v", keysOf(jobs), err)
	}
	if j := jobs[1]; j.Job.Name != someJob(2, sizeNow).Job.Name || !strings.Contains(j.Result.Message, "damaged") || !j.Times.Ended.Equal(sizeNow) {
		t.Errorf("%+v", j)
	}
	if jobs[0].Result.Message == jobs[1].Result.Message {
		t.Errorf("%+v", jobs[0])
	}
}

func TestWhatIsNoHistoryIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("this is no database", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenHistory(t.Context(), path); !errors.Is(err, store.ErrDamaged) {
		t.Error(err)
	}
	if _, err := store.ReadHistory(t.Context(), path); !errors.Is(err, store.ErrDamaged) {
		t.Error(err)
	}
}

func TestAHistoryOfWhichPagesAreLostIsAnErrorOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	h, err := store.OpenHistory(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		keep(t, h, someJob(i, sizeNow.Add(time.Duration(i)*time.Second)))
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(data) / 3; i < len(data); i++ {
		data[i] ^= 0x5a
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if h, err = store.OpenHistory(t.Context(), path); err != nil {
		t.Log(err)
		return
	}
	defer h.Close()
	_, jobsErr := h.Jobs(t.Context(), view.JobQuery{Limit: 1000})
	keepErr := h.Keep(t.Context(), someJob(1000, sizeNow))
	_, billedErr := h.Billed(t.Context(), time.Time{}, time.Time{})
	if jobsErr == nil && keepErr == nil && billedErr == nil {
		t.Error("nothing was noticed")
	}
}

func TestEvents(t *testing.T) {
	h, _ := newHistory(t)
	var all []tranter.Event
	for i := range 50 {
		e := tranter.Event{Time: sizeNow.Add(time.Duration(i/2) * time.Second), Kind: []tranter.EventKind{tranter.JobTaken, "machine_ready", "machine_gone", tranter.RunnerTrouble}[i%4], Runner: "r", Machine: fmt.Sprint("m", i%7), Text: fmt.Sprintf("number %d of 50%%", i), Took: time.Duration(i)}
		if i%5 == 0 {
			e.Level = tranter.EventWarning
		}
		if i%4 == 0 {
			e.Job = "12-ab"
		}
		all = append(all, e)
	}
	if err := h.Record(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		q    view.EventQuery
		want func(i int, e tranter.Event) bool
	}{
		{view.EventQuery{}, func(int, tranter.Event) bool { return true }},
		{view.EventQuery{Kind: "machine_"}, func(_ int, e tranter.Event) bool { return strings.HasPrefix(string(e.Kind), "machine_") }},
		{view.EventQuery{Kind: "machine_ready", Machine: "m3"}, func(_ int, e tranter.Event) bool { return e.Kind == "machine_ready" && e.Machine == "m3" }},
		{view.EventQuery{Kind: "runner_tr"}, func(_ int, e tranter.Event) bool { return e.Kind == tranter.RunnerTrouble }},
		{view.EventQuery{Job: "12-ab"}, func(i int, _ tranter.Event) bool { return i%4 == 0 }},
		{view.EventQuery{Level: tranter.EventWarning, Runner: "r"}, func(i int, _ tranter.Event) bool { return i%5 == 0 }},
		{view.EventQuery{Text: "BER 4"}, func(i int, _ tranter.Event) bool { return i == 4 || i >= 40 }},
		{view.EventQuery{Text: "0%"}, func(int, tranter.Event) bool { return true }},
		{view.EventQuery{Text: "_%_"}, func(int, tranter.Event) bool { return false }},
		{view.EventQuery{From: sizeNow.Add(5 * time.Second), To: sizeNow.Add(7 * time.Second)}, func(i int, _ tranter.Event) bool { return i >= 10 && i < 14 }},
		{view.EventQuery{Before: 12345}, func(int, tranter.Event) bool { return false }},
	} {
		var want, got []string
		for i, e := range slices.Backward(all) {
			if c.want(i, e) {
				want = append(want, e.Text)
			}
		}
		c.q.Limit = 6
		for range 50 {
			page, err := h.Events(t.Context(), c.q)
			if err != nil {
				t.Fatalf("%+v: %v", c.q, err)
			}
			for _, e := range page {
				got, c.q.Before = append(got, e.Text), e.ID
				i := slices.IndexFunc(all, func(a tranter.Event) bool { return a.Text == e.Text })
				if e.ID = 0; !reflect.DeepEqual(e, all[i]) {
					t.Errorf("%+v, not %+v", e, all[i])
				}
			}
			if len(page) < c.q.Limit {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: %q, not %q", c.q, got, want)
		}
	}
}

func TestPausedRunners(t *testing.T) {
	h, _ := newHistory(t)
	if err := h.SetPaused(t.Context(), "abc", "alice", true); err != nil {
		t.Fatal(err)
	}
	got, err := h.Paused(t.Context())
	if err != nil || len(got) != 1 || !strings.HasSuffix(got["abc"], " by alice") {
		t.Errorf("%v %v", got, err)
	}
	if err := h.SetPaused(t.Context(), "abc", "bob", false); err != nil {
		t.Fatal(err)
	}
	if got, err = h.Paused(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
}

func TestOldThingsAreForgottenALittleAtATime(t *testing.T) {
	h, path := newHistory(t)
	fillHistory(t, h, path, 700, 300, 1500)
	db := rawDB(t, path)
	if err := h.Sample(t.Context(), sizeNow.Add(-9*24*time.Hour), map[string]float64{"jobs.running": 1}); err != nil {
		t.Fatal(err)
	}
	count := func(table string) (n int) {
		t.Helper()
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count("jobs")
	if err := h.Prune(t.Context(), sizeNow, 0, 0); err != nil || count("jobs") != before || count("lives") != 300 || count("events") != 1500 || count("samples") != 0 {
		t.Errorf("for ever: %v, %d jobs, %d samples", err, count("jobs"), count("samples"))
	}
	if err := h.Prune(t.Context(), sizeNow, time.Hour, time.Hour); err != nil || count("jobs") != before-500 {
		t.Errorf("once: %v, %d jobs of %d", err, count("jobs"), before)
	}
	for range 4 {
		if err := h.Prune(t.Context(), sizeNow, time.Hour, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	for table, want := range map[string]int{"jobs": 500, "records": 500, "job_search": 500, "waits": 500, "events": 360, "event_search": 360, "lives": 167, "past_spans": 167, "spans": 167 * 18} {
		if got := count(table); got < want-40 || got > want+40 {
			t.Errorf("%s: %d are left, not about %d", table, got, want)
		}
	}
}

// historyChild makes this program the writer of a history; see TestAnotherProcessReadsWhileOneWrites.
const historyChild = "TRANTER_TEST_HISTORY"

func TestAnotherProcessReadsWhileOneWrites(t *testing.T) {
	if path := os.Getenv(historyChild); path != "" {
		h := openHistory(t, path)
		for i := range 300 {
			keep(t, h, someJob(i, sizeNow.Add(time.Duration(i)*time.Second)))
		}
		return
	}
	h, path := newHistory(t)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestAnotherProcessReadsWhileOneWrites$")
	cmd.Env = append(os.Environ(), historyChild+"="+path)
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	most, reads := 0, 0
	for over := false; !over; {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("the writer: %v: %s", err, out)
			}
			over = true
		default:
		}
		read, err := store.ReadHistory(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		jobs, err := read.Jobs(ctx, view.JobQuery{Limit: 1000})
		if err != nil || len(jobs) < most {
			t.Fatalf("%d jobs after %d: %v", len(jobs), most, err)
		}
		most, reads = len(jobs), reads+1
		read.Close()
	}
	if most != 300 {
		t.Errorf("%d jobs in the end, after %d reads", most, reads)
	}
}

func TestManyReadersAndWritersAtOnce(t *testing.T) {
	h, _ := newHistory(t)
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			for i := range 25 {
				if err := h.Keep(t.Context(), someJob(k*100+i, sizeNow)); err != nil {
					t.Error(err)
				}
				if err := h.Record(t.Context(), []tranter.Event{{Time: sizeNow, Kind: tranter.JobEnded, Text: "x"}}); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 25 {
				if _, err := h.Jobs(t.Context(), view.JobQuery{Text: "unit"}); err != nil {
					t.Error(err)
				}
				if _, err := h.Chart(t.Context(), view.ChartQuery{Name: "jobs", From: sizeNow.Add(-time.Hour), To: sizeNow}, cost.Table{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	jobs, err := h.Jobs(t.Context(), view.JobQuery{Limit: 1000})
	if err != nil || len(jobs) != 100 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
}

func TestBilledJobsAreWholeWhateverTheirTextsHold(t *testing.T) {
	h, _ := newHistory(t)
	var want []tranter.JobHistory
	for i := range 12 {
		j := someJob(i, sizeNow.Add(time.Duration(i)*time.Second))
		switch i {
		case 3:
			j.Job.Name = "a\x1fb\x1e\x1f"
		case 5:
			j.Job.User, j.Job.Tags = "\x1f", []string{"\x1f"}
		case 7:
			j.Bill = &tranter.Bill{BatchJob: "4711", CPUs: 8, Ran: time.Hour}
		case 9:
			j.Place, j.Job.Tags, j.Job.Project = tranter.JobPlace{}, nil, ""
		}
		keep(t, h, j)
		j.Usage, j.Stages, j.Result.Message, j.Job.Stage, j.Job.URL = tranter.JobUsage{}, nil, "", "", ""
		want = append(want, j)
	}
	got, err := h.Billed(t.Context(), sizeNow, time.Time{})
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d jobs, %v", len(got), err)
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("job %d is\n%+v, not\n%+v", i, got[i], want[i])
		}
	}
}
