package manager

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPaceKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{Requests: rapid.IntRange(0, 20).Draw(t, "requests"), Strict: rapid.Bool().Draw(t, "strict"), Faults: rapid.IntRange(0, 5).Draw(t, "faults")}
		p := pace{interval: 3 * time.Second, limits: limits}
		now := time.Unix(1000, 0)
		refusals := 0
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			o := outcome(rapid.IntRange(int(gotJob), int(notAsked)).Draw(t, "outcome"))
			start := now
			now = now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "took")) * time.Second)
			later := time.Duration(rapid.SampledFrom([]int{0, 0, 1, 120}).Draw(t, "later")) * time.Second
			p = p.after(o, start, now, later)
			if n := p.requests(); n < 1 || n > limits.requests() {
				t.Fatalf("%d requests at a time, of %d", n, limits.requests())
			}
			if later > 0 && p.next.Before(now.Add(later)) {
				t.Fatal("the server's wish for a pause was not heeded")
			}
			switch o {
			case gotJob, noJob:
				refusals = 0
			case refused:
				refusals++
			case unwell, notAsked: // say nothing about the token
			}
			if want := refusals >= limits.faults(); p.paused != want {
				t.Fatalf("paused = %v after %d refusals of %d", p.paused, refusals, limits.faults())
			}
			if o == gotJob && !limits.Strict && later == 0 && p.next.After(now) {
				t.Fatal("after a job the next request is at once")
			}
			if o != gotJob && p.next.Before(start.Add(p.interval)) {
				t.Fatal("two requests without a job are closer than the interval")
			}
			if !p.paused && later == 0 && p.next.After(now.Add(p.interval)) {
				t.Fatal("a runner that is not paused waits longer than the interval")
			}
		}
	})
}
