package plan

import (
	"path"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/variables"
)

// BuildType is the address of the text that explains the statements of GitLab Runner, whose form ours have.
const BuildType = "https://gitlab.com/gitlab-org/gitlab-runner/-/blob/v19.4.0/PROVENANCE.md"

// provenance returns what to tell of the origin of artifacts, or nil if the payload does not ask for that or there is no
// archive that it could go into (runner contract, section 8.3).
func (b *builder) provenance(artifacts []tranter.Artifact) *tranter.Provenance {
	on, _ := variables.List(b.job.Variables).Bool("RUNNER_GENERATE_ARTIFACTS_METADATA")
	if !on || !slices.ContainsFunc(artifacts, func(a tranter.Artifact) bool { return a.Format == "zip" }) {
		return nil
	}
	p := &tranter.Provenance{
		Schema: b.vars.Get("SLSA_PROVENANCE_SCHEMA_VERSION"), BuildType: BuildType, RepoURL: strings.TrimSuffix(b.job.CleanRepoURL(), ".git"), SHA: b.job.Git.SHA,
		JobName: b.job.Info.Name, Executor: b.settings.Executor, RunnerName: b.settings.Name, RunnerID: b.vars.Get("CI_RUNNER_ID"),
		Architecture: path.Base(b.settings.Program.Arch), Parameters: []string{},
	}
	for _, v := range b.vars {
		p.Parameters = append(p.Parameters, v.Key)
	}
	slices.Sort(p.Parameters)
	p.Parameters = slices.Compact(p.Parameters)
	return p
}
