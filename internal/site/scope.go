package site

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter/internal/config"
)

// scopeKeys are the keys that say what runners serve.
type scopeKeys struct {
	project  string
	projects []string
	group    string
	groups   []string
	instance bool
}

// names of the keys of scopeKeys.
func scopeNames() []string { return []string{"project", "projects", "group", "groups", "instance"} }

// paths returns scopes of one kind.
func paths(kind string, list []string) []Scope {
	var out []Scope
	for _, path := range list {
		if path != "" {
			out = append(out, Scope{kind, path})
		}
	}
	return out
}

// pathsOf returns the paths of the scopes of one kind.
func pathsOf(kind string, scopes []Scope) []string {
	var out []string
	for _, s := range scopes {
		if s.Kind == kind {
			out = append(out, s.Path)
		}
	}
	return out
}

// scopes returns what the keys of a table say, each once.
func (p *parser) scopes(at config.Value, k scopeKeys) []Scope {
	all := paths(ScopeProject, append([]string{k.project}, k.projects...))
	all = append(all, paths(ScopeGroup, append([]string{k.group}, k.groups...))...)
	if k.instance {
		all = append(all, Scope{Kind: ScopeInstance})
	}
	var out []Scope
	for _, s := range all {
		if slices.ContainsFunc(out, func(o Scope) bool { return o.Kind == s.Kind && strings.EqualFold(o.Path, s.Path) }) {
			continue
		}
		if s.Kind != ScopeInstance {
			p.checkPath(at, s)
		}
		out = append(out, s)
	}
	return out
}

// checkPath checks the path of a project or group.
func (p *parser) checkPath(at config.Value, s Scope) {
	v := at.Find(s.Kind)
	if text, _ := v.Text(); text != s.Path {
		v = at.Find(s.Kind + "s")
	}
	bad := s.Path != strings.Trim(s.Path, "/") || strings.Contains(s.Path, "//") || strings.ContainsAny(s.Path, " \t\r\n?#:") || len(s.Path) > 1000
	switch {
	case bad:
		p.report(config.Error, cmpValue(v, at), s.Kind, fmt.Sprintf("%q is not a path in GitLab", s.Path), "Write it as in the address of its page, without the server: \"group/project\".")
	case s.Kind == ScopeProject && !strings.Contains(s.Path, "/"):
		p.report(config.Error, cmpValue(v, at), s.Kind, fmt.Sprintf("%q is not the full path of a project", s.Path), "Write the group, or user, before it: \"group/project\"; a group is given as group = \""+s.Path+"\".")
	}
}

// cmpValue returns the first that is there.
func cmpValue(values ...config.Value) config.Value {
	for _, v := range values {
		if v.Exists() {
			return v
		}
	}
	return config.Value{}
}

// place is one runner at the server: a project runner may serve several projects, all others have one scope.
type place struct {
	scope    Scope
	projects []Scope // further ones
	name     string  // of the runner
}

// places splits scopes into runners. A runner with one place has the name in the file; those of several have the end of their
// scope's path added, which stays the same whatever else is served.
func places(name string, scopes []Scope) []place {
	var out []place
	projects := slices.DeleteFunc(slices.Clone(scopes), func(s Scope) bool { return s.Kind != ScopeProject })
	if len(projects) > 0 {
		out = append(out, place{scope: projects[0], projects: projects[1:], name: name})
	}
	for _, s := range scopes {
		if s.Kind != ScopeProject {
			out = append(out, place{scope: s, name: name})
		}
	}
	for i := range out {
		// The first runner keeps the name, so that one more scope does not make another runner of it.
		if i > 0 {
			out[i].name = name + "-" + slug(out[i].scope)
		}
	}
	return out
}

// slug is a scope as part of a name.
func slug(s Scope) string {
	if s.Path == "" {
		return s.Kind
	}
	short := strings.ReplaceAll(s.Path, "/", "-")
	if !strings.Contains(s.Path, "-") && isName(short) {
		return short
	}
	// The dashes do not tell any more where slashes were.
	h := fnv.New32a()
	_, _ = h.Write([]byte(strings.ToLower(s.Path)))
	return fmt.Sprintf("%s-%06x", short, h.Sum32()&0xffffff)
}

// overlap tells whether a job can be in both scopes.
func overlap(a, b Scope) bool {
	if a.Kind == ScopeInstance || b.Kind == ScopeInstance {
		return true
	}
	if a.Kind == ScopeProject && b.Kind == ScopeProject {
		return strings.EqualFold(a.Path, b.Path)
	}
	return inside(a, b) || inside(b, a)
}

// inside tells whether a is the group b, or a project or group in it.
func inside(a, b Scope) bool {
	if b.Kind != ScopeGroup {
		return false
	}
	x, y := strings.ToLower(a.Path), strings.ToLower(b.Path)
	return a.Kind == ScopeGroup && x == y || strings.HasPrefix(x, y+"/")
}

// serves returns all scopes of a runner.
func (r *Runner) serves() []Scope { return append([]Scope{r.Scope}, r.Projects...) }
