package providertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	tranter "github.com/tranter-ci/tranter"
)

// world is a provider's, in memory. Its defect is what a provider may do wrong.
type world struct {
	mu       sync.Mutex
	machines map[string]tranter.Machine
	marks    map[string]tranter.Mark
	made     int
	defect   string
}

func newWorld(defect string) *world {
	return &world{machines: map[string]tranter.Machine{}, marks: map[string]tranter.Mark{}, defect: defect}
}

func (w *world) Create(ctx context.Context, spec tranter.MachineSpec, note func(json.RawMessage)) (tranter.Machine, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() != nil && w.defect != "does not hear" {
		return tranter.Machine{}, ctx.Err()
	}
	if slices.Contains(spec.Options, "full") {
		if w.defect == "says no kind" {
			return tranter.Machine{}, errors.New("full")
		}
		return tranter.Machine{}, tranter.ErrNoCapacity
	}
	m, there := w.machines[spec.Name]
	if !there || w.defect == "makes two" {
		w.made++
		id := fmt.Sprint(w.made)
		m = tranter.Machine{
			Name: spec.Name, ID: id, Power: tranter.PowerOn, Ref: json.RawMessage(`{"id":` + id + `}`),
			Login: tranter.Login{Host: "10.0.0." + id},
		}
		if w.defect == "gives no login" {
			m.Login.Host = ""
		}
		w.machines[spec.Name], w.marks[spec.Name] = m, spec.Mark
	}
	if w.defect != "notes nothing" {
		note(m.Ref)
	}
	return m, nil
}

func (w *world) Destroy(_ context.Context, m tranter.MachineRef) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, there := w.machines[m.Name]; !there && w.defect == "misses what is gone" {
		return errors.New("404")
	}
	if w.defect != "leaks" && (w.defect != "needs a reference" || len(m.Ref) > 0) {
		delete(w.machines, m.Name)
	}
	return nil
}

func (w *world) List(ctx context.Context, mark tranter.Mark, known []tranter.MachineRef) ([]tranter.Machine, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []tranter.Machine
	for name, m := range w.machines {
		isKnown := slices.ContainsFunc(known, func(ref tranter.MachineRef) bool { return ref.Name == name })
		if isKnown || w.marks[name] == mark && w.defect != "finds no marks" || w.defect == "shows all" {
			found = append(found, m)
		}
	}
	if w.defect == "invents" {
		for _, ref := range known {
			if _, there := w.machines[ref.Name]; !there {
				found = append(found, tranter.Machine{Name: ref.Name})
			}
		}
	}
	return found, ctx.Err()
}

func (w *world) power(m tranter.MachineRef, to tranter.Power) (tranter.Machine, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	machine, there := w.machines[m.Name]
	if !there {
		return tranter.Machine{}, errors.New("404")
	}
	if w.defect != "stays on" {
		machine.Power = to
	}
	w.machines[m.Name] = machine
	return machine, nil
}

func (w *world) Start(_ context.Context, m tranter.MachineRef) (tranter.Machine, error) {
	return w.power(m, tranter.PowerOn)
}

func (w *world) Stop(_ context.Context, m tranter.MachineRef) error {
	_, err := w.power(m, tranter.PowerOff)
	return err
}

func (w *world) subject() Subject {
	return Subject{
		New: func(testing.TB) tranter.Provider { return w },
		Alive: func(_ testing.TB, name string) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			_, there := w.machines[name]
			return there
		},
		Notes: true, Marks: true, Starts: true,
		Fails: []Failure{{Options: []string{"full"}, Is: tranter.ErrNoCapacity}},
	}
}

// defectVariable makes this program, as a child of itself, run the suite over a provider with that defect.
const defectVariable = "PROVIDERTEST_DEFECT"

func TestAProviderThatIsRightPasses(t *testing.T) {
	w := newWorld(os.Getenv(defectVariable))
	Run(t, w.subject())
	if len(w.machines) > 0 {
		t.Errorf("machines are left: %v", w.machines)
	}
}

func TestEachDefectIsFound(t *testing.T) {
	for defect, says := range map[string]string{
		"does not hear":       "though the context had ended",
		"says no kind":        "the error is full, want no capacity",
		"makes two":           "the second call returns",
		"gives no login":      "does not say where",
		"notes nothing":       "0 references were noted",
		"misses what is gone": "destroy: 404",
		"leaks":               "it is there after it was destroyed",
		"needs a reference":   "says that it has worked, and the machine is there",
		"finds no marks":      "listed by its mark: false",
		"shows all":           "whose owner is another",
		"invents":             "is listed",
		"stays on":            "stopped, it is",
	} {
		t.Run(defect, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestAProviderThatIsRightPasses$")
			cmd.Env = append(os.Environ(), defectVariable+"="+defect)
			out, err := cmd.CombinedOutput()
			if _, failed := errors.AsType[*exec.ExitError](err); !failed || !strings.Contains(string(out), says) {
				t.Errorf("error %v, want a failure that says %q: %s", err, says, strings.ReplaceAll(string(out), "---", "-"))
			}
		})
	}
}
