package pipeline_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

// TestBytes gives files as editors of other systems write them: all say the same.
func TestBytes(t *testing.T) {
	t.Parallel()
	plain := "stages: [build]\njob:\n  stage: build\n  script:\n    - echo one\n    - |\n      echo two\n      echo three\n"
	for name, yaml := range map[string]string{
		"plain": plain, "byte order mark": "\ufeff" + plain, "carriage returns": strings.ReplaceAll(plain, "\n", "\r\n"),
		"comments, then a document": "# about\n\n---\n" + plain + "...\n", "version": "%YAML 1.2\n---\n" + plain,
		"JSON with tabs": "{\n\t\"stages\": [\"build\"],\n\t\"job\": {\n\t\t\"stage\": \"build\",\n\t\t\"script\": [\"echo one\", \"echo two\\necho three\\n\"]\n\t}\n}\n",
		"no last line":   "job: {stage: build, script: [echo one, \"echo two\\necho three\\n\"]}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, problems := compile(t, yaml)
			if p == nil || len(p.Jobs) != 1 {
				t.Fatalf("no pipeline: %s", problems)
			}
			if j, want := p.Jobs[0], []string{"echo one", "echo two\necho three\n"}; j.Stage != "build" || !slices.Equal(j.Script, want) {
				t.Errorf("stage %q, script %q", j.Stage, j.Script)
			}
			if problems != "" {
				t.Errorf("problems: %s", problems)
			}
		})
	}
}

func TestNotAConfiguration(t *testing.T) {
	t.Parallel()
	for yaml, want := range map[string]string{
		"":             ".gitlab-ci.yml:1:1: Please provide content of .gitlab-ci.yml",
		"# nothing\n":  ".gitlab-ci.yml:1:1: Please provide content of .gitlab-ci.yml",
		"---\n---\n":   ".gitlab-ci.yml:1:1: Please provide content of .gitlab-ci.yml",
		"hello\n":      ".gitlab-ci.yml:1:1: Invalid configuration format",
		"- a\n":        ".gitlab-ci.yml:1:1: Invalid configuration format",
		"a: [\n":       "Invalid configuration format: did not find expected node content",
		"job: *gone\n": ".gitlab-ci.yml:1:6: Invalid configuration format: Unknown alias: gone",
		"image: x\n":   "jobs config should contain at least one visible job",
	} {
		p, problems := compile(t, yaml)
		if p != nil || !strings.Contains(problems, want) {
			t.Errorf("%q: %s, want %s", yaml, problems, want)
		}
	}
}

// TestFetch tells what cannot be had, which is left out, from what goes wrong.
func TestFetch(t *testing.T) {
	t.Parallel()
	in := pipeline.Input{Content: []byte("include: {template: Go.gitlab-ci.yml}\njob: {script: [x]}\n"), Ref: "main", Source: "push"}
	in.Fetch = func(kind string, spec map[string]any) ([]byte, error) {
		return nil, fmt.Errorf("%s %v: %w", kind, spec["template"], pipeline.ErrUnavailable)
	}
	p, problems := pipeline.Compile(in)
	if p == nil || len(problems) != 1 || !problems[0].Warning || !strings.Contains(problems[0].Text, "include:template `Go.gitlab-ci.yml` is left out") {
		t.Errorf("unavailable: pipeline %v, problems %v", p, problems)
	}
	in.Fetch = func(string, map[string]any) ([]byte, error) { return nil, errors.New("the server says 500") }
	if p, problems := pipeline.Compile(in); p != nil || !strings.Contains(problems[0].Text, "the server says 500") {
		t.Errorf("failed: pipeline %v, problems %v", p, problems)
	}
	in.Fetch = func(string, map[string]any) ([]byte, error) { return []byte("from there: {script: [y]}"), nil }
	if p, problems := pipeline.Compile(in); p == nil || len(p.Jobs) != 2 {
		t.Errorf("fetched: pipeline %v, problems %v", p, problems)
	}
}

// TestUnreadable says of a local file why it is not there, without the words of the system for a missing one.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	in := pipeline.Input{Content: []byte("include: a/b.yml\njob: {script: [x]}\n"), Ref: "main", Source: "push"}
	for err, want := range map[error]string{
		fs.ErrNotExist:   "Local file `a/b.yml` does not exist!",
		syscall.ENOTDIR:  "Local file `a/b.yml` does not exist!",
		fs.ErrPermission: "Local file `a/b.yml` cannot be read: openat a/b.yml: permission",
	} {
		in.Read = func(string) ([]byte, error) {
			return nil, &fs.PathError{Op: "openat", Path: "a/b.yml", Err: err}
		}
		if p, problems := pipeline.Compile(in); p != nil || len(problems) != 1 || !strings.HasPrefix(problems[0].Text, want) {
			t.Errorf("%v: pipeline %v, problems %v, want %s", err, p, problems, want)
		}
	}
}

// TestMergeRequest compiles a pipeline of a merge request: its variables are known to rules, and its ref is no branch.
func TestMergeRequest(t *testing.T) {
	t.Parallel()
	facts := pipeline.Facts{
		Project: pipeline.ProjectFacts{ID: 7, Path: "acme/shop", DefaultBranch: "trunk"}, Server: pipeline.ServerFacts{URL: "http://gitlab.test"},
		Commit: pipeline.CommitFacts{SHA: strings.Repeat("ab", 20), Ref: "topic"}, Source: "merge_request_event",
		MergeRequest: pipeline.MergeRequestFacts{IID: 12, Title: "Add x", Labels: "a,run-ci", DiffBaseSHA: strings.Repeat("cd", 20)},
	}
	p, problems := pipeline.Compile(pipeline.Input{
		Ref: "topic", Source: "merge_request_event", Variables: pipeline.Predefined(facts),
		Content: []byte(`
"yes": {script: [x], rules: [{if: '$CI_MERGE_REQUEST_TARGET_BRANCH_NAME == "trunk" && $CI_MERGE_REQUEST_LABELS =~ /(^|,)run-ci(,|$)/'}]}
open: {script: [x], rules: [{if: '$CI_OPEN_MERGE_REQUESTS == "acme/shop!12" && $CI_MERGE_REQUEST_SOURCE_BRANCH_NAME == "topic"'}]}
only: {script: [x], only: [merge_requests], tags: [mr-$CI_MERGE_REQUEST_IID]}
branch: {script: [x], rules: [{if: $CI_COMMIT_BRANCH}]}
by name: {script: [x], only: [topic]}
default: {interruptible: true}
`),
	})
	if p == nil {
		t.Fatal(problems)
	}
	var names []string
	for _, j := range p.Jobs {
		names = append(names, j.Name)
	}
	if want := []string{"yes", "open", "only"}; !slices.Equal(names, want) {
		t.Errorf("jobs %v, want %v", names, want)
	}
	if tags := p.Jobs[2].Tags; !slices.Equal(tags, []string{"mr-12"}) {
		t.Errorf("tags %v", tags)
	}
}

// TestUserVariables lets nobody pretend to be another user: what the file says about GITLAB_USER_LOGIN does not count.
func TestUserVariables(t *testing.T) {
	t.Parallel()
	p, problems := pipeline.Compile(pipeline.Input{
		Content:   []byte("variables: {GITLAB_USER_LOGIN: root, CI_PROJECT_NAME: mine}\njob: {script: [x], tags: [$GITLAB_USER_LOGIN, $CI_PROJECT_NAME]}\n"),
		Ref:       "main",
		Variables: []tranter.Variable{{Key: "GITLAB_USER_LOGIN", Value: "ann"}, {Key: "CI_PROJECT_NAME", Value: "shop"}},
	})
	if p == nil || !slices.Equal(p.Jobs[0].Tags, []string{"ann", "mine"}) {
		t.Errorf("%v, problems %v", p, problems)
	}
}

// TestPipelineName gives the name of the workflow to the rules of jobs.
func TestPipelineName(t *testing.T) {
	t.Parallel()
	p, problems := compile(t, "workflow: {name: Nightly $X}\nvariables: {X: one}\njob: {script: [x], rules: [{if: '$CI_PIPELINE_NAME == \"Nightly one\"'}]}\n")
	if p == nil || len(p.Jobs) != 1 {
		t.Errorf("no job: %s", problems)
	}
}

// TestLimits gives what is just allowed, and what is one too much.
func TestLimits(t *testing.T) {
	t.Parallel()
	many := func(n int) string { return strings.Repeat("a, ", n-1) + "b" }
	for name, test := range map[string]struct {
		yaml func(n int) string
		most int
		want string
	}{
		"tags":          {func(n int) string { return "job: {script: [x], tags: [" + many(n) + "]}\n" }, 49, "jobs:job:tags config must be less than the limit of 50 tags"},
		"workflow name": {func(n int) string { return "job: {script: [x]}\nworkflow: {name: " + strings.Repeat("é", n) + "}\n" }, 255, "workflow name is too long"},
		"input options": {func(n int) string {
			return "spec: {inputs: {i: {default: b, options: [" + many(n) + "]}}}\n---\njob: {script: [x]}\n"
		}, 50, "options cannot have more than 50 entries"},
		"release": {func(n int) string {
			return "job: {script: [x], release: {tag_name: v1, description: \"" + many(1)[n:] + "\"}}\n"
		}, 0, "jobs:job:release description can't be blank"},
	} {
		if p, problems := compile(t, test.yaml(test.most)); p == nil {
			t.Errorf("%s: %s", name, problems)
		}
		if p, problems := compile(t, test.yaml(test.most+1)); p != nil || !strings.Contains(problems, test.want) {
			t.Errorf("%s: %s, want %s", name, problems, test.want)
		}
	}
}

// TestWholeInput keeps the type of an input only where nothing else stands beside it, not even the end of a line.
func TestWholeInput(t *testing.T) {
	t.Parallel()
	head := "spec: {inputs: {n: {type: number, default: 2}}}\n---\n"
	if p, problems := compile(t, head+"job: {script: [x], parallel: \"$[[ inputs.n ]]\"}\n"); p == nil || len(p.Jobs) != 2 {
		t.Errorf("problems: %s", problems)
	}
	if p, problems := compile(t, head+"job:\n  script: [x]\n  parallel: |\n    $[[ inputs.n ]]\n"); p != nil || !strings.Contains(problems, "jobs:job:parallel should be an integer or a hash") {
		t.Errorf("problems: %s", problems)
	}
}

// TestWorkflowRuleKeys admits what has no effect in the rules of a workflow.
func TestWorkflowRuleKeys(t *testing.T) {
	t.Parallel()
	if p, problems := compile(t, "workflow: {rules: [{if: $X == null, allow_failure: true, needs: []}]}\njob: {script: [x]}\n"); p == nil {
		t.Errorf("problems: %s", problems)
	}
}

// TestNestedArrays opens the arrays that !reference puts into arrays, wherever GitLab does.
func TestNestedArrays(t *testing.T) {
	t.Parallel()
	p, problems := compile(t, `
.more: {services: [redis, [mysql]], cache: [{key: a, paths: [a]}, {key: b, paths: [b]}], needs: [first], rules: [{if: $X == null}]}
first: {script: [x]}
job:
  script: [x]
  services: [{name: postgres}, !reference [.more, services]]
  cache: [!reference [.more, cache], {key: c, paths: [c]}]
  needs: [!reference [.more, needs]]
  rules: [!reference [.more, rules]]
child: {trigger: {include: [[a.yml], [[{local: b.yml}]]]}}
`)
	if p == nil || len(p.Jobs) != 3 {
		t.Fatalf("problems: %s", problems)
	}
	if j := p.Jobs[1]; len(j.Services) != 3 || len(j.Cache) != 3 || len(j.Needs) != 1 {
		t.Errorf("services %v, cache %v, needs %v", j.Services, j.Cache, j.Needs)
	}
	if _, problems := compile(t, "job: {script: [x], tags: [[a]]}\n"); !strings.Contains(problems, "jobs:job:tags config should be an array of strings") {
		t.Errorf("problems: %s", problems)
	}
}
