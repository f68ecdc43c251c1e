package coordinator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/pipeline"
)

// play runs a graph: each job that becomes pending ends as outcome says, one after the other.
func play(jobs []pipeline.Job, outcome func(name string, attempt int) coordinator.Status) map[string]string {
	g := coordinator.Graph{Now: time.Unix(0, 0), Stages: []string{".pre", "build", "test", "deploy", ".post"}}
	for i := range jobs {
		g.Nodes = append(g.Nodes, coordinator.Node{ID: int64(i + 1), Spec: &jobs[i], Status: coordinator.Created})
	}
	story := map[string]string{}
	for {
		for _, d := range coordinator.Advance(g) {
			n := &g.Nodes[d.ID-1]
			if d.Retry {
				n.Attempt++
			}
			n.Status, n.Due, n.Reason, n.ExitCode = d.Status, d.Due, "", 0
		}
		ran := false
		for i := range g.Nodes {
			n := &g.Nodes[i]
			if n.Status != coordinator.Pending || ran {
				continue
			}
			if early := unmet(g, n); early != "" {
				story["too early"] += early
			}
			n.Status, ran = outcome(n.Spec.Name, n.Attempt), true
			if n.Status == coordinator.Failed {
				n.Reason, n.ExitCode = "script_failure", 1
			}
			story[n.Spec.Name] += string(n.Status) + " "
		}
		if !ran {
			break
		}
	}
	for i := range g.Nodes {
		if n := &g.Nodes[i]; !n.Status.Finished() || n.Status == coordinator.Skipped {
			story[n.Spec.Name] += string(n.Status) + " "
		}
	}
	story["pipeline"] = string(coordinator.PipelineStatus(g.Nodes))
	return story
}

// unmet names a job that runs although something that it needs is not over.
func unmet(g coordinator.Graph, n *coordinator.Node) string {
	for _, need := range n.Spec.Needs {
		for _, other := range g.Nodes {
			if other.Spec.Name == need.Job && !other.Status.Finished() {
				return n.Spec.Name + " runs while " + need.Job + " is " + string(other.Status)
			}
		}
	}
	return ""
}

func needs(names ...string) func(*pipeline.Job) {
	return func(j *pipeline.Job) {
		j.HasNeeds = true
		for _, n := range names {
			j.Needs = append(j.Needs, pipeline.Need{Job: n, Artifacts: true})
		}
	}
}

func when(w pipeline.When) func(*pipeline.Job) { return func(j *pipeline.Job) { j.When = w } }
func mayFail(j *pipeline.Job)                  { j.AllowFailure = true }

func TestWhatFollowsFromWhat(t *testing.T) {
	fails := func(names ...string) func(string, int) coordinator.Status {
		return func(name string, _ int) coordinator.Status {
			if slices.Contains(names, name) {
				return coordinator.Failed
			}
			return coordinator.Success
		}
	}
	for name, c := range map[string]struct {
		jobs    []pipeline.Job
		outcome func(string, int) coordinator.Status
		want    map[string]string
	}{
		"a failure skips later stages": {
			[]pipeline.Job{script("a", "build"), script("b", "build"), script("c", "test")},
			fails("a"),
			map[string]string{"a": "failed ", "b": "success ", "c": "skipped ", "pipeline": "failed"},
		},
		"an allowed failure does not": {
			[]pipeline.Job{script("a", "build", mayFail), script("c", "test")},
			fails("a"),
			map[string]string{"a": "failed ", "c": "success ", "pipeline": "success"},
		},
		"jobs for failures and for everything": {
			[]pipeline.Job{script("a", "build"), script("f", "test", when(pipeline.OnFailure)), script("x", "deploy", when(pipeline.Always))},
			fails("a"),
			map[string]string{"a": "failed ", "f": "success ", "x": "success ", "pipeline": "failed"},
		},
		"no failure": {
			[]pipeline.Job{script("a", "build"), script("f", "test", when(pipeline.OnFailure)), script("z", "deploy")},
			fails(),
			map[string]string{"a": "success ", "f": "skipped ", "z": "success ", "pipeline": "success"},
		},
		"needs do not wait for stages": {
			[]pipeline.Job{script("a", "build"), script("b", "build"), script("c", "test", needs("b")), script("d", "deploy", needs())},
			fails("a"),
			map[string]string{"a": "failed ", "b": "success ", "c": "success ", "d": "success ", "pipeline": "failed"},
		},
		"a need that is skipped skips": {
			[]pipeline.Job{script("a", "build"), script("b", "test", needs("a")), script("c", "deploy", needs("b"))},
			fails("a"),
			map[string]string{"b": "skipped ", "c": "skipped ", "pipeline": "failed"},
		},
		"a manual job that may fail does not block": {
			[]pipeline.Job{script("a", "build", when(pipeline.Manual), mayFail), script("b", "test")},
			fails(),
			map[string]string{"a": "manual ", "b": "success ", "pipeline": "success"},
		},
		"a manual job blocks": {
			[]pipeline.Job{script("a", "build", when(pipeline.Manual)), script("b", "test")},
			fails(),
			map[string]string{"a": "manual ", "b": "created ", "pipeline": "manual"},
		},
		"a delayed job waits": {
			[]pipeline.Job{script("a", "build", when(pipeline.Delayed), func(j *pipeline.Job) { j.StartIn = time.Hour }), script("b", "test")},
			fails(),
			map[string]string{"a": "scheduled ", "b": "created ", "pipeline": "scheduled"},
		},
		"retry": {
			[]pipeline.Job{script("a", "build", func(j *pipeline.Job) { j.Retry.Max = 2 }), script("b", "test")},
			func(name string, attempt int) coordinator.Status {
				if name == "a" && attempt < 2 {
					return coordinator.Failed
				}
				return coordinator.Success
			},
			map[string]string{"a": "failed failed success ", "b": "success ", "pipeline": "success"},
		},
		"retry for other reasons only": {
			[]pipeline.Job{script("a", "build", func(j *pipeline.Job) { j.Retry = pipeline.Retry{Max: 2, When: []string{"runner_system_failure"}} })},
			fails("a"),
			map[string]string{"a": "failed ", "pipeline": "failed"},
		},
		"jobs of one resource group run one after the other": {
			[]pipeline.Job{
				script("a", "build", func(j *pipeline.Job) { j.ResourceGroup = "g" }), script("b", "build", func(j *pipeline.Job) { j.ResourceGroup = "g" }),
			}, fails(), map[string]string{"a": "success ", "b": "success ", "pipeline": "success"},
		},
		"a job that was cancelled": {
			[]pipeline.Job{script("a", "build"), script("b", "test")},
			func(string, int) coordinator.Status { return coordinator.Canceled },
			map[string]string{"a": "canceled ", "b": "skipped ", "pipeline": "canceled"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := play(c.jobs, c.outcome)
			for job, want := range c.want {
				if got[job] != want {
					t.Errorf("%s: %q, want %q", job, got[job], want)
				}
			}
		})
	}
}

// Whatever the graph and the outcomes: it ends, nothing is left to be done after Advance, and no job runs before what it
// needs is over.
func TestAnyPipelineEnds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		stagesOf := []string{"build", "test", "deploy"}
		var jobs []pipeline.Job
		at := rapid.SliceOfN(rapid.IntRange(0, 2), 1, 12).Draw(rt, "stages")
		slices.Sort(at) // a need is of the same or an earlier stage
		for i, stage := range at {
			j := script(fmt.Sprint("j", i), stagesOf[stage])
			j.When = rapid.SampledFrom([]pipeline.When{pipeline.OnSuccess, pipeline.OnSuccess, pipeline.OnFailure, pipeline.Always}).Draw(rt, "when")
			j.AllowFailure = rapid.Bool().Draw(rt, "allow")
			j.Retry.Max = rapid.IntRange(0, 2).Draw(rt, "retry")
			j.ResourceGroup = rapid.SampledFrom([]string{"", "", "g"}).Draw(rt, "group")
			if i > 0 && rapid.Bool().Draw(rt, "has needs") {
				needs(fmt.Sprint("j", rapid.IntRange(0, i-1).Draw(rt, "need")))(&j)
			}
			jobs = append(jobs, j)
		}
		story := play(jobs, func(name string, _ int) coordinator.Status {
			return rapid.SampledFrom([]coordinator.Status{coordinator.Success, coordinator.Failed, coordinator.Canceled}).Draw(rt, name)
		})
		for name, s := range story {
			last := coordinator.Status(s[strings.LastIndexByte(strings.TrimSpace(s), ' ')+1:])
			if last = coordinator.Status(strings.TrimSpace(string(last))); !last.Finished() {
				rt.Fatalf("%s ends as %q", name, s)
			}
		}
	})
}
