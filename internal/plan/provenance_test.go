package plan

import (
	"slices"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
)

// uploadSteps returns what the plan uploads.
func uploadSteps(p *Plan) []*tranter.UploadStep {
	var out []*tranter.UploadStep
	for _, s := range p.Phases[0].Steps {
		if s.Upload != nil {
			out = append(out, s.Upload)
		}
	}
	return out
}

func TestProvenance(t *testing.T) {
	withArtifacts := func(format string, variables ...string) *tranter.Job {
		j := job(variables...)
		j.Artifacts = []tranter.Artifact{{Paths: []string{"x"}, When: "always", Format: format}}
		return j
	}
	s := Settings{Name: "blue", Executor: "shell", Dirs: DirSettings{Builds: "/b", Cache: "/c"}, Shell: "bash", Program: Program{Arch: "linux/amd64"}}
	for _, j := range []*tranter.Job{withArtifacts("zip"), withArtifacts("gzip", "RUNNER_GENERATE_ARTIFACTS_METADATA", "true"), withArtifacts("zip", "RUNNER_GENERATE_ARTIFACTS_METADATA", "false")} {
		for _, u := range uploadSteps(build(t, j, s)) {
			if u.Provenance != nil {
				t.Errorf("nobody has asked for %+v", u.Provenance)
			}
		}
	}
	steps := uploadSteps(build(t, withArtifacts("zip", "RUNNER_GENERATE_ARTIFACTS_METADATA", "1", "CI_RUNNER_ID", "12", "PASS", "secret-value", "PASS", "again"), s))
	if len(steps) != 2 {
		t.Fatalf("%d steps", len(steps))
	}
	for _, u := range steps {
		p := u.Provenance
		if p == nil || p.RepoURL != "https://gitlab.example.com/group/project" || p.SHA == "" || p.JobName != "test" || p.RunnerID != "12" || p.RunnerName != "blue" || p.Executor != "shell" || p.Architecture != "amd64" {
			t.Fatalf("%+v", p)
		}
		if n := len(slices.DeleteFunc(slices.Clone(p.Parameters), func(k string) bool { return k != "PASS" })); n != 1 || !slices.Contains(p.Parameters, "CI_PROJECT_DIR") || strings.Contains(strings.Join(p.Parameters, " "), "secret-value") {
			t.Errorf("%v", p.Parameters)
		}
	}
}
