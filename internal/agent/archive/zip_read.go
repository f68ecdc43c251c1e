package archive

import (
	"archive/zip"
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
	"time"
)

// zipIndex is where the directory of a zip archive lies. It is read anew each time it is needed, and never kept: an
// archive of millions of members costs no memory.
type zipIndex struct {
	r     io.ReaderAt
	at    int64 // where the directory begins
	size  int64
	base  int64 // what stands before the archive
	count int64 // as claimed
	wide  bool  // count has more than 16 bits
}

var (
	errNoZip       = errors.New("not a zip archive")
	errNoDirectory = errors.New("its directory is not where it claims to be")
)

// openZip finds the directory of the archive in r, which is size bytes long.
func openZip(r io.ReaderAt, size int64) (*zipIndex, error) {
	tail := make([]byte, min(size, sizeEnd+math.MaxUint16))
	if n, err := r.ReadAt(tail, size-int64(len(tail))); n < len(tail) {
		return nil, cmp.Or(err, io.ErrUnexpectedEOF)
	}
	le := binary.LittleEndian
	for i := len(tail) - sizeEnd; i >= 0; i-- {
		if le.Uint32(tail[i:]) != sigEnd || i+sizeEnd+int(le.Uint16(tail[i+20:])) > len(tail) {
			continue
		}
		end := tail[i:]
		x := &zipIndex{r: r, count: int64(le.Uint16(end[10:])), size: int64(le.Uint32(end[12:])), at: int64(le.Uint32(end[16:]))}
		at := size - int64(len(tail)) + int64(i)
		if x.count == math.MaxUint16 || x.size == math.MaxUint32 || x.at == math.MaxUint32 {
			var err error
			if at, err = x.widen(at); err != nil {
				return nil, err
			}
		}
		return x, x.settle(at)
	}
	return nil, errNoZip
}

// widen reads the end of a zip64 archive that stands before the end at, if there is one, and returns where it begins.
func (x *zipIndex) widen(at int64) (int64, error) {
	le := binary.LittleEndian
	var locator [sizeLocator]byte
	if at < sizeLocator {
		return at, nil
	}
	if _, err := x.r.ReadAt(locator[:], at-sizeLocator); err != nil {
		return 0, err
	}
	if le.Uint32(locator[:]) != sigLocator {
		return at, nil
	}
	where := le.Uint64(locator[8:])
	var end [sizeEnd64]byte
	if where > uint64(at-sizeLocator) {
		return 0, errNoDirectory
	}
	if _, err := x.r.ReadAt(end[:], int64(where)); err != nil {
		return 0, err
	}
	count, size, offset := le.Uint64(end[32:]), le.Uint64(end[40:]), le.Uint64(end[48:])
	if le.Uint32(end[:]) != sigEnd64 || max(count, size, offset) > math.MaxInt64 {
		return 0, errNoDirectory
	}
	x.count, x.size, x.at, x.wide = int64(count), int64(size), int64(offset), true
	return int64(where), nil
}

// settle finds the directory: it stands right before the end.
func (x *zipIndex) settle(end int64) error {
	if x.size > end || x.at > end-x.size {
		return errNoDirectory
	}
	x.base = end - x.size - x.at
	x.at += x.base
	return nil
}

// each calls do with each member, in the directory's order.
func (x *zipIndex) each(ctx context.Context, do func(m *member) error) error {
	r := bufio.NewReaderSize(io.NewSectionReader(x.r, x.at, x.size), bufferSize)
	var rest []byte
	left := x.size
	for n := int64(0); ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if left == 0 {
			if n != x.count && (x.wide || uint16(n) != uint16(x.count)) {
				return damaged(ctx, fmt.Errorf("it has %d members and claims %d", n, x.count))
			}
			return nil
		}
		m, used, err := x.next(r, &rest)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return damaged(ctx, err)
		}
		left -= used
		if err := do(m); err != nil {
			return err
		}
	}
}

// next reads one entry of the directory and says how long it is.
func (x *zipIndex) next(r io.Reader, rest *[]byte) (*member, int64, error) {
	var b [sizeCentral]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return nil, 0, err
	}
	le := binary.LittleEndian
	if le.Uint32(b[:]) != sigCentral {
		return nil, 0, errNoDirectory
	}
	name, extra, comment := int(le.Uint16(b[28:])), int(le.Uint16(b[30:])), int(le.Uint16(b[32:]))
	n := name + extra + comment
	if cap(*rest) < n {
		*rest = make([]byte, 2*n)
	}
	more := (*rest)[:n]
	if _, err := io.ReadFull(r, more); err != nil {
		return nil, 0, err
	}
	h := zip.FileHeader{Name: string(more[:name]), CreatorVersion: le.Uint16(b[4:]), ExternalAttrs: le.Uint32(b[38:])}
	m := &member{
		name: h.Name, flags: le.Uint16(b[8:]), method: le.Uint16(b[10:]), crc: le.Uint32(b[16:]),
		packed: int64(le.Uint32(b[20:])), size: int64(le.Uint32(b[24:])), offset: int64(le.Uint32(b[42:])),
		mode: h.Mode(), extra: extra, modTime: fromDOS(le.Uint16(b[14:]), le.Uint16(b[12:])),
	}
	if h.CreatorVersion>>8 == 0 { // made where there are no permissions
		m.mode &^= 0o777
	}
	if err := m.readExtra(more[name : name+extra]); err != nil {
		return nil, 0, err
	}
	m.offset += x.base
	return m, int64(sizeCentral + n), nil
}

// fromDOS is the reverse of dosTime. A date of zero is none.
func fromDOS(date, clock uint16) time.Time {
	if date == 0 {
		return time.Time{}
	}
	return time.Date(int(date>>9)+1980, time.Month(date>>5&15), int(date&31), int(clock>>11), int(clock>>5&63), int(clock&31)*2, 0, time.UTC)
}

// readExtra reads what did not fit into the entry: large sizes, and better times.
func (m *member) readExtra(b []byte) error {
	le := binary.LittleEndian
	for len(b) >= 4 {
		kind, n := le.Uint16(b), int(le.Uint16(b[2:]))
		if b = b[4:]; n > len(b) {
			break
		}
		if err := m.readField(kind, b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	if m.size == math.MaxUint32 || m.packed == math.MaxUint32 || m.offset == math.MaxUint32 {
		return fmt.Errorf("%q: its size is missing", m.name)
	}
	return nil
}

func (m *member) readField(kind uint16, field []byte) error {
	le := binary.LittleEndian
	switch kind {
	case extraZip64:
		return m.readSizes(field)
	case extraTime:
		if len(field) >= 5 && field[0]&1 != 0 {
			m.modTime = time.Unix(int64(int32(le.Uint32(field[1:]))), 0)
		}
	case extraUnix:
		if len(field) >= 8 {
			m.modTime = time.Unix(int64(int32(le.Uint32(field[4:]))), 0)
		}
	case extraNTFS:
		m.readNTFS(field)
	}
	return nil
}

// readSizes takes the values that are too large for the entry itself, in their order.
func (m *member) readSizes(field []byte) error {
	for _, v := range []*int64{&m.size, &m.packed, &m.offset} {
		if *v != math.MaxUint32 {
			continue
		}
		if len(field) < 8 {
			return fmt.Errorf("%q: its size is missing", m.name)
		}
		n := binary.LittleEndian.Uint64(field)
		if n > math.MaxInt64/4 {
			return fmt.Errorf("%q: a size of %d bytes is none", m.name, n)
		}
		*v, field = int64(n), field[8:]
		if *v == math.MaxUint32 {
			*v++ // a lie in any case, and not to be taken for a missing value
		}
	}
	return nil
}

func (m *member) readNTFS(field []byte) {
	le := binary.LittleEndian
	if len(field) < 32 || le.Uint16(field[4:]) != 1 {
		return
	}
	const perSecond = 10_000_000
	ticks := int64(le.Uint64(field[8:])) // since 1601
	m.modTime = time.Unix(ticks/perSecond-11644473600, ticks%perSecond*100)
}

// survey is what is known of an archive before anything is unpacked.
type survey struct {
	total  int64 // bytes of all members, as they claim
	unique bool  // no two members have the same name, in whatever case
}

// Reasons to refuse an archive as a whole.
var (
	errOverlap   = errors.New("members lie one over the other")
	errEncrypted = errors.New("it is encrypted")
	errBomb      = errors.New("it claims more than its compressed bytes can hold")
)

// deflateRatio is the most that deflate can shrink.
const deflateRatio = 1032

// look goes through the whole directory and finds what cannot be true: members outside the archive or over each other,
// which is how a small archive unpacks to a huge one.
func (x *zipIndex) look(ctx context.Context, most int64) (survey, error) {
	if x.count > most || x.size > maxDirectory {
		return survey{}, fmt.Errorf("%w: it has %d entries, and %d are the limit", ErrTooLarge, x.count, most)
	}
	c := census{sorted: true, seed: maphash.MakeSeed()}
	err := x.each(ctx, func(m *member) error {
		if int64(len(c.spans)) >= most {
			return fmt.Errorf("%w: it has more than %d entries", ErrTooLarge, most)
		}
		if err := c.add(m, x.at); err != nil {
			return damaged(ctx, err)
		}
		return nil
	})
	if err != nil {
		return survey{}, err
	}
	if c.overlap() {
		return survey{}, damaged(ctx, errOverlap)
	}
	return survey{total: c.total, unique: c.unique()}, nil
}

// span is the bytes of an archive that a member takes.
type span struct{ from, to int64 }

// census is what look remembers of the members: little of each, as there may be millions.
type census struct {
	total  int64
	spans  []span
	sorted bool     // no span begins before the end of the one before
	hashes []uint64 // of the names
	seed   maphash.Seed
}

// add counts a member of an archive whose members end at the given offset.
func (c *census) add(m *member, end int64) error {
	to := m.offset + sizeLocal + m.packed
	switch {
	case m.flags&flagEncrypted != 0:
		return fmt.Errorf("%q: %w", m.name, errEncrypted)
	case m.offset < 0 || to > end:
		return fmt.Errorf("%q: %w", m.name, errNoDirectory)
	case m.impossible():
		return fmt.Errorf("%q: %w", m.name, errBomb)
	}
	c.sorted = c.sorted && (len(c.spans) == 0 || c.spans[len(c.spans)-1].to <= m.offset)
	c.spans = append(c.spans, span{m.offset, to})
	c.hashes = append(c.hashes, maphash.String(c.seed, strings.ToLower(path.Clean(m.name))))
	if c.total += m.size; c.total < 0 {
		return errBomb
	}
	return nil
}

// overlap says whether members lie one over the other. It sorts the spans.
func (c *census) overlap() bool {
	if c.sorted {
		return false
	}
	slices.SortFunc(c.spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	for i := 1; i < len(c.spans); i++ {
		if c.spans[i-1].to > c.spans[i].from {
			return true
		}
	}
	return false
}

// unique says whether no two members have the same name, in whatever case. It sorts the hashes and drops doubles.
func (c *census) unique() bool {
	slices.Sort(c.hashes)
	c.hashes = slices.Compact(c.hashes)
	return len(c.hashes) == len(c.spans)
}

func (m *member) impossible() bool {
	switch m.method {
	case zip.Store:
		return m.size != m.packed
	case zip.Deflate:
		return m.size/deflateRatio > m.packed
	}
	return false
}

// entry returns what the member tells of the file that it is.
func (m *member) entry() entry { return entry{name: m.name, mode: m.mode, modTime: m.modTime} }

func (m *member) link() bool { return m.mode.Type() == fs.ModeSymlink }
