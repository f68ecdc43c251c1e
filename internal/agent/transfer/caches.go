package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/archive"
	"github.com/tranter-ci/tranter/internal/agent/env"
	"github.com/tranter-ci/tranter/internal/cache"
)

// RestoreCaches unpacks caches into the project: of each the first candidate that can be had. A cache that cannot be had
// is no fault; the only error is that ctx has ended.
func RestoreCaches(ctx context.Context, e *env.Env, s *tranter.RestoreStep) error {
	for _, c := range s.Caches {
		if !announce(e, c) {
			continue
		}
		if err := restoreEntry(ctx, e, c); err != nil {
			return err
		}
	}
	return nil
}

// restoreEntry unpacks the first candidate of one cache that can be had.
func restoreEntry(ctx context.Context, e *env.Env, c tranter.CacheEntry) error {
	st := stores(e, c)
	defer st.close()
	for i, object := range c.Objects {
		shown := object
		switch {
		case i < len(c.Names):
			shown = c.Names[i]
		case i == 0:
			shown = c.Key
		}
		e.Log.Info("Checking cache for %s...", shown)
		err := st.restore(ctx, object)
		if ctx.Err() != nil {
			return fmt.Errorf("restore the cache %s: %w", shown, context.Cause(ctx))
		}
		if err == nil {
			e.Log.Info("Successfully extracted cache")
			break
		}
		e.Log.Warning("%v", err)
		e.Log.Warning("Failed to extract cache")
	}
	return nil
}

// ArchiveCaches packs and saves caches. One that cannot be saved is no fault; the only error is that ctx has ended.
func ArchiveCaches(ctx context.Context, e *env.Env, s *tranter.ArchiveStep) error {
	for _, c := range s.Caches {
		if !announce(e, c) {
			continue
		}
		e.Log.Info("Creating cache %s...", c.Key)
		st := stores(e, c)
		created, err := st.archive(ctx, c)
		st.close()
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("create the cache %s: %w", c.Key, context.Cause(ctx))
		case err != nil:
			e.Log.Warning("%v", err)
			e.Log.Warning("Failed to create cache")
		case created:
			e.Log.Info("Created cache")
		}
	}
	return nil
}

// announce prints what there is to say about c before anything is done, and says whether anything is to be done.
func announce(e *env.Env, c tranter.CacheEntry) bool {
	if len(c.Paths) == 0 && !c.Untracked {
		return false
	}
	for _, w := range c.Warnings {
		e.Log.Warning("%s", w)
	}
	if c.Skip != "" {
		e.Log.Info("%s", c.Skip)
		return false
	}
	return len(c.Objects) > 0
}

// pair is where a cache lives: on this machine, and perhaps in a shared directory or a distributed cache.
type pair struct {
	e      *env.Env
	local  *cache.Directory
	shared *cache.Directory // nil: none
	remote *remote          // nil: none
	place  string           // of the shared directory, for the user
	prefix string
}

func stores(e *env.Env, c tranter.CacheEntry) pair {
	p := pair{e: e, local: cache.New(e.Dirs().Cache, 0), prefix: c.Store.Prefix}
	switch {
	case c.Store.Type == "directory":
		p.shared, p.place = cache.New(c.Store.Directory, maxUpload(e, c.Store.MaxUpload)), c.Store.Directory
	case len(c.Remote) > 0:
		p.remote = newRemote(e, c)
	}
	return p
}

func (p pair) close() {
	if p.remote != nil {
		p.remote.client.Close()
	}
}

// maxUpload returns the largest size in bytes of an archive for the shared directory: what the configuration says, else
// what the job says; 0 is no limit.
func maxUpload(e *env.Env, configured int64) int64 {
	const key = "CACHE_MAX_UPLOADED_ARCHIVE_SIZE"
	s := strings.TrimSpace(e.Get(key))
	if configured > 0 || s == "" {
		return configured
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		e.Log.Warning("%s: expected a number of bytes, got %q; no limit holds", key, s)
		return 0
	}
	return n
}

func (p pair) object(object string) string { return path.Join(p.prefix, object) }

var errNoCache = errors.New("the cache does not exist")

// restore unpacks the newer one of the local and the shared archive. A damaged one is discarded, and the other tried.
func (p pair) restore(ctx context.Context, object string) error {
	fetched := p.fetch(ctx, object)
	err := p.extract(ctx, object)
	if !errors.Is(err, archive.ErrDamaged) || p.shared == nil && p.remote == nil || ctx.Err() != nil {
		return err
	}
	if fetched {
		p.discardShared(object)
		return err
	}
	p.e.Log.Warning("%v", err)
	if !p.fetch(ctx, object) {
		return err
	}
	if err = p.extract(ctx, object); errors.Is(err, archive.ErrDamaged) {
		p.discardShared(object)
	}
	return err
}

// fetch copies the shared archive to this machine if it is newer than what is here, and says whether it did.
func (p pair) fetch(ctx context.Context, object string) bool {
	if p.remote != nil {
		return p.download(ctx, object)
	}
	if p.shared == nil {
		p.e.Log.Plain("No URL provided, cache will not be downloaded from shared cache server. Instead a local version of cache will be extracted.")
		return false
	}
	there, err := p.shared.Open(p.object(object))
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		p.e.Log.Warning("%v", err)
		return false
	}
	defer func() { _ = there.Close() }()
	if here, err := p.local.Stat(object); err == nil && !there.Info.ModTime.After(here.ModTime) {
		p.e.Log.Plain("cache.zip is up to date")
		return false
	}
	p.e.Log.Plain("Downloading cache from %s", path.Join(p.place, p.object(object)))
	if _, err := p.local.Copy(ctx, object, there); err != nil {
		if ctx.Err() == nil {
			p.e.Log.Warning("%v", err)
		}
		return false
	}
	return true
}

// extract unpacks the local archive.
func (p pair) extract(ctx context.Context, object string) error {
	a, err := p.local.Open(object)
	if errors.Is(err, fs.ErrNotExist) {
		return errNoCache
	}
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }()
	err = archive.Extract(ctx, a.File, p.e.Dirs().Project, p.e.Log)
	if errors.Is(err, archive.ErrDamaged) {
		return errors.Join(err, p.local.Discard(a))
	}
	return err
}

// discardShared removes the shared archive. Nobody has signed that for a distributed one, but the next save replaces it,
// once nothing says any more that it is there.
func (p pair) discardShared(object string) {
	if p.remote != nil {
		p.local.Forget(object)
		return
	}
	a, err := p.shared.Open(p.object(object))
	if err != nil {
		return
	}
	defer func() { _ = a.Close() }()
	if err := p.shared.Discard(a); err != nil {
		p.e.Log.Warning("%v", err)
	}
}

// archive packs what c names unless the archive at hand has the same content, and gives it to the shared directory. It
// says whether there is anything to cache.
func (p pair) archive(ctx context.Context, c tranter.CacheEntry) (bool, error) {
	begun := time.Now()
	files, err := collect(ctx, p.e, c.Paths, nil, c.Untracked)
	if err != nil {
		return false, err
	}
	if len(files.List) == 0 {
		p.e.Log.Plain("No files to cache.")
		return false, nil
	}
	o := archive.Options{Format: cacheFormat(p.e), Level: level(p.e, "CACHE_COMPRESSION_LEVEL")}
	object := c.Objects[0]
	if p.remote != nil && p.remote.archives[object].Upload != nil {
		return true, p.upload(ctx, c, files, o, begun)
	}
	content := fingerprint(files, o.Format, begun)
	here, err := p.local.Stat(object)
	current := err == nil && unchanged(here.Content, content, files)
	if current {
		p.e.Log.Plain("Archive is up to date!")
	} else {
		_, err := p.local.Save(ctx, object, cache.Info{Key: c.Key, Content: content}, func(w io.Writer) error {
			return archive.Create(ctx, w, files, o, p.e.Log)
		})
		if err != nil {
			return false, err
		}
	}
	return true, p.publish(ctx, object, current)
}

// publish gives the local archive to the shared directory. One that has not changed stays away if there is one already.
func (p pair) publish(ctx context.Context, object string, current bool) error {
	if p.shared == nil {
		p.e.Log.Plain("No URL provided, cache will not be uploaded to shared cache server. Cache will be stored only locally.")
		return nil
	}
	if _, err := p.shared.Stat(p.object(object)); current && err == nil {
		p.e.Log.Plain("Primary cache already exists remotely, skipping upload")
		return nil
	}
	a, err := p.local.Open(object)
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }()
	p.e.Log.Plain("Uploading cache.zip to %s", path.Join(p.place, p.object(object)))
	_, err = p.shared.Copy(ctx, p.object(object), a)
	if errors.Is(err, tranter.ErrTooLarge) {
		p.e.Log.Warning("Cache archive size (%d) is too big, cache will be stored only locally: %v", a.Info.Size, err)
		return nil
	}
	return err
}

// cacheFormat is the format that the job wants its caches in (runner contract, section 5.6: any other is zip).
func cacheFormat(e *env.Env) archive.Format {
	name := e.Get("CACHE_COMPRESSION_FORMAT")
	f, ok := archive.ParseFormat(name)
	if !ok || f == archive.Gzip || f == archive.Raw {
		e.Log.Warning("CACHE_COMPRESSION_FORMAT: unknown format %q, using zip (known: zip, tarzstd, zipzstd)", name)
		return archive.Zip
	}
	return f
}

// fingerprint identifies files by what the file system tells of them, and by when that was begun to be read. Times of
// files count in whole seconds, which is what a zip archive keeps, and not those of links, which no archive gives back.
func fingerprint(files archive.Files, format archive.Format, begun time.Time) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n", format)
	for _, f := range files.List {
		modified := int64(0)
		if f.Mode&fs.ModeSymlink == 0 {
			modified = f.ModTime.Unix()
		}
		fmt.Fprintf(h, "%q %o %d %q %d\n", f.Path, f.Mode, f.Size, f.Link, modified)
	}
	return hex.EncodeToString(binary.BigEndian.AppendUint64(h.Sum(nil)[:sha256.Size-8], uint64(begun.UnixNano()))) //nolint:gosec // back in unchanged
}

// unchanged says whether files are what an archive holds, by the fingerprints of both. A file that was written in the
// very second in which the archive was made has no other time than before: it counts as changed if it is younger than that.
func unchanged(archived, now string, files archive.Files) bool {
	const digest = 2 * (sha256.Size - 8)
	if len(archived) != len(now) || archived[:digest] != now[:digest] {
		return false
	}
	nano, err := strconv.ParseUint(archived[digest:], 16, 64)
	begun := time.Unix(0, int64(nano)) //nolint:gosec // a time of fingerprint's
	return err == nil && !slices.ContainsFunc(files.List, func(f archive.File) bool {
		age := f.ModTime.Sub(begun)
		return f.Mode.IsRegular() && age > -coarseClock && age < 2*time.Second
	})
}

// coarseClock is how much a file's time may lag behind the clock.
const coarseClock = 20 * time.Millisecond
