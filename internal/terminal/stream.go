package terminal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Stream is a terminal at the other end of two streams: a tranter.Terminal.
type Stream struct {
	in    io.Reader
	out   io.Writer
	close func() error

	rest   []byte    // of Data, not read yet; Read's own
	errors io.Writer // of Errors; nil: it is read with the rest

	sending sync.Mutex
	mu      sync.Mutex
	code    int
	exited  bool
}

// Connect waits until the terminal at the other end has started. Close ends both streams, also while Connect waits; it
// is called if Connect fails. The end of ctx ends the waiting only.
func Connect(ctx context.Context, in io.Reader, out io.Writer, closeStreams func() error) (*Stream, error) {
	s := &Stream{in: in, out: out, close: sync.OnceValue(closeStreams)}
	release := context.AfterFunc(ctx, func() { _ = s.close() })
	k, payload, err := readFrame(in)
	if !release() && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("open a terminal: %w", err)
	case k == Failed:
		err = fmt.Errorf("open a terminal: %s", payload)
	case k != Started:
		err = fmt.Errorf("open a terminal: a frame of kind %q came where the start was expected", byte(k))
	}
	if err != nil {
		_ = s.close()
		return nil, err
	}
	return s, nil
}

// Errors says where standard error goes while the rest is read, where the other end has it apart (Apart). It is called
// before the first Read; without it all is read as one.
func (s *Stream) Errors(w io.Writer) { s.errors = w }

// Read gives the terminal's output, and io.EOF when its shell has ended.
func (s *Stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if _, ok := s.ExitCode(); ok {
			return 0, io.EOF
		}
		k, payload, err := readFrame(s.in)
		switch {
		case errors.Is(err, io.EOF):
			return 0, io.ErrUnexpectedEOF // the shell did not end, the connection did
		case err != nil:
			return 0, err
		case k == Errors && s.errors != nil:
			if _, err := s.errors.Write(payload); err != nil {
				return 0, err
			}
		case k == Data, k == Errors:
			s.rest = payload
		case k == Failed:
			return 0, errors.New(string(payload))
		case k == Exit:
			s.mu.Lock()
			s.code, s.exited = int(int32(binary.BigEndian.Uint32(payload))), true //nolint:gosec // as Serve wrote it
			s.mu.Unlock()
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write sends input to the terminal.
func (s *Stream) Write(p []byte) (int, error) {
	if err := s.send(Data, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Resize implements tranter.Terminal.
func (s *Stream) Resize(columns, rows uint16) error {
	return s.send(Resize, resizePayload(columns, rows))
}

// CloseWrite tells the terminal that there is no more input: its shell ends once it has read what there was.
func (s *Stream) CloseWrite() error { return s.send(End, nil) }

func (s *Stream) send(k Kind, payload []byte) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return writeFrame(s.out, k, payload)
}

// ExitCode implements tranter.Terminal.
func (s *Stream) ExitCode() (int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.code, s.exited
}

// Close ends the terminal. It may be repeated.
func (s *Stream) Close() error { return s.close() }
