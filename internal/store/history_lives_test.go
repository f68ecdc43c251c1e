package store_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/store"
	"github.com/tranter-ci/tranter/internal/view"
)

func sizeAt(minutes int) time.Time { return sizeNow.Add(time.Duration(minutes) * time.Minute) }

// priced is a pool whose machines cost more from one question to the next.
func priced(token string) store.Pool {
	n := 0.
	return store.Pool{Token: token, Name: "name of " + token, Rate: func(string) cost.Rate {
		n++
		return cost.Rate{PerHour: n, Minimum: time.Minute, Step: time.Second}
	}}
}

// told are lanes in short.
func told(lanes []view.Lane) string {
	minute := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return fmt.Sprint(int(t.Sub(sizeNow).Minutes()))
	}
	var out []string
	for _, l := range lanes {
		text := l.Machine + " " + minute(l.Made) + ".." + minute(l.Gone)
		for _, s := range l.Spans {
			text += fmt.Sprintf(" [%s%s %s..%s]", s.State, s.Job, minute(s.Start), minute(s.End))
		}
		out = append(out, text)
	}
	return strings.Join(out, "\n")
}

func TestTheLifeOfAMachineIsKept(t *testing.T) {
	h, _ := newHistory(t)
	pool := priced("p")
	m := fleet.Machine{Name: "m1", Set: "large", State: fleet.Wanted, Since: sizeAt(0), Made: sizeAt(0), Reason: "1 job waits"}
	var steps []fleet.Machine
	step := func(state fleet.State, since, used int, leases ...fleet.Lease) {
		m.State, m.Since, m.Leases, m.Reason = state, sizeAt(since), leases, "because of "+string(state)
		if used > 0 {
			m.Used = sizeAt(used)
		}
		steps = append(steps, m)
	}
	step(fleet.Wanted, 0, 0)
	step(fleet.Booting, 1, 0)
	step(fleet.Idle, 3, 3)
	step(fleet.Leased, 5, 0, fleet.Lease{Job: "a", Since: sizeAt(5)})
	step(fleet.Leased, 5, 0, fleet.Lease{Job: "a", Since: sizeAt(5)}, fleet.Lease{Job: "b", Since: sizeAt(6)})
	step(fleet.Leased, 5, 9, fleet.Lease{Job: "b", Since: sizeAt(6)})
	step(fleet.Draining, 10, 0, fleet.Lease{Job: "b", Since: sizeAt(6)})
	step(fleet.Removing, 12, 12)
	const want = "m1 0..14 [wanted 0..1] [booting 1..3] [idle 3..5] [leased 5..10] [draining 10..12] [removing 12..14] [a 5..9] [b 6..12]"
	for i, m := range steps {
		for range 2 { // the same again adds nothing
			if err := h.Machines(t.Context(), pool, []fleet.Machine{m}, nil, m.Since.Add(time.Duration(10)*time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		if i > 3 {
			if err := h.Machines(t.Context(), pool, steps[1:3], nil, sizeAt(13)); err != nil { // nor does what was told before
				t.Fatal(err)
			}
			if err := h.Machines(t.Context(), pool, []fleet.Machine{m}, nil, sizeAt(13)); err != nil {
				t.Fatal(err)
			}
		}
	}
	query := view.LaneQuery{From: sizeAt(-60), To: sizeAt(60)}
	lanes, err := h.Lanes(t.Context(), query)
	if got := told(lanes); err != nil || got != strings.ReplaceAll(want, "14", "") {
		t.Errorf("before its end: %v\n%s\nnot\n%s", err, got, want)
	}
	for range 2 {
		if err := h.Machines(t.Context(), pool, nil, []string{"m1"}, sizeAt(14)); err != nil {
			t.Fatal(err)
		}
		if err := h.Machines(t.Context(), pool, steps[2:4], []string{"m1", "nobody"}, sizeAt(20)); err != nil {
			t.Fatal(err)
		}
	}
	lanes, err = h.Lanes(t.Context(), query)
	if got := told(lanes); err != nil || got != want || lanes[0].Spans[1].Reason != "because of booting" || lanes[0].Set != "large" || lanes[0].Pool != "p" {
		t.Errorf("%v\n%s\nnot\n%s", err, got, want)
	}
	lives, err := h.Lives(t.Context(), sizeAt(0), sizeAt(60))
	if err != nil || len(lives) != 1 {
		t.Fatalf("%v %v", lives, err)
	}
	l := lives[0]
	holds := []cost.Hold{{Job: "a", Start: sizeAt(5), End: sizeAt(9)}, {Job: "b", Start: sizeAt(6), End: sizeAt(12)}}
	if l.Rate != (cost.Rate{PerHour: 1, Minimum: time.Minute, Step: time.Second}) || !slices.Equal(l.Holds, holds) || l.Runner != "name of p" || !l.Gone.Equal(sizeAt(14)) {
		t.Errorf("%+v", l)
	}
	if of, err := h.LivesOf(t.Context(), "b"); err != nil || len(of) != 1 {
		t.Errorf("%v %v", of, err)
	}
	if of, err := h.LivesOf(t.Context(), ""); err != nil || len(of) != 0 {
		t.Errorf("%v %v", of, err)
	}
}

func TestWhatGotLostIsMadeUpFor(t *testing.T) {
	h, _ := newHistory(t)
	pool := priced("p")
	at := func(state fleet.State, since int, leases ...fleet.Lease) fleet.Machine {
		return fleet.Machine{Name: "m1", State: state, Since: sizeAt(since), Made: sizeAt(0), Used: sizeAt(since), Leases: leases}
	}
	told := func() string {
		lanes, err := h.Lanes(t.Context(), view.LaneQuery{From: sizeAt(-60), To: sizeAt(600)})
		if err != nil {
			t.Fatal(err)
		}
		return told(lanes)
	}
	machines := func(m fleet.Machine, when int) {
		t.Helper()
		if err := h.Machines(t.Context(), pool, []fleet.Machine{m}, nil, sizeAt(when)); err != nil {
			t.Fatal(err)
		}
	}
	machines(at(fleet.Leased, 5, fleet.Lease{Job: "a", Since: sizeAt(5)}), 5)
	// The release of a and the lease of b were lost.
	machines(at(fleet.Leased, 9, fleet.Lease{Job: "c", Since: sizeAt(9)}), 9)
	if got, want := told(), "m1 0.. [leased 5..9] [leased 9..] [a 5..9] [c 9..]"; got != want {
		t.Errorf("%s\nnot\n%s", got, want)
	}
	// Another one with the name, after the end of the first was lost.
	again := at(fleet.Wanted, 20)
	again.Made = sizeAt(20)
	machines(again, 20)
	if got, want := told(), "m1 20.. [wanted 20..]\nm1 0..20 [leased 5..9] [leased 9..20] [a 5..9] [c 9..20]"; got != want {
		t.Errorf("%s\nnot\n%s", got, want)
	}
	// And that is gone after a restart, without a word; the last sample was taken at 29.
	if err := h.Sample(t.Context(), sizeAt(29), map[string]float64{"machines.idle": 1}); err != nil {
		t.Fatal(err)
	}
	if err := h.Reconcile(t.Context(), "p", []fleet.Machine{again}, sizeAt(400)); err != nil {
		t.Fatal(err)
	}
	if pools, err := h.OpenPools(t.Context()); err != nil || !slices.Equal(pools, []string{"p"}) {
		t.Errorf("%v %v", pools, err)
	}
	if err := h.Reconcile(t.Context(), "other", nil, sizeAt(400)); err != nil {
		t.Fatal(err)
	}
	if err := h.Reconcile(t.Context(), "p", nil, sizeAt(400)); err != nil {
		t.Fatal(err)
	}
	if got, want := told(), "m1 20..30 [wanted 20..30]\nm1 0..20 [leased 5..9] [leased 9..20] [a 5..9] [c 9..20]"; got != want {
		t.Errorf("%s\nnot\n%s", got, want)
	}
	if pools, err := h.OpenPools(t.Context()); err != nil || len(pools) != 0 {
		t.Errorf("%v %v", pools, err)
	}
}

func TestLanesOfATime(t *testing.T) {
	h, _ := newHistory(t)
	for i := range 10 {
		m := fleet.Machine{Name: fmt.Sprint("m", i), State: fleet.Idle, Since: sizeAt(10 * i), Made: sizeAt(10 * i), Reason: "one\x1ftwo\x1ethree"}
		if err := h.Machines(t.Context(), priced(fmt.Sprint("p", i%2)), []fleet.Machine{m}, nil, m.Since); err != nil {
			t.Fatal(err)
		}
		if i < 8 {
			if err := h.Machines(t.Context(), priced(fmt.Sprint("p", i%2)), nil, []string{m.Name}, sizeAt(10*i+15)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		q    view.LaneQuery
		want string
	}{
		{view.LaneQuery{From: sizeAt(16), To: sizeAt(31)}, "m3 m2 m1"},
		{view.LaneQuery{From: sizeAt(16), To: sizeAt(31), Pool: "p1"}, "m3 m1"},
		{view.LaneQuery{From: sizeAt(16), To: sizeAt(31), Machine: "m2"}, "m2"},
		{view.LaneQuery{From: sizeAt(16), To: sizeAt(31), Pool: "p1", Machine: "m2"}, ""},
		{view.LaneQuery{From: sizeAt(100), To: sizeAt(200)}, "m9 m8"},
		{view.LaneQuery{From: sizeAt(0), To: sizeAt(200), Limit: 3}, "m9 m8 m7"},
		{view.LaneQuery{From: sizeAt(-50), To: sizeAt(0)}, ""},
	} {
		lanes, err := h.Lanes(t.Context(), c.q)
		var got []string
		for _, l := range lanes {
			got = append(got, l.Machine)
			if len(l.Spans) != 1 || l.Spans[0].Reason != "one two three" {
				t.Errorf("%s: %+v", l.Machine, l.Spans)
			}
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %v %v", c.q, got, err)
		}
	}
}

func TestChartsOfSamples(t *testing.T) {
	h, _ := newHistory(t)
	for i := range 180 {
		values := map[string]float64{"machines.idle": float64(i % 10), "jobs.waiting": float64(i), "jobs.running": 1, "jobs.running/tok": 5, "machines.nan": math.NaN()}
		if i%2 == 0 {
			values["machines.leased"] = 4 // in every other minute there was none
		}
		if err := h.Sample(t.Context(), sizeAt(i), values); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Sample(t.Context(), sizeAt(0), map[string]float64{"machines.idle": 10}); err != nil { // instead of 0
		t.Fatal(err)
	}
	for _, c := range []struct {
		q      view.ChartQuery
		step   time.Duration
		series string
		i      int
		want   float64
	}{
		{view.ChartQuery{Name: "machines", From: sizeAt(0), To: sizeAt(180), Steps: 20}, 10 * time.Minute, "idle", 1, 4.5},
		{view.ChartQuery{Name: "machines", From: sizeAt(0), To: sizeAt(180), Steps: 20}, 10 * time.Minute, "leased", 1, 2},
		{view.ChartQuery{Name: "machines", From: sizeAt(0), To: sizeAt(180), Steps: 3}, time.Hour, "idle", 0, 4.5 + 10./60},
		{view.ChartQuery{Name: "machines", From: sizeAt(0), To: sizeAt(180), Steps: 3}, time.Hour, "leased", 2, 2},
		{view.ChartQuery{Name: "load", From: sizeAt(0), To: sizeAt(180), Steps: 3}, time.Hour, "waiting", 1, 89.5},
		{view.ChartQuery{Name: "load", From: sizeAt(0), To: sizeAt(180), Steps: 3}, time.Hour, "most that waited", 1, 119},
		{view.ChartQuery{Name: "load", From: sizeAt(0), To: sizeAt(180), Steps: 3, Runner: "tok"}, time.Hour, "running", 1, 5},
		{view.ChartQuery{Name: "load", From: sizeAt(0), To: sizeAt(10)}, time.Minute, "running", 3, 1},
	} {
		chart, err := h.Chart(t.Context(), c.q, cost.Table{})
		if err != nil || chart.Step != c.step || !chart.From.Equal(sizeNow) {
			t.Fatalf("%+v: %v %v %v", c.q, chart.Step, chart.From, err)
		}
		i := slices.IndexFunc(chart.Series, func(s view.Series) bool { return s.Name == c.series })
		if i < 0 || chart.Series[i].Values[c.i] == nil || math.Abs(*chart.Series[i].Values[c.i]-c.want) > 1e-9 {
			t.Errorf("%+v %s: %+v", c.q, c.series, chart.Series)
		}
	}
	chart, err := h.Chart(t.Context(), view.ChartQuery{Name: "machines", From: sizeAt(170), To: sizeAt(400), Steps: 30}, cost.Table{})
	if err != nil || chart.Series[0].Values[0] == nil || chart.Series[0].Values[len(chart.Series[0].Values)-1] != nil {
		t.Errorf("what is not known: %v %+v", err, chart.Series)
	}
	if _, err := h.Chart(t.Context(), view.ChartQuery{Name: "none"}, cost.Table{}); err == nil {
		t.Error("a chart that there is not")
	}
}

func TestChartsHaveNoMoreStepsThanAskedFor(t *testing.T) {
	h, _ := newHistory(t)
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		q := view.ChartQuery{Name: view.Charts()[r.IntN(5)], From: sizeNow.Add(-time.Duration(r.Int64N(int64(700 * 24 * time.Hour)))), Steps: 1 + r.IntN(300)}
		q.To = q.From.Add(time.Duration(r.Int64N(int64(700*24*time.Hour))) - 24*time.Hour)
		chart, err := h.Chart(t.Context(), q, cost.Table{})
		if err != nil || chart.From.After(q.From) || chart.Step <= 0 {
			t.Fatalf("%+v: %v %+v", q, err, chart)
		}
		for _, s := range chart.Series {
			if len(s.Values) > q.Steps || q.To.After(chart.From.Add(time.Duration(len(s.Values))*chart.Step)) {
				t.Fatalf("%+v: %d steps of %v from %v", q, len(s.Values), chart.Step, chart.From)
			}
		}
	}
}

func TestWaitsAndOutcomes(t *testing.T) {
	h, _ := newHistory(t)
	waits := map[int64][]float64{}
	ended, failed := map[int64]float64{}, map[int64]float64{}
	const step = 20 * 60 * 1000
	from := sizeNow.Add(-20 * time.Hour)
	for i := range 300 {
		j := someJob(i, from.Add(time.Duration(i)*4*time.Minute))
		if i%3 == 0 { // told when it was placed, as are jobs that run
			if err := h.Record(t.Context(), []tranter.Event{{Time: j.Times.Placed, Kind: tranter.JobPlaced, Past: &j}}); err != nil {
				t.Fatal(err)
			}
		}
		if i%3 != 0 || i%2 == 0 {
			keep(t, h, j)
			at := (j.Times.Ended.UnixMilli() - from.UnixMilli()) / step
			if ended[at]++; j.Result.State == tranter.JobFailed {
				failed[at]++
			}
		}
		if d := j.Times.Placed.UnixMilli() - from.UnixMilli(); d >= 0 {
			waits[d/step] = append(waits[d/step], float64(j.Times.Wait(sizeNow).Milliseconds())/1000)
		}
	}
	chart, err := h.Chart(t.Context(), view.ChartQuery{Name: "waits", From: from, To: sizeNow, Steps: 60}, cost.Table{})
	if err != nil || chart.Step != 20*time.Minute {
		t.Fatal(chart.Step, err)
	}
	for i := range chart.Series[0].Values {
		all := waits[int64(i)]
		slices.Sort(all)
		for k, p := range []int{50, 95} {
			got := chart.Series[k].Values[i]
			if len(all) == 0 && got == nil {
				continue
			}
			if want := all[(len(all)*p+99)/100-1]; got == nil || *got != want {
				t.Errorf("step %d, p%d: %v, not %v", i, p, got, want)
			}
		}
	}
	if chart, err = h.Chart(t.Context(), view.ChartQuery{Name: "jobs", From: from, To: sizeNow, Steps: 60}, cost.Table{}); err != nil {
		t.Fatal(err)
	}
	for i := range chart.Series[0].Values {
		good, bad := *chart.Series[0].Values[i], *chart.Series[1].Values[i]
		if n := ended[int64(i)]; good+bad != 3*n || bad != 3*failed[int64(i)] {
			t.Errorf("step %d: %v and %v an hour, not %v", i, good, bad, 3*n)
		}
	}
	recent, err := h.Recent(t.Context(), sizeNow)
	if err != nil || recent.Ended != 250 || recent.Failed["script_failure"] == 0 || recent.Waits < 10 || recent.Waits > 16 || recent.WaitP50 < 20*time.Second || recent.WaitP95 < recent.WaitP50 {
		t.Errorf("%+v %v", recent, err)
	}
	if recent, err = h.Recent(t.Context(), sizeNow.Add(10*time.Hour)); err != nil || recent.Waits < 150 {
		t.Errorf("of a day: %+v %v", recent, err)
	}
}

func TestTheChartOfCostIsThatOfTheReport(t *testing.T) {
	h, _ := newHistory(t)
	pool := priced("p")
	for i := range 5 {
		m := fleet.Machine{Name: fmt.Sprint("m", i), State: fleet.Leased, Since: sizeAt(7 * i), Made: sizeAt(7 * i), Leases: []fleet.Lease{{Job: fmt.Sprint("j", i), Since: sizeAt(7*i + 2)}}}
		if err := h.Machines(t.Context(), pool, []fleet.Machine{m}, nil, m.Since); err != nil {
			t.Fatal(err)
		}
		if err := h.Machines(t.Context(), pool, nil, []string{m.Name}, sizeAt(7*i+11)); err != nil {
			t.Fatal(err)
		}
	}
	batch := someJob(1, sizeAt(50))
	batch.Bill = &tranter.Bill{CPUs: 2, Ran: 30 * time.Minute}
	keep(t, h, batch)
	table := cost.Table{Currency: "EUR", Prices: []cost.Price{{CPUHour: 3}}}
	chart, err := h.Chart(t.Context(), view.ChartQuery{Name: "cost", From: sizeAt(0), To: sizeAt(60)}, table)
	if err != nil || chart.Unit != "EUR" {
		t.Fatal(chart, err)
	}
	var sums [3]float64
	for k, s := range chart.Series {
		for _, v := range s.Values {
			sums[k] += *v
		}
	}
	const rates = 1 + 2 + 3 + 4 + 5
	if want := [3]float64{rates * 9 / 60., rates * 2 / 60., 3}; math.Abs(sums[0]-want[0])+math.Abs(sums[1]-want[1])+math.Abs(sums[2]-want[2]) > 1e-9 {
		t.Errorf("%v, not %v", sums, want)
	}
}
