package main

import (
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/store"
)

func TestAMachineKeepsThePriceThatItWasMadeWith(t *testing.T) {
	t.Parallel()
	at := func(perHour float64) store.Pool {
		return store.Pool{Token: "t1", Rate: func(string) cost.Rate { return cost.Rate{PerHour: perHour, Minimum: time.Hour} }}
	}
	var rates machineRates
	rates.recall([]cost.Life{{Machine: "before", Rate: cost.Rate{PerHour: 7}}, {Machine: "gone", Rate: cost.Rate{PerHour: 9}, Gone: time.Now()}})
	rates.learn(at(1), []fleet.Machine{{Name: "old"}, {Name: "left"}}, nil)
	rates.learn(at(2), []fleet.Machine{{Name: "before"}, {Name: "old"}, {Name: "new"}}, []string{"left"})
	now := time.Now()
	machines := []pool.MachineStatus{}
	for _, name := range []string{"before", "old", "new", "left", "gone"} {
		machines = append(machines, pool.MachineStatus{Name: name, Made: now.Add(-30 * time.Minute), Cost: 0.25})
	}
	rates.bill(machines, now)
	for i, want := range []float64{3.5, 1, 2, 0.25, 0.25} { // half an hour; the minimum is one; what is not known is left as it is
		if got := machines[i].Cost; got != want {
			t.Errorf("machine %s costs %v, want %v", machines[i].Name, got, want)
		}
	}
}
