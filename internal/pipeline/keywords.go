package pipeline

import (
	"slices"
	"strings"
)

// jobKeys are the keywords of a job with a script or steps.
func jobKeys() []string {
	return append(processableKeys(), "script", "run", "before_script", "after_script", "image", "services", "start_in",
		"artifacts", "cache", "dependencies", "coverage", "retry", "timeout", "release", "secrets", "id_tokens", "hooks", "pages",
		"publish", "dast_configuration", "identity", "tags", "inputs")
}

// bridgeKeys are the keywords of a job that triggers a pipeline.
func bridgeKeys() []string { return append(processableKeys(), "trigger") }

func processableKeys() []string {
	return []string{
		"extends", "stage", "only", "except", "rules", "variables", "inherit", "allow_failure", "when", "needs", "resource_group",
		"parallel", "environment", "interruptible", "manual_confirmation",
	}
}

// defaultKeys are the keywords that default: may have.
func defaultKeys() []string {
	return []string{
		"after_script", "artifacts", "before_script", "cache", "hooks", "id_tokens", "identity", "image", "interruptible",
		"retry", "services", "tags", "timeout",
	}
}

// topDefaults are the keywords of default: that may also stand at the top level, which is deprecated.
func topDefaults() []string {
	return []string{"image", "services", "cache", "before_script", "after_script"}
}

// reserved reports whether a top-level key is a keyword and no job.
func reserved(key string) bool {
	switch key {
	case "image", "services", "stages", "before_script", "after_script", "variables", "cache", "include", "default", "workflow":
		return true
	}
	return false
}

func hidden(name string) bool { return strings.HasPrefix(name, ".") }

// readGlobals reads what stands beside the jobs.
func (c *compiler) readGlobals() {
	c.readStages()
	c.readDefaults()
	if v := c.root.get("variables"); !v.isNull() {
		c.variables = readVariables(c.field(v, "variables"), "value", "description", "expand", "options")
	}
	if v := c.root.get("workflow"); !v.isNull() {
		c.workflow = readWorkflow(c.field(v, "workflow"))
	}
}

func (c *compiler) field(v *value, path string) field {
	return field{report: c.report, v: v, path: path}
}

func (c *compiler) readStages() {
	c.stages = []string{"build", "test", "deploy"}
	v := c.root.get("stages")
	if !v.isNull() {
		f := c.field(v, "stages")
		flat := &value{kind: list, at: v.at, items: flatten(v, maxNesting)}
		if v.is(list) {
			f.v = flat
		}
		before := len(c.report.problems)
		c.stages = f.strings(false)
		if len(c.report.problems) > before {
			c.stages = nil // reported: then it is no use to look for the jobs' stages
			return
		}
	}
	all := []string{".pre"}
	for _, s := range c.stages {
		if s != ".post" && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	c.stages = append(all, ".post")
}

// flatten returns the items of a list with the lists in it opened, up to a number of levels.
func flatten(v *value, levels int) []*value {
	if !v.is(list) {
		return []*value{v}
	}
	var out []*value
	for _, item := range v.items {
		if item.is(list) && levels > 0 {
			out = append(out, flatten(item, levels-1)...)
		} else {
			out = append(out, item)
		}
	}
	return out
}

// readDefaults collects default: and its deprecated spellings into one hash.
func (c *compiler) readDefaults() {
	c.defaults = newHash(c.root.at)
	if v := c.root.get("default"); !v.isNull() && c.field(v, "default").isHash(defaultKeys()...) {
		c.defaults = v.copyHash()
	}
	for _, key := range topDefaults() {
		if !c.root.has(key) {
			continue
		}
		if c.defaults.has(key) {
			c.report.errorf(c.root.keyAt(key), "", "%s is defined in top-level and `default:` entry", key)
			continue
		}
		c.defaults.set(key, c.root.keyAt(key), c.root.get(key))
	}
}

// inherits answers inherit:default and inherit:variables for one key.
type inherits struct {
	all  bool
	some []string
}

func (i inherits) allows(key string) bool { return i.all || slices.Contains(i.some, key) }

func readInherit(f field, key string) inherits {
	s, ok := f.sub(key)
	switch {
	case !ok:
		return inherits{all: true}
	case s.v.is(boolean):
		return inherits{all: s.v.isTrue()}
	case s.v.is(list):
		return inherits{some: s.strings(false)}
	default:
		s.errorf("should be a boolean value or an array of strings")
		return inherits{all: true}
	}
}
