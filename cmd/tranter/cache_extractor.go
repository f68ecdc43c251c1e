package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
	cmd.RunE = onJobSide(s, func(ctx context.Context, job *jobSide, flags *pflag.FlagSet) error {
		entry, err := job.cache(flags)
		if err != nil {
			return err
		}
		if url, _ := flags.GetString("url"); url != "" {
			entry.Remote = []tranter.RemoteArchive{{Download: &tranter.SignedRequest{Method: "GET", URL: tranter.Secret(url)}}}
		}
		return transfer.RestoreCache(ctx, job.env, entry)
	})
	return cmd
}
