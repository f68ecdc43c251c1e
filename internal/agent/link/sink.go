package link

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
)

// sink passes on the bytes of one journal out of all that comes on the channel for journals: those after its mark, up to
// as many as the agent says that there are.
type sink struct {
	mark []byte
	done chan struct{} // closed when all has come, or nothing more will

	mu        sync.Mutex
	w         io.Writer // nil: nobody wants it any more
	before    []byte    // the end of what came before the mark
	begun     bool
	count     int64
	sent      int64 // -1: not known yet
	err       error
	over      bool
	onFailing context.CancelCauseFunc
}

func newSink(w io.Writer, mark []byte) *sink {
	return &sink{w: w, mark: mark, sent: -1, done: make(chan struct{})}
}

// onFailure has stop called with the error of the writer.
func (s *sink) onFailure(stop context.CancelCauseFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onFailing = stop
	if s.err != nil {
		stop(s.err)
	}
}

// take takes what has come.
func (s *sink) take(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun {
		p = s.begin(p)
	}
	if len(p) == 0 || s.w == nil || s.over {
		return
	}
	if s.sent >= 0 {
		p = p[:min(int64(len(p)), max(0, s.sent-s.count))]
	}
	n, err := s.w.Write(p)
	s.count += int64(n)
	if err != nil {
		s.finish(err)
		if s.onFailing != nil {
			s.onFailing(err)
		}
		return
	}
	if s.count == s.sent {
		s.finish(nil)
	}
}

// begin looks for the mark and returns what follows it.
func (s *sink) begin(p []byte) []byte {
	all := append(s.before, p...)
	if i := bytes.Index(all, s.mark); i >= 0 {
		s.begun, s.before = true, nil
		if s.sent == 0 {
			s.finish(nil)
		}
		return all[i+len(s.mark):]
	}
	s.before = append([]byte(nil), all[max(0, len(all)-len(s.mark)+1):]...)
	return nil
}

// expect says how many bytes there are, and returns what is closed when they have come.
func (s *sink) expect(sent int64) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = sent
	switch {
	case s.begun && s.count == sent || s.over && s.err == nil:
		s.finish(nil)
	case s.count > sent:
		s.finish(fmt.Errorf("%w: more of the journal has come than there is", ErrBroken))
	}
	return s.done
}

// end says that nothing more comes.
func (s *sink) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finish(nil)
}

// outcome says whether all has come.
func (s *sink) outcome() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.count != s.sent {
		return fmt.Errorf("%w: %d bytes of the journal have come, of %d", ErrBroken, s.count, s.sent)
	}
	return s.err
}

// abandon returns when nothing is written any more.
func (s *sink) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w = nil
}

func (s *sink) finish(err error) {
	if s.over {
		return
	}
	s.over, s.err = true, err
	close(s.done)
}
