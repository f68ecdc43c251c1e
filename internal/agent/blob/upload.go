package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter"
)

// Source is what is uploaded.
type Source struct {
	// Write makes the archive. It may be called twice: a storage may turn out not to take parts.
	Write func(w io.Writer) error
	// Temp makes a file for an archive that has to go up in one piece, and how to remove it.
	Temp func() (*os.File, func(), error)
	// Limit is the largest archive in bytes; a larger one is tranter.ErrTooLarge. 0: none.
	Limit int64
	// Moved is told how many bytes have gone up, by several goroutines; nil: nothing is.
	Moved func(n int64)
}

// errRefused means that the storage takes no parts.
var errRefused = errors.New("the storage takes no parts")

// Upload makes an archive and uploads it: in parts, while it is made, if the storage can, else from a file. The object
// before it stays as it is after any error.
func (c *Client) Upload(ctx context.Context, up *tranter.RemoteUpload, src Source) (Object, error) {
	if up.Parts != nil {
		obj, err := c.stream(ctx, up, src)
		if !errors.Is(err, errRefused) || up.Whole == nil {
			return obj, err
		}
		c.opt.Warn("The cache at %s takes no archives in parts; it is uploaded in one piece", Host(&up.Parts.Part))
	}
	if up.Whole == nil {
		return Object{}, errors.New("the manager has signed no upload")
	}
	return c.whole(ctx, up, src)
}

// Discard gives up an upload that was signed and is not needed: some storages have begun it already.
func (c *Client) Discard(ctx context.Context, up *tranter.RemoteUpload) {
	if up != nil && up.Parts != nil && up.Parts.Abort != nil {
		c.abort(ctx, up.Parts.Abort)
	}
}

// abort is done as well as can be, also when ctx has ended.
func (c *Client) abort(ctx context.Context, r *tranter.SignedRequest) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), maxWait)
	defer stop()
	if resp, err := c.send(ctx, request{SignedRequest: r}); err == nil {
		resp.done()
	}
}

// whole uploads from a file.
func (c *Client) whole(ctx context.Context, up *tranter.RemoteUpload, src Source) (Object, error) {
	f, remove, err := src.Temp()
	if err != nil {
		return Object{}, err
	}
	defer remove()
	limit := src.Limit
	if up.WholeLimit > 0 && (limit == 0 || up.WholeLimit < limit) {
		limit = up.WholeLimit
	}
	w := &counter{w: f, limit: limit}
	if err := src.Write(w); err != nil {
		return Object{}, err
	}
	return c.put(ctx, up.Whole, request{size: w.written}, func() io.Reader { return io.NewSectionReader(f, 0, w.written) })
}

// put uploads in one request.
func (c *Client) put(ctx context.Context, to *tranter.SignedRequest, r request, from func() io.Reader) (Object, error) {
	var obj Object
	err := c.persist(ctx, func(ctx context.Context) (bool, error) {
		r.SignedRequest = to
		if from != nil {
			r.file = from()
		}
		resp, _, err := c.finish(ctx, r) //nolint:bodyclose // finish has closed it
		if err == nil {
			obj = Object{Size: r.size + int64(len(r.body)), Tag: resp.Header.Get("ETag")}
		}
		return false, err
	})
	return obj, err
}

// counter ends a writer that would write too much.
type counter struct {
	w       io.Writer
	limit   int64 // 0: none
	written int64
}

func (w *counter) Write(p []byte) (int, error) {
	if err := tooLarge(w.written+int64(len(p)), w.limit); err != nil {
		return 0, err
	}
	n, err := w.w.Write(p)
	w.written += int64(n)
	return n, err
}

func tooLarge(n, limit int64) error {
	if limit > 0 && n > limit {
		return fmt.Errorf("%w: the limit is %d bytes", tranter.ErrTooLarge, limit)
	}
	return nil
}

// protocol is how parts go up to one kind of storage.
type protocol interface {
	// parallel says whether parts may go up at the same time and in any order.
	parallel() bool
	// send uploads a part, from 1 on; before it the parts have offset bytes together. The last one comes when all others
	// are sent. It is tried again by itself.
	send(ctx context.Context, p part) error
	// complete makes the parts the object. There is no last part if all were full.
	complete(ctx context.Context, parts int, size int64) (Object, error)
	// undo gives up what was begun.
	undo(ctx context.Context)
}

// part is a part of an archive on its way.
type part struct {
	number int
	offset int64
	data   []byte
	last   bool
}

func (c *Client) protocol(up *tranter.RemoteUpload) (protocol, error) {
	switch p := up.Parts; p.Protocol {
	case tranter.PartsS3:
		return &s3{c: c, p: p}, nil
	case tranter.PartsAzure:
		return &azure{c: c, p: p}, nil
	case tranter.PartsGCS:
		return &gcs{c: c, p: p}, nil
	default:
		return nil, fmt.Errorf("the manager names a way to upload that this agent does not know: %q", p.Protocol)
	}
}

// stream uploads parts while the archive is made.
func (c *Client) stream(ctx context.Context, up *tranter.RemoteUpload, src Source) (Object, error) {
	proto, err := c.protocol(up)
	if err != nil {
		return Object{}, err
	}
	size := up.Parts.PartBytes
	if size <= 0 {
		return Object{}, errors.New("the manager names no size of the parts of an upload")
	}
	workers := 1
	if proto.parallel() {
		workers = max(1, min(c.opt.Concurrency, int(memory/size)-1))
	}
	s := newStreamer(ctx, proto, int(size), workers)
	if src.Moved != nil {
		s.moved = src.Moved
	}
	defer s.free()
	w := &counter{w: s, limit: src.Limit}
	var obj Object
	if err = src.Write(w); err != nil {
		err = s.stop(err)
	} else if s.sent == 0 && up.Whole != nil && tooLarge(w.written, up.WholeLimit) == nil {
		return c.single(ctx, up, s)
	} else if err = s.stop(s.flush(true)); err == nil {
		obj, err = proto.complete(ctx, s.sent, w.written)
	}
	if err != nil {
		proto.undo(ctx)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Object{}, err
	}
	obj.Size = w.written
	return obj, nil
}

// single uploads what is not more than one part in one request.
func (c *Client) single(ctx context.Context, up *tranter.RemoteUpload, s *streamer) (Object, error) {
	body := s.filling
	if err := s.stop(nil); err != nil {
		return Object{}, err
	}
	obj, err := c.put(ctx, up.Whole, request{body: body}, nil)
	c.Discard(ctx, up)
	return obj, err
}

// streamer cuts what is written to it into parts and has them sent. A part that is full waits for more to come: only
// the last one may be called the last.
type streamer struct {
	proto   protocol
	size    int
	moved   func(int64)
	ctx     context.Context //nolint:containedctx // that of the goroutines it owns: a Write has none
	group   *errgroup.Group
	queue   chan part
	idle    chan []byte // buffers that hold nothing
	all     [][]byte
	workers int
	filling []byte
	offset  int64
	sent    int // parts
}

func newStreamer(ctx context.Context, proto protocol, size, workers int) *streamer {
	s := &streamer{proto: proto, size: size, moved: func(int64) {}, queue: make(chan part), idle: make(chan []byte, workers+1), workers: workers}
	s.group, s.ctx = errgroup.WithContext(ctx)
	for range workers {
		s.group.Go(func() error { return s.work(s.ctx) })
	}
	return s
}

// work sends parts until there are no more.
func (s *streamer) work(ctx context.Context) error {
	for {
		select {
		case p, more := <-s.queue:
			if !more {
				return nil
			}
			if err := s.proto.send(ctx, p); err != nil {
				return err
			}
			s.moved(int64(len(p.data)))
			s.idle <- p.data[:0]
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *streamer) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if s.filling == nil || len(s.filling) == s.size {
			if err := s.turn(); err != nil {
				return written, err
			}
		}
		n := min(len(p), s.size-len(s.filling))
		s.filling = append(s.filling, p[:n]...)
		p, written = p[n:], written+n
	}
	return written, nil
}

// turn sends the full buffer and takes an empty one.
func (s *streamer) turn() error {
	if err := s.flush(false); err != nil {
		return err
	}
	if len(s.all) <= s.workers {
		select {
		case s.filling = <-s.idle:
		default:
			b, err := allocate(s.size)
			if err != nil {
				return fmt.Errorf("get memory for a part: %w", err)
			}
			s.all, s.filling = append(s.all, b), b[:0]
		}
		return nil
	}
	select {
	case s.filling = <-s.idle:
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// flush hands the buffer to a worker.
func (s *streamer) flush(last bool) error {
	if len(s.filling) == 0 {
		return nil
	}
	p := part{number: s.sent + 1, offset: s.offset, data: s.filling, last: last}
	select {
	case s.queue <- p:
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
	s.sent, s.offset, s.filling = s.sent+1, s.offset+int64(len(p.data)), nil
	return nil
}

// stop ends the workers: once they have sent what they were given, or at once for the error err, which it returns,
// unless an error of theirs was the cause of that.
func (s *streamer) stop(err error) error {
	if err != nil {
		s.group.Go(func() error { return err })
	}
	close(s.queue)
	return s.group.Wait()
}

// free gives the memory back. No worker may run.
func (s *streamer) free() {
	for _, b := range s.all {
		release(b)
	}
	s.all, s.filling = nil, nil
}

// refused tells a storage that takes no parts by its answer to one, as long as it has taken none.
func refused(taken bool, err error) error {
	a, ok := errors.AsType[*answer](err)
	if !ok || taken {
		return err
	}
	switch a.code {
	case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	return err
}
