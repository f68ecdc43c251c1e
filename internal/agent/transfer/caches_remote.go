package transfer

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/archive"
	"github.com/tranter-ci/tranter/internal/agent/blob"
	"github.com/tranter-ci/tranter/internal/agent/env"
	"github.com/tranter-ci/tranter/internal/cache"
)

const (
	// patience is how long an unreachable storage holds a job up. The built-in one is the runner itself: it comes back
	// when it is restarted.
	patience        = 30 * time.Second
	builtinPatience = 90 * time.Second
	// leastChunk and mostBuffers bound what a job may ask for: parts that are not worth a request, memory that an agent
	// does not have.
	leastChunk  = 64 << 10
	mostBuffers = 8 << 20
	mostParts   = 128
)

// blobClient makes the client for one step.
func blobClient(e *env.Env, kind string) *blob.Client {
	o := blob.Options{
		Chunk:       number(e, "CACHE_CHUNK_SIZE", leastChunk),
		Concurrency: int(min(number(e, "CACHE_CONCURRENCY", 1), mostParts)),
		Timeout:     time.Duration(min(number(e, "CACHE_REQUEST_TIMEOUT", 1), 24*60)) * time.Minute,
		Buffer:      int(number(e, "CACHE_TRANSFER_BUFFER_SIZE", 4<<10)),
		Patience:    patience,
		Warn:        e.Log.Warning,
		CA:          e.Phase.Server.TLSCA,
	}
	if kind == "builtin" {
		o.Patience = builtinPatience
	}
	if o.Buffer > 0 {
		o.Buffer = min(o.Buffer, mostBuffers/max(o.Concurrency, 16))
	}
	return blob.New(o)
}

// number reads a whole number from the variable key; 0 means that there is none, or none that can be used.
func number(e *env.Env, key string, least int64) int64 {
	text := strings.TrimSpace(e.Get(key))
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least {
		e.Log.Warning("%s: expected a whole number of at least %d, got %q; the default holds", key, least, text)
		return 0
	}
	return n
}

// remote is the distributed cache of one entry.
type remote struct {
	client   *blob.Client
	archives map[string]tranter.RemoteArchive // by object
	limit    int64
}

func newRemote(e *env.Env, c tranter.CacheEntry) *remote {
	r := &remote{client: blobClient(e, c.Store.Type), archives: map[string]tranter.RemoteArchive{}, limit: maxUpload(e, c.Store.MaxUpload)}
	for i, a := range c.Remote {
		if i < len(c.Objects) {
			r.archives[c.Objects[i]] = a
		}
	}
	return r
}

// download copies the remote archive to this machine if it is newer than what is here, and says whether it did.
func (p pair) download(ctx context.Context, object string) bool {
	get := p.remote.archives[object].Download
	if get == nil {
		return false
	}
	var want blob.Want
	if here, err := p.local.Stat(object); err == nil {
		want.Have = &blob.Object{ModTime: here.ModTime, Tag: here.Tag}
	}
	place := path.Join(blob.Host(get), p.object(object))
	var lost error // not for want of a place here
	_, err := p.local.Fill(ctx, object, func(f *os.File) (cache.Info, error) {
		var m *meter
		want.Begin = func(o blob.Object) {
			p.e.Log.Plain("Downloading cache from %s", place)
			if m == nil {
				m = newMeter(p.e, "Downloading cache", o.Size)
			}
			m.restart()
		}
		want.Moved = func(n int64) { m.add(n) }
		defer func() { m.end() }()
		obj, err := p.remote.client.Download(ctx, get, f, want)
		if lost = err; err != nil {
			return cache.Info{}, err
		}
		return cache.Info{Key: obj.Key, ModTime: obj.ModTime, Tag: obj.Tag, Content: readNote(f)}, nil
	})
	switch {
	case err == nil:
		return true
	case ctx.Err() != nil || errors.Is(err, tranter.ErrNotFound):
	case errors.Is(err, blob.ErrNotModified):
		p.e.Log.Plain("cache.zip is up to date")
	default:
		p.e.Log.Warning("%v", cmp.Or(lost, err))
	}
	return false
}

// upload packs and uploads what c names, unless the distributed cache has it already.
func (p pair) upload(ctx context.Context, c tranter.CacheEntry, files archive.Files, o archive.Options, begun time.Time) error {
	object, content := c.Objects[0], fingerprint(files, o.Format, begun)
	to := p.remote.archives[object]
	here, err := p.local.Stat(object)
	current := err == nil && unchanged(here.Content, content, files)
	if p.present(ctx, object, current, unchanged(p.local.Noted(object).Content, content, files)) {
		p.e.Log.Plain("Primary cache already exists remotely, skipping upload")
		p.remote.client.Discard(ctx, to.Upload)
		return nil
	}
	host := blob.Host(&tranter.SignedRequest{})
	if to.Upload.Parts != nil {
		host = blob.Host(&to.Upload.Parts.Part)
	} else if to.Upload.Whole != nil {
		host = blob.Host(to.Upload.Whole)
	}
	p.e.Log.Plain("Uploading cache.zip to %s", path.Join(host, p.object(object)))
	pack := func(w io.Writer) error {
		n := newNoteWriter(w, content)
		if err := archive.Create(ctx, n, files, o, p.e.Log); err != nil {
			return err
		}
		return n.close()
	}
	write := pack
	if current {
		write = func(w io.Writer) error { return p.copyLocal(object, w) }
	}
	m := newMeter(p.e, "Uploading cache", here.Size)
	obj, err := p.remote.client.Upload(ctx, to.Upload, blob.Source{
		Write: write, Limit: p.remote.limit, Moved: m.add,
		Temp: func() (*os.File, func(), error) { return tempFile(p.e) },
	})
	m.end()
	if err == nil {
		if !current {
			p.local.Remove(object) // it would be taken for newer, should the clocks differ
		}
		return p.local.Note(object, cache.Info{Key: c.Key, Content: content, Tag: obj.Tag, Size: obj.Size})
	}
	if ctx.Err() != nil {
		return err
	}
	return p.keep(ctx, c, content, current, fault{err, pack})
}

// fault is why an archive is kept on this machine only, and how to make it.
type fault struct {
	err  error
	pack func(io.Writer) error
}

// keep saves the archive on this machine when it could not be uploaded, as far as it is not here.
func (p pair) keep(ctx context.Context, c tranter.CacheEntry, content string, current bool, why fault) error {
	if !current {
		if _, err := p.local.Save(ctx, c.Objects[0], cache.Info{Key: c.Key, Content: content}, why.pack); err != nil {
			return errors.Join(why.err, err)
		}
	}
	if errors.Is(why.err, tranter.ErrTooLarge) {
		p.e.Log.Warning("Cache archive is too big, cache will be stored only locally: %v", why.err)
		return nil
	}
	return why.err
}

// present says whether the distributed cache has what would be uploaded: what came from there, or what went there and
// was not replaced since.
func (p pair) present(ctx context.Context, object string, current, sent bool) bool {
	if !current && !sent {
		return false
	}
	p.e.Log.Plain("Archive is up to date!")
	get := p.remote.archives[object].Download
	if get == nil {
		return false
	}
	there, err := p.remote.client.Stat(ctx, get)
	return err == nil && (current || p.local.Noted(object).Tag == there.Tag)
}

func (p pair) copyLocal(object string, w io.Writer) error {
	a, err := p.local.Open(object)
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }()
	_, err = io.CopyBuffer(w, struct{ io.Reader }{a.File}, make([]byte, 256<<10))
	return err
}
