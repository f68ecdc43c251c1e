package site

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter/internal/config"
)

// reserved are the variables that we give (hpc, section 1.3).
func reserved() []string { return []string{"NAME", "THIS", "CONFIG", "NUM_JOBS"} }

// Beginnings of the names of variables that exist only where a batch job or a CI job runs.
func batchVariables() []string { return []string{"SLURM_", "SLURMD_", "PBS_", "LSB_", "FLUX_"} }

func jobVariables() []string {
	return append(batchVariables(), "CUSTOM_ENV_", "CI_", "GITLAB_", "TRANTER_")
}

func begins(name string, with []string) bool {
	return slices.ContainsFunc(with, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// gap is a variable that does not exist, in one place of the file, for some runners.
type gap struct {
	problem config.Problem
	runners []string
}

// text is a text of a section that is being expanded.
type text struct {
	section string
	path    string // of the key in the section
	value   config.Value
}

func (t text) key() string { return t.section + "." + t.path }

// expanded returns a section with the variables of its texts replaced, and with values from files and the environment.
func (n *instance) expanded(section string, v config.Value, like any) config.Value {
	return n.files.Rewrite(v, like, func(path string, v config.Value) config.Value {
		t := text{section, path, v}
		if v.IsTable() {
			v = n.reference(t.key(), v)
			if text, ok := v.Text(); ok && section == "launch" {
				v = v.WithText(strings.ReplaceAll(text, "$", "$$"))
			}
			return v
		}
		written, ok := v.Text()
		if !ok {
			return v
		}
		return v.WithText(n.expand(t, home(written, n.source.Home)))
	})
}

// expand expands one text of a section. Those of [launch] are expanded once more when they are used.
func (n *instance) expand(t text, written string) string {
	e := expander{again: t.section == "launch"}
	e.look = func(name string) (string, answer) { return n.lookUp(t, name) }
	e.fault = func(name, written string, dollar int) { n.gap(t, name, written, dollar) }
	return e.expand(written)
}

// lookUp finds a variable where hpc, section 1.3 says, in that order.
func (n *instance) lookUp(t text, name string) (string, answer) {
	switch {
	case name == "NAME":
		return n.runner.Name, known
	case name == "THIS":
		return n.site.This, known
	case t.section == "launch" && (name == "CONFIG" || name == "NUM_JOBS"):
		return "${" + name + "}", later
	}
	if value, ok := n.variables[name]; ok {
		return value, known
	}
	if n.source.Env != nil {
		if value, ok := n.source.Env(name); ok {
			return value, known
		}
	}
	return "", n.unknown(t, name)
}

// unknown says whether a variable that does not exist here gets its value later, where a job runs.
func (n *instance) unknown(t text, name string) answer {
	switch {
	case t.key() == "launch.stdin" && begins(name, batchVariables()):
		n.report(config.Warning, t.value, t.key(), name+" is left to the batch job, as it does not exist here", "Write $$"+name+", so that it is left to it everywhere.")
		return later
	case t.section != "launch" && begins(name, jobVariables()):
		return later
	case t.key() == "executor.description":
		n.report(config.Note, t.value, t.key(), name+" does not exist here: it is replaced where a job runs, if it exists there", "")
		return later
	}
	return unknown
}

// gap notes a variable that does not exist.
func (n *instance) gap(t text, name, written string, dollar int) {
	p := config.Problem{Severity: config.Error, Key: t.key()}
	if name == "" {
		if len(written) > 40 {
			written = strings.ToValidUTF8(written[:40], "") + "..."
		}
		p.Text = fmt.Sprintf("%q is no variable", written)
		p.Hint = "Write ${NAME} or ${NAME:-text}; to leave it to a shell, double the dollar."
	} else {
		p.Text = "there is no variable " + name
		p.Hint = n.names(t.section, name)
	}
	p = n.files.ProblemInText(t.value, '$', dollar, p)
	for _, g := range n.missing {
		q := g.problem
		if q.File == p.File && q.Line == p.Line && q.Column == p.Column && q.Text == p.Text {
			g.runners = append(g.runners, n.runner.Name)
			return
		}
	}
	n.missing = append(n.missing, &gap{problem: p, runners: []string{n.runner.Name}})
}

// names says which variables there are.
func (n *instance) names(section, name string) string {
	names := []string{"NAME", "THIS"}
	if section == "launch" {
		names = reserved()
	}
	for _, own := range slices.Sorted(maps.Keys(n.variables)) {
		if !slices.Contains(names, own) {
			names = append(names, own)
		}
	}
	hint := "There are " + strings.Join(names, ", ") + ", and those of the environment."
	switch near := config.Nearest(name, names); {
	case near != "":
		return "Did you mean " + near + "? " + hint
	case begins(name, jobVariables()):
		return "Write $$" + name + " to leave it to what is launched. " + hint
	case name == "CONFIG" || name == "NUM_JOBS":
		return "It exists in [launch] only. " + hint
	}
	return "Add it to config_variables; or write $$" + name + " for a dollar that stays. " + hint
}

// reportMissing reports variables that do not exist, each place once.
func (p *parser) reportMissing() {
	for _, g := range p.missing {
		if len(g.runners) < len(p.site.Runners) {
			shown := g.runners[:min(len(g.runners), 5)]
			g.problem.Text += " for " + strings.Join(shown, ", ")
			if more := len(g.runners) - len(shown); more > 0 {
				g.problem.Text += fmt.Sprintf(" and %d more", more)
			}
		}
		p.problems = append(p.problems, g.problem)
	}
}
