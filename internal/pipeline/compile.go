package pipeline

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
)

// Input is all that a compilation depends on.
type Input struct {
	File    string // path of the root file in the project; empty: .gitlab-ci.yml
	Content []byte // of the root file; nil: Read(File)

	// Read returns a file of the project. The path has no leading slash and does not climb out.
	Read func(path string) ([]byte, error)
	// List returns the files of the project with slashes, for wildcards and rules:exists.
	List func() []string
	// Changed returns the changed files for rules:changes; compareTo is "" or the ref of compare_to. With ok false the
	// question has no answer (a new branch, a tag, a schedule), and changes count as given.
	Changed func(compareTo string) (paths []string, ok bool)
	// Blob returns the id of a file's content at the commit, for cache:key:files.
	Blob func(path string) (id string, ok bool)
	// LastCommit returns the id of the last commit that touched a file, for cache:key:files_commits.
	LastCommit func(path string) (id string, ok bool)
	// Fetch returns a file from elsewhere. Kind is remote, project, template or component; spec has the keys of the include
	// as written, with variables expanded. With ErrUnavailable, or without Fetch, the include is left out with a warning.
	Fetch func(kind string, spec map[string]any) ([]byte, error)
	// LeftOut is told of each job that rules, only or except keep out of the pipeline; nil: nobody wants to know.
	LeftOut func(j Job)

	Variables         []tranter.Variable // predefined ones (Predefined); YAML variables override them
	ProjectVariables  []tranter.Variable // of instance, group and project: they override YAML variables
	PipelineVariables []tranter.Variable // given for this pipeline: they override all others
	Inputs            map[string]any     // for spec:inputs of the root file

	Source string // CI_PIPELINE_SOURCE: push, web, schedule, merge_request_event, ...
	Ref    string // branch or tag
	Tag    bool

	SeparateCaches bool // append -protected or -non_protected to cache keys, as GitLab does by default
	Protected      bool // the ref is protected
}

// Compile turns a .gitlab-ci.yml into a pipeline. With a problem that is no warning the pipeline is nil; a problem's Kind
// tells a mistake from a pipeline that the rules left empty. Problems come sorted by place, all that can be found at once.
func Compile(in Input) (*Pipeline, []Problem) {
	in.File = cmp.Or(in.File, ".gitlab-ci.yml")
	r := &report{}
	c := &compiler{world: &world{in: &in}, report: r}
	p := c.compile()
	problems := r.sorted(in.File)
	if Failed(problems) {
		return nil, problems
	}
	return p, problems
}

// compiler holds what the steps of one compilation share.
type compiler struct {
	*world
	report *report

	lost      *lost
	root      *value
	defaults  *value
	stages    []string
	variables []variable // top-level ones
	workflow  workflow
	named     []tranter.Variable // CI_PIPELINE_NAME, of a pipeline with a name
	jobs      []*definition
	names     map[string]*definition
	owners    map[string]*definition // by the name of a definition, or of one of its jobs
}

// world answers what conditions ask about the project and its variables.
type world struct {
	in      *Input
	files   []string // of the project, listed once
	changes map[string]changeSet
	user    []tranter.Variable // GITLAB_USER_...
}

type changeSet struct {
	paths []string
	known bool
}

func (c *compiler) compile() *Pipeline {
	c.lost = &lost{}
	l := &loader{in: c.in, report: c.report, lost: c.lost, scope: c.outerScope(), conditions: c.world}
	c.root = l.loadRoot()
	if c.root == nil {
		return nil
	}
	c.root = resolveReferences(c.root, c.report, c.lost)
	c.root = resolveExtends(c.root, c.report, c.lost)
	if c.report.failed() && treeSize(c.root, map[*value]int{}) > maxTree {
		return nil
	}
	c.readGlobals()
	c.readJobs()
	checker{c}.check()
	if c.report.failed() {
		return nil
	}
	return c.build()
}

// outerScope has the variables that are known before there is a pipeline: what includes and their rules see.
func (w *world) outerScope() *scope {
	return newScope(w.in.Variables, w.in.ProjectVariables, w.in.PipelineVariables)
}

// innerScope adds the YAML variables in their place: above the predefined ones, below those of user, project and pipeline.
func (w *world) innerScope(predefined []tranter.Variable, yaml ...[]tranter.Variable) *scope {
	if w.user == nil {
		w.user = slices.DeleteFunc(slices.Clone(w.in.Variables), func(v tranter.Variable) bool { return !strings.HasPrefix(v.Key, "GITLAB_USER_") })
	}
	return newScope(slices.Concat(
		[][]tranter.Variable{w.in.Variables, predefined}, yaml, [][]tranter.Variable{w.user, w.in.ProjectVariables, w.in.PipelineVariables},
	)...)
}

// projectFiles lists the files of the project once, sorted.
func (w *world) projectFiles() []string {
	if w.files == nil && w.in.List != nil {
		w.files = slices.Clone(w.in.List())
		slices.Sort(w.files)
	}
	return w.files
}

func (w *world) changed(compareTo string) changeSet {
	if set, ok := w.changes[compareTo]; ok {
		return set
	}
	set := changeSet{}
	if w.in.Changed != nil {
		set.paths, set.known = w.in.Changed(compareTo)
	}
	if w.changes == nil {
		w.changes = map[string]changeSet{}
	}
	w.changes[compareTo] = set
	return set
}
