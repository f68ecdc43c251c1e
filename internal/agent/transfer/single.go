package transfer

import (
	"context"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/env"
)

// RestoreCache unpacks the first object of a cache, for a caller that has to know whether there was one.
func RestoreCache(ctx context.Context, e *env.Env, c tranter.CacheEntry) error {
	st := stores(e, c)
	defer st.close()
	return cause(ctx, st.restore(ctx, c.Objects[0]))
}

// ArchiveCache packs and saves a cache, for a caller that has to know whether that went well. There being no files is no
// error.
func ArchiveCache(ctx context.Context, e *env.Env, c tranter.CacheEntry) error {
	st := stores(e, c)
	defer st.close()
	_, err := st.archive(ctx, c)
	return cause(ctx, err)
}

// DownloadArtifact fetches the artifacts of one job and unpacks them, without a word about which.
func DownloadArtifact(ctx context.Context, e *env.Env, a Artifacts, d tranter.Dependency) error {
	return cause(ctx, download(ctx, e, a, d))
}

// UploadArtifact packs and uploads one entry of s, which has no others.
func UploadArtifact(ctx context.Context, e *env.Env, a Artifacts, s *tranter.UploadStep) error {
	return cause(ctx, upload(ctx, e, a, s, s.Artifacts[0]))
}
