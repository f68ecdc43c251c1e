package pipeline

import (
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/variables"
)

// made is a job of the pipeline together with what it was made of.
type made struct {
	job      Job
	from     *definition
	instance instance
	needs    []need
}

// outcome is what rules, only and except decided about a job.
type outcome struct {
	excluded bool
	when     When
	startIn  time.Duration
	rule     rule // the one that matched
}

// maxScope bounds the variables of all jobs together.
const maxScope = 20_000_000

// build decides which jobs are in the pipeline, and makes them.
func (c *compiler) build() *Pipeline {
	s := c.scopeOf(nil, c.variables)
	extra, run := c.workflow.decide(c.world, s)
	if !run {
		c.empty(FilteredOut, "Pipeline filtered out by workflow rules.")
		return nil
	}
	root := withVariables(c.variables, extra)
	p := &Pipeline{Stages: c.stages, Variables: payloads(root)}
	p.Name = strings.TrimSpace(c.scopeOf(nil, root).expand(c.workflow.name))
	if p.Name != "" {
		c.named = []tranter.Variable{predefined("CI_PIPELINE_NAME", p.Name)}
	}
	jobs := c.makeJobs(root)
	switch {
	case c.report.failed():
		return nil
	case len(jobs) == 0:
		c.empty(NoJobs, "The rules configuration prevented any jobs from being added to the pipeline.")
		return nil
	case !slices.ContainsFunc(jobs, func(m made) bool { return m.job.Stage != ".pre" && m.job.Stage != ".post" }):
		c.empty(OnlyEdgeStages, "The pipeline has only jobs in the stages .pre and .post: it needs one in another stage.")
		return nil
	}
	slices.SortStableFunc(jobs, func(a, b made) int {
		return slices.Index(c.stages, a.job.Stage) - slices.Index(c.stages, b.job.Stage)
	})
	c.resolveNeeds(jobs)
	for _, m := range jobs {
		p.Jobs = append(p.Jobs, m.job)
	}
	return p
}

func (c *compiler) empty(kind Kind, words string) {
	c.report.add(Problem{File: c.in.File, Text: words, Kind: kind})
}

func (c *compiler) makeJobs(root []variable) []made {
	var jobs []made
	size := 0
	for _, d := range c.jobs {
		inherited := root
		if !d.inherited.all {
			inherited = slices.DeleteFunc(slices.Clone(root), func(v variable) bool { return !d.inherited.allows(v.key) })
		}
		own := withVariables(inherited, d.variables)
		for _, i := range d.instances {
			if size += len(own); size > maxScope {
				c.report.errorf(d.at, d.name, "the jobs have too many variables, all together")
				return nil
			}
			if m, ok := c.makeJob(d, i, withVariables(own, i.variables)); ok {
				jobs = append(jobs, m)
			}
		}
	}
	return jobs
}

func (c *compiler) makeJob(d *definition, i instance, vars []variable) (made, bool) {
	j := d.base
	j.Name = i.name
	j.Index, j.Total, j.Parallel = i.index, len(d.instances), i.index > 0
	s := c.scopeOf(slices.Concat(c.named, JobPredefined(&j)), vars)
	o := d.decide(c.world, s)
	if o.excluded {
		if c.in.LeftOut != nil {
			c.in.LeftOut(j)
		}
		return made{}, false
	}
	j.When, j.StartIn = o.when, o.startIn
	if o.rule.allowFailure != nil {
		j.AllowFailure, j.AllowFailureCodes = *o.rule.allowFailure, nil
	}
	if o.rule.interruptible != nil {
		j.Interruptible = *o.rule.interruptible
	}
	m := made{from: d, instance: i, needs: d.needs}
	if o.rule.hasNeeds {
		m.needs, j.HasNeeds = o.rule.needs, true
	}
	if len(o.rule.variables) > 0 || o.when == Manual { // which is a variable, too
		vars = withVariables(vars, o.rule.variables)
		s = c.scopeOf(slices.Concat(c.named, JobPredefined(&j)), vars)
	}
	j.Variables = payloads(vars)
	c.checkVariableCycle(d, s, vars)
	c.expandJob(d, &j, s)
	m.job = j
	return m, true
}

// expandJob resolves what the server resolves before a runner sees the job.
func (c *compiler) expandJob(d *definition, j *Job, s *scope) {
	if e := d.environment; e != nil {
		copied := *e
		copied.Name = s.expand(e.Name)
		if copied.Tier == "" {
			copied.Tier = guessTier(copied.Name)
		}
		j.Environment = &copied
		for _, v := range environmentPredefined(j.Environment) {
			if _, given := s.index[v.Key]; !given {
				s.set(v)
			}
		}
	}
	j.Tags = nil
	for _, t := range d.base.Tags {
		if t = s.expand(t); t != "" && !slices.Contains(j.Tags, t) {
			j.Tags = append(j.Tags, t)
		}
	}
	j.ResourceGroup = s.expand(d.base.ResourceGroup)
	for n, t := range d.caches {
		if len(t.cache.Paths) == 0 && !t.cache.Untracked {
			continue // cache: {} and the like: no cache
		}
		j.Cache = append(j.Cache, t.payload(c.world, s, n))
	}
}

// decide applies rules, or only and except.
func (d *definition) decide(w *world, s *scope) outcome {
	o := outcome{when: d.decision.when, startIn: d.decision.startIn}
	if !d.decision.hasRules {
		o.excluded = d.decision.only != nil && !d.decision.only.matchesOnly(w, s) ||
			d.decision.except != nil && d.decision.except.matchesExcept(w, s)
		return o
	}
	for _, r := range d.decision.rules {
		if !r.matches(w, s) {
			continue
		}
		if r.when != "" {
			o.when = When(r.when)
		}
		o.excluded = o.when == "never"
		o.startIn = max(o.startIn, r.startIn)
		o.rule = r
		return o
	}
	o.excluded = true
	return o
}

// checkVariableCycle reports variables of the file that refer to each other in a circle. One that refers to itself only
// is no mistake: the value from elsewhere is meant.
func (c *compiler) checkVariableCycle(d *definition, s *scope, vars []variable) {
	var keys []string
	for _, v := range vars {
		if !v.raw && strings.ContainsAny(v.value, "$%") {
			keys = append(keys, v.key)
		}
	}
	if len(keys) < 2 {
		return
	}
	loop := cycle(keys, func(key string) []string {
		i, ok := s.index[key]
		if !ok || s.list[i].Raw {
			return nil
		}
		var next []string
		variables.References(s.list[i].Value, func(name, ref string) string {
			if _, ok := s.index[name]; ok && name != key {
				next = append(next, name)
			}
			return ref
		})
		return next
	})
	if loop != nil {
		c.report.errorf(d.at, d.name, "%s: circular variable reference detected: %s", d.name, strings.Join(loop, " -> "))
	}
}

// resolveNeeds turns needs and dependencies into the names of the jobs that are in the pipeline.
func (c *compiler) resolveNeeds(jobs []made) {
	groups := map[string][]*made{}
	for i := range jobs {
		m := &jobs[i]
		groups[m.job.Name] = append(groups[m.job.Name], m)
		if m.job.Group != m.job.Name {
			groups[m.job.Group] = append(groups[m.job.Group], m)
		}
	}
	next := map[string][]string{}
	var names []string
	for i := range jobs {
		m := &jobs[i]
		names = append(names, m.job.Name)
		for _, n := range m.needs {
			c.resolveNeed(m, n, groups[n.job])
		}
		if len(m.job.Needs) > maxNeeds {
			c.report.errorf(m.needs[0].at, m.job.Name, "%s: one job can only need %d others, but you have listed %d (each job of a parallel one counts)",
				m.job.Name, maxNeeds, len(m.job.Needs))
		}
		for _, n := range m.job.Needs {
			next[m.job.Name] = append(next[m.job.Name], n.Job)
		}
		if m.job.HasDepends {
			m.job.Dependencies = exactNames(m.from.base.Dependencies, groups)
		}
	}
	if loop := cycle(names, func(name string) []string { return next[name] }); loop != nil {
		c.report.errorf(groups[loop[0]][0].from.at, loop[0], "The pipeline has circular dependencies: %s", strings.Join(loop, " needs "))
	}
}

func (c *compiler) resolveNeed(m *made, n need, producers []*made) {
	found := false
	for _, p := range producers {
		if n.matrix != nil && !slices.ContainsFunc(n.matrix, func(s selector) bool { return s.selects(p.instance, m.instance) }) {
			continue
		}
		found = true
		if i := slices.IndexFunc(m.job.Needs, func(have Need) bool { return have.Job == p.job.Name }); i >= 0 {
			m.job.Needs[i].Artifacts = m.job.Needs[i].Artifacts || n.artifacts
			continue
		}
		m.job.Needs = append(m.job.Needs, Need{Job: p.job.Name, Artifacts: n.artifacts, Optional: n.optional})
	}
	if !found && !n.optional {
		c.report.errorf(n.at, m.job.Name, "'%s' job needs '%s' job, but '%s' does not exist in the pipeline. This might be because of "+
			"the only, except, or rules keywords. To need a job that sometimes does not exist in the pipeline, use needs:optional.",
			m.job.Name, n.job, n.job)
	}
}

// exactNames replaces the names of parallel jobs by those of their instances, and drops jobs that rules left out.
func exactNames(names []string, groups map[string][]*made) []string {
	out := []string{}
	for _, name := range names {
		for _, m := range groups[name] {
			if !slices.Contains(out, m.job.Name) {
				out = append(out, m.job.Name)
			}
		}
	}
	return out
}

// environmentPredefined returns the variables of a deployment target.
func environmentPredefined(e *Environment) []tranter.Variable {
	if e == nil {
		return nil
	}
	out := []tranter.Variable{
		predefined("CI_ENVIRONMENT_NAME", e.Name), predefined("CI_ENVIRONMENT_SLUG", EnvironmentSlug(e.Name)),
		predefined("CI_ENVIRONMENT_ACTION", e.Action), predefined("CI_ENVIRONMENT_TIER", e.Tier),
	}
	if e.URL != "" {
		out = append(out, predefined("CI_ENVIRONMENT_URL", e.URL))
	}
	return out
}
