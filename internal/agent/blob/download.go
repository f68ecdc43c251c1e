package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter"
)

// replacements is how often a download is begun anew because there is another archive now.
const replacements = 3

// span is a range of bytes: from, and the first one after it.
type span struct{ from, to int64 }

// Want says which archive is wanted.
type Want struct {
	// Have describes an archive at hand. One that is not newer is ErrNotModified: the same tag or, without tags, no
	// later time. Nil: there is none.
	Have *Object
	// Begin is called once it is known that there is one; nil: nothing is.
	Begin func(Object)
	// Moved is told how many bytes have come, by several goroutines; nil: nothing is.
	Moved func(n int64)
}

// Download writes the archive that get gives to f. One that does not have the length, or the hash, that the storage
// tells is ErrDamaged.
func (c *Client) Download(ctx context.Context, get *tranter.SignedRequest, f *os.File, want Want) (Object, error) {
	var err error
	for range replacements {
		var obj Object
		if obj, err = c.download(ctx, get, f, want); !errors.Is(err, errReplaced) {
			return obj, err
		}
	}
	return Object{}, err
}

// download is one download.
type download struct {
	c      *Client
	get    *tranter.SignedRequest
	file   *os.File
	want   Want
	group  *errgroup.Group
	begun  bool
	obj    Object       // known once the first answer has come
	ranges bool         // the storage sends parts
	next   atomic.Int64 // the first byte that no part has
}

func (c *Client) download(ctx context.Context, get *tranter.SignedRequest, f *os.File, want Want) (Object, error) {
	group, parts := errgroup.WithContext(ctx)
	d := &download{c: c, get: get, file: f, want: want, group: group}
	d.next.Store(c.opt.Chunk)
	group.Go(func() error {
		if err := d.part(parts, span{0, c.opt.Chunk}); err != nil {
			return err
		}
		return d.work(parts)
	})
	if err := group.Wait(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Object{}, err
	}
	return d.obj, d.verify(ctx)
}

// begin takes what the first answer tells of the archive, and lets others fetch what is left of it meanwhile.
func (d *download) begin(ctx context.Context, resp *http.Response) error {
	d.begun, d.obj = true, describe(resp)
	d.ranges = resp.StatusCode == http.StatusPartialContent
	if d.obj.Size == 0 {
		return fmt.Errorf("%w: it is empty", ErrDamaged)
	}
	if d.want.Have != nil && !d.newer(d.want.Have) {
		return &answer{code: http.StatusNotModified}
	}
	if d.want.Begin != nil {
		d.want.Begin(d.obj)
	}
	if err := errors.Join(d.file.Truncate(0), d.file.Truncate(max(d.obj.Size, 0))); err != nil {
		return fmt.Errorf("make room for the archive: %w", err)
	}
	if !d.ranges {
		return nil
	}
	left := (d.obj.Size - 1) / d.c.opt.Chunk
	for range min(left, int64(d.c.opt.Concurrency-1)) {
		d.group.Go(func() error { return d.work(ctx) })
	}
	return nil
}

func (d *download) newer(than *Object) bool {
	switch {
	case than.Tag != "" && d.obj.Tag != "":
		return than.Tag != d.obj.Tag
	case than.ModTime.IsZero() || d.obj.ModTime.IsZero():
		return true
	default:
		return d.obj.ModTime.After(than.ModTime)
	}
}

// work fetches parts until there are none left.
func (d *download) work(ctx context.Context) error {
	for d.ranges {
		from := d.next.Add(d.c.opt.Chunk) - d.c.opt.Chunk
		if from >= d.obj.Size {
			break
		}
		if err := d.part(ctx, span{from, min(from+d.c.opt.Chunk, d.obj.Size)}); err != nil {
			return err
		}
	}
	return nil
}

// part fetches one part, from where it stopped if it breaks off.
func (d *download) part(ctx context.Context, s span) error {
	buf := make([]byte, d.c.opt.Buffer)
	return d.c.persist(ctx, func(ctx context.Context) (bool, error) {
		before := s.from
		err := d.fetch(ctx, &s, buf)
		return s.from > before, err
	})
}

// fetch makes one request for s, and takes from s what it got.
func (d *download) fetch(ctx context.Context, s *span, buf []byte) error {
	resp, err := d.c.get(ctx, d.get, *s, d.conditions())
	if err != nil {
		return err
	}
	defer resp.done()
	if !d.begun { // only the first part's goroutine is there yet
		if err := d.begin(ctx, resp.Response); err != nil {
			return err
		}
	}
	if err := d.same(resp.Response, s); err != nil {
		return err
	}
	if s.to > d.obj.Size && d.obj.Size >= 0 {
		s.to = d.obj.Size
	}
	return d.copy(resp, s, buf)
}

// conditions are headers that spare sending an archive that is not wanted: the one at hand, or another than the one that
// was begun with. The answers are looked at all the same.
func (d *download) conditions() map[string]string {
	switch have := d.want.Have; {
	case d.begun && strings.HasPrefix(d.obj.Tag, `"`): // weak ones never match
		return map[string]string{"If-Match": d.obj.Tag}
	case d.begun || have == nil:
		return nil
	case have.Tag != "":
		return map[string]string{"If-None-Match": have.Tag}
	case !have.ModTime.IsZero():
		return map[string]string{"If-Modified-Since": have.ModTime.UTC().Format(http.TimeFormat)}
	}
	return nil
}

// same checks that an answer is what was asked for, of the archive that was begun with.
func (d *download) same(resp *http.Response, s *span) error {
	now := describe(resp)
	if now.Tag != d.obj.Tag || now.Size != d.obj.Size || now.Tag == "" && !now.ModTime.Equal(d.obj.ModTime) {
		return errReplaced
	}
	if resp.StatusCode != http.StatusPartialContent {
		if d.ranges {
			return fmt.Errorf("%w: the storage has sent all of it instead of a part", ErrDamaged)
		}
		s.from, s.to = 0, d.obj.Size // all of it, and again from the beginning
		return nil
	}
	if from, _, ok := contentRange(resp.Header.Get("Content-Range")); !ok || from != s.from {
		return fmt.Errorf("%w: the storage has sent another part than was asked for", ErrDamaged)
	}
	return nil
}

// copy writes a body to its place in the file.
func (d *download) copy(resp reply, s *span, buf []byte) error {
	for s.to < 0 || s.from < s.to {
		want := int64(len(buf))
		if s.to >= 0 {
			want = min(want, s.to-s.from)
		}
		n, err := resp.Body.Read(buf[:want])
		if _, err := d.file.WriteAt(buf[:n], s.from); err != nil {
			return fmt.Errorf("write the archive: %w", err)
		}
		s.from += int64(n)
		if d.want.Moved != nil {
			d.want.Moved(int64(n))
		}
		switch {
		case errors.Is(err, io.EOF) && s.to < 0:
			return nil
		case errors.Is(err, io.EOF) && s.from < s.to:
			return broken{fmt.Errorf("the cache at %s: %w", Host(d.get), io.ErrUnexpectedEOF)}
		case err != nil && !errors.Is(err, io.EOF):
			return err
		}
	}
	return nil
}

// verify compares the file with the hash that the storage has told.
func (d *download) verify(ctx context.Context) error {
	if d.obj.sum == nil {
		return nil
	}
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for at := int64(0); ; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := d.file.ReadAt(buf, at)
		h.Write(buf[:n])
		at += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
	}
	if !bytes.Equal(h.Sum(nil), d.obj.sum) {
		return fmt.Errorf("%w: its hash is not the one that it was stored with", ErrDamaged)
	}
	return nil
}

// get asks for a part of what r gets.
func (c *Client) get(ctx context.Context, r *tranter.SignedRequest, s span, header map[string]string) (reply, error) {
	h := map[string]string{"Range": fmt.Sprintf("bytes=%d-%d", s.from, s.to-1)}
	maps.Copy(h, header)
	resp, err := c.send(ctx, request{SignedRequest: r, header: h})
	if a, ok := errors.AsType[*answer](err); ok && a.code == http.StatusRequestedRangeNotSatisfiable {
		if s.from == 0 {
			return resp, fmt.Errorf("%w: it is empty", ErrDamaged)
		}
		return resp, errReplaced
	}
	if err == nil && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		resp.done()
		return reply{}, &answer{host: Host(r), code: resp.StatusCode}
	}
	return resp, err
}

// describe reads what an answer's headers tell of an archive.
func describe(resp *http.Response) Object {
	o := Object{Size: resp.ContentLength, Tag: resp.Header.Get("ETag")}
	if resp.StatusCode == http.StatusPartialContent {
		o.Size = -1
		if _, total, ok := contentRange(resp.Header.Get("Content-Range")); ok {
			o.Size = total
		}
	}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		o.ModTime = t
	}
	for _, prefix := range []string{"X-Amz-Meta-", "X-Goog-Meta-", "X-Ms-Meta-", "X-Tranter-Meta-"} {
		if key := resp.Header.Get(prefix + "Cachekey"); key != "" {
			o.Key = key
		}
		if sum, err := hex.DecodeString(resp.Header.Get(prefix + "Sha256")); err == nil && len(sum) == sha256.Size {
			o.sum = sum
		}
	}
	if sum := reprDigest(resp.Header.Get("Repr-Digest")); sum != nil {
		o.sum = sum
	}
	return o
}

// reprDigest returns the SHA-256 of the whole content from a header of RFC 9530.
func reprDigest(text string) []byte {
	for item := range strings.SplitSeq(text, ",") {
		value, ok := strings.CutPrefix(strings.TrimSpace(item), "sha-256=:")
		if !ok {
			continue
		}
		if sum, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(value, ":")); err == nil && len(sum) == sha256.Size {
			return sum
		}
	}
	return nil
}

// contentRange reads "bytes 0-9/100".
func contentRange(text string) (from, total int64, ok bool) {
	rest, ok := strings.CutPrefix(text, "bytes ")
	if !ok {
		return 0, 0, false
	}
	part, whole, _ := strings.Cut(rest, "/")
	begin, _, _ := strings.Cut(part, "-")
	from, err := strconv.ParseInt(begin, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	total, err = strconv.ParseInt(whole, 10, 64)
	return from, total, err == nil && total > 0
}
