package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
)

func newArtifactsDownloader(s streams) *cobra.Command {
	cmd := jobCommand("artifacts-downloader", "Unpack the artifacts of a job into the current directory",
		`  CI_JOB_TOKEN=... tranter artifacts-downloader --url https://gitlab.example.com --id 42`)
	addServerFlags(cmd.Flags())
	cmd.RunE = onJobSide(s, func(ctx context.Context, job *jobSide, flags *pflag.FlagSet) error {
		server, ref, err := job.server(flags)
		if err != nil {
			return err
		}
		client, err := artifacts(server)
		if err != nil {
			return err
		}
		return transfer.DownloadArtifact(ctx, job.env, client,
			tranter.Dependency{ID: ref.ID, Token: ref.Token, File: &tranter.DependencyFile{}})
	})
	return cmd
}
