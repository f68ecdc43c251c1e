package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
)

func names(steps []tranter.Step) []string {
	var out []string
	for _, s := range steps {
		out = append(out, s.Name)
	}
	return out
}

// fullJob has something for every stage.
func fullJob(kv ...string) *tranter.Job {
	j := job(kv...)
	j.Cache = []tranter.Cache{{Key: "deps", Paths: []string{"vendor/"}}, {Key: "tools", Paths: []string{"tools/"}, When: "always"}}
	j.Artifacts = []tranter.Artifact{{Paths: []string{"out/"}, Type: "archive", When: "always"}}
	j.Dependencies = []tranter.Dependency{{ID: 6, Token: "dep-token", Name: "build", File: &tranter.DependencyFile{Filename: "artifacts.zip", Size: 10}}}
	j.Steps = []tranter.JobStep{{Name: "script", Script: []string{"make"}}, {Name: "release", Script: []string{"release-cli"}}, {Name: "after_script", Script: []string{"echo done"}}}
	return j
}

// With a helper container, scripts run in the job's image and everything else where the tools for it are.
func TestPhasesInContainers(t *testing.T) {
	s := settings()
	s.Container, s.Helper = true, true
	p := build(t, fullJob(), s)
	want := []struct {
		id    string
		place tranter.Place
		steps []string
	}{
		{"sources", tranter.PlaceHelper, []string{"prepare_script", "get_sources", "restore_cache", "download_artifacts"}},
		{"script", tranter.PlaceBuild, []string{"step_script", "step_release", "after_script"}},
		{"finish", tranter.PlaceHelper, []string{"archive_cache", "archive_cache_on_failure", "upload_artifacts_on_success", "upload_artifacts_on_failure", "cleanup_file_variables"}},
	}
	if len(p.Phases) != len(want) {
		t.Fatalf("%d phases", len(p.Phases))
	}
	for i, w := range want {
		got := p.Phases[i]
		if got.ID != w.id || got.Container == nil || *got.Container != (tranter.Container{Place: w.place, Shared: true}) {
			t.Errorf("phase %s in %+v, want %s in %s", got.ID, got.Container, w.id, w.place)
		}
		if d := cmp.Diff(w.steps, names(got.Steps)); d != "" {
			t.Errorf("%s (-want +got):\n%s", w.id, d)
		}
	}
	s.Helper = false
	if p := build(t, fullJob(), s); len(p.Phases) != 1 || p.Phases[0].ID != "job" || *p.Phases[0].Container != (tranter.Container{Place: tranter.PlaceBuild}) {
		t.Errorf("without a helper: %+v", p.Phases)
	}
	s.Container, s.Helper = false, true
	if p := build(t, fullJob(), s); len(p.Phases) != 1 || p.Phases[0].ID != "job" || p.Phases[0].Container != nil {
		t.Errorf("without containers: %+v", p.Phases)
	}
}

// However a job is split, its phases together are what the one phase would be, and each has all that is the job's.
func TestASplitJobIsTheSameJob(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var kv []string
		for _, v := range []struct{ key, value string }{
			{"GIT_STRATEGY", "none"},
			{"GIT_STRATEGY", "clone"},
			{"RUNNER_SCRIPT_TIMEOUT", "10m"},
			{"RUNNER_AFTER_SCRIPT_TIMEOUT", "1m"},
			{"FF_TIMESTAMPS", "true"},
			{"CI_DEBUG_TRACE", "true"},
			{"GET_SOURCES_ATTEMPTS", "3"},
			{"FF_ENABLE_JOB_CLEANUP", "true"},
		} {
			if rapid.Bool().Draw(rt, v.key) {
				kv = append(kv, v.key, v.value)
			}
		}
		j := fullJob(kv...)
		for _, drop := range []struct {
			name string
			drop func()
		}{
			{"caches", func() { j.Cache = nil }}, {"artifacts", func() { j.Artifacts = nil }}, {"dependencies", func() { j.Dependencies = nil }}, {"scripts", func() { j.Steps = nil }},
		} {
			if rapid.Bool().Draw(rt, drop.name) {
				drop.drop()
			}
		}
		s := settings()
		s.OutputLimit = 1 << 20
		whole := build(t, j, s)
		s.Container, s.Helper = true, true
		split := build(t, j, s)
		if d := cmp.Diff(whole.Format(), split.Format()); d != "" {
			rt.Errorf("the log differs:\n%s", d)
		}
		var together []tranter.Step
		for _, p := range split.Phases {
			together = append(together, p.Steps...)
			p.ID, p.Steps, p.Container = "job", whole.Phases[0].Steps, nil
			if d := cmp.Diff(whole.Phases[0], p); d != "" {
				rt.Errorf("a phase lacks something (-whole +split):\n%s", d)
			}
		}
		if d := cmp.Diff(whole.Phases[0].Steps, together); d != "" {
			rt.Errorf("steps (-whole +split):\n%s", d)
		}
		last := split.Phases[2]
		last.Prior = tranter.PhaseResult{Status: tranter.PhaseAborted, Over: true}
		if !last.Wanted() {
			rt.Error("what must not stay would not be removed from an aborted job")
		}
	})
}

// Variables keep what says where they may be shown and used: services get only some of them (runner contract, section 5.5).
func TestVariablesOfPhasesKeepTheirMarks(t *testing.T) {
	j := fullJob()
	j.Variables = append(j.Variables, tranter.Variable{Key: "MINE", Value: "1", Public: true, Internal: true})
	s := settings()
	s.Environment = []string{"THEIRS=$MINE"}
	s.Container, s.Helper = true, true
	for _, p := range build(t, j, s).Phases {
		seen := 0
		for _, v := range p.Variables {
			switch v.Key {
			case "MINE":
				seen++
				if !v.Public || v.Internal { // only the runner says what is internal
					t.Errorf("%s: %+v", p.ID, v)
				}
			case "THEIRS":
				seen++
				if !v.Internal || v.Public || v.Value != "1" {
					t.Errorf("%s: %+v", p.ID, v)
				}
			case "CI_PROJECT_DIR", "CI_BUILDS_DIR", "CI_SERVER":
				if !v.Internal && !v.Public {
					t.Errorf("%s: %+v", p.ID, v)
				}
			}
		}
		if seen != 2 {
			t.Errorf("%s: %d of 2 variables", p.ID, seen)
		}
	}
}
