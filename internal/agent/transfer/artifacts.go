package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/archive"
	"github.com/tranter-ci/tranter/internal/agent/env"
)

// DownloadArtifacts fetches the artifacts of earlier jobs and unpacks them into the project, one after the other. The
// first that cannot be had ends it with an error, which wraps the coordinator's.
func DownloadArtifacts(ctx context.Context, e *env.Env, a Artifacts, s *tranter.DownloadStep) error {
	for _, d := range s.Dependencies {
		if d.File == nil || d.File.Filename == "" {
			continue
		}
		e.Log.Info("Downloading artifacts for %s (%d)...", d.Name, d.ID)
		if err := download(ctx, e, a, d); err != nil {
			return fmt.Errorf("artifacts of %s (%d): %w", d.Name, d.ID, cause(ctx, err))
		}
	}
	return nil
}

func download(ctx context.Context, e *env.Env, a Artifacts, d tranter.Dependency) error {
	f, remove, err := tempFile(e)
	if err != nil {
		return err
	}
	defer remove()
	err = repeat(ctx, e.Log, downloadWait, func() error { return fetch(ctx, a, d, f) })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		e.Log.Error("Downloading artifacts from coordinator... %s  id=%d", reason(err), d.ID)
		return fmt.Errorf("download: %w", err)
	}
	e.Log.Plain("Downloading artifacts from coordinator... ok  id=%d responseStatus=200 OK token=%s", d.ID, d.Token.Short())
	if err := archive.Extract(ctx, f, e.Dirs().Project, e.Log); err != nil {
		return fmt.Errorf("extract: %w", err)
	}
	return nil
}

// fetch writes the archive of d to f, from its beginning.
func fetch(ctx context.Context, a Artifacts, d tranter.Dependency, f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	body, err := a.Download(ctx, tranter.JobRef{ID: d.ID, Token: d.Token})
	if err != nil {
		return err
	}
	defer body.Close()
	stop := context.AfterFunc(ctx, func() { _ = body.Close() }) // ends a read that waits
	defer stop()
	n, err := io.Copy(f, body)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && n < d.File.Size {
		err = fmt.Errorf("%w: got %d of %d bytes", io.ErrUnexpectedEOF, n, d.File.Size)
	}
	return err
}

// reason is how a failed transfer is told in GitLab's words.
func reason(err error) string {
	switch {
	case errors.Is(err, tranter.ErrForbidden):
		return "forbidden"
	case errors.Is(err, tranter.ErrNotFound):
		return "not found"
	case errors.Is(err, tranter.ErrTooLarge):
		return "413 Request Entity Too Large"
	default:
		return "error: " + err.Error()
	}
}

// UploadArtifacts packs and uploads the artifacts of s, one after the other. Patterns that match nothing are only warned
// about; the first entry that cannot be packed or uploaded ends it with an error, which wraps the coordinator's.
func UploadArtifacts(ctx context.Context, e *env.Env, a Artifacts, s *tranter.UploadStep) error {
	for _, art := range s.Artifacts {
		if len(art.Paths) == 0 && len(art.Exclude) == 0 && !art.Untracked {
			continue
		}
		if err := upload(ctx, e, a, s, art); err != nil {
			return fmt.Errorf("upload artifacts as %q: %w", kind(art), cause(ctx, err))
		}
	}
	return nil
}

func kind(a tranter.Artifact) string {
	if a.Type == "" {
		return "archive"
	}
	return a.Type
}

func upload(ctx context.Context, e *env.Env, a Artifacts, s *tranter.UploadStep, art tranter.Artifact) error {
	e.Log.Info("Uploading artifacts...")
	format, ok := archive.ParseFormat(art.Format)
	if !ok {
		return &tranter.ConfigError{Err: fmt.Errorf("unknown format %q", art.Format)}
	}
	files, err := collect(ctx, e, art.Paths, art.Exclude, art.Untracked)
	if err != nil {
		return err
	}
	if len(files.List) == 0 {
		e.Log.Error("No files to upload")
		return nil
	}
	f, remove, err := tempFile(e)
	if err != nil {
		return err
	}
	defer remove()
	o := archive.Options{Format: format, Level: level(e, "ARTIFACT_COMPRESSION_LEVEL")}
	if err := archive.Create(ctx, f, files, o, e.Log); err != nil {
		if _, ok := errors.AsType[archive.Unfit](err); ok {
			err = &tranter.ConfigError{Err: err} // the job's definition is at fault
		}
		return fmt.Errorf("create the archive: %w", err)
	}
	up := tranter.ArtifactUpload{
		Filename: fileName(e, art.Name, format), Type: art.Type, Format: art.Format, ExpireIn: art.ExpireIn,
		Timeout: s.Timeout, HeaderTimeout: s.HeaderTimeout,
		Body: func() (io.ReadCloser, error) { return os.Open(f.Name()) },
	}
	job := tranter.JobRef{ID: e.Phase.JobID, Token: e.Phase.JobToken}
	err = repeat(ctx, e.Log, uploadWait, func() error { return a.Upload(ctx, job, up) })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		e.Log.Error("Uploading artifacts as %q to coordinator... %s  id=%d", kind(art), reason(err), job.ID)
		return err
	}
	e.Log.Plain("Uploading artifacts as %q to coordinator... 201 Created  id=%d responseStatus=201 Created token=%s", kind(art), job.ID, job.Token.Short())
	return nil
}

// fileName is the name that an archive is uploaded under (runner contract, section 8.2).
func fileName(e *env.Env, name string, format archive.Format) string {
	if name == "" {
		name = "artifacts"
	}
	expanded, err := e.Expand(name)
	if err != nil {
		e.Log.Warning("artifacts:name %q: %v", name, err)
	}
	base := path.Base(filepath.ToSlash(expanded))
	if expanded == "" || base == "." || base == "/" {
		base = "default"
	}
	return base + format.Extension()
}
