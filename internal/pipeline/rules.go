package pipeline

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tranter-ci/tranter"
)

// rule is one entry of rules:. Its conditions are ANDed; without any it always matches.
type rule struct {
	condition *expression
	changes   *pathRule
	exists    *pathRule

	when          string // "": the job's
	startIn       time.Duration
	allowFailure  *bool
	interruptible *bool
	variables     []variable
	needs         []need
	hasNeeds      bool
}

// pathRule is changes: or exists:.
type pathRule struct {
	globs     []string
	compareTo string
}

// maxComparisons is the number of glob and path pairs above which the server does not look any more and says yes.
const (
	maxComparisons = 50_000
	maxGlobs       = 50
	maxStartIn     = 7 * day
)

// ruleContext says what rules may have where they stand.
type ruleContext struct {
	report *report
	job    string
	prefix string
	keys   []string
	whens  []string
}

func jobRuleKeys() []string {
	return []string{"if", "changes", "exists", "when", "start_in", "allow_failure", "variables", "needs", "interruptible"}
}

func workflowRuleKeys() []string {
	return []string{"if", "changes", "exists", "when", "variables", "auto_cancel", "allow_failure", "needs"}
}

func includeRuleKeys() []string { return []string{"if", "changes", "exists", "when"} }

// readRules reads a list of rules; lists in it are opened.
func readRules(v *value, c ruleContext) []rule {
	f := field{report: c.report, v: v, job: c.job, path: c.prefix}
	if !v.is(list) {
		f.errorf("config should be an array containing hashes and arrays of hashes%s", ifText(v.is(hash), " (write a dash before its first key)"))
		return nil
	}
	if len(v.items) == 0 {
		f.errorf("config can't be blank")
	}
	var rules []rule
	for _, item := range flatten(v, maxNesting) {
		f := field{report: c.report, v: item, job: c.job, path: c.prefix + ":rule"}
		if item.is(list) {
			f.errorf("config should be a nested array up to %d levels", maxNesting)
			continue
		}
		if item.is(text) {
			f.errorf("config should be a hash (write if: before the expression)")
			continue
		}
		if !f.isHash(c.keys...) {
			continue
		}
		if len(item.pairs) == 0 {
			f.errorf("config can't be blank")
			continue
		}
		rules = append(rules, readRule(f, c))
	}
	return rules
}

func readRule(f field, c ruleContext) rule {
	var r rule
	if s, ok := f.sub("if"); ok {
		r.condition = readCondition(s)
	}
	r.changes = readPathRule(f, "changes", "paths", "compare_to")
	r.exists = readPathRule(f, "exists", "paths", "project", "ref")
	r.when = f.choice("when", c.whens...)
	if r.when == "delayed" {
		if !f.v.given("start_in") {
			f.errorf("start in can't be blank")
		}
		r.startIn = f.duration("start_in", maxStartIn)
	} else if f.v.has("start_in") {
		f.report.errorf(f.v.keyAt("start_in"), f.job, "%s config contains disallowed keys: start_in (it needs when: delayed)", f.path)
	}
	if allow, given := f.flag("allow_failure"); given {
		r.allowFailure = &allow
	}
	if may, given := f.flag("interruptible"); given {
		r.interruptible = &may
	}
	if s, ok := f.sub("variables"); ok {
		r.variables = readVariables(s, "value", "expand")
	}
	if s, ok := f.sub("needs"); ok {
		r.needs, r.hasNeeds = readNeeds(s), true
	}
	return r
}

func readCondition(f field) *expression {
	if !f.v.is(text) {
		f.errorf("should be a string%s", quotesHint(f.v))
		return nil
	}
	e, err := parseExpression(f.v.text)
	if err != nil {
		f.errorf("invalid expression syntax: %v in %s%s", err, clip(f.v.text, 100), lookAroundHint(f.v.text))
		return nil
	}
	if s, found := e.textForPattern(); found {
		f.report.warnf(f.v.at, "%s: =~ and !~ take a pattern, such as /^main$/: %q is only searched for what is on the left", f.path, s)
	}
	return e
}

func readPathRule(f field, key string, keys ...string) *pathRule {
	s, ok := f.sub(key)
	if !ok {
		return nil
	}
	p := &pathRule{}
	switch {
	case s.v.is(list) || s.v.is(text) && key == "exists":
		p.globs = s.strings(true)
	case s.v.is(hash):
		s.known(keys)
		p.globs = s.texts("paths", false)
		p.compareTo = s.text("compare_to")
		if s.v.has("project") {
			s.warnOnce("rules:exists:project has no effect here: the files of this project are looked at")
		}
	default:
		s.errorf("config should be an array of strings or a hash")
	}
	if len(p.globs) > maxGlobs {
		s.errorf("config is too long (maximum is %d entries)", maxGlobs)
	}
	return p
}

// matches reports whether all conditions of the rule hold.
func (r rule) matches(w *world, s *scope) bool {
	if r.condition != nil && !r.condition.passes(values{variable: s.lookup}) {
		return false
	}
	if r.changes != nil && !r.changes.changed(w, s) {
		return false
	}
	return r.exists == nil || r.exists.exist(w, s)
}

func (p *pathRule) changed(w *world, s *scope) bool {
	set := w.changed(s.expand(p.compareTo))
	if !set.known {
		return true
	}
	return anyMatch(p.globs, set.paths, s)
}

// exist looks for files. What ends with a slash is a directory with files in it, and **/*.go is only a look at the ends of
// names, which the limit of comparisons does not concern.
func (p *pathRule) exist(w *world, s *scope) bool {
	files := w.projectFiles()
	var rest []string
	for _, g := range p.globs {
		g = s.expandKnown(g)
		suffix := strings.TrimPrefix(g, "**/*")
		switch {
		case strings.HasSuffix(g, "/") && !isGlob(g):
			if i, _ := slices.BinarySearch(files, g); i < len(files) && strings.HasPrefix(files[i], g) {
				return true
			}
		case strings.HasPrefix(suffix, ".") && !strings.Contains(suffix, "/") && !isGlob(suffix):
			if slices.ContainsFunc(files, func(f string) bool { return strings.HasSuffix(f, suffix) }) {
				return true
			}
		default:
			rest = append(rest, g)
		}
	}
	return anyMatch(rest, files, s)
}

func isGlob(s string) bool { return strings.ContainsAny(s, "*?[{\\") }

func anyMatch(globs, paths []string, s *scope) bool {
	var patterns []fnmatch
	for _, g := range globs {
		g = s.expandKnown(g)
		if !isGlob(g) {
			if slices.Contains(paths, g) {
				return true
			}
			continue
		}
		patterns = append(patterns, newFnmatch(g))
	}
	if len(patterns)*len(paths) > maxComparisons {
		return true
	}
	for _, m := range patterns {
		if slices.ContainsFunc(paths, m.match) {
			return true
		}
	}
	return false
}

// workflow is workflow:.
type workflow struct {
	name     string
	rules    []rule
	hasRules bool
}

func readWorkflow(f field) workflow {
	var w workflow
	if !f.isHash("rules", "name", "auto_cancel") {
		return w
	}
	if w.name = f.text("name"); utf8.RuneCountInString(w.name) > 255 {
		f.errorf("name is too long (maximum is 255 characters)")
	}
	if s, ok := f.sub("auto_cancel"); ok && s.isHash("on_new_commit", "on_job_failure") {
		s.choice("on_new_commit", "conservative", "interruptible", "none", "disabled")
		s.choice("on_job_failure", "all", "none")
		s.warnOnce("workflow:auto_cancel has no effect here")
	}
	if s, ok := f.sub("rules"); ok {
		w.hasRules = true
		w.rules = readRules(s.v, ruleContext{report: f.report, prefix: "workflow:rules", keys: workflowRuleKeys(), whens: []string{"always", "never"}})
	}
	return w
}

// decide returns the variables of the matching rule, and whether there is a pipeline at all.
func (f workflow) decide(w *world, s *scope) (vars []variable, run bool) {
	if !f.hasRules {
		return nil, true
	}
	for _, r := range f.rules {
		if r.matches(w, s) {
			return r.variables, r.when != "never"
		}
	}
	return nil, false
}

// scopeOf returns the scope of top-level variables.
func (w *world) scopeOf(predefined []tranter.Variable, yaml ...[]variable) *scope {
	lists := make([][]tranter.Variable, 0, len(yaml))
	for _, l := range yaml {
		lists = append(lists, payloads(l))
	}
	return w.innerScope(predefined, lists...)
}
