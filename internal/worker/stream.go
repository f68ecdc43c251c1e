package worker

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tranter-ci/tranter"
)

// A journal comes on a connection of its own, so that one that is read slowly holds up nothing else: frames, each a length of
// four bytes and as many bytes; one of length zero, followed by a line with the result, is the last. What has it answers
// with one byte. After a broken connection it goes on where it stopped.

// maxFrame bounds a frame.
const maxFrame = 256 << 10

// outcome is the last line of a journal.
type outcome struct {
	Result *tranter.PhaseResult `json:"result,omitempty"`
	Error  *failure             `json:"error,omitempty"`
}

// errCut means that a connection ended before the journal did.
var errCut = errors.New("the connection has ended")

// stream copies the journal of a phase that the worker sends.
func (s *session) stream(ctx context.Context, c *call, offset int64, w io.Writer) (tranter.PhaseResult, error) {
	h := s.holding
	if err := h.make(c); err != nil {
		return tranter.PhaseResult{}, err
	}
	defer close(c.over)
	defer h.unregister(c)
	coming := incoming{offset: offset, w: w}
	for {
		select {
		case <-ctx.Done():
			_ = h.post(request{Op: opDrop, Job: s.job, Of: c.request.ID})
			return tranter.PhaseResult{}, context.Cause(ctx)
		case <-h.gone:
			return tranter.PhaseResult{}, h.loss()
		case <-c.wake:
			if last, _ := c.drain(); last != nil {
				return (&outcome{Result: last.Result, Error: last.Error}).value()
			}
		case conn := <-c.conns:
			end, err := coming.take(ctx, h.gone, conn)
			switch {
			case err == nil:
				return end.value()
			case !errors.Is(err, errCut):
				return tranter.PhaseResult{}, err
			}
		}
	}
}

func (o *outcome) value() (tranter.PhaseResult, error) {
	if err := o.Error.err(); err != nil {
		return tranter.PhaseResult{}, err
	}
	if o.Result == nil {
		return tranter.PhaseResult{}, fmt.Errorf("%w: its worker told none", tranter.ErrAgentLost)
	}
	return *o.Result, nil
}

// incoming is a journal that comes.
type incoming struct {
	offset int64
	w      io.Writer
}

// lastWords is how long a connection is still read of a worker that has ended.
const lastWords = 10 * time.Second

// take takes what comes on a connection. The error is errCut, or the writer's, or why ctx ended.
func (i *incoming) take(ctx context.Context, gone <-chan struct{}, c *conn) (*outcome, error) {
	defer c.close()
	defer context.AfterFunc(ctx, c.close)()
	over := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-gone:
			_ = c.SetReadDeadline(time.Now().Add(lastWords))
		case <-over:
		}
	}()
	defer func() { close(over); <-watched }()
	if !c.send(welcome{OK: true, Offset: i.offset}) {
		return nil, errCut
	}
	end, err := i.frames(c)
	if ctx.Err() != nil && end == nil {
		return nil, context.Cause(ctx)
	}
	if err == nil {
		_ = c.put([]byte{'\n'}) // it is all here
	}
	return end, err
}

func (i *incoming) frames(c *conn) (*outcome, error) {
	var head [4]byte
	var buf []byte
	for {
		if _, err := io.ReadFull(c.in, head[:]); err != nil {
			return nil, errCut
		}
		n := int(binary.BigEndian.Uint32(head[:]))
		if n == 0 {
			break
		}
		if n > maxFrame {
			return nil, fmt.Errorf("%w: its worker does not keep to the rules", tranter.ErrAgentLost)
		}
		if cap(buf) < n {
			buf = make([]byte, n)
		}
		got, err := io.ReadFull(c.in, buf[:n])
		if got > 0 {
			if _, err := i.w.Write(buf[:got]); err != nil {
				return nil, err
			}
			i.offset += int64(got)
		}
		if err != nil {
			return nil, errCut
		}
	}
	line, err := c.line(maxAnswer)
	if err != nil {
		return nil, errCut
	}
	var end outcome
	if err := json.Unmarshal(line, &end); err != nil {
		return nil, fmt.Errorf("%w: malformed result", tranter.ErrAgentLost)
	}
	return &end, nil
}

// outgoing is a journal that goes out.
type outgoing struct {
	c   *bufio.Writer
	err error
}

// Write sends frames, at once.
func (o *outgoing) Write(p []byte) (n int, err error) {
	for len(p) > 0 && o.err == nil {
		part := p[:min(len(p), maxFrame)]
		var head [4]byte
		binary.BigEndian.PutUint32(head[:], uint32(len(part))) //nolint:gosec // at most maxFrame
		_, _ = o.c.Write(head[:])
		if _, o.err = o.c.Write(part); o.err == nil {
			o.err = o.c.Flush()
		}
		if o.err == nil {
			n += len(part)
			p = p[len(part):]
		}
	}
	return n, o.err
}

// end sends the outcome.
func (o *outgoing) end(out outcome) error {
	line, err := json.Marshal(out)
	if err != nil {
		return err
	}
	_, _ = o.c.Write([]byte{0, 0, 0, 0})
	_, _ = o.c.Write(append(line, '\n'))
	return o.c.Flush()
}
