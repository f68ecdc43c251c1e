package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/provider/dockermachine/plugin"
)

// keyIndex returns the documentation of all keys by their names in small letters.
func keyIndex() map[string]config.Doc {
	index := map[string]config.Doc{}
	for _, d := range config.Keys() {
		index[strings.ToLower(d.Key)] = d
		for _, old := range d.Old {
			index[strings.ToLower(strings.TrimSuffix(d.Key, shortKey(d))+old)] = d
		}
	}
	return index
}

// sort says of each key of a section what becomes of it.
func (r *migratedRunner) sort(s config.Section, known map[string]config.Doc) {
	different := r.differences()
	for _, key := range writtenKeys("runners", s) {
		d, ok := documented(known, key)
		short := strings.TrimPrefix(d.Key, "runners.")
		switch {
		case !ok:
			// config.Parse has a problem for it
		case !d.Built:
			r.noEffect(d)
		case different[short] != "":
			if !slices.ContainsFunc(r.Different, func(n migrationNote) bool { return n.Key == short }) {
				r.Different = append(r.Different, migrationNote{Key: short, Text: different[short]})
			}
		case !slices.Contains(r.Same, short):
			r.Same = append(r.Same, short)
		}
	}
}

// noEffect notes a key whose feature is not there yet, once for each section that is missing as a whole.
func (r *migratedRunner) noEffect(d config.Doc) {
	name := strings.TrimPrefix(d.Key, "runners.")
	if top, _, below := strings.Cut(name, "."); below && top != "docker" && top != "custom" && top != "machine" {
		name = top
	}
	if !slices.ContainsFunc(r.Failing, func(n migrationNote) bool { return n.Key == name }) {
		r.Failing = append(r.Failing, migrationNote{Key: name, Text: "it has no effect yet"})
	}
}

// documented finds the documentation of a key, or of the table that it is in.
func documented(known map[string]config.Doc, key string) (config.Doc, bool) {
	for key = strings.ToLower(key); key != ""; key = key[:max(0, strings.LastIndexByte(key, '.'))] {
		if d, ok := known[key]; ok {
			return d, len(d.Keys) == 0
		}
	}
	return config.Doc{}, false
}

// writtenKeys lists the keys of a section and those below it, by their full names.
func writtenKeys(path string, s config.Section) []string {
	var keys []string
	for _, e := range s {
		below := path + "." + e.Key
		switch v := e.Value.(type) {
		case config.Section:
			keys = append(keys, writtenKeys(below, v)...)
		case []config.Section:
			for _, one := range v {
				keys = append(keys, writtenKeys(below, one)...)
			}
		default:
			keys = append(keys, below)
		}
	}
	return keys
}

// assign gives the problems of a configuration to its runners.
func (m *migration) assign(problems []config.Problem) {
	for _, p := range problems {
		note := migrationNote{Line: p.Line, Key: strings.TrimPrefix(p.Key, "runners."), Text: p.Text, Hint: p.Hint, Stop: p.Severity == config.Error}
		if p.Found != "" && !strings.HasSuffix(p.Key, p.Found) {
			note.Text += " (found " + p.Found + ")"
		}
		fails := note.Stop || p.Unknown
		if r := m.at(p); r != nil {
			r.told(note, fails, p)
		} else if fails || p.Severity == config.Warning || p.NotBuilt {
			m.File = append(m.File, note)
		}
	}
}

// told notes a problem of a runner. Keys without effect are named already, all of them.
func (r *migratedRunner) told(note migrationNote, fails bool, p config.Problem) {
	switch {
	case fails:
		r.Failing = append(r.Failing, note)
	case p.Severity == config.Warning && !p.NotBuilt:
		r.Warnings = append(r.Warnings, note)
	default:
		return
	}
	r.drop(note.Key)
}

// drop takes out what was said of a key: there is more to say.
func (r *migratedRunner) drop(key string) {
	r.Same = slices.DeleteFunc(r.Same, func(k string) bool { return k == key })
	r.Different = slices.DeleteFunc(r.Different, func(n migrationNote) bool { return n.Key == key })
}

// at returns the runner in whose section a problem is, or nil.
func (m *migration) at(p config.Problem) *migratedRunner {
	if p.Key != "" && !strings.HasPrefix(p.Key, "runners.") && p.Key != "runners" {
		return nil
	}
	var last *migratedRunner
	for _, r := range m.Runners {
		if r.Line <= p.Line {
			last = r
		}
	}
	return last
}

// differences returns what keys of a runner mean here that GitLab Runner takes otherwise (docs/compatibility.md), by the
// key's name below [[runners]]; for those that are given.
func (r *migratedRunner) differences() map[string]string {
	out := map[string]string{
		"unhealthy_requests_limit":         "a reload of the configuration does not end the pause",
		"docker.allowed_privileged_images": "compared with the image that is used, also if it is the default one; the helper container is not privileged then",
		"docker.helper_image":              "any image that has git will do",
		"docker.helper_image_flavor":       "tranter-helper:latest of the engine is used if it is there, else GitLab Runner's helper of this flavour",
		"docker.log_options":               "without it, what helper and build container print is not kept by the engine",
		"docker.wait_for_services_timeout": "services are asked from the job's own container, and one that has ended is not waited for",
	}
	if r.Executor == "docker+machine" {
		maps.Copy(out, r.machineDifferences())
	}
	return out
}

// machineDifferences are those of the executor docker+machine; what GitLab Runner does is in docker-machine, section 3.9.
func (r *migratedRunner) machineDifferences() map[string]string {
	m := &r.settings.Machine
	out := map[string]string{
		"limit":                          "holds at every moment. Machines whose removal has failed three times stop counting, so that they do not keep jobs away",
		"machine.IdleCount":              "is kept up at all times, also while all places are taken or GitLab does not answer",
		"machine.IdleTime":               "goes on over a restart of the manager, where GitLab Runner begins anew",
		"machine.MaxBuilds":              "jobs are counted over restarts; GitLab Runner takes each machine for used once then, and with MaxBuilds = 1 removes all",
		"machine.MaxGrowthRate":          "the same cap; but creations that fail are followed by pauses that get longer, not by up to nine for one job",
		"machine.MaxRemovalAttempts":     "no machine is given up: it is tried until it is gone, and shown as a leak until then",
		"machine.MachineDriver":          "its program is run directly: docker-machine is not needed, unless the driver is built into it",
		"machine.MachineOptions":         optionNote(m.MachineOptions),
		"machine.MachineOptionsWithName": optionNote(m.MachineOptionsWithName),
	}
	if m.IdleCount > 0 || slices.ContainsFunc(m.Autoscaling, func(a config.Autoscaling) bool { return a.IdleCount > 0 }) {
		out["machine.IdleCount"] += "; when no machine is idle, a job is asked for if one can be made for it"
	}
	if _, after, _ := strings.Cut(m.MachineName, "%s"); after != "" {
		out["machine.MachineName"] = fmt.Sprintf("what follows %%s (%q) is looked at too when machines are told apart", after)
	}
	return out
}

// optionNote says what becomes of docker-machine's own options among a driver's.
func optionNote(options []string) string {
	var engine, swarm []string
	for _, o := range options {
		name, _, _ := strings.Cut(strings.TrimLeft(o, "-"), "=")
		switch {
		case strings.HasPrefix(name, "swarm"):
			swarm = append(swarm, name)
		case strings.HasPrefix(name, "engine-"), name == "tls-san":
			engine = append(engine, name)
		}
	}
	var parts []string
	if len(engine) > 0 {
		slices.Sort(engine)
		parts = append(parts, strings.Join(slices.Compact(engine), ", ")+": done by Tranter, which prepares the machines itself")
	}
	if len(swarm) > 0 {
		slices.Sort(swarm)
		parts = append(parts, strings.Join(slices.Compact(swarm), ", ")+": without effect")
	}
	return strings.Join(parts, "; ")
}

// look finds the driver, and works out costs and suggestions.
func (r *migratedRunner) look() {
	if !r.makesMachines() {
		return
	}
	if driver := r.settings.Machine.MachineDriver; driver != "" {
		r.Driver = &foundDriver{Name: driver}
		if p, err := plugin.Find(driver, os.Environ()); err != nil {
			r.Driver.Error = err.Error()
		} else {
			r.Driver.Name, r.Driver.Path = p.Name, p.Path
		}
	}
	r.Idle = newIdleCost(r.settings)
	r.Suggestions = append(r.Suggestions, r.suggest()...)
}

// suggest says what could be better.
func (r *migratedRunner) suggest() []string {
	m := &r.settings.Machine
	var out []string
	add := func(when bool, text string) {
		if when {
			out = append(out, text)
		}
	}
	add(m.PricePerHour == 0, "Set price_per_hour in [runners.machine], to see what machines cost here, in \"tranter machine ls\" and in metrics.")
	add(len(m.OptionSets) == 0, "With [[runners.machine.option_sets]], machines are made in another zone, or of another type, when there is no room for the first.")
	add(m.MaxBuilds == 0 && m.MaxAge == 0, "No machine ever gets too old: set MaxBuilds, or max_age = \"24h\".")
	add(m.IdleTime == 0 && m.MaxBuilds != 1, "With IdleTime = 0, a machine is removed as soon as its job has ended and no other waits: the next one waits for a new machine.")
	add(m.MaxBuilds == 1, "With MaxBuilds = 1 each job waits for a new machine, unless IdleCount has made one beforehand.")
	return out
}
