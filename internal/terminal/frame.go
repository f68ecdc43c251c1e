// Package terminal is the stream format of a terminal between our own programs: between an executor and the agent that
// holds the pseudo terminal, and between "tranter job attach" and the manager.
//
// It does not know pseudo terminals, sockets or processes: it makes a tranter.Terminal of any two streams, and serves one
// over them.
package terminal

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Kind is what a frame carries.
type Kind byte

// The kinds of frames. Towards the terminal go Data, Resize and End, back come Started, Data, Errors, Failed and Exit.
const (
	Data    Kind = 'd' // bytes of the terminal
	Resize  Kind = 'r' // two numbers of 16 bits: columns and rows
	End     Kind = 'e' // there is no more input: the shell is to end once it has read what there was
	Started Kind = 's' // the shell runs; the first frame that comes back
	Errors  Kind = '2' // bytes of standard error, where it is apart from the rest
	Failed  Kind = 'f' // text: why there is no terminal; the last frame
	Exit    Kind = 'x' // a number of 32 bits: the shell's exit code; the last frame
)

// A frame is its kind, the length of its payload as 4 bytes, and the payload; numbers are big endian.
const headerBytes = 5

// MaxPayload bounds what one frame carries.
const MaxPayload = 64 << 10

// writeFrame writes a frame in one go. It splits data that is too long.
func writeFrame(w io.Writer, k Kind, payload []byte) error {
	for {
		n := min(len(payload), MaxPayload)
		frame := make([]byte, headerBytes, headerBytes+n)
		frame[0] = byte(k)
		binary.BigEndian.PutUint32(frame[1:], uint32(n)) //nolint:gosec // at most MaxPayload
		if _, err := w.Write(append(frame, payload[:n]...)); err != nil {
			return err
		}
		if payload = payload[n:]; len(payload) == 0 {
			return nil
		}
	}
}

// readFrame reads a frame. At the end of the stream the error is io.EOF, or io.ErrUnexpectedEOF within a frame.
func readFrame(r io.Reader) (Kind, []byte, error) {
	var header [headerBytes]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	k, n := Kind(header[0]), binary.BigEndian.Uint32(header[1:])
	if n > MaxPayload {
		return 0, nil, fmt.Errorf("a frame of %d bytes came on the terminal's stream: at most %d are allowed", n, MaxPayload)
	}
	if want := k.size(); want >= 0 && int(n) != want {
		return 0, nil, fmt.Errorf("a malformed frame came on the terminal's stream: kind %q with %d bytes", byte(k), n)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return k, payload, nil
}

// size is the length of a payload where it is fixed, else -1.
func (k Kind) size() int {
	switch k {
	case Resize, Exit:
		return 4
	case Started, End:
		return 0
	case Data, Errors, Failed:
		return -1
	}
	return -1
}

func resizePayload(columns, rows uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, columns), rows)
}
