package transfer

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"
)

// The note that goes into archives of distributed caches: the fingerprint of their files, by which a job on any machine
// sees that it has changed nothing and need not upload the archive again. It is the comment of a zip archive, and a frame
// that decoders skip at the end of a zstd stream, so that every program can unpack what has one.
const (
	notePrefix  = "tranter-content:"
	noteLength  = len(notePrefix) + 64 // hexadecimal SHA-256
	zipEnd      = "PK\x05\x06"
	zipEndBytes = 22
	zstdMagic   = "\x28\xB5\x2F\xFD"
	zstdSkipped = 0x184D2A5E // one of sixteen
)

// noteWriter writes an archive and, when it is closed, the note. It holds back what may be the end of a zip archive.
type noteWriter struct {
	w     io.Writer
	note  string
	begin []byte // first bytes of the archive
	held  []byte // its last bytes so far
}

func newNoteWriter(w io.Writer, content string) *noteWriter {
	return &noteWriter{w: w, note: notePrefix + content}
}

func (n *noteWriter) Write(p []byte) (int, error) {
	if missing := len(zstdMagic) - len(n.begin); missing > 0 {
		n.begin = append(n.begin, p[:min(missing, len(p))]...)
	}
	if len(p) < zipEndBytes {
		n.held = append(n.held, p...)
		surplus := max(0, len(n.held)-zipEndBytes)
		if _, err := n.w.Write(n.held[:surplus]); err != nil {
			return 0, err
		}
		n.held = append(n.held[:0], n.held[surplus:]...)
		return len(p), nil
	}
	if _, err := n.w.Write(n.held); err != nil {
		return 0, err
	}
	body := p[:len(p)-zipEndBytes]
	n.held = append(n.held[:0], p[len(body):]...)
	if _, err := n.w.Write(body); err != nil {
		return 0, err
	}
	return len(p), nil
}

// close writes what is held, with the note. An archive in another format gets none.
func (n *noteWriter) close() error {
	end := n.held
	switch {
	case len(n.note) != noteLength:
	case len(end) == zipEndBytes && string(end[:4]) == zipEnd && end[20] == 0 && end[21] == 0:
		binary.LittleEndian.PutUint16(end[20:], uint16(noteLength))
		end = append(end, n.note...)
	case string(n.begin) == zstdMagic:
		end = binary.LittleEndian.AppendUint32(end, zstdSkipped)
		end = binary.LittleEndian.AppendUint32(end, uint32(noteLength))
		end = append(end, n.note...)
	}
	_, err := n.w.Write(end)
	return err
}

// readNote returns the fingerprint that is noted in an archive, or "".
func readNote(f *os.File) string {
	info, err := f.Stat()
	if err != nil || info.Size() < int64(noteLength) {
		return ""
	}
	end := make([]byte, noteLength)
	if _, err := f.ReadAt(end, info.Size()-int64(noteLength)); err != nil {
		return ""
	}
	content, found := bytes.CutPrefix(end, []byte(notePrefix))
	if _, err := hex.Decode(make([]byte, 32), content); !found || err != nil {
		return ""
	}
	return string(content)
}
