package main

import (
	"context"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/env"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
	"github.com/tranter-ci/tranter/internal/plan"
	"github.com/tranter-ci/tranter/internal/variables"
)

func newArtifactsUploader(s streams) *cobra.Command {
	cmd := jobCommand("artifacts-uploader", "Upload files of the current directory as artifacts of a job",
		`  CI_JOB_TOKEN=... tranter artifacts-uploader --url https://gitlab.example.com --id 42 --path bin/ --name programs`)
	f := cmd.Flags()
	addServerFlags(f)
	var step tranter.UploadStep
	var art tranter.Artifact
	f.DurationVar(&step.Timeout, "timeout", time.Hour, "longest upload")
	f.DurationVar(&step.HeaderTimeout, "response-header-timeout", 10*time.Minute, "longest wait for the answer")
	f.StringArrayVar(&art.Paths, "path", nil, "pattern of files to upload; may be repeated")
	f.StringArrayVar(&art.Exclude, "exclude", nil, "pattern of files to leave out; may be repeated")
	f.BoolVar(&art.Untracked, "untracked", false, "upload what git does not track")
	f.StringVar(&art.Name, "name", "artifacts", "name of the archive")
	f.StringVar(&art.ExpireIn, "expire-in", "", "how long GitLab keeps them")
	f.StringVar(&art.Format, "artifact-format", "", "zip, gzip, raw or another format")
	f.StringVar(&art.Type, "artifact-type", "", "archive, or the type of a report")
	provenance := addProvenanceFlags(f)
	cmd.RunE = onJobSide(s, func(ctx context.Context, job *jobSide, flags *pflag.FlagSet) error {
		server, _, err := job.server(flags)
		if err != nil {
			return err
		}
		client, err := artifacts(server)
		if err != nil {
			return err
		}
		step.Artifacts = []tranter.Artifact{art}
		step.Provenance = provenance(job.env)
		step.Trace, _ = variables.List{{Key: "T", Value: job.env.Get("CI_DEBUG_TRACE")}}.Bool("T")
		return transfer.UploadArtifact(ctx, job.env, client, &step)
	})
	return cmd
}

// addProvenanceFlags defines the flags about the origin of artifacts (contract 8.3), and returns what they say.
func addProvenanceFlags(f *pflag.FlagSet) func(*env.Env) *tranter.Provenance {
	p := tranter.Provenance{Architecture: runtime.GOOS + "/" + runtime.GOARCH, BuildType: plan.BuildType}
	on := f.Bool("generate-artifacts-metadata", false, "add a statement about their origin to a zip archive")
	f.StringVar(&p.RunnerID, "runner-id", "", "for the statement: id of the runner")
	f.StringVar(&p.RepoURL, "repo-url", "", "for the statement: address of the repository")
	f.StringVar(&p.SHA, "repo-digest", "", "for the statement: commit")
	f.StringVar(&p.JobName, "job-name", "", "for the statement: name of the job")
	f.StringVar(&p.Executor, "executor-name", "", "for the statement: kind of executor")
	f.StringVar(&p.RunnerName, "runner-name", "", "for the statement: name of the runner")
	f.StringVar(&p.Schema, "schema-version", "v1", "for the statement: version of its schema")
	f.StringArrayVar(&p.Parameters, "metadata-parameter", nil, "for the statement: name of a variable; may be repeated")
	began := f.String("started-at", "", "for the statement: when the job began (RFC 3339)")
	ended := f.String("ended-at", "", "for the statement: when its last script ended")
	return func(e *env.Env) *tranter.Provenance {
		if !*on {
			return nil
		}
		e.Steps = func() []tranter.StepRecord {
			return []tranter.StepRecord{{Name: "step_script", Started: milliseconds(*began), Ended: milliseconds(*ended)}}
		}
		return &p
	}
}

// milliseconds reads a time; one that is none counts as now.
func milliseconds(text string) int64 {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t = time.Now()
	}
	return t.UnixMilli()
}
