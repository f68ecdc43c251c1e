package archive

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// extractZip unpacks with several goroutines. This one makes the directories, in the archive's order, and hands the files
// of one directory to workers; links are made when all is done. Where two members have the same name one worker does all,
// so that the last one stays.
func extractZip(ctx context.Context, f *os.File, s *sink, o ExtractOptions) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read the archive: %w", err)
	}
	x, err := openZip(f, info.Size())
	if err != nil {
		return damaged(ctx, err)
	}
	what, err := x.look(ctx, o.entries())
	if err != nil {
		return err
	}
	if room := s.room; what.total > room {
		return fmt.Errorf("%w: it unpacks to %d bytes, and there is room for %d", ErrTooLarge, what.total, room)
	}
	workers := o.workers()
	if !what.unique {
		workers = 1
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	u := &unpacking{f: f, sink: s, work: make(chan *parcel, workers)}
	var all sync.WaitGroup
	for range workers {
		all.Go(func() { u.unpack(ctx, cancel) })
	}
	err = x.each(ctx, func(m *member) error { return u.member(ctx, m) })
	if err == nil {
		u.send(ctx)
	}
	close(u.work)
	all.Wait()
	if u.current != nil {
		u.current.at.release()
	}
	if cause := context.Cause(ctx); err == nil || errors.Is(err, ctx.Err()) {
		err = cause
	}
	return err
}

// unpacking is the way of files out of a zip archive.
type unpacking struct {
	f       *os.File
	sink    *sink
	work    chan *parcel
	current *parcel
}

// parcel is files of one directory, for one worker.
type parcel struct {
	at    *place
	files []pending
	bytes int64
}

type pending struct {
	base  string // its name in the directory
	name  string // and in the project
	entry entry
	m     *member
}

// Bounds of a parcel.
const (
	parcelFiles = 32
	parcelBytes = 1 << 20
)

// member does what is to be done in order, and leaves the writing of files to the workers.
func (u *unpacking) member(ctx context.Context, m *member) error {
	e := m.entry()
	if m.link() {
		target, err := u.target(ctx, m)
		if err != nil {
			return fmt.Errorf("extract %q: %w", m.name, err)
		}
		e.link = target
	}
	name, err := u.sink.prepare(e)
	var at *place
	if err == nil && name != "" {
		at, err = u.sink.enter(dirOf(name))
	}
	if err = u.sink.tolerate(m.name, err); err != nil {
		return fmt.Errorf("extract %q: %w", m.name, err)
	}
	if at == nil {
		return nil
	}
	if u.current != nil && (u.current.at != at || len(u.current.files) >= parcelFiles || u.current.bytes+m.size > parcelBytes) {
		u.send(ctx)
	}
	if u.current == nil {
		u.current = &parcel{at: at.hold()}
	}
	u.current.files = append(u.current.files, pending{base: baseOf(name), name: name, entry: e, m: m})
	u.current.bytes += m.size
	return ctx.Err()
}

// send hands on what has come together.
func (u *unpacking) send(ctx context.Context) {
	if u.current == nil {
		return
	}
	select {
	case u.work <- u.current:
		u.current = nil
	case <-ctx.Done():
	}
}

// target reads where a link leads.
func (u *unpacking) target(ctx context.Context, m *member) (string, error) {
	if m.size > maxTarget {
		return "", nil // refused later
	}
	d := &decompressor{f: u.f}
	defer d.close()
	var out bytes.Buffer
	err := d.copy(ctx, &out, m)
	return out.String(), err
}

// unpack writes files until there are no more, or one cannot be written.
func (u *unpacking) unpack(ctx context.Context, cancel context.CancelCauseFunc) {
	d := &decompressor{f: u.f}
	defer d.close()
	for p := range u.work {
		for _, f := range p.files {
			if ctx.Err() != nil {
				break
			}
			err := u.sink.write(p.at, f.base, f.entry, func(w io.Writer) error { return d.copy(ctx, w, f.m) })
			if err != nil {
				cancel(fmt.Errorf("extract %q: %w", f.m.name, err))
			}
		}
		p.at.release()
	}
}

// decompressor is what one worker has: buffers and tables that serve all its files.
type decompressor struct {
	f     *os.File
	head  []byte
	in    *bufio.Reader
	flate io.ReadCloser
	zstd  *zstd.Decoder
	buf   []byte
}

// atOnce is how much of a member is read together with its header.
const atOnce = 128 << 10

// memberWindow bounds the memory for zstd of each worker.
const memberWindow = 32 << 20

var errChecksum = errors.New("the checksum is wrong")

// copy writes the content of m to w and checks it.
func (d *decompressor) copy(ctx context.Context, w io.Writer, m *member) error {
	packed, err := d.open(m)
	if err != nil {
		return damaged(ctx, err)
	}
	body, err := d.decompress(m, packed)
	if err != nil {
		return damaged(ctx, err)
	}
	if d.buf == nil {
		d.buf = make([]byte, bufferSize)
	}
	sum := &summed{w: w}
	n, err := io.CopyBuffer(sum, io.LimitReader(content(ctx, body), m.size+1), d.buf)
	switch {
	case err != nil:
		return err
	case n != m.size:
		return damaged(ctx, fmt.Errorf("it has %d bytes or more and claims %d", n, m.size))
	case sum.crc != m.crc && (m.crc != 0 || m.flags&flagDescriptor != 0):
		return damaged(ctx, errChecksum)
	}
	return nil
}

// open returns the compressed content of m.
func (d *decompressor) open(m *member) (io.Reader, error) {
	if d.head == nil {
		d.head = make([]byte, atOnce+1024)
	}
	want := int64(sizeLocal + len(m.name) + m.extra + 64)
	if m.packed <= atOnce {
		want += m.packed
	}
	n, err := d.f.ReadAt(d.head[:min(want, int64(len(d.head)))], m.offset)
	head := d.head[:n]
	le := binary.LittleEndian
	if n < sizeLocal {
		return nil, err
	}
	if le.Uint32(head) != sigLocal {
		return nil, errNoDirectory
	}
	start := int64(sizeLocal) + int64(le.Uint16(head[26:])) + int64(le.Uint16(head[28:]))
	if start+m.packed <= int64(n) {
		return bytes.NewReader(head[start : start+m.packed]), nil
	}
	return io.NewSectionReader(d.f, m.offset+start, m.packed), nil
}

func (d *decompressor) decompress(m *member, packed io.Reader) (io.Reader, error) {
	switch m.method {
	case zip.Store:
		return packed, nil
	case zip.Deflate:
		if d.in == nil {
			d.in = bufio.NewReaderSize(packed, bufferSize)
			d.flate = flate.NewReader(d.in)
			return d.flate, nil
		}
		d.in.Reset(packed)
		if r, ok := d.flate.(flate.Resetter); ok && r.Reset(d.in, nil) == nil {
			return d.flate, nil
		}
		return flate.NewReader(d.in), nil
	case methodZstd, methodZstdOld:
		if d.zstd == nil {
			var err error
			if d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(memberWindow)); err != nil {
				return nil, err
			}
		}
		return d.zstd, d.zstd.Reset(packed)
	}
	return nil, fmt.Errorf("method %d of compression is not known", m.method)
}

func (d *decompressor) close() {
	if d.zstd != nil {
		d.zstd.Close()
	}
}

// summed counts the checksum of what is written. It hides other methods, so that a copy uses the given buffer.
type summed struct {
	w   io.Writer
	crc uint32
}

// Write implements io.Writer.
func (s *summed) Write(p []byte) (int, error) {
	s.crc = crc32.Update(s.crc, crc32.IEEETable, p)
	return s.w.Write(p)
}
