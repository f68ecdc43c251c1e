package dockermachine

import (
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provider/providertest"
)

func TestTheProviderKeepsItsContract(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	providertest.Run(t, providertest.Subject{
		New: func(t testing.TB) tranter.Provider {
			p, err := New(b.o)
			if err != nil {
				t.Fatal(err)
			}
			return p
		},
		Alive: func(_ testing.TB, name string) bool {
			for _, c := range b.containers() {
				if c.Labels["io.tranter.lab.machine"] == name {
					return true
				}
			}
			return false
		},
		Notes: true, Starts: true, Unnamed: true,
		Fails: []providertest.Failure{
			{Options: []string{"lab-fail=100", "lab-fail-text=server limit reached (resource_limit_exceeded)"}, Is: tranter.ErrNoCapacity},
			{Options: []string{"lab-fail=100", "lab-fail-text=429 too many requests"}},
			{Options: []string{"lab-fail=100", "lab-fail-text=image not found"}, Is: tranter.ErrRejected},
			{Options: []string{"lab-nonsense=1"}, Is: tranter.ErrRejected},
			{Options: []string{"lab-fail=100", "lab-fail-late", "lab-fail-text=quota exceeded"}, Is: tranter.ErrNoCapacity},
		},
	})
}
