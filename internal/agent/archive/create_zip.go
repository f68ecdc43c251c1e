package archive

import (
	"archive/tar"
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// The numbers of zstd in zip archives; the second is an old one that some programs wrote.
const (
	methodZstd    = 93
	methodZstdOld = 20
)

type zipPacker struct {
	zw     *zip.Writer
	method uint16
	buf    []byte
}

func newZipPacker(w io.Writer, o Options, buf []byte) *zipPacker {
	p := &zipPacker{zw: zip.NewWriter(w), method: zip.Deflate, buf: buf}
	switch level := deflateLevel(o.Level); {
	case o.Format == ZipZstd:
		p.method = methodZstd
		l := zstdLevel(o.Level)
		if o.Level == Fastest {
			l = zstd.SpeedDefault // the contract's rule for this format
		}
		p.zw.RegisterCompressor(methodZstd, zstd.ZipCompressor(zstd.WithEncoderLevel(l), zstd.WithEncoderConcurrency(1)))
	case level == flate.NoCompression:
		p.method = zip.Store
	default:
		// One compressor serves all members in turn: its tables are large and dear to make.
		var one *flate.Writer
		p.zw.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) {
			if one != nil {
				one.Reset(out)
				return one, nil
			}
			var err error
			one, err = flate.NewWriter(out, level)
			return one, err
		})
	}
	return p
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

func zstdLevel(l Level) zstd.EncoderLevel {
	switch l {
	case Fastest, Fast:
		return zstd.SpeedFastest
	case Slow:
		return zstd.SpeedBetterCompression
	case Slowest:
		return zstd.SpeedBestCompression
	default:
		return zstd.SpeedDefault
	}
}

func (p *zipPacker) add(f File, body io.Reader) error {
	h := &zip.FileHeader{Name: f.Path, Modified: f.ModTime, Method: zip.Store}
	h.SetMode(f.Mode)
	if f.Mode.IsDir() {
		h.Name += "/"
	}
	if body != nil && f.Size > 0 {
		h.Method = p.method
	}
	w, err := p.zw.CreateHeader(h)
	if err != nil {
		return err
	}
	switch {
	case f.Mode&fs.ModeSymlink != 0:
		_, err = io.WriteString(w, f.Link)
	case body != nil:
		_, err = io.CopyBuffer(onlyWriter{w}, body, p.buf)
	}
	return err
}

func (p *zipPacker) close() error { return p.zw.Close() }

// tarPacker writes a tar in a zstd stream.
type tarPacker struct {
	tw  *tar.Writer
	zw  *zstd.Encoder
	buf []byte
}

func newTarPacker(w io.Writer, l Level, buf []byte) (*tarPacker, error) {
	zw, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstdLevel(l)), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("start zstd: %w", err)
	}
	return &tarPacker{tw: tar.NewWriter(zw), zw: zw, buf: buf}, nil
}

func (p *tarPacker) add(f File, body io.Reader) error {
	h := &tar.Header{Name: f.Path, Mode: int64(f.Mode.Perm()), ModTime: f.ModTime, Format: tar.FormatPAX, Typeflag: tar.TypeReg}
	switch {
	case f.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, f.Path+"/"
	case f.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
	default:
		h.Size = f.Size
	}
	if err := p.tw.WriteHeader(h); err != nil {
		return err
	}
	if body == nil {
		return nil
	}
	// A file may grow meanwhile: what the header promises is taken.
	n, err := io.CopyBuffer(onlyWriter{p.tw}, io.LimitReader(body, f.Size), p.buf)
	if err == nil && n < f.Size {
		err = errors.New("the file became shorter while it was read")
	}
	return err
}

func (p *tarPacker) close() error { return errors.Join(p.tw.Close(), p.zw.Close()) }
