package pipeline

import (
	"slices"
	"strings"
	"time"
)

// definition is a job as the file has it, with what it extends and inherits. parallel: makes one or more jobs of it.
type definition struct {
	name      string
	at        position
	keywords  field           // all keywords, those of default: filled in
	defaulted map[string]bool // keywords that come from default:
	bridge    bool

	base        Job // what all its jobs have in common
	decision    decision
	variables   []variable
	inherited   inherits // of top-level variables
	needs       []need
	caches      []cacheText
	environment *Environment // with variables unexpanded
	instances   []instance
	matrix      bool

	artifactJobs []*value // that make the files of a child pipeline
}

// decision is what says whether a job is in the pipeline, and how.
type decision struct {
	rules    []rule
	hasRules bool
	only     *policy
	except   *policy
	when     When
	startIn  time.Duration
}

// maxJobs bounds the jobs of one pipeline: a short file with many matrices stands for a lot of them.
const maxJobs = 10_000

// readJobs reads every job that is not hidden.
func (c *compiler) readJobs() {
	c.names = map[string]*definition{}
	total := 0
	for _, p := range c.root.pairs {
		if reserved(p.key) {
			continue
		}
		if hidden(p.key) {
			if p.val.isBlank() && c.lost.keys[p.key] == "" {
				c.report.errorf(p.at, "", "jobs:%s config can't be blank", p.key)
			}
			continue
		}
		d := c.readJob(p)
		if d == nil {
			continue
		}
		c.jobs = append(c.jobs, d)
		c.names[d.name] = d
		if total += len(d.instances); total > maxJobs {
			c.report.errorf(p.at, d.name, "the pipeline would have more than %d jobs", maxJobs)
			return
		}
	}
	if len(c.jobs) == 0 && !c.report.failed() {
		c.noVisibleJob()
	}
}

// readJob reads one job; nil: it is none.
func (c *compiler) readJob(p pair) *definition {
	switch {
	case strings.TrimSpace(p.key) == "":
		c.report.errorf(p.at, "", "jobs name can't be blank")
		return nil
	case len([]rune(p.key)) > 255:
		c.report.errorf(p.at, "", "jobs:%s name is too long (maximum is 255 characters)", clip(p.key, 40))
		return nil
	case slices.Contains([]string{"true", "false", "nil", "pages:deploy"}, p.key):
		c.report.errorf(p.at, "", "%s is a reserved name: no job can be called so", p.key)
		return nil
	}
	d := &definition{name: p.key, at: p.at}
	if reason := c.lost.keys[p.key]; reason != "" {
		c.leaveOut(p.at, p.key, reason)
		return nil
	}
	if !c.isJob(d, p) {
		return nil
	}
	c.inheritDefaults(d)
	d.base = Job{Group: d.name, File: p.at.file, Line: p.at.line}
	d.readCommon(c.workflow.hasRules)
	if d.bridge {
		d.readTrigger()
	} else {
		d.readScripts()
		d.readRuntime()
		d.readResults()
	}
	return d
}

// isJob tells jobs from bridges, and both from what is neither, and checks the keywords that they have.
func (c *compiler) isJob(d *definition, p pair) bool {
	path := "jobs:" + p.key
	d.bridge = !p.val.has("script") && !p.val.has("run")
	if !p.val.is(hash) || d.bridge && !p.val.has("trigger") && !mirrors(p.val) {
		c.noJob(p, path)
		return false
	}
	d.keywords = field{report: c.report, v: p.val, job: p.key, path: path}
	switch {
	case d.bridge:
		d.keywords.known(bridgeKeys())
	case p.val.has("trigger"):
		c.report.errorf(p.val.keyAt("trigger"), p.key, "%s config these keys cannot be used together: script, trigger", path)
	default:
		d.keywords.known(jobKeys())
	}
	return true
}

// mirrors reports whether a job only takes over the status of another pipeline, with needs:pipeline.
func mirrors(v *value) bool {
	for _, n := range asList(v.get("needs")) {
		if n.given("pipeline") && !n.has("job") {
			return true
		}
	}
	return false
}

// noJob reports a top-level key that is neither keyword nor job.
func (c *compiler) noJob(p pair, path string) {
	r := c.report
	if p.val.is(hash) {
		for _, own := range p.val.pairs {
			if slices.Contains(jobKeys(), own.key) {
				continue
			}
			if hint := unknownHint(own, []string{"script", "run", "trigger"}); hint != "" {
				r.errorf(own.at, p.key, "%s config contains unknown keys: %s%s", path, own.key, hint)
				return
			}
		}
	}
	if p.val.is(hash) && c.lost.any() {
		c.leaveOut(p.at, p.key, "it has no script:, run: or trigger: here, and the rest of it may be in "+c.lost.among())
		return
	}
	r.errorf(p.at, p.key, "jobs %s config should implement the script:, run:, or trigger: keyword%s", p.key, noJobHint(p))
}

// noJobHint guesses what a top-level key was meant to be.
func noJobHint(p pair) string {
	hint := nearest(p.key, []string{
		"stages", "variables", "include", "default", "workflow", "image", "services", "cache", "before_script", "after_script",
	})
	switch {
	case p.key == "types":
		return " (types: is called stages: today)"
	case hint != "":
		return hint
	case slices.Contains(defaultKeys(), p.key):
		return " (" + p.key + ": belongs into a job, or below default: for all of them)"
	case slices.Contains(jobKeys(), p.key):
		return " (" + p.key + ": belongs into a job: is it indented below its name?)"
	case p.val.isNull():
		return " (it is empty: are the lines after it indented below it?)"
	case !p.val.is(hash):
		return " (what is no job needs a name that starts with a dot)"
	}
	return ""
}

// inheritDefaults fills in what default: has and the job has not: a keyword of the job replaces the default as a whole.
func (c *compiler) inheritDefaults(d *definition) {
	d.defaulted = map[string]bool{}
	allowed := d.readInherit()
	whole := d.keywords.v
	for _, p := range c.defaults.pairs {
		if d.keywords.v.given(p.key) || p.val.isNull() || !allowed.allows(p.key) {
			continue
		}
		if !slices.Contains(defaultKeys(), p.key) || d.bridge && p.key != "interruptible" {
			continue // an unknown one is reported where default: is read
		}
		if len(d.defaulted) == 0 {
			whole = d.keywords.v.copyHash()
		}
		whole.set(p.key, p.at, p.val)
		d.defaulted[p.key] = true
	}
	d.keywords.v = whole
}

// readInherit reads inherit: and returns what it says about default:.
func (d *definition) readInherit() inherits {
	d.inherited = inherits{all: true}
	s, ok := d.keywords.sub("inherit")
	if !ok || !s.isHash("default", "variables") {
		return inherits{all: true}
	}
	d.inherited = readInherit(s, "variables")
	allowed := readInherit(s, "default")
	for _, key := range allowed.some {
		if !slices.Contains(defaultKeys(), key) {
			s.errorf("default config contains unknown values: %s%s", key, nearest(key, defaultKeys()))
		}
	}
	return allowed
}

// keyword returns a keyword of the job. What comes from default: is called so in messages.
func (d *definition) keyword(key string) (field, bool) {
	s, ok := d.keywords.sub(key)
	if ok && d.defaulted[key] {
		s.path, s.job = "default:"+key, ""
	}
	return s, ok
}

// parent returns the field above a keyword, to read it with the methods of field.
func (d *definition) parent(key string) field {
	f := d.keywords
	if d.defaulted[key] {
		f.path, f.job = "default", ""
	}
	return f
}

// readCommon reads what jobs and bridges share.
func (d *definition) readCommon(workflowRules bool) {
	f := d.keywords
	d.base.Stage = "test"
	if s := f.text("stage"); s != "" {
		d.base.Stage = s
	}
	if s, ok := f.sub("variables"); ok {
		d.variables = readVariables(s, "value", "expand")
	}
	if s, ok := f.sub("needs"); ok {
		d.base.HasNeeds = true
		d.needs = readNeeds(s)
	}
	d.instances, d.matrix = readParallel(f, d.name)
	if d.bridge && f.v.get("parallel").is(integer) {
		f.report.errorf(f.v.keyAt("parallel"), d.name, `%s:parallel cannot use "parallel: <number>": a trigger job has parallel:matrix only`, f.path)
	}
	d.base.Interruptible, _ = d.parent("interruptible").flag("interruptible")
	f.text("manual_confirmation")
	d.readDecision(workflowRules)
	d.readAllowFailure()
	d.readEnvironment()
	d.readResourceGroup()
}

// whens are the values of when: a trigger cannot be delayed.
func (d *definition) whens() []string {
	list := []string{string(OnSuccess), string(OnFailure), string(Always), string(Manual)}
	if !d.bridge {
		list = append(list, string(Delayed))
	}
	return list
}

func (d *definition) readDecision(workflowRules bool) {
	f := d.keywords
	d.decision.when = OnSuccess
	if when := f.choice("when", d.whens()...); when != "" {
		d.decision.when = When(when)
	}
	rules, hasRules := f.sub("rules")
	d.decision.hasRules = hasRules
	d.readStartIn()
	if hasRules {
		d.decision.rules = readRules(rules.v, ruleContext{
			report: f.report, job: f.job, prefix: rules.path, keys: jobRuleKeys(), whens: append(d.whens(), "never"),
		})
		for _, key := range []string{"only", "except", "start_in"} {
			if f.v.given(key) {
				f.report.errorf(f.v.keyAt(key), f.job, "%s config key may not be used with `rules`: %s", f.path, key)
			}
		}
		return
	}
	if s, ok := f.sub("only"); ok {
		d.decision.only = readPolicy(s)
	} else if !workflowRules {
		d.decision.only = &policy{refs: []string{"branches", "tags"}, hasRefs: true}
	}
	if s, ok := f.sub("except"); ok {
		d.decision.except = readPolicy(s)
	}
}

func (d *definition) readStartIn() {
	f := d.keywords
	switch {
	case d.decision.hasRules: // reported with only: and except:
	case d.decision.when == Delayed:
		if !f.v.given("start_in") {
			f.report.errorf(f.v.keyAt("when"), f.job, "%s start in should be a duration (when: delayed needs start_in:)", f.path)
		}
		d.decision.startIn = f.duration("start_in", maxStartIn)
	case f.v.given("start_in"):
		f.report.errorf(f.v.keyAt("start_in"), f.job, "%s start in must be blank (it needs when: delayed)", f.path)
	}
}

func (d *definition) readAllowFailure() {
	s, ok := d.keywords.sub("allow_failure")
	switch {
	case !ok:
		// What waits for a person may be left alone, unless rules say that it waits.
		d.base.AllowFailure = d.decision.when == Manual
	case s.v.is(boolean):
		d.base.AllowFailure = s.v.isTrue()
	case d.bridge:
		s.errorf("should be a boolean value")
	case s.v.is(hash):
		s.known([]string{"exit_codes"})
		d.base.AllowFailureCodes = s.numbers("exit_codes")
	default:
		s.errorf("config should be a boolean value or a hash with exit_codes")
	}
}
