package main

import (
	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
)

func newArtifactsDownloader(s streams) *cobra.Command {
	cmd := jobCommand("artifacts-downloader", "Unpack the artifacts of a job into the current directory",
		`  CI_JOB_TOKEN=... tranter artifacts-downloader --url https://gitlab.example.com --id 42`)
	addServerFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		job, err := newJobSide(s, cmd.Flags())
		if err != nil {
			return err
		}
		server, ref, err := job.server(cmd.Flags())
		if err != nil {
			return job.end(err)
		}
		client, err := artifacts(server)
		if err != nil {
			return job.end(err)
		}
		return job.end(transfer.DownloadArtifact(cmd.Context(), job.env, client,
			tranter.Dependency{ID: ref.ID, Token: ref.Token, File: &tranter.DependencyFile{}}))
	}
	return cmd
}
