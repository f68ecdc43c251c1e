package pipeline

import (
	"errors"
	"fmt"
	"slices"
)

// ErrUnavailable is what Input.Fetch returns for a file that cannot be had where the pipeline is compiled. The include is
// left out with a warning, and so are the jobs that cannot do without it; any other error of Fetch is a mistake.
var ErrUnavailable = errors.New("not available here")

// lost keeps what an include that cannot be had takes with it. Without such an include it stays empty.
type lost struct {
	includes []string          // as the user wrote them, such as include:template `Jobs/SAST.gitlab-ci.yml`
	keys     map[string]string // top-level keys with a part that is not there, and why
}

func (l *lost) any() bool { return l != nil && len(l.includes) > 0 }

// include leaves an include out.
func (l *lost) include(r *report, at position, shown string) {
	if !slices.Contains(l.includes, shown) {
		l.includes = append(l.includes, shown)
	}
	r.warnf(at, "%s is left out: it comes from outside this project and cannot be had here", shown)
}

// key records why a job or template is incomplete; the first reason stays.
func (l *lost) key(name, reason string) {
	if l.keys == nil {
		l.keys = map[string]string{}
	}
	if l.keys[name] == "" {
		l.keys[name] = reason
	}
}

// among names the include that may have what is missing, or counts them: each has a warning of its own.
func (l *lost) among() string {
	if len(l.includes) == 1 {
		return l.includes[0]
	}
	return fmt.Sprintf("one of the %d includes that are left out", len(l.includes))
}

// leaveOut drops a job that cannot be complete.
func (c *compiler) leaveOut(at position, name, reason string) {
	c.lost.key(name, reason)
	c.report.add(Problem{
		File: at.file, Line: at.line, Column: at.column, Job: name, Warning: true,
		Text: fmt.Sprintf("job %s is left out: %s", name, reason),
	})
}

// leaveOutDependents drops the jobs that need, or take artifacts from, a job that is left out or may be in an include that
// cannot be had; then those that need them, and so on.
func (c checker) leaveOutDependents() {
	if !c.lost.any() {
		return
	}
	for again := true; again; {
		again = false
		c.jobs = slices.DeleteFunc(c.jobs, func(d *definition) bool {
			name := c.absent(d)
			if name == "" {
				return false
			}
			c.leaveOut(d.at, d.name, fmt.Sprintf("it needs %s, which is left out or may be in %s%s", name, c.lost.among(), c.nearestJob(name)))
			delete(c.names, d.name)
			for _, i := range d.instances {
				delete(c.owners, i.name)
			}
			delete(c.owners, d.name)
			again = true
			return true
		})
	}
	if len(c.jobs) == 0 && !c.report.failed() {
		c.noVisibleJob()
	}
}

// absent returns the first job that another one cannot do without and that is not there; "" when all are.
func (c checker) absent(d *definition) string {
	needs := slices.Clone(d.needs)
	for _, r := range d.decision.rules {
		needs = append(needs, r.needs...)
	}
	for _, n := range needs {
		if c.owners[n.job] == nil && !n.optional && !hidden(n.job) {
			return n.job
		}
	}
	names := slices.Clone(d.base.Dependencies)
	for _, job := range d.artifactJobs {
		names = append(names, job.text)
	}
	for _, name := range names {
		if c.owners[name] == nil && !hidden(name) {
			return name
		}
	}
	return ""
}

// noVisibleJob reports a configuration without jobs.
func (c *compiler) noVisibleJob() {
	p := Problem{File: c.in.File, Line: 1, Column: 1, Text: "jobs config should contain at least one visible job"}
	if c.lost.any() {
		p.Kind = Elsewhere
		p.Text = "no job is left: all of them are in, or depend on, " + c.lost.among()
	}
	c.report.add(p)
}

// guessStages takes the stages that the jobs have and the file does not list for ones that an include lists, when the file
// has no stages of its own. Each goes before the first stage whose jobs need one of its own, or to the end.
func (c checker) guessStages() {
	if !c.lost.any() || c.root.given("stages") || c.stages == nil {
		return
	}
	users := map[string][]string{} // by a stage, the stages of the jobs that need one of it
	for _, d := range c.jobs {
		for _, n := range d.needs {
			if owner := c.owners[n.job]; owner != nil && owner.base.Stage != d.base.Stage {
				users[owner.base.Stage] = append(users[owner.base.Stage], d.base.Stage)
			}
		}
	}
	for _, d := range c.jobs {
		stage := d.base.Stage
		if slices.Contains(c.stages, stage) {
			continue
		}
		at := len(c.stages) - 1
		for _, user := range users[stage] {
			if i := slices.Index(c.stages, user); i > 0 {
				at = min(at, i)
			}
		}
		c.stages = slices.Insert(c.stages, at, stage)
		c.report.warnf(d.keywords.v.keyAt("stage"), "the stage %s is not known here: it may be in %s, and is put before %s", stage, c.lost.among(), c.stages[at+1])
	}
}
