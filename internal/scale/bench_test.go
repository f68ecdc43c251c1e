package scale

import (
	"fmt"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/fleet"
)

// bookOf makes a book of machines in a state, a second apart, with jobs that wait.
func bookOf(n int, s fleet.State, jobs int) *fleet.Book {
	machines := make([]fleet.Machine, n)
	for i := range machines {
		at := start().Add(-time.Duration(i) * time.Second)
		machines[i] = fleet.Machine{Name: fmt.Sprintf("runner-abc-%06d", i*7919%n), State: s, Since: at, Made: at, Used: at}
		if s == fleet.Leased {
			machines[i].Leases = []fleet.Lease{{Job: fmt.Sprintf("on-%d", i), Since: at}}
		}
	}
	b := fleet.New()
	b.Restore(machines)
	for i := range jobs {
		if err := b.Apply(fleet.Event{At: start(), Kind: fleet.JobQueued, Job: fmt.Sprintf("job-%d", i)}); err != nil {
			panic(err)
		}
	}
	return b
}

func benchPolicy(b *testing.B) Policy {
	return Policy{
		Limit: 20_000, Growth: 100, Capacity: 1, MaxUses: 100, MaxAge: 24 * time.Hour, Idle: Idle{Count: 10_000, Time: time.Hour}, Sets: []Set{{Name: "small"}},
		Periods: []Period{{Times: []Cron{mustCron(b, "* * 22 * * sun *")}, Zone: time.UTC, Idle: Idle{Time: time.Hour}}},
		Times:   Times{Create: time.Minute, Boot: time.Minute},
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, c := range []struct {
		name  string
		state fleet.State
		jobs  int
		keep  int
	}{
		{"10000IdleNothingToDo", fleet.Idle, 0, 10_000},
		{"10000IdleSpare", fleet.Idle, 0, 0},
		{"10000IdleOneJob", fleet.Idle, 1, 10_000},
		{"10000Idle5000Jobs", fleet.Idle, 5000, 0},
		{"10000Leased5000Jobs", fleet.Leased, 5000, 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			book, p := bookOf(10_000, c.state, c.jobs), benchPolicy(b)
			p.Idle.Count = c.keep
			b.ReportAllocs()
			for b.Loop() {
				Decide(book, p, start())
			}
		})
	}
}

func BenchmarkAdmit(b *testing.B) {
	book, p := bookOf(10_000, fleet.Leased, 100), benchPolicy(b)
	b.ReportAllocs()
	for b.Loop() {
		Admit(book, p, start())
	}
}

func BenchmarkNextChange(b *testing.B) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		b.Fatal(err)
	}
	c, at := mustCron(b, "* * 9-17 * * mon-fri *"), start().In(zone)
	b.ReportAllocs()
	for b.Loop() {
		c.NextChange(at)
	}
}

// One look at 10,000 machines takes a few milliseconds (BenchmarkDecide). The bound here is for a computer that is busy with
// other tests and watched for races: it finds what would take the square of the time.
func TestTenThousandMachinesAreDecidedOnFast(t *testing.T) {
	book := bookOf(10_000, fleet.Idle, 5000)
	p := Policy{Limit: 20_000, Idle: Idle{Count: 10_000}, Sets: []Set{{}}}
	best := time.Hour
	for range 5 {
		began := time.Now()
		do, _ := Decide(book, p, start())
		best = min(best, time.Since(began))
		if len(do) != 10_000 { // 5,000 leases, and as many machines in their place
			t.Fatalf("%d actions", len(do))
		}
	}
	if best > 500*time.Millisecond {
		t.Errorf("it took %s", best)
	}
}
