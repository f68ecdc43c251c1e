package main

import (
	"context"
	"encoding/json"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
)

func newCacheArchiver(s streams) *cobra.Command {
	cmd := jobCommand("cache-archiver", "Pack files of the current directory into a cache",
		`  tranter cache-archiver --file /cache/group/project/main/cache.zip --path vendor/ --untracked`)
	f := cmd.Flags()
	addCacheFlags(f)
	paths := f.StringArray("path", nil, "pattern of files to pack; may be repeated")
	untracked := f.Bool("untracked", false, "pack what git does not track")
	limit := f.Int64("max-uploaded-archive-size", 0, "bytes over which an archive stays on this machine (0: no limit)")
	withEnv(f, "max-uploaded-archive-size", "CACHE_MAX_UPLOADED_ARCHIVE_SIZE")
	header := f.StringArray("header", nil, "header of the upload, NAME: VALUE; may be repeated")
	for _, name := range []string{"alternate-file", "check-url"} {
		f.String(name, "", "accepted; no effect")
	}
	cmd.RunE = onJobSide(s, func(ctx context.Context, job *jobSide, flags *pflag.FlagSet) error {
		entry, err := job.cache(flags)
		if err != nil {
			return err
		}
		entry.Paths, entry.Untracked, entry.Store.MaxUpload = *paths, *untracked, *limit
		if key := metadataKey(os.Getenv("CACHE_METADATA")); key != "" {
			entry.Key = key
		}
		if url, _ := flags.GetString("url"); url != "" {
			headers, err := signedHeader(*header)
			if err != nil {
				return err
			}
			put := tranter.SignedRequest{Method: "PUT", URL: tranter.Secret(url), Header: headers}
			entry.Remote = []tranter.RemoteArchive{{Upload: &tranter.RemoteUpload{Whole: &put}}}
		}
		return transfer.ArchiveCache(ctx, job.env, entry)
	})
	return cmd
}

// metadataKey is the cache's key as the user knows it.
func metadataKey(text string) string {
	var m struct {
		Key string `json:"cachekey"`
	}
	_ = json.Unmarshal([]byte(text), &m) // without, the directory's name serves
	return m.Key
}
