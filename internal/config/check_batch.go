package config

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// batchChecker checks what the keys of a [runners.batch] mean together.
type batchChecker struct {
	*checker
	r *Runner
	b *Batch
	s *node // the section
}

const batchKey = "runners.batch."

var batchPrefix = lazy.Regexp(`^[A-Za-z][A-Za-z0-9-]*$`)

const (
	maxBatchPrefix = 20
	// leastLost is about three signs of life.
	leastLost = 30 * time.Second
)

func (d batchChecker) check(runner *node) {
	if d.b.Scheduler == "" {
		if len(d.s.list) > 0 && !given(d.s, "scheduler") {
			d.report(Warning, d.s, batchKey+"scheduler", "is missing: the section has no effect, and jobs run on this host", "Write scheduler = \"slurm\", or remove the section.")
		}
		return
	}
	if d.knownExecutor(d.r.Executor) && !slices.Contains([]string{"shell", "apptainer", "custom"}, d.r.Executor) {
		d.reportAt(Error, runner.nearest("executor").at, Problem{Key: "runners.executor", Found: d.r.Executor, Text: "this executor can't run in batch jobs", Hint: "With [runners.batch], use executor = \"shell\", \"apptainer\" or \"custom\"."})
	}
	d.checkOrder()
	d.checkPlaces()
	d.checkListen()
	d.checkNames()
	d.checkTimes()
	d.checkLimits()
	d.checkTags()
	d.checkUsers()
	d.checkOptions(d.b.Options, d.s.nearest("options"), "options")
	d.checkAllowed()
}

// checkOrder checks what the two orders need.
func (d batchChecker) checkOrder() {
	p, pending := &d.b.Pending, d.s.nearest("pending")
	if d.b.Order == "take-first" {
		if len(pending.list) > 0 && pending != d.s {
			d.report(Warning, pending, batchKey+"pending", "has no effect with order take-first", "Remove the section: jobs are taken before places for them are made.")
		}
		return
	}
	if d.b.Walltime == 0 {
		d.missing(d.s.nearest("walltime"), "batch.walltime", "An allocation is made before its job's timeout is known: write walltime = \"2h\", or order = \"take-first\".")
	}
	if !given(pending, "token") {
		d.missing(pending, "batch.pending.token", "Without it nobody sees which jobs wait: give a token with read_api in [runners.batch.pending], or write order = \"take-first\".")
	}
	if len(p.Projects)+len(p.Groups) == 0 {
		d.missing(pending, "batch.pending.projects", "Name the projects whose jobs wait for this runner, or groups.")
	}
	d.checkPaths(pending, "projects", p.Projects)
	d.checkPaths(pending, "groups", p.Groups)
}

// checkPaths checks paths of projects or groups.
func (d batchChecker) checkPaths(pending *node, key string, list []string) {
	for i, name := range list {
		if name == "" || strings.Contains(name, "://") || strings.Trim(name, "/") != name || strings.ContainsAny(name, " \t") {
			d.reportAt(Error, element(pending.nearest(key), i).at, Problem{Key: batchKey + "pending." + key, Found: name, Text: "is not a path in GitLab", Hint: "Write it as in the address of its page, without the server: \"group/project\"."})
		}
	}
}

// checkPlaces checks where things are.
func (d batchChecker) checkPlaces() {
	if d.b.Directory == "" {
		d.report(Note, d.s, batchKey+"directory", "is missing: one below the state directory is used, which the nodes have to share then", "Name a directory that this host and the nodes have at the same path.")
	}
	for _, p := range []struct{ key, value, hint string }{
		{"directory", d.b.Directory, "Write the whole path, which is the same on this host and on the nodes."},
		{"local_directory", d.b.LocalDirectory, "Write the whole path on the nodes."},
		{"program", d.b.Program, "Write the whole path on the nodes."},
		{"bin", d.b.Bin, "Write the whole path of the directory of the scheduler's commands."},
	} {
		if p.value != "" && !path.IsAbs(p.value) {
			d.reportAt(Error, d.s.nearest(p.key).at, Problem{Key: batchKey + p.key, Found: p.value, Text: "is not an absolute path", Hint: p.hint})
		}
	}
	if len(d.b.CommandPrefix) > 0 && d.b.CommandPrefix[0] == "" {
		d.report(Error, d.s.nearest("command_prefix"), batchKey+"command_prefix", "names no program", "Write the program and its arguments: [\"ssh\", \"login1\"].")
	}
	if len(d.b.CommandPrefix) > 0 && d.b.Bin == "" && d.b.CommandPrefix[0] == "sudo" {
		d.report(Note, d.s.nearest("command_prefix"), batchKey+"command_prefix", "sudo asks for a password unless it is told not to", "Write [\"sudo\", \"-n\", ...], so that a missing permission is an error and not a wait.")
	}
}

// checkListen checks the address that nodes connect to.
func (d batchChecker) checkListen() {
	text, at := d.b.Listen, d.s.nearest("listen").at
	if text == "" {
		return
	}
	host, port, err := net.SplitHostPort(text)
	if n, numberErr := strconv.ParseUint(port, 10, 16); err != nil || numberErr != nil || n > 65535 {
		d.reportAt(Error, at, Problem{Key: batchKey + "listen", Found: text, Text: "is not an address", Hint: "Write HOST:PORT; with port 0 the system chooses: \"10.0.0.5:0\"."})
		return
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case host == "" || err == nil && ip.IsUnspecified():
		d.reportAt(Warning, at, Problem{Key: batchKey + "listen", Found: text, Text: "does not say how nodes reach this host: they are given its host name", Hint: "Write the address that the nodes know it by, such as \"10.0.0.5:0\"."})
	case host == "localhost" || err == nil && ip.IsLoopback():
		d.reportAt(Note, at, Problem{Key: batchKey + "listen", Found: text, Text: "can be reached from this host only", Hint: "That suits a cluster of one machine; for others write an address that the nodes know."})
	}
}

func (d batchChecker) checkNames() {
	p := d.b.Prefix
	switch {
	case len(p) > maxBatchPrefix:
		d.reportAt(Error, d.s.nearest("prefix").at, Problem{Key: batchKey + "prefix", Found: p, Text: fmt.Sprintf("is longer than %d characters", maxBatchPrefix), Hint: "Shorten it: some batch systems cut names off, and batch jobs would not be found again."})
	case !batchPrefix().MatchString(p):
		d.reportAt(Error, d.s.nearest("prefix").at, Problem{Key: batchKey + "prefix", Found: p, Text: "can't be part of a batch job's name", Hint: "Write letters, digits and dashes, a letter first: \"ci\"."})
	}
}

// combination is a finding about keys together.
type combination struct {
	severity        Severity
	wrong           bool
	key, what, hint string
}

func (d batchChecker) reportAll(all []combination) {
	for _, c := range all {
		if c.wrong {
			d.report(c.severity, d.s.nearest(c.key), batchKey+c.key, c.what, c.hint)
		}
	}
}

// checkTimes checks times against each other.
func (d batchChecker) checkTimes() {
	b := d.b
	d.reportAll([]combination{
		{Error, b.Walltime > 0 && b.Margin >= b.Walltime, "margin", fmt.Sprintf("leaves no time for jobs in a walltime of %s", b.Walltime), "Shorten it, or make walltime longer."},
		{Warning, b.Walltime%time.Minute != 0 && b.Scheduler != "flux", "walltime", "is not of whole minutes, in which batch systems count", "It is rounded up."},
		{Warning, b.Linger > 0 && b.MaxUses == 1, "linger", "has no effect with max_uses = 1", "Remove one of the two."},
		{Warning, b.Walltime > 0 && b.Linger >= b.Walltime, "linger", "is longer than a batch job's walltime", "Batch jobs then stay until their time is up."},
		{Warning, b.LostAfter < leastLost, "lost_after", "is so short that a slow file system ends jobs", "Write at least \"30s\"; \"2m\" is the default."},
		{Warning, b.TakeTimeout < b.PollInterval, "take_timeout", "is shorter than poll_interval: batch jobs may end before anybody sees that they run", "Make it several times as long."},
	})
}

// checkLimits checks numbers against each other.
func (d batchChecker) checkLimits() {
	b := d.b
	caps, shared := b.MaxAllocations > 0, b.Places > 1
	d.reportAll([]combination{
		{Warning, caps && b.MaxQueued > b.MaxAllocations, "max_queued", "has no effect: max_allocations is less", "Lower it, or remove it."},
		{Warning, caps && b.MaxPerUser > b.MaxAllocations, "max_per_user", "has no effect: max_allocations is less", "Lower it, or remove it."},
		{Note, shared && b.Exclusive, "exclusive", "keeps others out, but up to " + strconv.Itoa(b.Places) + " jobs of one project and user still share the nodes", "Write places = 1 if each job is to have nodes of its own."},
		{Warning, shared && b.MaxUses > 0 && b.MaxUses < b.Places, "max_uses", "is less than places: not all of them are used", "Raise it, or lower places."},
		{Warning, b.GPUType != "" && b.GPUs == 0 && len(b.Tags) == 0 && b.Allow.GPUs == "", "gpu_type", "has no effect without gpus", "Write gpus = 1, or remove it."},
	})
}

func (d batchChecker) checkTags() {
	first := map[string]int{}
	for i, t := range d.b.Tags {
		entry := element(d.s.nearest("tags"), i)
		line, _ := position(d.data, entry.at)
		const key = batchKey + "tags."
		before, again := first[t.Tag]
		switch {
		case t.Tag == "" && !given(entry, "tag"):
			d.missing(entry, "batch.tags.tag", "Name the tag of GitLab that asks for this.")
		case again:
			d.reportAt(Error, entry.nearest("tag").at, Problem{Key: key + "tag", Found: t.Tag, Text: fmt.Sprintf("is there twice, first in line %d", before), Hint: "Put all of it into one entry."})
		}
		first[t.Tag] = line
		if t.GPUType != "" && t.GPUs == 0 && d.b.GPUs == 0 {
			d.report(Warning, entry.nearest("gpu_type"), key+"gpu_type", "has no effect without gpus", "Write gpus = 1, or remove it.")
		}
		if d.b.Walltime > 0 && t.Walltime > 0 && d.b.Margin >= t.Walltime {
			d.report(Error, entry.nearest("walltime"), key+"walltime", "leaves no time for jobs: the margin takes all of it", "Make it longer than margin.")
		}
		d.checkOptions(t.Options, entry.nearest("options"), "tags.options")
	}
}

// checkUsers checks how jobs get system users.
func (d batchChecker) checkUsers() {
	u, at := &d.b.Users, d.s.find("users")
	if at == nil || len(at.list) == 0 {
		return
	}
	if len(u.Table) == 0 && len(u.Command) == 0 && !u.Same {
		d.report(Error, at, batchKey+"users", "maps no user: jobs would run as the user of the manager", "Give a table or a command, or write same = true; or remove it.")
		return
	}
	d.report(Note, at, batchKey+"users", "is for a manager that runs as root: any other can't start jobs as other users", "")
	if u.Minimum < 1 && given(at, "minimum_uid") {
		d.report(Warning, at.nearest("minimum_uid"), batchKey+"users.minimum_uid", "lets jobs run as the system's own users; root is refused all the same", "Write the least id of people's accounts, as a rule 1000.")
	}
	if len(u.Command) > 0 && !path.IsAbs(u.Command[0]) {
		d.reportAt(Error, at.nearest("command").at, Problem{Key: batchKey + "users.command", Found: u.Command[0], Text: "is not an absolute path", Hint: "It runs as root: name the program by its whole path."})
	}
	d.checkTable(at)
}

func (d batchChecker) checkTable(users *node) {
	for name, user := range d.b.Users.Table {
		if user == "" || user == "root" || strings.ContainsAny(user, " :/\t\n") {
			d.reportAt(Error, users.nearest("table", name).at, Problem{Key: batchKey + "users.table", Found: user, Text: "jobs can't run as this user", Hint: "Name a system user that is not root."})
		}
	}
}

// checkOptions checks arguments for the submit command.
func (d batchChecker) checkOptions(options []string, at *node, key string) {
	if i, problem, hint := BatchOptions(d.b.Scheduler, options); problem != "" {
		d.reportAt(Error, element(at, i).at, Problem{Key: batchKey + key, Found: options[i], Text: problem, Hint: hint})
	}
}

// checkAllowed checks that jobs are not allowed what nobody may give.
func (d batchChecker) checkAllowed() {
	at := d.s.nearest("allow", "options")
	for i, pattern := range d.b.Allow.Options {
		text := strings.ReplaceAll(pattern, "*", "x")
		if strings.Trim(pattern, "*-") == "" && strings.Contains(pattern, "*") {
			d.reportAt(Error, element(at, i).at, Problem{Key: batchKey + "allow.options", Found: pattern, Text: "would let jobs give any option", Hint: "Name each option that they may: \"--hint=*\"."})
			continue
		}
		if _, problem, hint := BatchOptions(d.b.Scheduler, []string{text}); problem != "" {
			d.reportAt(Error, element(at, i).at, Problem{Key: batchKey + "allow.options", Found: pattern, Text: problem, Hint: hint})
		}
	}
	if slices.Contains(d.b.Allow.Accounts, "*") {
		d.report(Note, d.s.nearest("allow", "accounts"), batchKey+"allow.accounts", "with *, jobs choose who pays", "Name the accounts.")
	}
}
