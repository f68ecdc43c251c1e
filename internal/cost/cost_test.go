package cost_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
)

var noon = time.Date(2026, 11, 10, 12, 0, 0, 0, time.UTC)

func at(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-6*max(1, math.Abs(a), math.Abs(b)) }

// endedJob is a job of a project that ran from one minute to another.
func endedJob(key, project string, from, to int) tranter.JobHistory {
	return tranter.JobHistory{
		Key: key, Runner: "tok", Name: "big", Job: tranter.JobLabel{Name: "build", Project: project, User: "alice", Ref: "main", Tags: []string{"linux", "docker"}},
		Place: tranter.JobPlace{Machine: "m1"}, Times: tranter.JobTimes{Taken: at(from), Placed: at(from), Ended: at(to)}, Result: tranter.Result{State: tranter.JobSuccess},
	}
}

func TestWhatIsPaidForAMachine(t *testing.T) {
	for _, c := range []struct {
		rate  cost.Rate
		lived time.Duration
		want  time.Duration
		price float64
	}{
		{cost.Rate{PerHour: 2}, 30 * time.Minute, 30 * time.Minute, 1},
		{cost.Rate{PerHour: 2, Minimum: time.Hour}, 30 * time.Minute, time.Hour, 2},
		{cost.Rate{PerHour: 2, Minimum: time.Hour}, 90 * time.Minute, 90 * time.Minute, 3},
		{cost.Rate{PerHour: 2, Step: time.Hour}, time.Minute, time.Hour, 2},
		{cost.Rate{PerHour: 2, Step: time.Hour}, time.Hour, time.Hour, 2},
		{cost.Rate{PerHour: 2, Step: time.Hour}, time.Hour + 1, 2 * time.Hour, 4},
		{cost.Rate{PerHour: 2, Minimum: 90 * time.Minute, Step: time.Hour}, time.Minute, 2 * time.Hour, 4},
		{cost.Rate{PerHour: 2, Minimum: time.Minute, Step: time.Second}, 61*time.Second + 1, 62 * time.Second, 2 * 62. / 3600},
		{cost.Rate{PerHour: -1}, time.Hour, time.Hour, 0},
		{cost.Rate{PerHour: math.NaN()}, time.Hour, time.Hour, 0},
		{cost.Rate{}, -time.Hour, 0, 0},
	} {
		for _, l := range []cost.Life{{Rate: c.rate, Made: noon, Gone: noon.Add(c.lived)}, {Rate: c.rate, Made: noon}} {
			if d, price := cost.Paid(l, noon.Add(c.lived)); d != c.want || !near(price, c.price) {
				t.Errorf("%+v for %v: %v %v, not %v %v", c.rate, c.lived, d, price, c.want, c.price)
			}
		}
	}
}

func TestTheFirstPriceThatFitsHolds(t *testing.T) {
	table := cost.Table{
		Prices: []cost.Price{
			{Runner: "hpc*", CPUHour: 0.5, GPUHour: 2},
			{Runner: "bi?", Set: "gpu-*", Machine: cost.Rate{PerHour: 9, Step: time.Minute}},
			{Set: "spot", Machine: cost.Rate{PerHour: 1}},
			{Runner: "abc", Machine: cost.Rate{PerHour: 2}},
		},
		Factors: []cost.Factor{{Runner: "big", Visibility: "public", Factor: 0.5}, {Visibility: "public", Factor: 0}, {Runner: "hpc-*", Factor: 3}},
	}
	for _, c := range []struct {
		name, token, set string
		want             float64
	}{
		{"big", "x", "gpu-a100", 9}, {"big", "x", "spot", 1}, {"other", "bit", "gpu-", 9}, {"any", "abc", "", 2}, {"big", "x", "", 7}, {"hpc-1", "x", "", 7}, {"abcd", "abcd", "", 7},
	} {
		if got := table.Machine(c.name, c.token, c.set, 7).PerHour; got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if cpu, gpu := table.Batch("hpc-1", "tok"); cpu != 0.5 || gpu != 2 {
		t.Errorf("batch: %v %v", cpu, gpu)
	}
	if cpu, gpu := table.Batch("big", "tok"); cpu != 0 || gpu != 0 {
		t.Errorf("batch without a price: %v %v", cpu, gpu)
	}
	for _, c := range []struct {
		name, visibility string
		want             float64
	}{{"big", "public", 0.5}, {"small", "public", 0}, {"hpc-7", "private", 3}, {"big", "private", 1}} {
		j := tranter.JobHistory{Name: c.name, Job: tranter.JobLabel{Public: c.visibility}}
		if got := table.Charged(&j); got != c.want {
			t.Errorf("factor of %+v: %v", c, got)
		}
	}
}

// sample is a machine for two hours at 6 an hour, with a job of project a alone, then with one of b too, then only that one.
func sample() (cost.Of, cost.Table) {
	life := cost.Life{
		Machine: "m1", Pool: "tok", Runner: "big", Set: "large", Rate: cost.Rate{PerHour: 6}, Made: at(0), Gone: at(120),
		Holds: []cost.Hold{{Job: "1", Start: at(10), End: at(40)}, {Job: "2", Start: at(30), End: at(70)}},
	}
	failed := endedJob("2", "b", 30, 70)
	failed.Result = tranter.Result{State: tranter.JobFailed, Reason: tranter.RunnerSystemFailure}
	batch := endedJob("3", "a", 0, 60)
	batch.Place, batch.Bill = tranter.JobPlace{Batch: "alloc"}, &tranter.Bill{CPUs: 4, GPUs: 1, Ran: 30 * time.Minute}
	host := endedJob("4", "c", 0, 10)
	host.Place = tranter.JobPlace{}
	table := cost.Table{Currency: "EUR", Prices: []cost.Price{{CPUHour: 0.5, GPUHour: 3}}, Factors: []cost.Factor{{Runner: "big", Factor: 2}}}
	return cost.Of{Jobs: []tranter.JobHistory{endedJob("1", "a", 10, 40), failed, batch, host}, Lives: []cost.Life{life}}, table
}

// said is a report in short: name, jobs, minutes of jobs, minutes of machines, cost, waste.
func said(r cost.Report) string {
	var b strings.Builder
	for _, l := range append(slices.Clone(r.Lines), r.Idle, r.Total) {
		fmt.Fprintf(&b, "%s %d %.0f %.0f %.2f %.2f\n", l.Name, l.Jobs, l.Time.Minutes(), l.MachineTime.Minutes(), l.Cost, l.Waste)
	}
	fmt.Fprintf(&b, "idle %.3f unpriced %d", r.IdleShare, r.Unpriced)
	return b.String()
}

func TestReports(t *testing.T) {
	of, table := sample()
	const end = "idle 0 0 60 6.00 0.00\ntotal 4 140 120 14.50 3.50\nidle 0.500 unpriced 0"
	day := cost.Query{From: at(-720), To: at(720)}
	for _, c := range []struct {
		q    cost.Query
		want string
	}{
		{cost.Query{By: cost.ByProject}, "a 2 90 25 5.00 0.00\nb 1 40 35 3.50 3.50\nc 1 10 0 0.00 0.00\n" + end},
		{cost.Query{By: cost.ByRunner, Runner: "tok"}, "big 4 140 60 8.50 3.50\n" + end},
		{cost.Query{By: cost.ByUser}, "alice 4 140 60 8.50 3.50\n" + end},
		{cost.Query{By: cost.ByJob}, "a: build 2 90 25 5.00 0.00\nb: build 1 40 35 3.50 3.50\nc: build 1 10 0 0.00 0.00\n" + end},
		{cost.Query{By: cost.ByTag}, "docker 4 140 60 8.50 3.50\nlinux 4 140 60 8.50 3.50\n" + end},
		{cost.Query{By: cost.ByMonth}, "2026-11 4 140 60 8.50 3.50\n" + end},
		{cost.Query{By: cost.ByMachine}, "m1 (large) 0 0 60 6.00 3.50\n(batch jobs) 1 60 0 2.50 0.00\nm1 2 70 0 0.00 0.00\n(this host) 1 10 0 0.00 0.00\n" + end},
		{cost.Query{By: cost.ByProject, Runner: "other"}, "idle 0 0 0 0.00 0.00\ntotal 0 0 0 0.00 0.00\nidle 0.000 unpriced 0"},
		{cost.Query{By: cost.ByProject, Project: "b"}, "b 1 40 35 3.50 3.50\nidle 0 0 0 0.00 0.00\ntotal 1 40 35 3.50 3.50\nidle 0.000 unpriced 0"},
		{cost.Query{By: cost.ByProject, From: at(30), To: at(60)}, "a 1 40 5 3.00 0.00\nb 0 30 25 2.50 2.50\nidle 0 0 0 0.00 0.00\ntotal 1 70 30 5.50 2.50\nidle 0.000 unpriced 0"},
	} {
		if c.q.From.IsZero() {
			c.q.From, c.q.To = day.From, day.To
		}
		if got := said(cost.Make(c.q, of, table, at(600))); got != c.want {
			t.Errorf("%+v:\n%s\nnot\n%s", c.q, got, c.want)
		}
	}
	if got := cost.Make(cost.Query{By: cost.ByProject}, of, table, at(600)).Total.Minutes; !near(got, 280) {
		t.Errorf("minutes charged: %v", got)
	}
}

func TestOneJob(t *testing.T) {
	of, table := sample()
	for key, want := range map[int]cost.JobCost{
		0: {Cost: 2.5, Priced: true, Held: 25 * time.Minute, Minutes: 60},
		1: {Cost: 3.5, Priced: true, Held: 35 * time.Minute, Minutes: 80},
		2: {Cost: 2.5, Priced: true, Minutes: 120},
		3: {Minutes: 20},
	} {
		got := cost.Job(&of.Jobs[key], of.Lives, table, at(600))
		if !near(got.Cost, want.Cost) || got.Priced != want.Priced || got.Held != want.Held || !near(got.Minutes, want.Minutes) {
			t.Errorf("job %d: %+v, not %+v", key+1, got, want)
		}
	}
}

func TestAJobThatRunsAndAMachineThatIsThere(t *testing.T) {
	job := endedJob("1", "a", 10, 0)
	job.Times.Ended, job.Result.State = time.Time{}, tranter.JobRunning
	of := cost.Of{Jobs: []tranter.JobHistory{job}, Lives: []cost.Life{{
		Machine: "m1", Pool: "tok", Rate: cost.Rate{PerHour: 6}, Made: at(0),
		Holds: []cost.Hold{{Job: "1", Start: at(10)}, {Job: "nobody knows", Start: at(20)}},
	}}}
	got := said(cost.Make(cost.Query{By: cost.ByProject}, of, cost.Table{}, at(40)))
	if want := "a 1 30 20 2.00 0.00\n(unknown) 0 0 10 1.00 0.00\nidle 0 0 10 1.00 0.00\ntotal 1 30 40 4.00 0.00\nidle 0.250 unpriced 0"; got != want {
		t.Errorf("%s\nnot\n%s", got, want)
	}
}

func TestWithoutAPriceTimesAreTold(t *testing.T) {
	of, _ := sample()
	of.Lives[0].Rate = cost.Rate{}
	got := said(cost.Make(cost.Query{By: cost.ByProject}, of, cost.Table{}, at(600)))
	if want := "b 1 40 35 0.00 0.00\na 2 90 25 0.00 0.00\nc 1 10 0 0.00 0.00\nidle 0 0 60 0.00 0.00\ntotal 4 140 120 0.00 0.00\nidle 0.500 unpriced 3"; got != want {
		t.Errorf("%s\nnot\n%s", got, want)
	}
	got = said(cost.Make(cost.Query{By: cost.ByProject, Project: "b"}, of, cost.Table{Fallback: map[string]float64{"tok": 12}}, at(600)))
	if want := "b 1 40 35 7.00 7.00\nidle 0 0 0 0.00 0.00\ntotal 1 40 35 7.00 7.00\nidle 0.000 unpriced 0"; got != want {
		t.Errorf("by the configuration:\n%s\nnot\n%s", got, want)
	}
}

func TestDaysAreThoseOfThePlace(t *testing.T) {
	place := time.FixedZone("there", 3*3600)
	of := cost.Of{Lives: []cost.Life{{Machine: "m", Rate: cost.Rate{PerHour: 1}, Made: noon.Add(8 * time.Hour), Gone: noon.Add(10 * time.Hour), Holds: []cost.Hold{{Job: "x", Start: noon.Add(8 * time.Hour)}}}}}
	r := cost.Make(cost.Query{By: cost.ByDay, From: noon.In(place), To: noon.Add(24 * time.Hour)}, of, cost.Table{}, noon.Add(12*time.Hour))
	if len(r.Lines) != 2 || r.Lines[0].Name != "2026-11-10" || !near(r.Lines[0].Cost, 1) || r.Lines[1].Name != "2026-11-11" || !near(r.Lines[1].Cost, 1) {
		t.Errorf("%+v", r.Lines)
	}
}

// world draws machines, jobs and prices.
func world(t *rapid.T) (of cost.Of, table cost.Table, now time.Time) {
	minute := rapid.IntRange(0, 3000)
	table.Prices = []cost.Price{{CPUHour: rapid.Float64Range(0, 5).Draw(t, "cpu")}}
	table.Fallback = map[string]float64{"p1": rapid.Float64Range(0, 3).Draw(t, "fallback")}
	for i := range rapid.IntRange(0, 6).Draw(t, "jobs") {
		from := minute.Draw(t, "from")
		j := endedJob(fmt.Sprint(i), rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "project"), from, from+rapid.IntRange(0, 500).Draw(t, "ran"))
		if rapid.Bool().Draw(t, "batch") {
			j.Bill = &tranter.Bill{CPUs: rapid.IntRange(0, 8).Draw(t, "cpus"), Ran: time.Duration(rapid.IntRange(0, 500).Draw(t, "held")) * time.Minute}
		}
		of.Jobs = append(of.Jobs, j)
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "lives") {
		made := minute.Draw(t, "made")
		l := cost.Life{
			Machine: fmt.Sprint("m", i), Pool: rapid.SampledFrom([]string{"p1", "p2"}).Draw(t, "pool"), Made: at(made),
			Rate: cost.Rate{PerHour: rapid.Float64Range(0, 9).Draw(t, "price"), Minimum: time.Duration(rapid.IntRange(0, 90).Draw(t, "minimum")) * time.Minute, Step: time.Duration(rapid.IntRange(0, 3700).Draw(t, "step")) * time.Second},
		}
		if rapid.Bool().Draw(t, "ended") {
			l.Gone = at(made + rapid.IntRange(-5, 900).Draw(t, "lived"))
		}
		for range rapid.IntRange(0, 6).Draw(t, "holds") {
			start := made + rapid.IntRange(-100, 900).Draw(t, "start")
			h := cost.Hold{Job: fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "job")), Start: at(start)}
			if rapid.Bool().Draw(t, "released") {
				h.End = at(start + rapid.IntRange(-10, 300).Draw(t, "for"))
			}
			l.Holds = append(l.Holds, h)
		}
		of.Lives = append(of.Lives, l)
	}
	return of, table, at(rapid.IntRange(3000, 5000).Draw(t, "now"))
}

func TestThePartsAreTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		of, table, now := world(t)
		var paid float64
		var machines time.Duration
		for _, l := range of.Lives {
			if l.Rate.PerHour == 0 {
				l.Rate = table.Machine(l.Runner, l.Pool, l.Set, table.Fallback[l.Pool])
			}
			d, price := cost.Paid(l, now)
			machines, paid = machines+d, paid+price
		}
		for _, j := range of.Jobs {
			paid += cost.Job(&j, nil, table, now).Cost
		}
		by := rapid.SampledFrom([]cost.Key{cost.ByProject, cost.ByRunner, cost.ByJob, cost.ByUser, cost.ByRef, cost.ByDay, cost.ByMonth, cost.ByMachine}).Draw(t, "by")
		r := cost.Make(cost.Query{By: by}, of, table, now)
		sum, held, jobs := r.Idle.Cost, r.Idle.MachineTime, 0
		for _, l := range r.Lines {
			if l.Cost < 0 || l.Time < 0 || l.MachineTime < 0 || l.Minutes < 0 || l.Waste < 0 || l.CPUTime < 0 || l.Waste > l.Cost+1e-9 {
				t.Fatalf("%+v", l)
			}
			sum, held, jobs = sum+l.Cost, held+l.MachineTime, jobs+l.Jobs
		}
		if !near(sum, paid) || !near(r.Total.Cost, paid) || held != machines || r.Total.MachineTime != machines || jobs != r.Total.Jobs || r.Idle.Cost < 0 {
			t.Fatalf("paid %v for %v of machines, told %v (total %v) for %v (total %v), %d jobs of %d", paid, machines, sum, r.Total.Cost, held, r.Total.MachineTime, jobs, r.Total.Jobs)
		}
		if r.IdleShare < 0 || r.IdleShare > 1+1e-9 {
			t.Fatalf("idle share %v", r.IdleShare)
		}
	})
}

func TestTwoHalvesOfATimeAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		of, table, now := world(t)
		bounds := []int{rapid.IntRange(-100, 6000).Draw(t, "a"), rapid.IntRange(-100, 6000).Draw(t, "b"), rapid.IntRange(-100, 6000).Draw(t, "c")}
		slices.Sort(bounds)
		q := cost.Query{By: cost.ByProject, Project: rapid.SampledFrom([]string{"", "a"}).Draw(t, "only")}
		part := func(from, to int) cost.Report {
			q.From, q.To = at(from), at(to)
			return cost.Make(q, of, table, now)
		}
		whole, first, second := part(bounds[0], bounds[2]), part(bounds[0], bounds[1]), part(bounds[1], bounds[2])
		sum := first.Total.Cost + second.Total.Cost
		if !near(whole.Total.Cost, sum) || whole.Total.MachineTime != first.Total.MachineTime+second.Total.MachineTime ||
			whole.Total.Time != first.Total.Time+second.Total.Time || whole.Total.Jobs != first.Total.Jobs+second.Total.Jobs ||
			!near(whole.Idle.Cost, first.Idle.Cost+second.Idle.Cost) || whole.Unpriced != first.Unpriced+second.Unpriced {
			t.Fatalf("whole %+v\nfirst %+v\nsecond %+v", whole, first, second)
		}
	})
}

func TestStepsAddUpToTheReport(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		of, table, now := world(t)
		g := cost.Grid{From: at(rapid.IntRange(0, 500).Draw(t, "from")), Step: time.Duration(rapid.IntRange(1, 400).Draw(t, "step")) * time.Minute, N: rapid.IntRange(1, 30).Draw(t, "n")}
		s := cost.InSteps(of, table, g, now)
		r := cost.Make(cost.Query{By: cost.ByProject, From: g.From, To: g.From.Add(time.Duration(g.N) * g.Step)}, of, table, now)
		var sum float64
		for i := range g.N {
			sum += s.Busy[i] + s.Idle[i] + s.Batch[i]
		}
		if !near(sum, r.Total.Cost) {
			t.Fatalf("steps %v, report %v", sum, r.Total.Cost)
		}
	})
}

func TestAMonthOfManyJobsIsQuick(t *testing.T) {
	of := cost.Of{}
	const jobs, lives = 100_000, 20_000
	for i := range jobs {
		of.Jobs = append(of.Jobs, endedJob(fmt.Sprint(i), fmt.Sprint("project ", i%50), i%40_000, i%40_000+10))
	}
	for i := range lives {
		l := cost.Life{Machine: fmt.Sprint("m", i), Rate: cost.Rate{PerHour: 1}, Made: at(2 * i), Gone: at(2*i + 60)}
		for k := range jobs / lives {
			l.Holds = append(l.Holds, cost.Hold{Job: fmt.Sprint(i*(jobs/lives) + k), Start: at(2*i + 10*k), End: at(2*i + 10*k + 9)})
		}
		of.Lives = append(of.Lives, l)
	}
	for _, by := range []cost.Key{cost.ByProject, cost.ByDay} {
		began := time.Now()
		r := cost.Make(cost.Query{By: by, From: noon, To: at(50_000)}, of, cost.Table{}, at(60_000))
		took := time.Since(began)
		t.Logf("by %s: %v", by, took)
		if r.Total.Jobs != jobs || took > 20*time.Second { // 300 ms on an idle machine without the race detector
			t.Errorf("by %s: %d jobs in %v", by, r.Total.Jobs, took)
		}
	}
}
