package pipeline_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

func compile(t testing.TB, yaml string) (*pipeline.Pipeline, string) {
	t.Helper()
	p, problems := pipeline.Compile(pipeline.Input{Content: []byte(yaml), Ref: "main", Source: "push"})
	var b strings.Builder
	for _, problem := range problems {
		fmt.Fprintln(&b, problem)
	}
	return p, b.String()
}

// TestHostile gives small files that stand for huge ones: each ends soon, with a problem that says why.
func TestHostile(t *testing.T) {
	t.Parallel()
	job := "\njob: {script: [x]}\n"
	for name, c := range map[string]struct{ yaml, want string }{
		"alias bomb":       {aliasBomb(), "too big"},
		"deep lists":       {".x: " + strings.Repeat("[", 300) + strings.Repeat("]", 300) + job, "too deep"},
		"deep brackets":    {strings.Repeat("[", 100_000), "too deep"},
		"alias of itself":  {".x: &x [*x]" + job, "inside the value"},
		"big file":         {"#" + strings.Repeat("x", 3<<20) + job, "larger than"},
		"not UTF-8":        {"a: \xff\xfe" + job, "UTF-8"},
		"many matrix jobs": {manyMatrices(), "more than 10000 jobs"},
		"reference bomb":   {referenceBomb(), "too big"},
		"extends bomb":     {extendsChain(20), "nesting too deep"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, got := compile(t, c.yaml)
			if !strings.Contains(got, c.want) {
				t.Errorf("problems: %.500s\nwant %q in them", got, c.want)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func aliasBomb() string {
	var b strings.Builder
	b.WriteString(".a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, ".a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	return b.String() + "job: {script: *a8}\n"
}

func referenceBomb() string {
	var b strings.Builder
	b.WriteString(".r0: {script: [x, x, x, x, x, x, x, x, x, x]}\n")
	for i := 1; i < 9; i++ {
		ref := fmt.Sprintf("!reference [.r%d, script], ", i-1)
		fmt.Fprintf(&b, ".r%d: {script: [%s]}\n", i, strings.TrimSuffix(strings.Repeat(ref, 10), ", "))
	}
	return b.String() + "job: {script: !reference [.r8, script]}\n"
}

func manyMatrices() string {
	var b strings.Builder
	for i := range 60 {
		fmt.Fprintf(&b, "job %d: {script: [x], parallel: 200}\n", i)
	}
	return b.String()
}

func extendsChain(n int) string {
	var b strings.Builder
	b.WriteString(".e0: {script: [x]}\n")
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, ".e%d: {extends: .e%d}\n", i, i-1)
	}
	return b.String() + fmt.Sprintf("job: {extends: .e%d}\n", n)
}

// TestVariableBomb expands variables that multiply each other, where the server expands: the time stays short.
func TestVariableBomb(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("variables:\n  V0: ''\n  W0: xxxxxxxxxx\n")
	for i := 1; i < 60; i++ {
		fmt.Fprintf(&b, "  V%d: %s\n  W%d: %s\n", i, strings.Repeat(fmt.Sprintf("${V%d}", i-1), 10), i, strings.Repeat(fmt.Sprintf("${W%d}", i-1), 10))
	}
	b.WriteString("job: {script: [x], tags: [\"a$V59\", \"$W59\"], resource_group: $W58}\n")
	start := time.Now()
	p, problems := compile(t, b.String())
	if p == nil || p.Jobs[0].Tags[0] != "a" {
		t.Errorf("pipeline %v, problems %s", p, problems)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestExtendsLevels(t *testing.T) {
	t.Parallel()
	if p, problems := compile(t, extendsChain(9)); p == nil {
		t.Errorf("ten levels are allowed: %s", problems)
	}
	if _, problems := compile(t, extendsChain(10)); !strings.Contains(problems, "nesting too deep") {
		t.Errorf("eleven levels are too many: %q", problems)
	}
}

func TestNesting(t *testing.T) {
	t.Parallel()
	nested := func(n int) string {
		return "job: {script: [" + strings.Repeat("[", n) + "x" + strings.Repeat("]", n) + "]}\n"
	}
	if p, problems := compile(t, nested(10)); p == nil || len(p.Jobs[0].Script) != 1 {
		t.Errorf("ten levels of lists are allowed: %s", problems)
	}
	if _, problems := compile(t, nested(11)); !strings.Contains(problems, "10 levels deep") {
		t.Errorf("eleven are not: %q", problems)
	}
}

func TestIncludeLimit(t *testing.T) {
	t.Parallel()
	for n, ok := range map[int]bool{150: true, 151: false} {
		_, problems := pipeline.Compile(pipeline.Input{
			Content: []byte("include: [" + strings.TrimSuffix(strings.Repeat("a.yml, ", n), ", ") + "]\njob: {script: [x]}\n"),
			Read:    func(string) ([]byte, error) { return []byte(".x: {script: [x]}"), nil },
		})
		if pipeline.Failed(problems) == ok {
			t.Errorf("%d includes: %v", n, problems)
		}
	}
}

func TestSlugs(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Feature/ABC_1": "feature-abc-1", "--x--": "x", strings.Repeat("a", 80): strings.Repeat("a", 63), "": "", "ä": "",
	} {
		if got := pipeline.Slug(in); want != "" && got != want {
			t.Errorf("Slug(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"production": "production", "review/main": "review-main-", "1": "env-1-", "a--b": "a-b-"} {
		if got := pipeline.EnvironmentSlug(in); !strings.HasPrefix(got, want) || len(got) > 24 {
			t.Errorf("EnvironmentSlug(%q) = %q, want %q...", in, got, want)
		}
	}
}

func TestPredefined(t *testing.T) {
	t.Parallel()
	facts := pipeline.Facts{
		Project: pipeline.ProjectFacts{ID: 7, Path: "Acme/web/shop"},
		Commit: pipeline.CommitFacts{
			SHA: strings.Repeat("ab", 20), Ref: "feature/X", Message: "Title\n\nMore\nof it", Author: "A <a@b.test>",
			Time: time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC),
		},
		Server: pipeline.ServerFacts{URL: "http://127.0.0.1:8080", Version: "19.4.0"},
		User:   pipeline.UserFacts{Login: "ann"},
	}
	check := func(vars []tranter.Variable, want map[string]string) {
		t.Helper()
		got := map[string]string{}
		for _, v := range vars {
			if _, twice := got[v.Key]; twice {
				t.Errorf("%s is given twice", v.Key)
			}
			got[v.Key] = v.Value
		}
		for key, value := range want {
			if have, ok := got[key]; have != value || ok != (value != "(none)") && value != "(none)" {
				if value == "(none)" && !ok {
					continue
				}
				t.Errorf("%s = %q, want %q", key, have, value)
			}
		}
	}
	check(pipeline.Predefined(facts), map[string]string{
		"CI": "true", "CI_COMMIT_BRANCH": "feature/X", "CI_COMMIT_TAG": "(none)", "CI_COMMIT_REF_SLUG": "feature-x", "CI_COMMIT_SHORT_SHA": "abababab",
		"CI_COMMIT_TITLE": "Title", "CI_COMMIT_DESCRIPTION": "More\nof it", "CI_COMMIT_TIMESTAMP": "2024-01-02T03:04:05Z",
		"CI_PROJECT_NAME": "shop", "CI_PROJECT_NAMESPACE": "Acme/web", "CI_PROJECT_ROOT_NAMESPACE": "Acme", "CI_PROJECT_PATH_SLUG": "acme-web-shop",
		"CI_SERVER_HOST": "127.0.0.1", "CI_SERVER_PORT": "8080", "CI_SERVER_VERSION_MAJOR": "19", "CI_API_V4_URL": "http://127.0.0.1:8080/api/v4",
		"CI_PROJECT_ID": "7", "GITLAB_USER_LOGIN": "ann", "GITLAB_USER_NAME": "ann", "GITLAB_USER_EMAIL": "ann@localhost", "CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BEFORE_SHA": strings.Repeat("0", 40),
	})
	facts.Commit.Tag, facts.Source = true, "web"
	check(pipeline.Predefined(facts), map[string]string{"CI_COMMIT_TAG": "feature/X", "CI_COMMIT_BRANCH": "(none)", "CI_PIPELINE_SOURCE": "web"})
	check(pipeline.JobPredefined(&pipeline.Job{
		Name: "a: [b]", Group: "a", Stage: "test", Index: 1, Total: 2, When: pipeline.Manual, Environment: &pipeline.Environment{Name: "prod", Tier: "production"},
	}), map[string]string{
		"CI_JOB_NAME": "a: [b]", "CI_JOB_NAME_SLUG": "a---b", "CI_JOB_GROUP_NAME": "a", "CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "2", "CI_JOB_MANUAL": "true",
		"CI_ENVIRONMENT_NAME": "prod", "CI_ENVIRONMENT_SLUG": "prod",
	})
}

// TestNeedsOfAnyGraph gives jobs needs at random: the pipeline is refused exactly when they run in a circle.
func TestNeedsOfAnyGraph(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "jobs")
		edges := make([][]int, n)
		var b strings.Builder
		for i := range n {
			edges[i] = rapid.SliceOfNDistinct(rapid.IntRange(0, n-1), 0, 3, rapid.ID).Draw(t, "needs")
			fmt.Fprintf(&b, "j%d: {script: [x], needs: [", i)
			for _, to := range edges[i] {
				fmt.Fprintf(&b, "j%d, ", to)
			}
			b.WriteString("]}\n")
		}
		p, problems := pipeline.Compile(pipeline.Input{Content: []byte(b.String())})
		if circular := hasCircle(edges); circular == (p != nil) {
			t.Fatalf("circular %v, problems %v for\n%s", circular, problems, b.String())
		}
		if p != nil {
			for i, j := range p.Jobs {
				if len(j.Needs) != len(edges[i]) {
					t.Fatalf("%s has needs %v, not %v", j.Name, j.Needs, edges[i])
				}
			}
		} else if len(problems) != 1 || !strings.Contains(problems[0].Text, "circular") {
			t.Fatalf("problems %v", problems)
		}
	})
}

// hasCircle takes away jobs that need nothing until none is left, or no such job.
func hasCircle(edges [][]int) bool {
	gone := map[int]bool{}
	for range edges {
		for i, needs := range edges {
			if !slices.ContainsFunc(needs, func(to int) bool { return !gone[to] }) {
				gone[i] = true
			}
		}
	}
	return len(gone) < len(edges)
}

// FuzzCompile looks for panics and for pipelines that contradict themselves.
func FuzzCompile(f *testing.F) {
	paths, err := filepath.Glob("testdata/golden/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(parseArchive(string(data))[".gitlab-ci.yml"]))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := pipeline.Input{
			Content: data, Ref: "main", Source: "push",
			Read: func(path string) ([]byte, error) {
				if strings.Contains("/"+path+"/", "/../") || strings.HasPrefix(path, "/") {
					t.Errorf("reads %q, outside the project", path)
				}
				return nil, os.ErrNotExist
			},
			List: func() []string { return []string{"a.yml", "src/main.go"} },
		}
		p, problems := pipeline.Compile(in)
		if (p == nil) != pipeline.Failed(problems) {
			t.Errorf("pipeline %v with problems %v", p, problems)
		}
		for _, problem := range problems {
			if problem.Text == "" || problem.File == "" {
				t.Errorf("a problem without words or file: %#v", problem)
			}
		}
		if p != nil {
			checkPipeline(t, p)
		}
		if again, _ := pipeline.Compile(in); !bytes.Equal(render(t, p2(p), nil), render(t, p2(again), nil)) {
			t.Error("the same file compiles to two pipelines")
		}
	})
}

func p2(p *pipeline.Pipeline) *pipeline.Pipeline {
	if p == nil {
		return &pipeline.Pipeline{}
	}
	return p
}

func checkPipeline(t *testing.T, p *pipeline.Pipeline) {
	t.Helper()
	stage := map[string]int{}
	for i, s := range p.Stages {
		stage[s] = i
	}
	jobs := map[string]int{}
	for _, j := range p.Jobs {
		if _, twice := jobs[j.Name]; twice {
			t.Errorf("two jobs are called %s", j.Name)
		}
		jobs[j.Name] = stage[j.Stage]
	}
	for _, j := range p.Jobs {
		for _, n := range j.Needs {
			at, ok := jobs[n.Job]
			if !ok || at > stage[j.Stage] {
				t.Errorf("%s needs %s, which is not there or later", j.Name, n.Job)
			}
		}
		if j.Trigger == nil && len(j.Script) == 0 && len(j.Run) == 0 {
			t.Errorf("%s has nothing to run", j.Name)
		}
	}
}
