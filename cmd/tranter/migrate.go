package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/config"
	driverstore "github.com/tranter-ci/tranter/internal/provider/dockermachine/storage"
	"github.com/tranter-ci/tranter/internal/view"
)

func newMigrate(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate CONFIG",
		Short: "Say what a configuration of GitLab Runner and a store of docker-machine amount to here; with --adopt, take the machines over",
		Long: `Read a config.toml of GitLab Runner and the store of docker-machine, and say for each
runner what is taken over as it is, what means something else here, what can't work, whether
the driver is installed, which machines of the store are the runner's, and how many idle
machines to expect. Nothing is changed, and no provider is asked.

With --adopt, the machines that are the runners' are written into the state directory, and
the next "tranter run" connects to them, prepares them and uses them. It is done once for
each machine, however often it is called. The store's files stay as they are. Before that,
GitLab Runner has to be stopped, with no job running on the machines: they are prepared
anew, and from then on they are removed when their time has come.`,
		Example: `  tranter migrate /etc/gitlab-runner/config.toml
  tranter migrate config.toml --store /root/.docker/machine --output json
  tranter migrate /etc/gitlab-runner/config.toml --adopt`,
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	store := f.String("store", "", "store of docker-machine (default: MACHINE_STORAGE_PATH, or ~/.docker/machine)")
	adopt := f.Bool("adopt", false, "take the machines over; no manager may be running")
	state := addStateDirFlag(f)
	output := addOutputFlag(f)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m, err := readMigration(args[0], *store)
		if err != nil {
			return err
		}
		if *adopt {
			if err := m.adopt(cmd.Context(), *state, time.Now()); err != nil {
				return err
			}
		}
		if *output == "json" {
			err = writeJSON(s.out, m)
		} else {
			m.print(s.out)
		}
		if n := m.failures(); n > 0 && err == nil {
			return fmt.Errorf("%s of %s can't work here", view.Count(n, "thing"), args[0])
		}
		return err
	}
	return cmd
}

// migration is what a configuration and a store amount to.
type migration struct {
	Config    string            `json:"config"`
	Store     string            `json:"store"`
	Runners   []*migratedRunner `json:"runners"`
	File      []migrationNote   `json:"file"`      // what is wrong with the configuration outside its runners
	Broken    []brokenEntry     `json:"broken"`    // folders of the store that are no machines
	Strangers []migratedMachine `json:"strangers"` // machines that are no runner's
	StoreNote string            `json:"store_note,omitempty"`

	settings config.Config
}

// migratedRunner is one runner of the configuration.
type migratedRunner struct {
	Name        string            `json:"name"`
	Line        int               `json:"line"`
	Executor    string            `json:"executor"`
	Pool        string            `json:"pool,omitempty"`   // short token
	Same        []string          `json:"same"`             // keys that are taken over as they are
	Different   []migrationNote   `json:"different"`        // keys that mean something else
	Failing     []migrationNote   `json:"failing"`          // what can't work, or has no effect
	Warnings    []migrationNote   `json:"warnings"`         // what config check warns of besides
	Driver      *foundDriver      `json:"driver,omitempty"` // of executor docker+machine
	Machines    []migratedMachine `json:"machines"`
	Idle        *idleCost         `json:"idle,omitempty"`
	Suggestions []string          `json:"suggestions"`

	settings config.Runner
	names    machineNames
}

// migrationNote is something to know of a key.
type migrationNote struct {
	Line int    `json:"line,omitempty"`
	Key  string `json:"key,omitempty"`
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
	Stop bool   `json:"stop,omitempty"` // it keeps the runner from being used
}

// foundDriver is a Docker Machine driver.
type foundDriver struct {
	Name  string `json:"name"`
	Path  string `json:"path,omitempty"`
	Error string `json:"error,omitempty"` // why it was not found
}

// migratedMachine is a machine of the store.
type migratedMachine struct {
	Name    string    `json:"name"`
	Driver  string    `json:"driver"`
	Address string    `json:"address,omitempty"`
	Saved   time.Time `json:"saved"`           // when docker-machine wrote of it last
	Notes   []string  `json:"notes,omitempty"` // what is odd about it
	State   string    `json:"state"`           // "found", "adopted", "known already", or "not taken over"

	entry driverstore.Entry
}

// brokenEntry is a folder of the store that is no machine.
type brokenEntry struct {
	Name   string `json:"name"`
	Text   string `json:"text"`
	Runner string `json:"runner,omitempty"` // whose machine it would be
}

// failures counts what keeps runners from being used.
func (m *migration) failures() int {
	n := 0
	notes := m.File
	for _, r := range m.Runners {
		notes = append(notes, r.Failing...)
		if r.Driver != nil && r.Driver.Error != "" {
			n++
		}
	}
	for _, note := range notes {
		if note.Stop {
			n++
		}
	}
	return n
}

// readMigration reads a configuration and a store.
func readMigration(path, store string) (*migration, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	source := config.Source{Name: path, Data: data, Getenv: os.Getenv, ReadFile: os.ReadFile}
	m := &migration{Config: path, File: []migrationNote{}, Broken: []brokenEntry{}, Strangers: []migratedMachine{}}
	var problems []config.Problem
	m.settings, problems = config.Parse(source)
	sections, _ := config.Sections(source) // its problems are among those
	known := keyIndex()
	for i, r := range m.settings.Runners {
		one := newMigratedRunner(r)
		if i < len(sections) {
			one.sort(sections[i], known)
		}
		m.Runners = append(m.Runners, one)
	}
	m.assign(problems)
	for _, r := range m.Runners {
		r.look()
	}
	if m.Store, err = storePath(store); err != nil {
		return nil, err
	}
	return m, m.readStore(store != "")
}

func newMigratedRunner(r config.Runner) *migratedRunner {
	return &migratedRunner{
		Name: r.Name, Line: r.Line, Executor: r.Executor, Pool: r.Token.Short(), settings: r, names: namesOfMachines(r),
		Same: []string{}, Different: []migrationNote{}, Failing: []migrationNote{}, Warnings: []migrationNote{}, Machines: []migratedMachine{}, Suggestions: []string{},
	}
}

// title names a runner for people.
func (r *migratedRunner) title() string {
	return fmt.Sprintf("%q (line %d)", view.Printable(r.Name), r.Line)
}

// makesMachines tells whether a runner has machines of a driver.
func (r *migratedRunner) makesMachines() bool {
	return r.Executor == "docker+machine" && r.settings.Machine.Provider == "docker-machine"
}

// storePath finds the store: the flag's, else what docker-machine uses.
func storePath(flag string) (string, error) {
	path := cmp.Or(flag, os.Getenv("MACHINE_STORAGE_PATH"))
	if path == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the store of docker-machine: %w; name it with --store", err)
		}
		path = filepath.Join(home, ".docker", "machine")
	}
	return filepath.Abs(path)
}

// readStore reads the store and finds whose its machines are.
func (m *migration) readStore(asked bool) error {
	entries, problems := driverstore.Read(m.Store)
	for _, p := range problems {
		switch {
		case p.Name != "":
			m.Broken = append(m.Broken, brokenEntry{Name: p.Name, Text: p.Err.Error(), Runner: m.ownerName(p.Name)})
		case !errors.Is(p.Err, fs.ErrNotExist) || asked:
			return fmt.Errorf("%w; name the store with --store", p.Err)
		default:
			m.StoreNote = "there is none: no machines to take over"
		}
	}
	for _, e := range entries {
		found := migratedMachine{Name: e.Name, Driver: e.DriverName, Address: e.Login.Host, Saved: e.Saved, Notes: e.Notes, State: "found", entry: e}
		if r := m.owner(e.Name); r != nil {
			if r.Driver != nil && r.Driver.Name != e.DriverName {
				found.Notes = append(found.Notes, fmt.Sprintf("it was made by driver %s, which is needed to remove it", e.DriverName))
			}
			r.Machines = append(r.Machines, found)
			continue
		}
		if near := m.almost(e.Name); near != "" {
			found.Notes = append(found.Notes, near)
		}
		m.Strangers = append(m.Strangers, found)
	}
	return nil
}

// owner returns the runner whose machine has this name, or nil.
func (m *migration) owner(name string) *migratedRunner {
	for _, r := range m.Runners {
		if r.makesMachines() && r.names.match(name) {
			return r
		}
	}
	return nil
}

func (m *migration) ownerName(name string) string {
	if r := m.owner(name); r != nil {
		return r.Name
	}
	return ""
}

// almost says of a machine that is nobody's what GitLab Runner would take it for: it looks at the beginning of names only
// (docker-machine, section 3.2).
func (m *migration) almost(name string) string {
	for _, r := range m.Runners {
		if r.makesMachines() && r.names.begins(name) {
			return fmt.Sprintf("GitLab Runner takes it for a machine of runner %s, whose names it begins like; it is not named like one here", r.title())
		}
	}
	return ""
}

// machineNames are the names of a runner's machines (contract 9.13).
type machineNames struct{ prefix, suffix string }

func namesOfMachines(r config.Runner) machineNames {
	short := strings.TrimLeft(strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' {
			return c
		}
		return -1
	}, strings.ToLower(r.Token.Short())), "-")
	if short == "" {
		return machineNames{}
	}
	before, after, _ := strings.Cut(r.Machine.NamePattern(), "%s")
	return machineNames{prefix: "runner-" + short + "-" + before, suffix: after}
}

// match tells whether a name is one of these: with a time in seconds and eight hexadecimal digits for %s.
func (n machineNames) match(name string) bool {
	middle, begins := strings.CutPrefix(name, n.prefix)
	middle, ends := strings.CutSuffix(middle, n.suffix)
	when, random, two := strings.Cut(middle, "-")
	return n.prefix != "" && begins && ends && two && when != "" && strings.Trim(when, "0123456789") == "" && len(random) == 8 && strings.Trim(random, "0123456789abcdef") == ""
}

func (n machineNames) begins(name string) bool {
	return n.prefix != "" && strings.HasPrefix(name, n.prefix)
}
