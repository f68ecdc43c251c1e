package site

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter/internal/config"
)

// layers are the tables that make one runner, the one that counts most first: its own, its shard's, [defaults] and the top of
// the file.
type layers struct {
	name  string
	path  string       // of its own table
	at    config.Value // its own table
	own   []config.Value
	outer config.Value
}

// all returns the layers with the top of the file.
func (l layers) all() []config.Value { return append(slices.Clone(l.own), l.outer) }

// section returns a section as the layers give it together.
func (l layers) section(key string) config.Value {
	var merged config.Value
	for _, layer := range l.all() {
		under := layer.Find(key)
		if merged.Exists() && under.IsTable() && key == "runner" {
			under = withoutUnused(merged, under)
		}
		merged = merged.Over(under)
	}
	return merged
}

// withoutUnused returns the runner's settings of a lower layer without the sections of executors that the upper layer has
// replaced by another one.
func withoutUnused(over, under config.Value) config.Value {
	executor, ok := over.Find("executor").Text()
	if !ok {
		return under
	}
	uses, all := config.ExecutorSections(executor)
	return under.Without(slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(uses, name) })...)
}

// settings returns the keys of the runner's own tables that are no sections.
func (l layers) settings() config.Value {
	var merged config.Value
	for _, layer := range l.own {
		v := layer.Without(sections()...)
		if merged.Exists() && slices.ContainsFunc(scopeNames(), func(key string) bool { return merged.Find(key).Exists() }) {
			v = v.Without(scopeNames()...) // what is served is replaced as a whole
		}
		merged = merged.Over(v)
	}
	return merged
}

// runners reads all runners: those of [runners], and shards that none of them names.
func (p *parser) runners() {
	runners, shards := p.named("runners"), p.named("shards")
	defaults := p.table(p.root, "defaults")
	p.noShard(append(slices.Clone(shards), defaults), "a shard can't have a shard")
	used := map[string]bool{}
	var all []layers
	for _, v := range runners {
		l := layers{name: v.Key(), path: "runners." + v.Key(), at: v, own: []config.Value{v}}
		if shard := p.shard(v, shards); shard.Exists() {
			used[shard.Key()] = true
			l.own = append(l.own, shard)
		}
		all = append(all, l)
	}
	for _, v := range shards {
		if !used[v.Key()] {
			all = append(all, layers{name: v.Key(), path: "shards." + v.Key(), at: v, own: []config.Value{v}})
		}
	}
	if len(all) == 0 && !wrong(p.root.Find("runners")) {
		p.report(config.Error, p.root, "runners", "there are none", "Write [runners.NAME] with tags = [\"...\"] for each.")
	}
	first := map[string]config.Value{}
	for _, l := range all {
		folded := strings.ToLower(l.name)
		if before, ok := first[folded]; ok {
			p.report(config.Error, l.at, l.path, "there is a runner of this name already, in "+p.where(before), "Choose another name.")
			continue
		}
		first[folded] = l.at
		l.outer = p.root
		if defaults.Exists() {
			l.own = append(l.own, defaults)
		}
		p.runner(l)
	}
}

// named returns the tables in a section of named ones.
func (p *parser) named(section string) []config.Value {
	var out []config.Value
	for _, v := range p.table(p.root, section).Items() {
		switch {
		case !v.IsTable():
			p.report(config.Error, v, section+"."+v.Key(), "must be a section, not "+v.Kind(), "Write ["+section+".NAME] and its keys below.")
		case !isName(v.Key()):
			p.report(config.Error, v, section+"."+v.Key(), "is not a possible name", "Write up to 100 letters, digits, dots, dashes and underscores, a letter or digit first.")
		default:
			out = append(out, v)
		}
	}
	return out
}

func (p *parser) noShard(tables []config.Value, text string) {
	for _, v := range tables {
		if shard := v.Find("shard"); shard.Exists() {
			p.report(config.Error, shard, "shard", text, "Put what they have in common into [defaults].")
		}
	}
}

// shard returns the shard that a runner names.
func (p *parser) shard(v config.Value, shards []config.Value) config.Value {
	name, ok := v.Find("shard").Text()
	if !ok {
		return config.Value{}
	}
	var names []string
	for _, s := range shards {
		if s.Key() == name {
			return s
		}
		names = append(names, s.Key())
	}
	hint := "There are no shards: write [shards." + name + "]."
	if len(names) > 0 {
		hint = "There are: " + strings.Join(names, ", ") + "."
	}
	if near := config.Nearest(name, names); near != "" {
		hint = "Did you mean " + near + "? " + hint
	}
	p.report(config.Error, v.Find("shard"), "runners."+v.Key()+".shard", "there is no shard "+name, hint)
	return config.Value{}
}

// way says how a runner's jobs come to run.
type way int

const (
	here     way = iota // by a manager, where it is
	byBatch             // in batch jobs of ours
	byLaunch            // by what a command starts
)

// way returns what the uppermost layer says that says something of it.
func (p *parser) way(l layers) way {
	for _, layer := range l.all() {
		launch := layer.Find("launch").IsTable()
		v := layer.Find("batch", "scheduler")
		scheduler, ok := v.Text()
		switch {
		case launch && scheduler != "":
			p.report(config.Error, v, "batch.scheduler", "is given together with [launch], in "+p.where(layer.Find("launch")), "Jobs are launched by a command or run in our batch jobs: remove one of the two.")
			return byBatch
		case launch:
			return byLaunch
		case scheduler != "":
			return byBatch
		case ok:
			return here
		}
	}
	return here
}

// runner reads one runner, which may be several at the server.
func (p *parser) runner(l layers) {
	v := l.settings()
	var t runnerTable
	p.decode(v, l.path, &t)
	scopes := p.scopes(v, scopeKeys{t.Project, t.Projects, t.Group, t.Groups, t.Instance})
	if len(scopes) == 0 {
		scopes = p.site.Scopes
	}
	if len(scopes) == 0 {
		p.report(config.Error, l.at, l.path, "serves nothing: no project, group or instance is given", "Write project = \"group/project\" at the top of the file, or here.")
		scopes = []Scope{{Kind: ScopeInstance}}
	}
	p.checkSettings(l, v, &t)
	r := Runner{
		Tags: t.Tags, Paused: t.Paused, Locked: t.Locked, RunUntagged: t.RunUntagged, AccessLevel: t.AccessLevel,
		MaximumTimeout: t.MaximumTimeout, MaintenanceNote: t.MaintenanceNote, Priority: t.LaunchPriority,
	}
	r.File, r.Line, r.Column = p.files.Place(l.at)
	for i, place := range places(l.name, scopes) {
		r.Name, r.Scope, r.Projects = place.name, place.scope, place.projects
		r.Description = cmp.Or(t.Description, p.site.Name+"-"+r.Name)
		if i > 0 && t.Description != "" {
			r.Description = t.Description + " (" + r.Scope.String() + ")"
		}
		r.Pending = r.serves()
		if r.Scope.Kind == ScopeInstance {
			r.Pending = p.site.pending
		}
		n := instance{parser: p, layers: l, runner: &r, variables: t.ConfigVariables}
		n.fill()
		p.site.Runners = append(p.site.Runners, r)
	}
}

// checkSettings checks what the server would not take.
func (p *parser) checkSettings(l layers, v config.Value, t *runnerTable) {
	if len(t.Tags) == 0 && !t.RunUntagged.Or(false) && !wrongList(v.Find("tags")) {
		p.report(config.Error, cmpValue(v.Find("tags"), l.at), l.path+".tags", "no tags are given, and run_untagged is not true: GitLab refuses a runner that could run nothing", "Write tags = [\"...\"], or run_untagged = true.")
	}
	checkTags(p, l, v, t.Tags)
	const leastTimeout, longestNote = 600, 1024
	if s := t.MaximumTimeout.Seconds(); s > 0 && s < leastTimeout {
		p.report(config.Error, v.Find("maximum_timeout"), l.path+".maximum_timeout", "is less than 10 minutes, which GitLab refuses", "Write at least \"10m\".")
	}
	if len(t.MaintenanceNote) > longestNote {
		p.report(config.Error, v.Find("maintenance_note"), l.path+".maintenance_note", "is longer than 1024 characters", "Shorten it.")
	}
	for _, name := range reserved() {
		if at := v.Find("config_variables", name); at.Exists() {
			p.report(config.Warning, at, l.path+".config_variables", name+" has a meaning of its own, and this value is never used", "Choose another name.")
		}
	}
}

func checkTags(p *parser, l layers, v config.Value, tags []string) {
	for i, tag := range tags {
		if tag == "" || strings.TrimSpace(tag) != tag || strings.Contains(tag, ",") || slices.Contains(tags[:i], tag) {
			p.report(config.Error, item(v.Find("tags"), i), l.path+".tags", "this tag is empty, there twice, or has a comma or a blank at its end", "Write each tag once.")
		}
	}
}

// item returns an item of a list, or the list.
func item(list config.Value, i int) config.Value {
	if items := list.Items(); i < len(items) {
		return items[i]
	}
	return list
}

// wrongList tells whether something is given that could not be read as a list of texts.
func wrongList(v config.Value) bool {
	if !v.Exists() {
		return false
	}
	return !v.IsList() || slices.ContainsFunc(v.Items(), func(item config.Value) bool { _, ok := item.Text(); return !ok })
}

// checkTogether finds runners that suit the same jobs equally well.
func (p *parser) checkTogether() {
	said := map[string]bool{}
	for i := range p.site.Runners {
		a := &p.site.Runners[i]
		for j := range i {
			b := &p.site.Runners[j]
			pair := fmt.Sprint(a.File, a.Line, b.File, b.Line) // both may be several runners
			if said[pair] || !rivals(a, b) {
				continue
			}
			said[pair] = true
			severity, hint := config.Error, "Give one of them another tag, or another scope; which of them a job gets would be left to chance."
			if a.Launch == nil && a.Section.Batch.Scheduler == "" && b.Launch == nil && b.Section.Batch.Scheduler == "" {
				severity = config.Warning
			}
			where := lineOf(b, a)
			p.problems = append(p.problems, config.Problem{
				File: a.File, Line: a.Line, Column: a.Column, Severity: severity, Key: "runners." + a.Name + ".tags", Hint: hint,
				Text: "has the same tags as " + b.Name + ", in " + where + ": both suit the same jobs",
			})
		}
	}
}

// lineOf is where a runner stands, as seen from another.
func lineOf(r, from *Runner) string {
	line := "line " + strconv.Itoa(r.Line)
	if r.File == from.File {
		return line
	}
	return r.File + ":" + strconv.Itoa(r.Line)
}

// rivals tells whether two runners suit the same jobs, and neither of them more tightly.
func rivals(a, b *Runner) bool {
	if a.Paused.Or(false) || b.Paused.Or(false) || a.File == b.File && a.Line == b.Line {
		return false
	}
	x, y := slices.Sorted(slices.Values(a.Tags)), slices.Sorted(slices.Values(b.Tags))
	if !slices.Equal(x, y) || a.AccessLevel != b.AccessLevel {
		return false
	}
	return slices.ContainsFunc(a.serves(), func(s Scope) bool {
		return slices.ContainsFunc(b.serves(), func(o Scope) bool { return overlap(s, o) })
	})
}
