package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/archive"
	"github.com/tranter-ci/tranter/internal/agent/env"
)

// UploadArtifacts packs and uploads the artifacts of s, one after the other. Patterns that match nothing are only warned
// about; the first entry that cannot be packed or uploaded ends it with an error, which wraps the coordinator's.
//
// An archive is made while it is sent: it needs no room on the disk, and packing and sending overlap. Another try makes
// it anew.
func UploadArtifacts(ctx context.Context, e *env.Env, a Artifacts, s *tranter.UploadStep) error {
	for _, art := range s.Artifacts {
		if len(art.Paths) == 0 && len(art.Exclude) == 0 && !art.Untracked {
			continue
		}
		e.Log.Info("Uploading artifacts...")
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
	if err := archive.Check(files, format); err != nil {
		return fmt.Errorf("create the archive: %w", &tranter.ConfigError{Err: err}) // the job's definition is at fault
	}
	o := archive.Options{Format: format, Level: level(e, "ARTIFACT_COMPRESSION_LEVEL")}
	o.Workers, o.Block = wholeNumber(e, "FASTZIP_ARCHIVER_CONCURRENCY"), wholeNumber(e, "FASTZIP_ARCHIVER_BUFFER_SIZE")
	name := fileName(e, art.Name, format)
	p := newParcel(ctx, e, files, o)
	if s.Provenance != nil && art.Format == string(archive.Zip) {
		p.state = newStatement(e, s.Provenance, strings.TrimSuffix(name, format.Extension()))
	}
	up := tranter.ArtifactUpload{
		Filename: name, Type: art.Type, Format: art.Format, ExpireIn: art.ExpireIn,
		Timeout: s.Timeout, HeaderTimeout: s.HeaderTimeout, Body: p.open,
	}
	if s.Trace {
		up.Answered = func(status string, header map[string][]string, body []byte) { traceAnswer(e, status, header, body) }
	}
	return p.send(ctx, a, up)
}

// parcel is an archive on its way: packed while it is read, as often as it is asked for.
type parcel struct {
	ctx     context.Context //nolint:containedctx // of the upload: the coordinator asks for a body without one
	e       *env.Env
	files   archive.Files
	options archive.Options
	state   *statement
	meter   *meter

	mu     sync.Mutex
	bodies []*packing
}

func newParcel(ctx context.Context, e *env.Env, files archive.Files, o archive.Options) *parcel {
	return &parcel{ctx: ctx, e: e, files: files, options: o}
}

// errUnpacked is a failure to pack, which lasts: files that can't be read now can't be read in a moment.
var errUnpacked = errors.New("create the archive")

// send uploads the parcel, with as many tries as an upload has.
func (p *parcel) send(ctx context.Context, a Artifacts, up tranter.ArtifactUpload) error {
	p.meter = newMeter(p.e, "Uploading artifacts", 0)
	job := tranter.JobRef{ID: p.e.Phase.JobID, Token: p.e.Phase.JobToken}
	err := repeat(ctx, p.e.Log, uploadWait, func() error {
		err := a.Upload(ctx, job, up)
		if unpacked := p.close(); unpacked != nil {
			return fmt.Errorf("%w: %w", errUnpacked, unpacked)
		}
		return err
	})
	p.meter.end()
	as := tranter.Artifact{Type: up.Type}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errUnpacked):
		return err
	case err != nil:
		p.e.Log.Error("Uploading artifacts as %q to coordinator... %s  id=%d", kind(as), reason(err), job.ID)
		return err
	}
	p.e.Log.Plain("Uploading artifacts as %q to coordinator... 201 Created  id=%d responseStatus=201 Created token=%s", kind(as), job.ID, job.Token.Short())
	return nil
}

// open returns the archive from its beginning. It is packed as soon as somebody reads.
func (p *parcel) open() (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(p.ctx)
	r, w := io.Pipe()
	b := &packing{r: r, w: w, cancel: cancel, parcel: p, ctx: ctx}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bodies = append(p.bodies, b)
	return b, nil
}

// close ends all packing and returns why it failed, if it did by itself.
func (p *parcel) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for _, b := range p.bodies {
		_ = b.Close()
		err = errors.Join(err, b.err)
	}
	p.bodies = nil
	return err
}

// packing is an archive that is being read.
type packing struct {
	parcel *parcel
	ctx    context.Context //nolint:containedctx // ends with Close
	cancel context.CancelFunc
	r      *io.PipeReader
	w      *io.PipeWriter
	start  sync.Once
	work   sync.WaitGroup
	err    error // of packing; complete once work is done
}

// errClosed tells that nobody wants the rest of an archive.
var errClosed = errors.New("the upload has ended")

// Read implements io.Reader.
func (b *packing) Read(buf []byte) (int, error) {
	b.start.Do(func() { b.work.Go(b.pack) })
	n, err := b.r.Read(buf)
	b.parcel.meter.add(int64(n))
	return n, err
}

func (b *packing) pack() {
	p := b.parcel
	p.meter.restart()
	files, o := p.files, p.options
	if p.state != nil {
		files, o = p.state.begin(files, o)
	}
	err := archive.Create(b.ctx, b.w, files, o, p.e.Log)
	_ = b.w.CloseWithError(err)
	if !errors.Is(err, errClosed) && b.ctx.Err() == nil {
		b.err = err
	}
}

// Close ends packing and waits for its end.
func (b *packing) Close() error {
	b.start.Do(func() {})
	b.cancel()
	_ = b.r.CloseWithError(errClosed)
	b.work.Wait()
	return nil
}

// traceAnswer shows what the server has answered, for CI_DEBUG_TRACE. The log masks secrets.
func traceAnswer(e *env.Env, status string, header map[string][]string, body []byte) {
	const shown = 512
	e.Log.Plain("The server's answer: %s", status)
	for _, key := range slices.Sorted(maps.Keys(header)) {
		e.Log.Plain("%s: %s", key, strings.Join(header[key], ", "))
	}
	if len(body) > shown {
		body = body[:shown]
	}
	e.Log.Plain("%s", strings.ToValidUTF8(string(body), "?"))
}

// wholeNumber reads a count from the variable key; 0 is the default.
func wholeNumber(e *env.Env, key string) int {
	text := strings.TrimSpace(e.Get(key))
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		e.Log.Warning("%s: expected a number, got %q; the default holds", key, text)
		return 0
	}
	return n
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
