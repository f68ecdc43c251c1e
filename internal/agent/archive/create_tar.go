package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/zstd"
)

// tarPacker writes a tar in a zstd stream.
type tarPacker struct {
	tw  *tar.Writer
	zw  *zstd.Encoder
	buf []byte
}

func newTarPacker(w io.Writer, o Options) (*tarPacker, error) {
	// With two, files are read while what was read before is compressed; more would not help a single stream.
	zw, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstdLevel(o.Level)), zstd.WithEncoderConcurrency(min(o.workers(), 2)))
	if err != nil {
		return nil, fmt.Errorf("start zstd: %w", err)
	}
	return &tarPacker{tw: tar.NewWriter(zw), zw: zw, buf: make([]byte, bufferSize)}, nil
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
