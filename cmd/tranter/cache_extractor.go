package main

import (
	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
)

func newCacheExtractor(s streams) *cobra.Command {
	cmd := jobCommand("cache-extractor", "Unpack a cache into the current directory",
		`  tranter cache-extractor --file /cache/group/project/main/cache.zip`)
	addCacheFlags(cmd.Flags())
	for _, name := range []string{"head-url", "alternate-url", "alternate-gocloud-url"} {
		cmd.Flags().String(name, "", "accepted; no effect")
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		job, err := newJobSide(s, cmd.Flags())
		if err != nil {
			return err
		}
		entry, err := job.cache(cmd.Flags())
		if err != nil {
			return job.end(err)
		}
		if url, _ := cmd.Flags().GetString("url"); url != "" {
			entry.Remote = []tranter.RemoteArchive{{Download: &tranter.SignedRequest{Method: "GET", URL: tranter.Secret(url)}}}
		}
		return job.end(transfer.RestoreCache(cmd.Context(), job.env, entry))
	}
	return cmd
}
