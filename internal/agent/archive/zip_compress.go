package archive

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// zipMethod is the method by which members are compressed that can be.
func zipMethod(o Options) uint16 {
	switch {
	case o.Format == ZipZstd:
		return methodZstd
	case deflateLevel(o.Level) == flate.NoCompression:
		return zip.Store
	default:
		return zip.Deflate
	}
}

// deflateLevel follows the table of contract 7.7.
func deflateLevel(l Level) int {
	switch l {
	case Fastest:
		return flate.NoCompression
	case Fast:
		return 1
	case Slow:
		return 7
	case Slowest:
		return 9
	default:
		return 5
	}
}

// compressor is what one worker has. Its tables are large and dear to make, so they serve all its pieces.
type compressor struct {
	line   *line
	opener opener
	flate  *flate.Writer
	zstd   *zstd.Encoder
}

// compress works through pieces until there are no more.
func (l *line) compress(ctx context.Context) {
	c := &compressor{line: l, opener: opener{root: l.root}}
	defer c.opener.leave()
	for p := range l.work {
		if p.err = ctx.Err(); p.err == nil {
			p.err = c.piece(p)
		}
		if p.large != nil {
			p.large.release()
		}
		close(p.done)
	}
}

func (c *compressor) piece(p *piece) error {
	if p.large != nil {
		if err := c.block(p); err != nil {
			return fmt.Errorf("archive %s: %w", p.large.name, err)
		}
		return nil
	}
	for _, f := range p.files {
		if err := c.small(p, f); err != nil {
			return fmt.Errorf("archive %s: %w", f.Path, err)
		}
	}
	return nil
}

func (c *compressor) block(p *piece) error {
	var err error
	if p.raw, err = readBlock(p.raw, p.large.file, p.offset, p.length); err != nil {
		return err
	}
	switch p.large.method {
	case zip.Deflate:
		return c.deflate(p, p.raw, false)
	case methodZstd:
		return c.zstandard(p, p.raw)
	}
	return nil
}

// readBlock reads up to n bytes from offset on.
func readBlock(buf []byte, file *os.File, offset int64, n int) ([]byte, error) {
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	got, err := file.ReadAt(buf[:n], offset)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return buf[:got], err
}

// small packs a directory, a link or a small file whole.
func (c *compressor) small(p *piece, f File) error {
	p.raw = p.raw[:0]
	regular := f.Mode.IsRegular()
	switch {
	case regular:
		if err := c.read(p, &f); err != nil {
			if why, ok := absent(err); ok {
				p.missing = append(p.missing, f.Path+": "+string(why))
				return nil
			}
			return err
		}
	case linkMode(f.Mode):
		p.raw = append(p.raw, f.Link...)
	}
	m := made{member: newMember(f), regular: regular}
	m.offset, m.size, m.crc = int64(len(p.out)), int64(len(p.raw)), crc32.ChecksumIEEE(p.raw)
	if regular && c.line.options.Digest != nil {
		m.sum = sha256.Sum256(p.raw)
	}
	if regular && m.size > 0 {
		m.method = c.line.method
	}
	// The header has the same length whatever the sizes: it is put in once they are known.
	p.out = m.appendLocal(p.out)
	start := len(p.out)
	if err := c.content(p, &m.member, start); err != nil {
		return err
	}
	m.packed = int64(len(p.out) - start)
	m.appendLocal(p.out[:m.offset])
	p.members = append(p.members, m)
	return nil
}

// content appends the content of a small file, compressed if that helps.
func (c *compressor) content(p *piece, m *member, start int) error {
	switch m.method {
	case zip.Deflate:
		if err := c.deflate(p, p.raw, true); err != nil {
			return err
		}
	case methodZstd:
		return c.zstandard(p, p.raw)
	default:
		p.out = append(p.out, p.raw...)
		return nil
	}
	if len(p.out)-start >= len(p.raw) {
		m.method = zip.Store
		p.out = append(p.out[:start], p.raw...)
	}
	return nil
}

// read reads a small file. One that has become large meanwhile is cut.
func (c *compressor) read(p *piece, f *File) error {
	file, err := c.opener.open(f)
	if err != nil {
		return err
	}
	defer file.Close()
	n := f.Size
	if limit := int64(2 * smallFile); n > limit {
		p.missing = append(p.missing, fmt.Sprintf("%s: has grown to %d bytes while files were packed; the first %d are archived", f.Path, n, limit))
		n = limit
	}
	if int64(cap(p.raw)) < n {
		p.raw = make([]byte, 0, max(n, smallFile))
	}
	got, err := io.ReadFull(file, p.raw[:n])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	p.raw = p.raw[:got]
	return err
}

// deflate appends data to the piece's output: a whole stream, or blocks that others can follow.
func (c *compressor) deflate(p *piece, data []byte, whole bool) error {
	out := (*appender)(&p.out)
	if c.flate == nil {
		var err error
		if c.flate, err = flate.NewWriter(out, deflateLevel(c.line.options.Level)); err != nil {
			return err
		}
	} else {
		c.flate.Reset(out)
	}
	_, err := c.flate.Write(data)
	if err != nil {
		return err
	}
	if whole {
		return c.flate.Close()
	}
	return c.flate.Flush()
}

// zstandard appends data as a frame of its own: frames that follow each other are one stream.
func (c *compressor) zstandard(p *piece, data []byte) error {
	if c.zstd == nil {
		level := zstdLevel(c.line.options.Level)
		if c.line.options.Level == Fastest {
			level = zstd.SpeedDefault // the contract's rule for this format
		}
		var err error
		c.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(windowFor(c.line.options.block())), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return fmt.Errorf("start zstd: %w", err)
		}
	}
	p.out = c.zstd.EncodeAll(data, p.out)
	return nil
}

// windowFor is the smallest window that a block fits into.
func windowFor(block int) int {
	w := zstd.MinWindowSize
	for w < block {
		w *= 2
	}
	return min(w, zstd.MaxWindowSize)
}

// appender collects what is written.
type appender []byte

// Write appends.
func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}

// absent returns why a file is not archived, if err says that it is not there any more.
func absent(err error) (absence, bool) { return errors.AsType[absence](err) }

func linkMode(m fs.FileMode) bool { return m&fs.ModeSymlink != 0 }
