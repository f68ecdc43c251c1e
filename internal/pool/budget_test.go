package pool_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/pool"
)

func TestABudgetLetsASecondsRequestsPassAtOnce(t *testing.T) {
	for _, c := range []struct {
		name      string
		perSecond float64
		burst     int
		took      time.Duration // by ten requests
	}{
		{"no limit", 0, 0, 0},
		{"as many as a second's", 2, 0, 4 * time.Second},
		{"less than one a second", 0.5, 0, 18 * time.Second},
		{"a burst", 2, 6, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := pool.Limited(newCloud(0), pool.NewBudget(c.perSecond, c.burst))
				began := time.Now()
				for range 10 {
					if _, err := p.List(t.Context(), tranter.Mark{}, nil); err != nil {
						t.Fatal(err)
					}
				}
				if took := time.Since(began).Round(time.Millisecond); took != c.took {
					t.Errorf("ten requests took %v, want %v", took, c.took)
				}
			})
		})
	}
}

// busy is a provider that makes nothing since it is asked too often, and has nothing to remove.
type busy struct{ tranter.Provider }

func (busy) Create(context.Context, tranter.MachineSpec, func(json.RawMessage)) (tranter.Machine, error) {
	return tranter.Machine{}, &tranter.ThrottledError{Err: errors.New("slow down")}
}

func (busy) Destroy(context.Context, tranter.MachineRef) error { return nil }

func TestPausesGetLongerAlthoughNothingCouldBeRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.Limited(busy{}, pool.NewBudget(0, 0))
		for _, want := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second} {
			_, err := p.Create(t.Context(), tranter.MachineSpec{Name: "m"}, func(json.RawMessage) {})
			throttled, ok := errors.AsType[*tranter.ThrottledError](err)
			if !ok || throttled.RetryAfter != want {
				t.Fatalf("%v, want a pause of %v", err, want)
			}
			time.Sleep(want)
			if err := p.Destroy(t.Context(), tranter.MachineRef{Name: "m"}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
