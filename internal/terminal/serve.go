package terminal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/tranter-ci/tranter"
)

// Serve tells that t has started and carries its bytes between it and the streams until its shell has ended or the input
// stream has, and closes t. hangUp has to end a Read of in; it is called before Serve returns.
func Serve(in io.Reader, out io.Writer, t tranter.Terminal, hangUp func()) error {
	if err := writeFrame(out, Started, nil); err != nil {
		hangUp()
		return errors.Join(fmt.Errorf("start a terminal: %w", err), t.Close())
	}
	var owned sync.WaitGroup
	owned.Go(func() {
		receive(in, t)
		_ = t.Close() // it ends the copying below
	})
	err := send(out, t)
	hangUp()
	err = errors.Join(err, t.Close()) // input that nobody has read ends with it
	owned.Wait()
	return err
}

// Fail tells the other end why there is no terminal.
func Fail(out io.Writer, cause error) error {
	text := cause.Error()
	return writeFrame(out, Failed, []byte(text[:min(len(text), MaxPayload)]))
}

// receive passes on what comes until the stream ends or says something that can't be.
func receive(in io.Reader, t tranter.Terminal) {
	for {
		k, payload, err := readFrame(in)
		if err != nil {
			return
		}
		switch k {
		case Data:
			_, err = t.Write(payload)
		case Resize:
			err = t.Resize(binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]))
		case End:
			err = t.CloseWrite()
		case Started, Errors, Failed, Exit:
			return
		}
		if err != nil {
			return
		}
	}
}

// Apart is what a terminal may be besides: one whose standard error is apart from the rest of its output. It has to end when
// the rest does, and when the terminal is closed.
type Apart interface {
	Errors() io.Reader
}

// send passes on what the terminal shows, closes it and tells how its shell ended: who is told can open another one at
// once.
func send(out io.Writer, t tranter.Terminal) error {
	w := &sharedWriter{w: out}
	var owned sync.WaitGroup
	defer owned.Wait()
	if apart, ok := t.(Apart); ok {
		owned.Go(func() { _, _ = pass(w, Errors, apart.Errors()) }) // whether the user is there, the other one notices too
	}
	err, left := pass(w, Data, t)
	if left != nil {
		return errors.Join(left, t.Close())
	}
	owned.Wait()
	code, ok := t.ExitCode()
	closed := t.Close()
	switch {
	case ok:
		err = writeFrame(w, Exit, binary.BigEndian.AppendUint32(nil, uint32(int32(code)))) //nolint:gosec // exit codes fit
	case errors.Is(err, io.EOF):
		err = nil
	default:
		err = Fail(w, err)
	}
	return errors.Join(err, closed)
}

// pass writes what can be read as frames of a kind, until reading fails, as it does at the end, or writing does.
func pass(w io.Writer, k Kind, r io.Reader) (read, written error) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := r.Read(buffer)
		if n > 0 {
			if err := writeFrame(w, k, buffer[:n]); err != nil {
				return nil, err
			}
		}
		if err != nil {
			return err, nil
		}
	}
}

// sharedWriter lets several write whole frames.
type sharedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *sharedWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}
