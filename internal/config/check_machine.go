package config

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// machineChecker checks what the keys of a [runners.machine] mean together (contract 11.5).
type machineChecker struct {
	*checker
	r *Runner
	m *Machine
	s *node // the section
}

const machineKey = "runners.machine."

func (d machineChecker) check(concurrent int, runner *node) {
	m, s := d.m, d.s
	d.checkNeeds()
	d.checkName()
	d.checkOptions(m.MachineOptions, m.MachineOptionsWithName, s, machineKey)
	d.checkSets()
	d.checkHosts()
	d.checkOthers()
	d.checkIdle(s, Autoscaling{IdleCount: m.IdleCount, IdleCountMin: m.IdleCountMin, IdleScaleFactor: m.IdleScaleFactor}, machineKey)
	for i, a := range m.Autoscaling {
		entry := element(s.nearest("autoscaling"), i)
		if len(a.Periods) == 0 {
			d.report(Error, entry, "runners.machine.autoscaling.Periods", "is missing", "The entry would never hold.")
		}
		d.checkIdle(entry, a, "runners.machine.autoscaling.")
	}
	d.checkCaps(concurrent, runner)
	d.checkVoid()
	d.checkTimes()
	d.checkEngineAddress(runner.nearest("docker"))
}

// checkNeeds reports what the provider can't do without.
func (d machineChecker) checkNeeds() {
	m := d.m
	switch m.Provider {
	case "docker-machine":
		if m.MachineDriver == "" {
			d.missing(d.s, "machine.MachineDriver", "Name the Docker Machine driver.")
		}
		if m.MachineName == "" {
			d.missing(d.s, "machine.MachineName", "Write MachineName = \"ci-%s\".")
		}
	case "static":
		if len(m.Hosts) == 0 {
			d.missing(d.s, "machine.hosts", "Provider static has no other machines: add [[runners.machine.hosts]] with address = \"ssh://ci@10.0.0.5\".")
		}
	case "command":
		for _, c := range []struct {
			key  string
			args []string
		}{{"create", m.Command.Create}, {"list", m.Command.List}, {"remove", m.Command.Remove}} {
			if at := d.s.find("command", c.key); len(c.args) == 0 && (at == nil || at.kind == kindArray) {
				d.missing(d.s.nearest("command"), "machine.command."+c.key, fmt.Sprintf("Provider command needs the programs create, list and remove: write %s = [\"/etc/tranter/cloud.sh\", \"%s\"].", c.key, c.key))
			}
		}
		if (len(m.Command.Start) == 0) != (len(m.Command.Stop) == 0) {
			d.report(Error, d.s.nearest("command"), machineKey+"command", "only one of start and stop is given", "A machine that is switched off has to be switched on again: give both, or none.")
		}
	}
}

// machineName is what a machine's name may have in it (docker-machine, section 2.1).
var machineName = lazy.Regexp(`^[a-zA-Z0-9][a-zA-Z0-9.-]*$`)

// maxHostName is the longest part of a host's name.
const maxHostName = 63

func (d machineChecker) checkName() {
	name := d.m.MachineName
	level, problem, hint := Error, "", ""
	whole := "runner-12345678-" + strings.ReplaceAll(name, "%s", "1234567890-12345678")
	switch {
	case name == "" || d.m.Provider == "static":
		return
	case !strings.Contains(name, "%s"):
		problem, hint = "does not contain %s", "%s stands for the part that tells machines apart: \"ci-%s\"."
	case strings.Count(name, "%") > 1:
		problem, hint = "has more than one percent sign", "It may have one %s, and nothing else of that kind."
	case !machineName().MatchString(strings.ReplaceAll(name, "%s", "x")):
		problem, hint = "can't be part of a machine's name", "Write letters, digits, dashes and dots: \"ci-%s\"."
	case slices.ContainsFunc(strings.Split(whole, "."), func(part string) bool { return strings.Trim(part, "-") != part || part == "" }):
		problem, hint = "makes names that no host may have", "Before and after a dot there is a letter or digit, and one at the end: \"ci-%s\"."
	case slices.ContainsFunc(strings.Split(whole, "."), func(part string) bool { return len(part) > maxHostName }):
		level, problem, hint = Warning, "makes names of more than 63 characters, which not all clouds and systems take", "With what comes before it and the 19 characters of %s, 28 are left for the rest."
	default:
		return
	}
	d.reportAt(level, d.s.nearest("MachineName").at, Problem{Key: machineKey + "MachineName", Found: name, Text: problem, Hint: hint})
}

// checkOptions checks the options of a section or of an option set.
func (d machineChecker) checkOptions(options, withName []string, s *node, key string) {
	for i, option := range withName {
		if !strings.Contains(option, "%s") {
			d.reportAt(Error, element(s.nearest("MachineOptionsWithName"), i).at, Problem{Key: key + "MachineOptionsWithName", Found: hidden(option), Text: "an option does not contain %s", Hint: "%s stands for the machine's name; other options belong into MachineOptions."})
		}
	}
	for name, list := range map[string][]string{"MachineOptions": options, "MachineOptionsWithName": withName} {
		for i, option := range list {
			problem, hint := "", ""
			switch {
			case strings.HasPrefix(option, "-"):
				problem, hint = "an option starts with a dash", "The dashes are added; write NAME=VALUE."
			case strings.HasPrefix(option, "swarm"):
				problem, hint = "options of Docker Swarm have no effect", "Remove it."
			default:
				continue
			}
			d.reportAt(Warning, element(s.nearest(name), i).at, Problem{Key: key + name, Found: hidden(option), Text: problem, Hint: hint})
		}
	}
}

// checkSets checks the option sets against each other.
func (d machineChecker) checkSets() {
	const key = machineKey + "option_sets."
	first := map[string]int{}
	for i, set := range d.m.OptionSets {
		entry := element(d.s.nearest("option_sets"), i)
		line, _ := position(d.data, entry.at)
		switch before, again := first[set.Name]; {
		case set.Name == "":
			d.report(Error, entry, key+"name", "is missing", "Machines and messages bear the name of the set: write name = \"spot-a\".")
		case !machineName().MatchString(set.Name):
			d.reportValue(Error, entry.nearest("name"), d.schema.field("runners").sub.field("machine").sub.field("option_sets").sub.field("name"), "is not a plain name", "Write letters, digits, dashes and dots.")
		case again:
			d.report(Error, entry.nearest("name"), key+"name", fmt.Sprintf("the set in line %d has this name too", before), "Give each its own.")
		}
		if _, again := first[set.Name]; !again {
			first[set.Name] = line
		}
		d.checkOptions(set.MachineOptions, set.MachineOptionsWithName, entry, key)
	}
}

// checkHosts checks the hosts of provider static against each other.
func (d machineChecker) checkHosts() {
	const key = machineKey + "hosts."
	names, addresses := map[string]int{}, map[string]int{}
	for i, h := range d.m.Hosts {
		entry := element(d.s.nearest("hosts"), i)
		line, _ := position(d.data, entry.at)
		u, err := url.Parse(h.Address)
		if h.Address == "" || err != nil || u.Hostname() == "" {
			if !given(entry, "address") {
				d.report(Error, entry, key+"address", "is missing", "Write address = \"ssh://ci@10.0.0.5\".")
			}
			continue
		}
		name, at := cmp.Or(h.Name, u.Hostname()), strings.ToLower(u.Hostname())+":"+cmp.Or(u.Port(), "22")
		if !machineName().MatchString(name) {
			d.report(Error, entry.nearest("name"), key+"name", name+" can't be the name of a machine", "Write name = \"builder-1\": letters, digits, dashes and dots.")
		}
		if before, again := names[name]; again {
			d.report(Error, entry.nearest("name"), key+"name", fmt.Sprintf("the host in line %d has the name %s too", before, name), "Give each a name of its own.")
		} else if before, again := addresses[at]; again {
			d.report(Error, entry.nearest("address"), key+"address", fmt.Sprintf("this is the host in line %d", before), "Raise the capacity of that one, and remove this.")
		}
		names[name], addresses[at] = line, line
	}
}

// checkOthers warns of what only other providers look at.
func (d machineChecker) checkOthers() {
	if !slices.Contains(d.schema.field("runners").sub.field("machine").sub.field("provider").enum(), d.m.Provider) {
		return // reported as an unknown value
	}
	const driver, sets = "docker-machine", "docker-machine,command"
	for _, k := range []struct{ keys, providers string }{
		{"MachineDriver,storage_path", driver},
		{"MachineOptions,MachineOptionsWithName", sets},
		{"option_sets,IdleCount,IdleScaleFactor,IdleCountMin,IdleTime,MaxGrowthRate,MachineName,autoscaling,stopped_count", "docker-machine,command,container"},
		{"hosts", "static"},
		{"command", "command"},
		{"container", "container"},
	} {
		if slices.Contains(strings.Split(k.providers, ","), d.m.Provider) {
			continue
		}
		for key := range strings.SplitSeq(k.keys, ",") {
			if at := d.s.find(key); at != nil && at.leaves() > 0 {
				d.report(Warning, at, machineKey+at.key, "has no effect with provider "+d.m.Provider, "It is for provider "+strings.ReplaceAll(k.providers, ",", ", ")+".")
			}
		}
	}
}

// checkIdle checks the idle settings of the section, or of an entry for some time of day.
func (d machineChecker) checkIdle(n *node, a Autoscaling, key string) {
	switch {
	case a.IdleCountMin > 0 && a.IdleScaleFactor == 0:
		d.report(Warning, n.nearest("IdleCountMin"), key+"IdleCountMin", "has no effect without IdleScaleFactor", "Set IdleScaleFactor, or remove it.")
	case a.IdleCountMin > a.IdleCount && a.IdleScaleFactor > 0:
		d.report(Warning, n.nearest("IdleCountMin"), key+"IdleCountMin", fmt.Sprintf("is above IdleCount (%d), which caps it", a.IdleCount), "Raise IdleCount.")
	}
	if d.r.Limit > 0 && a.IdleCount > d.r.Limit && d.m.Provider != "static" {
		d.report(Warning, n.nearest("IdleCount"), key+"IdleCount", fmt.Sprintf("is above the runner's limit of %d machines, which holds", d.r.Limit), "Raise limit, or lower it.")
	}
}

// checkCaps checks how many machines and jobs there may be.
func (d machineChecker) checkCaps(concurrent int, runner *node) {
	if d.m.Provider == "static" {
		return
	}
	limit := d.r.Limit
	switch {
	case limit == 0:
		d.report(Warning, runner.nearest("limit"), "runners.limit", "nothing caps the number of machines, and so what they cost", fmt.Sprintf("Write limit = %d, or as many as you want to pay for.", max(concurrent, d.m.IdleCount, 1)))
	case concurrent > 0 && concurrent < limit:
		d.report(Note, runner.nearest("limit"), "runners.limit", fmt.Sprintf("is above concurrent (%d): the machines beyond that can only wait", concurrent), "Raise concurrent if that many jobs are meant to run.")
	}
	if limit > 0 && d.m.MaxGrowthRate > limit {
		d.report(Note, d.s.nearest("MaxGrowthRate"), machineKey+"MaxGrowthRate", fmt.Sprintf("has no effect above the runner's limit of %d machines", limit), "Lower it, or remove it.")
	}
}

// checkVoid warns of keys that others make void.
func (d machineChecker) checkVoid() {
	m, plain := d.m, DefaultRunner().Machine
	for _, k := range []struct {
		key           string
		void          bool
		without, hint string
	}{
		{"stopped_count", d.neverStops(), "without command.start and command.stop", "Give programs for both, or remove it."},
		{"stopped_time", m.StoppedTime > 0 && m.StoppedCount == 0, "without stopped_count", "Set stopped_count, or remove it."},
		{"api.burst", m.API.Burst > 0 && m.API.RequestsPerSecond == 0, "without requests_per_second", "Set requests_per_second, or remove it."},
		{"engine.install_url", m.Engine.InstallURL != "" && !m.Engine.Install, "with install = false", "Remove one of the two."},
		{"engine.certificate_names", len(m.Engine.CertificateNames) > 0 && m.Engine.Access != "tls", "unless access is \"tls\"", "Write access = \"tls\", or remove it."},
		{"engine.certificate_life", m.Engine.CertificateLife != plain.Engine.CertificateLife && m.Engine.Access != "tls", "unless access is \"tls\"", "Write access = \"tls\", or remove it."},
		{"container.subnet", m.Container.Subnet != "" && m.Container.Network != "", "with network", "Remove one of the two."},
	} {
		if k.void {
			d.report(Warning, d.s.nearest(strings.Split(k.key, ".")...), machineKey+k.key, "has no effect "+k.without, k.hint)
		}
	}
	if n := m.Provision.Notices; len(n) > 1 && slices.Contains(n, "none") {
		d.report(Error, d.s.nearest("provision", "notices"), machineKey+"provision.notices", "none is one of several", "Write [\"none\"] alone, or remove it.")
	}
}

// neverStops tells whether machines are to be kept switched off that can't be switched off.
func (d machineChecker) neverStops() bool {
	return d.m.StoppedCount > 0 && d.m.Provider == "command" && len(d.m.Command.Stop) == 0
}

// shortest is how soon a machine may end itself: the manager has to have had several chances to put that off.
const shortest = 5 * time.Minute

func (d machineChecker) checkTimes() {
	if x := d.m.SelfDestructAfter; x > 0 && x < max(shortest, 2*d.m.LostAfter) {
		d.report(Warning, d.s.nearest("self_destruct_after"), machineKey+"self_destruct_after", "is so short that a machine may end itself while the manager is started anew", fmt.Sprintf("Write %q or more.", shortDuration(max(shortest, 2*d.m.LostAfter))))
	}
	if d.m.MaxAge > 0 && d.m.MaxAge <= d.m.BootTimeout {
		d.report(Warning, d.s.nearest("max_age"), machineKey+"max_age", fmt.Sprintf("is not above boot_timeout (%s): a machine may be too old before its first job", shortDuration(d.m.BootTimeout)), "Raise it.")
	}
}

// checkEngineAddress warns of an engine's address: the engine is the machine's.
func (d machineChecker) checkEngineAddress(s *node) {
	for _, key := range []string{"host", "tls_cert_path", "tls_verify"} {
		if at := s.find(key); at != nil {
			d.report(Warning, at, "runners.docker."+key, "has no effect with executor docker+machine", "Each machine has its own engine, whose address is known; remove it.")
		}
	}
}
