package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// On a socket, what comes from the agent is in frames: which channel, the length in 32 bits, the bytes.
const (
	channelJournals = 'o'
	channelEvents   = 'e'
	frameHeader     = 5
	maxFrame        = 1 << 20
)

// framed is a connection whose two channels back share it.
type framed struct {
	mu  sync.Mutex
	dst io.Writer
}

// frameWriter is one of its channels.
type frameWriter struct {
	to      *framed
	channel byte
}

// Write sends p in frames.
func (w frameWriter) Write(p []byte) (total int, err error) {
	w.to.mu.Lock()
	defer w.to.mu.Unlock()
	for len(p) > 0 {
		piece := p[:min(len(p), maxFrame)]
		header := [frameHeader]byte{w.channel}
		binary.BigEndian.PutUint32(header[1:], uint32(len(piece))) //nolint:gosec // it is small
		if _, err := w.to.dst.Write(header[:]); err != nil {
			return total, err
		}
		n, err := w.to.dst.Write(piece)
		total += n
		if err != nil {
			return total, err
		}
		p = p[n:]
	}
	return total, nil
}

// unframe copies frames to the two channels until they end. The end between two frames is no error.
func unframe(src io.Reader, stdout, stderr io.Writer) error {
	var header [frameHeader]byte
	buf := make([]byte, 0)
	for {
		if _, err := io.ReadFull(src, header[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		size := binary.BigEndian.Uint32(header[1:])
		dst := stdout
		if header[0] == channelEvents {
			dst = stderr
		}
		if size > maxFrame || header[0] != channelEvents && header[0] != channelJournals {
			return fmt.Errorf("a frame of kind %q with %d bytes: that is no agent", header[0], size)
		}
		if cap(buf) < int(size) {
			buf = make([]byte, size)
		}
		if _, err := io.ReadFull(src, buf[:size]); err != nil {
			return err
		}
		if _, err := dst.Write(buf[:size]); err != nil {
			return err
		}
	}
}
