package pipeline

import (
	"regexp"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// policy is only: or except:.
type policy struct {
	refs       []string
	variables  []*expression
	changes    []string
	kubernetes bool

	hasRefs, hasVariables, hasChanges bool
}

func policyKeys() []string { return []string{"refs", "kubernetes", "variables", "changes"} }

func readPolicy(f field) *policy {
	p := &policy{}
	switch {
	case f.v.is(list):
		p.refs, p.hasRefs = readRefs(f), true
	case f.v.is(hash) && len(f.v.pairs) == 0:
		f.errorf("config can't be blank")
	case f.v.is(hash):
		f.known(policyKeys())
		p.readHash(f)
	default:
		f.errorf("has to be either an array of conditions or a hash%s", ifText(f.v.is(text), " (write ["+f.v.text+"])"))
		return nil
	}
	return p
}

// readRefs reads names and patterns of refs.
func readRefs(f field) []string {
	refs := flatTexts(f)
	for _, item := range flatten(f.v, maxNesting) {
		if !item.is(text) || !refShape().MatchString(item.text) {
			continue
		}
		if _, err := compileRef(item.text); err != nil {
			f.report.errorf(item.at, f.job, "%s config should be an array of strings or regular expressions using re2 syntax: %s: %v%s",
				f.path, item.text, err, lookAroundHint(item.text))
		}
	}
	return refs
}

func (p *policy) readHash(f field) {
	if s, ok := f.sub("refs"); ok {
		p.refs, p.hasRefs = readRefs(s), true
	}
	if s, ok := f.sub("variables"); ok {
		p.hasVariables = true
		s.strings(false) // for its checks
		for _, item := range s.v.items {
			e, err := parseExpression(item.text)
			if err != nil && item.is(text) {
				s.report.errorf(item.at, s.job, "%s invalid expression syntax: %v in %s", s.path, err, clip(item.text, 100))
			}
			if err == nil {
				p.variables = append(p.variables, e)
			}
		}
	}
	if s, ok := f.sub("changes"); ok {
		p.changes, p.hasChanges = flatTexts(s), true
	}
	if s, ok := f.sub("kubernetes"); ok {
		p.kubernetes = true
		if s.v.text != "active" {
			s.errorf("unknown value: %s (only active is possible)", s.v.text)
		}
	}
}

func flatTexts(f field) []string {
	if f.v.is(list) {
		f.v = &value{kind: list, at: f.v.at, items: flatten(f.v, maxNesting)}
	}
	return f.strings(false)
}

// refShape is that of a pattern among refs: unlike in rules:if it may be empty, and matches all then.
var refShape = lazy.Regexp(`^/((?s:.*))/([ismU]*)$`)

func compileRef(s string) (*regexp.Regexp, error) {
	if m := refShape().FindStringSubmatch(s); m != nil && m[1] == "" {
		return regexp.Compile("")
	}
	return compilePattern(s)
}

func lookAroundHint(s string) string {
	return ifText(strings.Contains(s, "(?!") || strings.Contains(s, "(?=") || strings.Contains(s, "(?<"),
		" (look-ahead and look-behind are not possible: use except:, or rules: with !~)")
}

// matchesOnly reports whether all parts of only: hold. A missing refs part admits branches and tags.
func (p *policy) matchesOnly(w *world, s *scope) bool {
	refs := p.refs
	if !p.hasRefs {
		refs = []string{"branches", "tags"}
	}
	if !w.matchesRefs(refs) || p.kubernetes {
		return false
	}
	if p.hasVariables && !p.anyVariable(s) {
		return false
	}
	return !p.hasChanges || p.anyChange(w, s)
}

// matchesExcept reports whether one part of except: holds.
func (p *policy) matchesExcept(w *world, s *scope) bool {
	return p.hasRefs && w.matchesRefs(p.refs) || p.hasVariables && p.anyVariable(s) || p.hasChanges && p.anyChange(w, s)
}

func (p *policy) anyVariable(s *scope) bool {
	return slices.ContainsFunc(p.variables, func(e *expression) bool { return e.passes(values{variable: s.lookup}) })
}

func (p *policy) anyChange(w *world, s *scope) bool {
	set := w.changed("")
	return !set.known || anyMatch(p.changes, set.paths, s)
}

func (w *world) matchesRefs(refs []string) bool {
	return slices.ContainsFunc(refs, w.matchesRef)
}

// matchesRef answers one entry of only:refs: a keyword, the pipeline's source, a name or a /pattern/, each perhaps with
// "@group/project".
func (w *world) matchesRef(ref string) bool {
	name, here := w.refOfProject(ref)
	if !here {
		return false
	}
	mergeRequest := w.in.Source == "merge_request_event"
	switch name {
	case "tags":
		return w.in.Tag
	case "branches":
		return !w.in.Tag && !mergeRequest
	case "merge_requests":
		return mergeRequest
	}
	if w.in.Source != "" && (name == w.in.Source || name == sourcePlural(w.in.Source)) {
		return true
	}
	if mergeRequest {
		return false // its ref is no branch
	}
	if strings.HasPrefix(name, "/") {
		re, err := compileRef(name)
		return err == nil && re.MatchString(w.in.Ref)
	}
	return name == w.in.Ref
}

// refOfProject splits "ref@group/project" at the first @, as the server does; here is false when that is another project.
func (w *world) refOfProject(ref string) (name string, here bool) {
	name, path, elsewhere := strings.Cut(ref, "@")
	if !elsewhere {
		return name, true
	}
	own, _ := w.outerScope().lookup("CI_PROJECT_PATH")
	return name, own == path
}

// sourcePlural is the word that only: has for a source of pipelines.
func sourcePlural(source string) string {
	switch source {
	case "push":
		return "pushes"
	case "web", "api", "chat", "external":
		return source
	case "external_pull_request_event":
		return "external_pull_requests"
	}
	return source + "s"
}
