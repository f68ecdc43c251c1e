package archive

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/flate"
)

// createZip packs with several goroutines: one cuts the files into pieces, in order; workers read and compress one piece
// each; this one writes them in their order. The number of pieces bounds the memory.
func createZip(ctx context.Context, w io.Writer, l *line, files Files, log Reporter) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o, n := l.options, l.options.workers()
	for range cap(l.free) {
		l.free <- &piece{}
	}
	var all sync.WaitGroup
	all.Go(func() { l.cut(ctx, files.List) })
	for range n {
		all.Go(func() { l.compress(ctx) })
	}
	z := &zipWriter{w: w, log: log, options: o}
	var err error
	for p := range l.order {
		<-p.done
		if err == nil {
			if err = errors.Join(p.err, ctx.Err()); err == nil {
				err = z.piece(p)
			}
			if err != nil {
				cancel(err)
			}
		}
		l.free <- p
	}
	all.Wait()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	return z.finish()
}

// smallFile is the size up to which a file is read and compressed at once, together with others.
const smallFile = 128 << 10

// Bounds of a piece of small files.
const (
	pieceBytes = 512 << 10
	pieceFiles = 128
)

// piece is work for one worker: small files, or a block of a large one.
type piece struct {
	files  []File
	large  *large
	offset int64
	length int
	last   bool // of the large file

	raw     []byte
	out     []byte // what to write: headers and contents, or the compressed block
	members []made
	missing []string // warnings
	err     error
	done    chan struct{}
}

// made is a member that was packed.
type made struct {
	member
	regular bool
	sum     [sha256.Size]byte
}

// large is a file that is packed in blocks.
type large struct {
	member
	file *os.File
	left atomic.Int64 // blocks; the last one closes the file
	ends bool         // a block was short: the file has shrunk, and what follows does not count
	sum  hash.Hash
}

func (l *large) release() {
	if l.left.Add(-1) == 0 {
		_ = l.file.Close()
	}
}

// line is the way of the pieces.
type line struct {
	options Options
	method  uint16
	root    *os.Root
	free    chan *piece // those that are not in use
	work    chan *piece
	order   chan *piece
}

func newLine(root *os.Root, o Options) *line {
	n := 2*o.workers() + 1
	return &line{options: o, method: zipMethod(o), root: root, free: make(chan *piece, n), work: make(chan *piece, n), order: make(chan *piece, n)}
}

// next takes a piece that is not in use, or nil if ctx has ended.
func (l *line) next(ctx context.Context) *piece {
	select {
	case p := <-l.free:
		*p = piece{files: p.files[:0], raw: p.raw[:0], out: p.out[:0], members: p.members[:0], done: make(chan struct{})}
		return p
	case <-ctx.Done():
		return nil
	}
}

// send hands a piece on. There is room for all pieces.
func (l *line) send(p *piece) {
	l.order <- p
	l.work <- p
}

func (l *line) cut(ctx context.Context, files []File) {
	defer close(l.order)
	defer close(l.work)
	c := cutter{line: l, opener: &opener{root: l.root}}
	defer c.opener.leave()
	for _, f := range files {
		if !c.add(ctx, f) {
			return
		}
	}
	c.flush()
}

// cutter cuts files into pieces, in their order.
type cutter struct {
	*line
	opener *opener
	small  *piece // of small files, with room for more; nil: there is none
	bytes  int64  // of the files in small
}

// add cuts one more file and says whether to go on.
func (c *cutter) add(ctx context.Context, f File) bool {
	if f.Mode.IsRegular() && f.Size > smallFile {
		c.flush()
		p := c.next(ctx)
		return p != nil && c.cutLarge(ctx, c.opener, f, p)
	}
	if c.small == nil {
		if c.small, c.bytes = c.next(ctx), 0; c.small == nil {
			return false
		}
	}
	c.small.files, c.bytes = append(c.small.files, f), c.bytes+f.Size
	if c.bytes >= pieceBytes || len(c.small.files) >= pieceFiles {
		c.flush()
	}
	return true
}

// flush sends the piece of small files that are together so far.
func (c *cutter) flush() {
	if c.small != nil {
		c.send(c.small)
		c.small = nil
	}
}

// cutLarge sends the blocks of f, beginning with the piece p, and says whether to go on.
func (l *line) cutLarge(ctx context.Context, o *opener, f File, p *piece) bool {
	file, err := o.open(&f)
	if err != nil || f.Size <= smallFile { // it has vanished or shrunk: a worker will see
		if err == nil {
			_ = file.Close()
		}
		p.files = append(p.files, f)
		l.send(p)
		return true
	}
	big := &large{member: newMember(f), file: file}
	big.flags |= flagDescriptor
	if big.method = l.method; l.method == zip.Deflate && !shrinks(file, f.Size) {
		big.method = zip.Store
	}
	if l.options.Digest != nil {
		big.sum = sha256.New()
	}
	block := int64(l.options.block())
	blocks := (f.Size + block - 1) / block
	big.left.Store(blocks)
	for i := range blocks {
		if i > 0 {
			if p = l.next(ctx); p == nil {
				for range blocks - i {
					big.release()
				}
				return false
			}
		}
		p.large, p.offset, p.length, p.last = big, i*block, int(min(block, f.Size-i*block)), i == blocks-1
		l.send(p)
	}
	return true
}

// shrinks says whether it seems worth to compress a file: parts of it from four places are tried.
func shrinks(file *os.File, size int64) bool {
	const sample = 32 << 10
	buf := make([]byte, sample)
	packed := new(counter)
	fw, err := flate.NewWriter(packed, 1)
	if err != nil {
		return true
	}
	total := int64(0)
	for i := range int64(4) {
		n, err := file.ReadAt(buf, i*(size-sample)/3)
		if err != nil && !errors.Is(err, io.EOF) {
			return true
		}
		_, _ = fw.Write(buf[:n])
		_ = fw.Flush()
		total += int64(n)
	}
	return int64(*packed) < total-total/50
}

type counter int64

// Write counts.
func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// zipWriter writes pieces in their order, and the directory at the end.
type zipWriter struct {
	w         io.Writer
	log       Reporter
	options   Options
	offset    int64
	count     int64
	directory []byte
	current   *large // the file whose blocks are being written
}

func (z *zipWriter) piece(p *piece) error {
	for _, warning := range p.missing {
		z.log.Warning("%s", warning)
	}
	if p.large != nil {
		return z.block(p)
	}
	base := z.offset
	if err := z.write(p.out); err != nil {
		return err
	}
	for _, m := range p.members {
		m.offset += base
		z.add(&m.member)
		if m.regular && z.options.Digest != nil {
			z.options.Digest(m.name, m.sum)
		}
	}
	return nil
}

func (z *zipWriter) block(p *piece) error {
	l := p.large
	if z.current != l {
		z.current, l.offset = l, z.offset
		if err := z.write(l.appendLocal(nil)); err != nil {
			return err
		}
	}
	if !l.ends {
		l.crc = crc32.Update(l.crc, crc32.IEEETable, p.raw)
		l.size += int64(len(p.raw))
		if l.sum != nil {
			_, _ = l.sum.Write(p.raw)
		}
		out := p.out
		if l.method == zip.Store {
			out = p.raw
		}
		l.packed += int64(len(out))
		if err := z.write(out); err != nil {
			return err
		}
		l.ends = len(p.raw) < p.length
	}
	if !p.last {
		return nil
	}
	return z.endLarge(l)
}

// endLarge writes what follows the last block. A file that has shrunk still needs the end of its compressed stream.
func (z *zipWriter) endLarge(l *large) error {
	if l.ends {
		z.log.Warning("%s: became shorter while it was read", l.name)
	}
	if l.method == zip.Deflate {
		end := []byte{1, 0, 0, 0xff, 0xff} // a last block, stored and empty
		l.packed += int64(len(end))
		if err := z.write(end); err != nil {
			return err
		}
	}
	z.add(&l.member)
	if l.sum != nil {
		z.options.Digest(l.name, [sha256.Size]byte(l.sum.Sum(nil)))
	}
	return z.write(l.appendDescriptor(nil))
}

func (z *zipWriter) add(m *member) {
	z.directory = m.appendCentral(z.directory)
	z.count++
}

func (z *zipWriter) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	n, err := z.w.Write(p)
	z.offset += int64(n)
	return err
}

func (z *zipWriter) finish() error {
	if z.options.Last != nil {
		if err := z.last(); err != nil {
			return err
		}
	}
	end := appendEnd(nil, z.count, int64(len(z.directory)), z.offset)
	err := z.write(z.directory)
	if err == nil {
		err = z.write(end)
	}
	if err != nil {
		return fmt.Errorf("finish the archive: %w", err)
	}
	return nil
}

// last adds the file that is made of what was packed.
func (z *zipWriter) last() error {
	name, content, err := z.options.Last()
	if err != nil {
		return err
	}
	m := newMember(File{Path: name, Mode: 0o644, ModTime: time.Now()})
	m.crc, m.size, m.packed, m.offset = crc32.ChecksumIEEE(content), int64(len(content)), int64(len(content)), z.offset
	if err := z.write(append(m.appendLocal(nil), content...)); err != nil {
		return err
	}
	z.add(&m)
	return nil
}
