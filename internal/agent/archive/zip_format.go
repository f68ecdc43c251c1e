package archive

import (
	"archive/zip"
	"encoding/binary"
	"io/fs"
	"math"
	"time"
	"unicode/utf8"
)

// The signatures of the parts of a zip archive, and the sizes of the fixed part of each.
const (
	sigLocal      = 0x04034b50
	sigDescriptor = 0x08074b50
	sigCentral    = 0x02014b50
	sigEnd        = 0x06054b50
	sigEnd64      = 0x06064b50
	sigLocator    = 0x07064b50

	sizeLocal   = 30
	sizeCentral = 46
	sizeEnd     = 22
	sizeEnd64   = 56
	sizeLocator = 20
)

// The numbers of zstd in zip archives; the second is an old one that some programs wrote.
const (
	methodZstd    = 93
	methodZstdOld = 20
)

// Bits of a member's flags.
const (
	flagEncrypted  = 0x1
	flagDescriptor = 0x8
	flagUTF8       = 0x800
)

// Extra fields.
const (
	extraZip64 = 0x0001
	extraNTFS  = 0x000a
	extraTime  = 0x5455
	extraUnix  = 0x5855 // the first of Info-ZIP's
)

const (
	unixVersion = 3<<8 | 20 // of the program that made a member: it has the permissions of Unix
	version20   = 20
	version45   = 45 // zip64
)

// member is what a zip archive's directory tells of a member.
type member struct {
	name     string
	flags    uint16
	method   uint16
	modTime  time.Time
	crc      uint32
	packed   int64 // bytes in the archive
	size     int64
	external uint32 // permissions and kind
	offset   int64  // of its local header

	mode  fs.FileMode // of a member that was read
	extra int         // length of its extra fields in the directory
}

// newMember describes f, whose sizes and checksum follow.
func newMember(f File) member {
	var h zip.FileHeader
	h.SetMode(f.Mode)
	m := member{name: f.Path, modTime: f.ModTime, external: h.ExternalAttrs, method: zip.Store}
	if f.Mode.IsDir() {
		m.name += "/"
	}
	if utf8.ValidString(m.name) && !ascii(m.name) {
		m.flags |= flagUTF8
	}
	return m
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// appendLocal appends the header that goes before a member's content.
func (m *member) appendLocal(b []byte) []byte {
	need, size, packed := uint16(version20), clamp32(m.size), clamp32(m.packed)
	var extra []byte
	if m.flags&flagDescriptor != 0 {
		size, packed = 0, 0
	} else if size == math.MaxUint32 || packed == math.MaxUint32 {
		need, size, packed = version45, math.MaxUint32, math.MaxUint32
		extra = appendSizes(nil, m.size, m.packed)
	}
	extra = appendTime(extra, m.modTime)
	le := binary.LittleEndian
	b = le.AppendUint32(b, sigLocal)
	b = le.AppendUint16(b, need)
	b = m.appendCommon(b, packed, size)
	b = le.AppendUint16(b, uint16(len(m.name)))
	b = le.AppendUint16(b, uint16(len(extra)))
	b = append(b, m.name...)
	return append(b, extra...)
}

// appendCommon appends what both headers of a member have.
func (m *member) appendCommon(b []byte, packed, size uint32) []byte {
	le := binary.LittleEndian
	date, clock := dosTime(m.modTime)
	b = le.AppendUint16(b, m.flags)
	b = le.AppendUint16(b, m.method)
	b = le.AppendUint16(b, clock)
	b = le.AppendUint16(b, date)
	b = le.AppendUint32(b, m.crc)
	b = le.AppendUint32(b, packed)
	return le.AppendUint32(b, size)
}

// appendDescriptor appends what follows a member whose header came before its size was known.
func (m *member) appendDescriptor(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, sigDescriptor)
	b = le.AppendUint32(b, m.crc)
	if m.large() {
		b = le.AppendUint64(b, uint64(m.packed))
		return le.AppendUint64(b, uint64(m.size))
	}
	b = le.AppendUint32(b, uint32(m.packed))
	return le.AppendUint32(b, uint32(m.size))
}

func (m *member) large() bool { return m.packed >= math.MaxUint32 || m.size >= math.MaxUint32 }

// appendCentral appends the member's entry of the archive's directory.
func (m *member) appendCentral(b []byte) []byte {
	le := binary.LittleEndian
	need, packed, size, offset := uint16(version20), clamp32(m.packed), clamp32(m.size), clamp32(m.offset)
	var extra []byte
	if m.large() || m.offset >= math.MaxUint32 {
		need, packed, size, offset = version45, math.MaxUint32, math.MaxUint32, math.MaxUint32
		extra = le.AppendUint64(appendSizes(nil, m.size, m.packed), uint64(m.offset))
		le.PutUint16(extra[2:], 24)
	}
	extra = appendTime(extra, m.modTime)
	b = le.AppendUint32(b, sigCentral)
	b = le.AppendUint16(b, unixVersion)
	b = le.AppendUint16(b, need)
	b = m.appendCommon(b, packed, size)
	b = le.AppendUint16(b, uint16(len(m.name)))
	b = le.AppendUint16(b, uint16(len(extra)))
	b = append(b, 0, 0, 0, 0, 0, 0) // no comment, first disk, no internal attributes
	b = le.AppendUint32(b, m.external)
	b = le.AppendUint32(b, offset)
	b = append(b, m.name...)
	return append(b, extra...)
}

func clamp32(n int64) uint32 { return uint32(min(n, math.MaxUint32)) }

func appendSizes(b []byte, size, packed int64) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(b, extraZip64)
	b = le.AppendUint16(b, 16)
	b = le.AppendUint64(b, uint64(size))
	return le.AppendUint64(b, uint64(packed))
}

func appendTime(b []byte, t time.Time) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(b, extraTime)
	b = le.AppendUint16(b, 5)
	b = append(b, 1) // the time of the last change follows
	return le.AppendUint32(b, uint32(t.Unix()))
}

// dosTime is a time as MS-DOS has it, in steps of two seconds.
func dosTime(t time.Time) (date, clock uint16) {
	if y := t.Year(); y < 1980 || y > 2107 {
		return 0, 0
	}
	date = uint16(t.Day() + int(t.Month())<<5 + (t.Year()-1980)<<9)
	clock = uint16(t.Second()/2 + t.Minute()<<5 + t.Hour()<<11)
	return date, clock
}

// appendEnd appends what ends an archive of count members whose directory is size bytes long and begins at offset.
func appendEnd(b []byte, count, size, offset int64) []byte {
	le := binary.LittleEndian
	if count >= math.MaxUint16 || size >= math.MaxUint32 || offset >= math.MaxUint32 {
		b = le.AppendUint32(b, sigEnd64)
		b = le.AppendUint64(b, sizeEnd64-12)
		b = le.AppendUint16(b, version45)
		b = le.AppendUint16(b, version45)
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // one disk
		b = le.AppendUint64(b, uint64(count))
		b = le.AppendUint64(b, uint64(count))
		b = le.AppendUint64(b, uint64(size))
		b = le.AppendUint64(b, uint64(offset))
		b = le.AppendUint32(b, sigLocator)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint64(b, uint64(offset+size))
		b = le.AppendUint32(b, 1)
	}
	n := uint16(min(count, math.MaxUint16))
	b = le.AppendUint32(b, sigEnd)
	b = append(b, 0, 0, 0, 0)
	b = le.AppendUint16(b, n)
	b = le.AppendUint16(b, n)
	b = le.AppendUint32(b, clamp32(size))
	b = le.AppendUint32(b, clamp32(offset))
	return append(b, 0, 0) // no comment
}
