package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/provider/dockermachine"
	"github.com/tranter-ci/tranter/internal/store"
)

// adoptionTime is how long after an adoption a manager has to have taken the machines up.
const adoptionTime = 7 * 24 * time.Hour

// adopt writes the runners' machines into the state directory. Those that are in it already stay as they are.
func (m *migration) adopt(ctx context.Context, flag string, now time.Time) error {
	if err := m.adoptable(); err != nil {
		return err
	}
	dir, err := stateDir(flag, m.settings.StateDir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	st, err := store.Open(ctx, filepath.Join(dir, "tranter.db"))
	if errors.Is(err, store.ErrInUse) {
		return fmt.Errorf("a manager uses the state directory %s: end it with \"tranter drain\", adopt, and start it again", dir)
	}
	if err != nil {
		return err
	}
	for _, r := range m.Runners {
		err = errors.Join(err, r.adopt(ctx, st.Machines(), now))
	}
	return errors.Join(err, st.Close())
}

// adoptable says why nothing can be taken over.
func (m *migration) adoptable() error {
	for _, r := range m.Runners {
		if r.makesMachines() && r.Pool == "" {
			return fmt.Errorf("the token of runner %s is not known: its machines can't be told from others. Set the variable or the file that it comes from", r.title())
		}
	}
	return nil
}

// adopt writes a runner's machines into the book, as ones that are made ready next.
func (r *migratedRunner) adopt(ctx context.Context, book *store.Machines, now time.Time) error {
	if len(r.Machines) == 0 {
		return nil
	}
	known, err := book.Load(ctx, r.Pool)
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, m := range known {
		have[m.Name] = true
	}
	var events []fleet.Event
	var machines []fleet.Machine
	for i := range r.Machines {
		m := &r.Machines[i]
		if have[m.Name] {
			m.State = "known already"
			continue
		}
		adopted, err := adoptedMachine(m, now)
		if err != nil {
			m.State, m.Notes = "not taken over", append(m.Notes, err.Error())
			continue
		}
		m.State = "adopted"
		machines = append(machines, adopted)
		events = append(events, fleet.Event{At: now, Kind: fleet.MachineAdopted, Machine: m.Name, Reason: adopted.Reason, Deadline: adopted.Deadline})
	}
	return book.Append(ctx, r.Pool, events, machines, nil)
}

// adoptedMachine is a machine of the store as one of the book. One that could not be reached would be removed as soon as
// that is found out: it is for people to look at.
func adoptedMachine(m *migratedMachine, now time.Time) (fleet.Machine, error) {
	switch _, err := os.Stat(m.entry.Login.Identity); {
	case m.entry.Login.Host == "":
		return fleet.Machine{}, errors.New("without an address it can't be taken over: if it runs, remove it at the provider")
	case err != nil:
		return fleet.Machine{}, errors.New("without its SSH key it can't be taken over: put the key back, or remove the machine at the provider")
	}
	ref, err := dockermachine.Ref(m.entry.DriverName, m.entry.Driver)
	if err != nil {
		return fleet.Machine{}, err
	}
	return fleet.Machine{
		Name: m.Name, State: fleet.Booting, Since: now, Deadline: now.Add(adoptionTime), Made: m.Saved,
		Reason: "taken over from docker-machine's store",
		Seen:   tranter.Machine{Name: m.Name, Power: tranter.PowerUnknown, Login: m.entry.Login, Ref: ref},
	}, nil
}
