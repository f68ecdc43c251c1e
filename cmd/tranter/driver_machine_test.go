package main

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/store"
)

// settingsOf are the settings of the pool of a configuration that has one runner.
func settingsOf(t *testing.T, section string) (stopped int, endsItself bool) {
	t.Helper()
	text := "[[runners]]\nurl = \"https://gitlab.example.com\"\ntoken = \"glrt-abcdefghijkl\"\nexecutor = \"docker+machine\"\nlimit = 3\n" +
		"[runners.docker]\nimage = \"alpine\"\n[runners.machine]\n" + section
	c, problems := config.Parse(config.Source{Name: "config.toml", Data: []byte(text)})
	if config.Failed(problems, false) {
		t.Fatal(problems)
	}
	s, err := newSurroundings(t.TempDir(), "", "s_0123456789ab", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.machines = newMachinePools(t.TempDir(), "0123456789abcdef", nil, s.log)
	defer s.machines.close()
	got, err := s.poolSettings(c, c.Runners[0])
	if err != nil {
		t.Fatal(err)
	}
	return got.Policy.Stopped, selfEnd(c.Runners[0].Machine) > 0
}

func TestWhatCanNotBeSwitchedOnAgainIsNotSwitchedOff(t *testing.T) {
	const command = "provider = \"command\"\nstopped_count = 2\n[runners.machine.command]\ncreate = [%[1]q]\nlist = [%[1]q]\nremove = [%[1]q]\n"
	for _, c := range []struct {
		name, section string
		stopped       int
		selfEnd       bool
	}{
		{"programs without start and stop", fmt.Sprintf(command, "/bin/true"), 0, true},
		{"programs with both", fmt.Sprintf(command+"start = [%[1]q]\nstop = [%[1]q]\n", "/bin/true"), 2, true},
		{"hosts of a list", "provider = \"static\"\n[[runners.machine.hosts]]\naddress = \"ssh://10.0.0.5\"\n", 0, false},
		{"a driver's machines", "MachineDriver = \"lab\"\nMachineName = \"ci-%s\"\nstopped_count = 2\n", 2, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			stopped, selfEnd := settingsOf(t, c.section)
			if stopped != c.stopped || selfEnd != c.selfEnd {
				t.Errorf("%d may be stopped, and it ends itself: %v; want %d and %v", stopped, selfEnd, c.stopped, c.selfEnd)
			}
		})
	}
}

func TestAPoolWithMachinesKeepsItsProvider(t *testing.T) {
	dir := t.TempDir()
	st, err := store.Open(t.Context(), filepath.Join(dir, "tranter.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	ps := newMachinePools(dir, "0123456789abcdef", st.Machines(), slog.New(slog.DiscardHandler))
	defer ps.close()
	const name = "abcdefghi"
	if err := ps.save(name, savedPool{Machine: config.Machine{Provider: "docker-machine"}}); err != nil {
		t.Fatal(err)
	}
	if err := ps.checkProvider(name, "container"); err != nil {
		t.Errorf("without machines: %v", err)
	}
	now := time.Now()
	wanted := fleet.Machine{Name: "m", State: fleet.Wanted, Since: now, Made: now, Deadline: now.Add(time.Hour)}
	if err := st.Machines().Append(t.Context(), name, nil, []fleet.Machine{wanted}, nil); err != nil {
		t.Fatal(err)
	}
	if err := ps.checkProvider(name, "container"); err == nil || !strings.Contains(err.Error(), "1 machine of provider docker-machine, not of provider container") {
		t.Errorf("with a machine: %v", err)
	}
	if err := ps.checkProvider(name, "docker-machine"); err != nil {
		t.Errorf("with the same provider: %v", err)
	}
}
