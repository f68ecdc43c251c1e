package web

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter/internal/view"
)

// get asks a server that shows samples for a page.
func get(t *testing.T, o Options, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	New(o).Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func samples() Options {
	now := time.Date(2026, 11, 3, 14, 20, 0, 0, time.UTC)
	return Options{Source: here{now: now, machines: 34}, Past: newPast(now, 180), Bills: prices{}, Logs: logs{}}
}

func part(t *testing.T, percent string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(strings.TrimSuffix(percent, "%"), 64)
	if err != nil || !strings.HasSuffix(percent, "%") {
		t.Fatalf("%q is no percentage", percent)
	}
	return v
}

func TestBarsLieOnTheAxisAndCanBeSeen(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		now := time.Date(2026, 11, 3, 14, 20, 0, 0, time.UTC)
		axis := scale{from: now.Add(-time.Duration(rapid.IntRange(1, 200).Draw(r, "hours")) * time.Hour), to: now}
		l := view.Lane{Machine: "m"}
		moment := func(name string) time.Time {
			return now.Add(-time.Duration(rapid.Int64Range(-int64(time.Hour), int64(400*time.Hour)).Draw(r, name)))
		}
		for i := range rapid.IntRange(0, 40).Draw(r, "spans") {
			s := view.Span{Start: moment("start"), State: rapid.SampledFrom([]string{"wanted", "idle", "leased", "<b>"}).Draw(r, "state")}
			if rapid.Bool().Draw(r, "ended") {
				s.End = moment("end")
			}
			if rapid.Bool().Draw(r, "job") {
				s.State, s.Job = "", fmt.Sprintf("%d-ab", i)
			}
			l.Spans = append(l.Spans, s)
		}
		drawn := drawLane(l, axis, now, nil)
		drawn.finish()
		if len(drawn.Bars) > len(l.Spans) {
			r.Fatalf("%d bars of %d spans", len(drawn.Bars), len(l.Spans))
		}
		for _, b := range drawn.Bars {
			x, w := part(t, b.X), part(t, b.Width)
			if x < 0 || w < 0.1 || x+w > 100.01 || b.Y < 0 || b.H < 1 || b.Y+b.H > laneHeight {
				r.Fatalf("a bar at %v, %v wide, %d down, %d high", x, w, b.Y, b.H)
			}
		}
	})
}

func TestALaneShowsStatesAndJobsBelowEachOther(t *testing.T) {
	now := time.Date(2026, 11, 3, 14, 0, 0, 0, time.UTC)
	at := func(minutes int) time.Time { return now.Add(time.Duration(minutes-100) * time.Minute) }
	l := view.Lane{Machine: "a/b", Spans: []view.Span{
		{State: "booting", Start: at(0), End: at(10), Reason: "a job waits"},
		{State: "leased", Start: at(10)},
		{Job: "7-x", Start: at(10), End: at(60)},
		{Job: "8-x", Start: at(20), End: at(30)},
		{Job: "9-x", Start: at(60)},
	}}
	drawn := drawLane(l, scale{from: at(0), to: now}, now, nil)
	drawn.finish()
	var got []string
	for _, b := range drawn.Bars {
		got = append(got, fmt.Sprintf("%s %.0f+%.0f y%d %s", b.Class, part(t, b.X), part(t, b.Width), b.Y, b.Link))
	}
	want := []string{"t-booting 0+10 y0 ", "t-leased 10+90 y0 ", "t-job 10+50 y2 /jobs/7-x", "t-job 20+10 y10 /jobs/8-x", "t-job 60+40 y2 /jobs/9-x"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if text := drawn.Bars[0].Text; text != "booting for 10m00s, since 12:20:00: a job waits" {
		t.Errorf("the first bar is %q", text)
	}
	if drawn.Link != "/machines/a%2Fb" || len(drawn.Rows) != 5 || drawn.Rows[4].To != "now" {
		t.Errorf("the lane links to %s and has the rows %v", drawn.Link, drawn.Rows)
	}
}

func TestTicksAreAtRoundTimes(t *testing.T) {
	now := time.Date(2026, 11, 3, 14, 20, 31, 0, time.UTC)
	for length, want := range map[time.Duration]string{
		time.Minute: "14:19:45 14:20:00 14:20:15", time.Hour: "13:30 13:40 13:50 14:00 14:10", 6 * time.Hour: "09:00 10:00 11:00 12:00 13:00 14:00",
		24 * time.Hour: "15:00 18:00 21:00 00:00 03:00 06:00 09:00 12:00", 7 * 24 * time.Hour: "Wed 28 Oct Thu 29 Oct Fri 30 Oct Sat 31 Oct Sun 1 Nov Mon 2 Nov Tue 3 Nov",
	} {
		var got []string
		for _, k := range ticks(scale{from: now.Add(-length), to: now}) {
			got = append(got, k.Label)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %s, want %s", length, strings.Join(got, " "), want)
		}
	}
}

func TestMachinesAreFilteredSortedAndPaged(t *testing.T) {
	o := samples()
	o.Source = here{now: time.Now(), machines: 2000}
	for path, want := range map[string]struct {
		rows        int
		first, says string
	}{
		"/machines":                              {100, "cloud-00", "2000 machines"},
		"/machines?page=19":                      {100, "cloud-909", "rel=\"prev\""},
		"/machines?page=99999":                   {100, "cloud-909", "rel=\"prev\""},
		"/machines?state=draining&sort=uses":     {100, "cloud-1017", "400 of 2000 machines"},
		"/machines?state=leaked":                 {1, "cloud-06", "LEAK"},
		"/machines?q=CLOUD-177":                  {11, "cloud-177", "11 of 2000 machines"},
		"/machines?q=%3Cscript%3Ealert(1)%3C%2F": {0, "", "No machine is like that."},
		"/machines?pool=other":                   {0, "", "No machine is like that."},
	} {
		code, page := get(t, o, path)
		if code != http.StatusOK || strings.Count(page, `<tr id="machine-`) != want.rows || !strings.Contains(page, want.says) || strings.Contains(page, "<script>alert") {
			t.Errorf("%s: %d, %d machines, says %q: %t", path, code, strings.Count(page, `<tr id="machine-`), want.says, strings.Contains(page, want.says))
			continue
		}
		_, first, _ := strings.Cut(page, `<tr id="machine-`)
		if name, _, _ := strings.Cut(first, `"`); want.rows > 0 && name != want.first {
			t.Errorf("%s: the first machine is %s, want %s", path, name, want.first)
		}
	}
}

func TestAMachineHasItsLifeItsJobsAndItsEvents(t *testing.T) {
	code, page := get(t, samples(), "/machines/cloud-04")
	for _, want := range []string{"<h1>cloud-04</h1>", "10.0.3.7", "The provider has no capacity for cx32 in fsn1.", `class="t-job"`, "/jobs/90206-", "41.0s"} {
		if code != http.StatusOK || !strings.Contains(page, want) {
			t.Errorf("%d: there is no %s", code, want)
		}
	}
	if strings.Contains(page, "/actions/") {
		t.Error("who may not act is offered actions")
	}
	if code, _ := get(t, samples(), "/machines/nothing"); code != http.StatusNotFound {
		t.Errorf("a machine that nobody knows: %d", code)
	}
	o := samples()
	o.Past = nil
	if code, page := get(t, o, "/machines/cloud-04"); code != http.StatusOK || !strings.Contains(page, "Nothing is kept of the past.") {
		t.Errorf("without a store: %d", code)
	}
}

func TestChartsAreAskedForByNameAndTime(t *testing.T) {
	for path, want := range map[string]int{
		"/api/chart?name=machines&range=day": 200, "/api/chart?name=waits&range=week": 200, "/api/chart?name=jobs&range=month": 200, "/api/chart?name=load&range=day&runner=x": 200,
		"/api/chart?name=cost&range=day": 200, "/api/chart?name=passwords&range=day": 400, "/api/chart?name=cost&range=century": 400, "/api/chart": 400,
	} {
		code, body := get(t, samples(), path)
		if code != want || !strings.HasPrefix(body, "{") || want == 200 && !strings.Contains(body, `"series":[`) || want != 200 && !strings.Contains(body, `"error":`) {
			t.Errorf("%s: %d %.80s", path, code, body)
		}
	}
}

func TestAPipelineIsDrawnByItsStagesAndNeeds(t *testing.T) {
	snapshot, err := here{now: time.Now()}.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g := drawGraph(snapshot.Pipes[0])
	var soft, hard int
	for _, e := range g.Edges {
		if strings.Contains(e.Class, "g-soft") {
			soft++
		} else {
			hard++
		}
	}
	// What needs jobs: 1 + 2 + 1 + 2. What waits for the stage before: lint for 2, deb for 3.
	if hard != 6 || soft != 5 || len(g.Nodes) != 8 || len(g.Stages) != 4 {
		t.Errorf("%d needs, %d lines from the stage before, %d jobs, %d stages", hard, soft, len(g.Nodes), len(g.Stages))
	}
	taken := map[[2]int]string{}
	for _, n := range g.Nodes {
		at := [2]int{n.X, n.Y}
		if other, ok := taken[at]; ok || n.X+nodeWidth > g.Width || n.Y+nodeHeight > g.Height {
			t.Errorf("%s is at %v, where %q is, in a box of %d by %d", n.Full, at, other, g.Width, g.Height)
		}
		taken[at] = n.Full
	}
	odd := drawGraph(view.Pipeline{Jobs: []view.PipelineJob{{Name: "a", Needs: []string{"a", "b", "c"}}, {Name: "b", Stage: "none"}}})
	if len(odd.Nodes) != 2 || len(odd.Edges) != 1 {
		t.Errorf("a pipeline without stages: %d jobs, %d lines", len(odd.Nodes), len(odd.Edges))
	}
}

func TestUsageIsDrawnInItsBox(t *testing.T) {
	j := sampleJob(time.Now(), 3)
	j.Usage.Samples[5].CPU, j.Usage.Samples[6].At = math.NaN(), time.Time{}
	for _, c := range usageCharts(j) {
		for point := range strings.FieldsSeq(c.Line) {
			var x, y float64
			if _, err := fmt.Sscanf(point, "%f,%f", &x, &y); err != nil || x < 0 || x > 600 || y < 0 || y > 100 || math.IsNaN(y) {
				t.Errorf("%s: a point at %s: %v", c.Name, point, err)
			}
		}
	}
}
