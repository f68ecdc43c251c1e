//go:build !windows

package archive_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/tranter-ci/tranter/internal/agent/archive"
)

// refused unpacks data, which must fail with want and leave nothing behind.
func refused(t *testing.T, data []byte, o archive.ExtractOptions, want error) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive")
	must(t, os.WriteFile(path, data, 0o600))
	return refusedFile(t, path, o, want)
}

func refusedFile(t *testing.T, path string, o archive.ExtractOptions, want error) string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	into := t.TempDir()
	err = archive.ExtractWith(t.Context(), f, into, o, &messages{})
	if !errors.Is(err, want) {
		t.Errorf("%v, want %v", err, want)
	}
	if left := listing(t, into); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return fmt.Sprint(err)
}

// edited returns data with the values at offsets from the n-th occurrence of a signature replaced.
func edited(data []byte, signature string, n int, values map[int]uint32) []byte {
	out := bytes.Clone(data)
	at := -1
	for range n {
		at += 1 + bytes.Index(out[at+1:], []byte(signature))
	}
	for offset, v := range values {
		binary.LittleEndian.PutUint32(out[at+offset:], v)
	}
	return out
}

func TestExtractLies(t *testing.T) {
	zeros := strings.Repeat("0", 1<<20)
	good := zipOf(t, member{name: "first", mode: 0o644, body: "fine"}, member{name: "zeros", mode: 0o644, body: zeros})
	const central = "PK\x01\x02"
	second := uint32(bytes.Index(good[1:], []byte("PK\x03\x04")) + 1)
	for name, data := range map[string][]byte{
		"more than claimed":       edited(good, central, 2, map[int]uint32{24: 1 << 19}),
		"less than claimed":       edited(good, central, 2, map[int]uint32{24: 1<<20 + 1}),
		"beyond what deflate can": edited(good, central, 2, map[int]uint32{24: 1 << 31}),
		"wrong checksum":          edited(good, central, 2, map[int]uint32{16: 7}),
		"outside":                 edited(good, central, 2, map[int]uint32{42: 1 << 30}),
		"longer than the archive": edited(good, central, 2, map[int]uint32{20: 1 << 30}),
		"overlapping":             edited(good, central, 1, map[int]uint32{42: second}),
		"not at a header":         edited(good, central, 2, map[int]uint32{42: second + 1}),
		"size in zip64, missing":  edited(good, central, 2, map[int]uint32{24: 0xffffffff}),
		"more members":            edited(good, "PK\x05\x06", 1, map[int]uint32{8: 3<<16 | 3}),
		"directory elsewhere":     edited(good, "PK\x05\x06", 1, map[int]uint32{12: 1 << 30}),
		"encrypted":               edited(good, central, 2, map[int]uint32{8: 1 | 8<<16}),
		"unknown method":          edited(good, central, 2, map[int]uint32{8: 99 << 16}),
	} {
		t.Run(name, func(t *testing.T) { refused(t, data, archive.ExtractOptions{}, archive.ErrDamaged) })
	}
}

// A kernel of compressed zeros that many entries share makes a small archive unpack to a huge one.
func TestExtractSharedKernel(t *testing.T) {
	one := zipOf(t, member{name: "0", mode: 0o644, body: strings.Repeat("0", 1<<20)})
	at := bytes.Index(one, []byte("PK\x01\x02"))
	end := bytes.Index(one, []byte("PK\x05\x06"))
	entry := one[at:end]
	const copies = 1000
	bomb := append([]byte{}, one[:at]...)
	for i := range copies {
		e := bytes.Clone(entry)
		e[46] = byte('0' + i%10)
		bomb = append(bomb, e...)
	}
	bomb = append(bomb, one[end:]...)
	bomb = edited(bomb, "PK\x05\x06", 1, map[int]uint32{8: copies<<16 | copies, 12: uint32(copies * len(entry))})
	if got := refused(t, bomb, archive.ExtractOptions{}, archive.ErrDamaged); !strings.Contains(got, "one over the other") {
		t.Error(got)
	}
}

func TestExtractTooLarge(t *testing.T) {
	ms := []member{{name: "a", mode: 0o644, body: strings.Repeat("0", 1000)}, {name: "d/b", mode: 0o644, body: strings.Repeat("0", 1000)}, {name: "c", mode: 0o644}}
	for name, data := range map[string][]byte{"zip": zipOf(t, ms...), "tar": tarOf(t, ms...)} {
		refused(t, data, archive.ExtractOptions{Room: 1999}, archive.ErrTooLarge)
		refused(t, data, archive.ExtractOptions{Entries: 2}, archive.ErrTooLarge)
		path := filepath.Join(t.TempDir(), "a")
		must(t, os.WriteFile(path, data, 0o600))
		f, err := os.Open(path)
		must(t, err)
		if err := archive.ExtractWith(t.Context(), f, t.TempDir(), archive.ExtractOptions{Room: 2000, Entries: 3}, &messages{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
}

// An archive that claims, and has room for, ten million entries is refused before any is read.
func TestExtractTenMillionEntries(t *testing.T) {
	const entries, size = 10_000_000, 470_000_000
	path := filepath.Join(t.TempDir(), "many.zip")
	f, err := os.Create(path)
	must(t, err)
	must(t, f.Truncate(size))
	le := binary.LittleEndian
	end := le.AppendUint32(nil, 0x06064b50)
	end = le.AppendUint64(end, 44)
	end = append(end, 45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	for _, v := range []uint64{entries, entries, size, 0} {
		end = le.AppendUint64(end, v)
	}
	end = le.AppendUint32(end, 0x07064b50)
	end = le.AppendUint32(end, 0)
	end = le.AppendUint64(end, size)
	end = le.AppendUint32(end, 1)
	end = append(end, "PK\x05\x06\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00"...)
	_, err = f.WriteAt(end, size)
	must(t, errors.Join(err, f.Close()))
	began := time.Now()
	got := refusedFile(t, path, archive.ExtractOptions{}, archive.ErrTooLarge)
	if !strings.Contains(got, "10000000 entries") || time.Since(began) > 10*time.Second {
		t.Errorf("%s after %v", got, time.Since(began))
	}
}

// So is one that claims few and holds many, and a stream that cannot claim: of that, no more than a part was unpacked.
func TestExtractMoreEntriesThanClaimed(t *testing.T) {
	var ms []member
	for i := range 300 {
		ms = append(ms, member{name: fmt.Sprint(i), mode: 0o644})
	}
	lie := edited(zipOf(t, ms...), "PK\x05\x06", 1, map[int]uint32{8: 1<<16 | 1})
	refused(t, lie, archive.ExtractOptions{Entries: 200}, archive.ErrTooLarge)
	refused(t, lie, archive.ExtractOptions{}, archive.ErrDamaged)

	path := filepath.Join(t.TempDir(), "many.tar.zst")
	f, err := os.Create(path)
	must(t, err)
	zw, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest))
	must(t, err)
	tw := tar.NewWriter(zw)
	for range 60_000 {
		must(t, tw.WriteHeader(&tar.Header{Name: "x", Mode: 0o644, Typeflag: tar.TypeReg}))
	}
	must(t, errors.Join(tw.Close(), zw.Close(), f.Close()))
	began := time.Now()
	refusedFile(t, path, archive.ExtractOptions{Entries: 50_000}, archive.ErrTooLarge)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v to refuse", took)
	}
}

func TestExtractNames(t *testing.T) {
	long := strings.Repeat("n", 256)
	deep := strings.Repeat("d/", 2100) + "f"
	ms := []member{{name: "line\nbreak", mode: 0o644, body: "1"}, {name: "latin\xe9", mode: 0o644, body: "2"}, {name: long, mode: 0o644}, {name: deep, mode: 0o644}, {name: strings.Repeat("n", 255), mode: 0o644, body: "3"}}
	for name, data := range map[string][]byte{"zip": zipOf(t, ms...), "tar": tarOf(t, ms...)} {
		got, log, err := unpack(t, data, nil)
		must(t, err)
		if len(got) != 3 || !strings.HasSuffix(got["line\nbreak"], " 1") || !strings.HasSuffix(got["latin\xe9"], " 2") || strings.Count(log.text(), "its name is too long") != 2 {
			t.Errorf("%s: %v\n%s", name, got, log.text())
		}
		if strings.Contains(log.text(), "line\nbreak") {
			t.Errorf("%s: a name breaks the log's line", name)
		}
	}
}

// Of members of one name the last one stays, whatever the number of workers.
func TestExtractSameName(t *testing.T) {
	var ms []member
	for i := range 200 {
		ms = append(ms, member{name: "same", mode: 0o644, body: fmt.Sprint(i)}, member{name: fmt.Sprintf("d/%d", i), mode: 0o644})
	}
	got, _, err := unpack(t, zipOf(t, ms...), nil)
	must(t, err)
	if !strings.HasSuffix(got["same"], " 199") {
		t.Error(got["same"])
	}
}

// A file in the place of a directory is a fault, and nothing stays.
func TestExtractFileThenDirectory(t *testing.T) {
	for _, ms := range [][]member{
		{{name: "d", mode: 0o644, body: "f"}, {name: "d/x", mode: 0o644}},
		{{name: "d/x", mode: 0o644}, {name: "d", mode: 0o644, body: "f"}},
		{{name: "d", mode: 0o644, body: "f"}, {name: "d/", mode: fs.ModeDir | 0o755}, {name: "d/x", mode: 0o644}},
	} {
		for _, data := range [][]byte{zipOf(t, ms...), tarOf(t, ms...)} {
			got, _, err := unpack(t, data, nil)
			if err == nil || len(got) > 0 {
				t.Errorf("%v %v", err, got)
			}
		}
	}
}

// What is no file any more when its turn comes does not hold the job up.
func TestCreateMeetsPipe(t *testing.T) {
	dir := tree(t, map[string]string{"a": "a", "big": strings.Repeat("b", 200_000), "z": "z"})
	files, _ := collect(t, dir, archive.Selection{Paths: []string{"*"}})
	for _, name := range []string{"a", "big"} {
		must(t, os.Remove(filepath.Join(dir, name)))
		must(t, syscall.Mkfifo(filepath.Join(dir, name), 0o600))
	}
	log := &messages{}
	var out bytes.Buffer
	must(t, archive.Create(t.Context(), &out, files, archive.Options{}, log))
	if want := "WARNING: a: is no regular file any more, not archived\nWARNING: big: is no regular file any more, not archived"; log.text() != want {
		t.Error(log.text())
	}
	zr, err := zip.NewReader(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil || len(zr.File) != 1 {
		t.Errorf("%v %v", zr, err)
	}
}

// Large files are packed in blocks, whatever their size and the number of workers: other programs read them all the same.
func TestCreateBlocks(t *testing.T) {
	text := strings.Repeat("some text that shrinks, ", 30_000)
	dir := tree(t, map[string]string{"text": text, "block": text[:256<<10], "short": text[:200_001], "small": "s"})
	for _, o := range []archive.Options{{}, {Workers: 1}, {Workers: 7, Block: 1}, {Block: 32 << 10, Level: archive.Fastest}, {Block: 100_000, Level: archive.Slowest}} {
		f := create(t, dir, o)
		info, err := f.Stat()
		must(t, err)
		zr, err := zip.NewReader(f, info.Size())
		must(t, err)
		for _, zf := range zr.File {
			want, err := os.ReadFile(filepath.Join(dir, zf.Name))
			must(t, err)
			r, err := zf.Open()
			must(t, err)
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, want) || zf.UncompressedSize64 != uint64(len(want)) || zf.CRC32 != crc32.ChecksumIEEE(want) {
				t.Errorf("%+v %s: %v, %d of %d bytes", o, zf.Name, err, len(got), len(want))
			}
			if shrunk := zf.CompressedSize64 < zf.UncompressedSize64/2; len(want) > 1 && shrunk != (o.Level != archive.Fastest) {
				t.Errorf("%+v %s: %d of %d bytes", o, zf.Name, zf.CompressedSize64, zf.UncompressedSize64)
			}
		}
	}
}
