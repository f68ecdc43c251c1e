package pipeline

import (
	"slices"
	"strings"
)

// checker checks what jobs say about each other, before rules leave any out.
type checker struct{ *compiler }

func (c checker) check() {
	c.owners = map[string]*definition{}
	for _, d := range c.jobs {
		c.owners[d.name] = d
	}
	for _, d := range c.jobs {
		d.nameInstances(c.owners)
	}
	c.leaveOutDependents()
	c.guessStages()
	for _, d := range c.jobs {
		c.checkStage(d)
		c.checkNeeds(d, d.needs)
		for _, r := range d.decision.rules {
			c.checkNeeds(d, r.needs)
		}
		c.checkDependencies(d)
		c.checkOnStop(d)
	}
	c.checkNeedsCycle()
}

// nameInstances records the names of a definition's jobs. A matrix that has the same values twice makes one job of them.
func (d *definition) nameInstances(owners map[string]*definition) {
	if len(d.instances) == 1 && d.instances[0].index == 0 {
		return // its own name
	}
	d.instances = slices.DeleteFunc(d.instances, func(i instance) bool {
		other := owners[i.name]
		switch {
		case other == nil:
			owners[i.name] = d
		case other != d:
			d.keywords.report.errorf(d.at, d.name, "jobs:%s:parallel makes a job %q, which is there already", d.name, i.name)
		default:
			return true
		}
		return false
	})
	for n := range d.instances {
		d.instances[n].index = n + 1
	}
}

func (c checker) checkStage(d *definition) {
	if c.stages == nil || slices.Contains(c.stages, d.base.Stage) {
		return
	}
	at := d.at
	if v := d.keywords.v.get("stage"); v != nil {
		at = v.at
	}
	c.report.errorf(at, d.name, "%s job: chosen stage %s does not exist; available stages are %s%s", d.name, d.base.Stage,
		strings.Join(c.stages, ", "), nearest(d.base.Stage, c.stages))
}

// later reports whether a job's stage comes after that of another; an unknown stage is reported elsewhere.
func (c checker) later(a, b *definition) bool {
	return slices.Index(c.stages, a.base.Stage) > slices.Index(c.stages, b.base.Stage) && slices.Contains(c.stages, b.base.Stage)
}

func (c checker) checkNeeds(d *definition, needs []need) {
	seen := map[string]bool{}
	for _, n := range needs {
		if n.matrix == nil && seen[n.job] {
			c.report.errorf(n.at, d.name, "%s has the following needs duplicated: %s.", d.name, n.job)
		}
		seen[n.job] = true
		owner := c.owners[n.job]
		switch {
		case owner == nil && (n.optional || c.broken(n.job)): // an include that was not wanted may have it
		case owner == nil:
			c.report.errorf(n.at, d.name, "%s job: undefined need: %s%s", d.name, n.job, c.nearestJob(n.job))
		case c.later(owner, d):
			c.report.errorf(n.at, d.name, "%s job: need %s is not defined in current or prior stages", d.name, n.job)
		default:
			c.checkSelectors(d, owner, n)
		}
	}
}

// broken reports whether a name is that of a job with mistakes in it, which are reported: those that need it have none.
func (c checker) broken(name string) bool {
	return c.report.failed() && c.root.has(name) && !hidden(name) && !reserved(name)
}

func (c checker) nearestJob(name string) string {
	if c.root.has(name) && hidden(name) {
		return " (a name that starts with a dot is a template: no job is made of it)"
	}
	return nearest(name, sortedKeys(c.names))
}

func (c checker) checkSelectors(d, owner *definition, n need) {
	if n.matrix == nil {
		return
	}
	if !owner.matrix {
		c.report.errorf(n.at, d.name, "%s job: needs:parallel:matrix selects from %s, which has no parallel:matrix", d.name, n.job)
		return
	}
	for _, own := range d.instances {
		for _, s := range n.matrix {
			if name, bad := s.unknownIdentifier(own); bad {
				c.report.errorf(n.at, d.name, "%s job: needs:parallel:matrix: `%s` does not exist in the matrix of this job", d.name, name)
				return
			}
		}
		for _, s := range n.matrix {
			if !slices.ContainsFunc(owner.instances, func(i instance) bool { return s.selects(i, own) }) {
				c.report.errorf(n.at, d.name, "%s job: needs:parallel:matrix selects none of the jobs that %s makes", d.name, n.job)
				return
			}
		}
	}
}

func (c checker) checkDependencies(d *definition) {
	for _, job := range d.artifactJobs {
		c.checkDependency(d, job.text, job.at)
	}
	for _, name := range d.base.Dependencies {
		at := d.at
		if s, ok := d.keywords.sub("dependencies"); ok {
			at = s.v.at
			for _, item := range s.v.items {
				if item.text == name {
					at = item.at
				}
			}
		}
		owner := c.checkDependency(d, name, at)
		if owner != nil && len(d.needs) > 0 && !slices.ContainsFunc(d.needs, func(n need) bool { return n.job == name || c.owners[n.job] == owner }) {
			c.report.errorf(at, d.name, "jobs:%s dependencies the %s should be part of needs", d.name, name)
		}
	}
}

// checkDependency returns the job that another one takes files from, or nil after a mistake.
func (c checker) checkDependency(d *definition, name string, at position) *definition {
	owner := c.owners[name]
	switch {
	case owner == nil && c.broken(name):
	case owner == nil:
		c.report.errorf(at, d.name, "%s job: undefined dependency: %s%s", d.name, name, c.nearestJob(name))
	case c.later(owner, d):
		c.report.errorf(at, d.name, "%s job: dependency %s is not defined in current or prior stages", d.name, name)
	default:
		return owner
	}
	return nil
}

func (c checker) checkOnStop(d *definition) {
	if d.environment == nil || d.environment.OnStop == "" {
		return
	}
	name := d.environment.OnStop
	at := d.keywords.v.get("environment").get("on_stop").at
	stop := c.names[name]
	switch {
	case stop == nil && c.broken(name):
	case stop == nil && c.lost.any():
		c.report.warnf(at, "%s job: on_stop job %s may be in %s", d.name, name, c.lost.among())
	case stop == nil:
		c.report.errorf(at, d.name, "%s job: on_stop job %s is not defined%s", d.name, name, c.nearestJob(name))
	case stop.environment == nil:
		c.report.errorf(at, d.name, "%s job: on_stop job %s does not have environment defined", d.name, name)
	case stop.environment.Name != d.environment.Name:
		c.report.errorf(at, d.name, "%s job: on_stop job %s have different environment name", d.name, name)
	case stop.environment.Action != "stop":
		c.report.errorf(at, d.name, "%s job: on_stop job %s needs to have action stop defined", d.name, name)
	}
}

func (c checker) checkNeedsCycle() {
	loop := cycle(sortedKeys(c.names), func(name string) []string {
		var next []string
		if d := c.names[name]; d != nil {
			for _, n := range d.needs {
				if owner := c.owners[n.job]; owner != nil {
					next = append(next, owner.name)
				}
			}
		}
		return next
	})
	if loop == nil {
		return
	}
	at := c.names[loop[0]].at
	for _, n := range c.names[loop[0]].needs {
		if c.owners[n.job] == c.names[loop[1]] {
			at = n.at
		}
	}
	c.report.errorf(at, loop[0], "The pipeline has circular dependencies: %s", strings.Join(loop, " needs "))
}

// cycle returns the names along a cycle, the first one repeated at the end, or nil.
func cycle(names []string, next func(string) []string) []string {
	const (
		open = 1
		done = 2
	)
	state := map[string]int{}
	var path, loop []string
	var visit func(name string) bool
	visit = func(name string) bool {
		switch state[name] {
		case done:
			return false
		case open:
			loop = append(slices.Clone(path[slices.Index(path, name):]), name)
			return true
		}
		state[name] = open
		path = append(path, name)
		if slices.ContainsFunc(next(name), visit) {
			return true
		}
		path = path[:len(path)-1]
		state[name] = done
		return false
	}
	if slices.ContainsFunc(names, visit) {
		return loop
	}
	return nil
}
