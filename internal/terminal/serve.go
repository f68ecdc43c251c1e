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
		case Started, Failed, Exit:
			return
		}
		if err != nil {
			return
		}
	}
}

// send passes on what the terminal shows, closes it and tells how its shell ended: who is told can open another one at
// once.
func send(out io.Writer, t tranter.Terminal) error {
	buffer := make([]byte, 16<<10)
	for {
		n, err := t.Read(buffer)
		if n > 0 {
			if err := writeFrame(out, Data, buffer[:n]); err != nil {
				return err
			}
		}
		if err == nil {
			continue
		}
		code, ok := t.ExitCode()
		closed := t.Close()
		switch {
		case ok:
			err = writeFrame(out, Exit, binary.BigEndian.AppendUint32(nil, uint32(int32(code)))) //nolint:gosec // exit codes fit
		case errors.Is(err, io.EOF):
			err = nil
		default:
			err = Fail(out, err)
		}
		return errors.Join(err, closed)
	}
}
