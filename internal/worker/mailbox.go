package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// mailbox is the way over the allocation's directory.
type mailbox struct {
	worker *worker
	offset int64
	lines  lines
	buf    []byte

	mu     sync.Mutex
	behind []byte // answers that could not be written
}

func newMailbox(w *worker) *mailbox {
	return &mailbox{worker: w, lines: lines{most: maxRequest}, buf: make([]byte, 16<<10)}
}

func (*mailbox) bulk() bool { return false }

// stream has nothing to do: the manager reads the journal.
func (*mailbox) stream(context.Context, tranter.Session, request) error { return errStreamed }

// How often the worker looks for requests.
const (
	takeSoon = 5 * time.Millisecond // after one came: the next follows
	takeIdle = 20 * time.Millisecond
	takeBusy = 100 * time.Millisecond // all places are taken
	soon     = time.Second
)

func (m *mailbox) run(ctx context.Context) error {
	last := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		n, err := m.take(ctx)
		if err != nil {
			if os.IsNotExist(err) {
				return fmt.Errorf("its directory is gone: %w", err)
			}
			m.worker.log.Warn("Requests of the manager can't be read", "error", err)
		}
		m.flush()
		wait := takeIdle
		switch {
		case n > 0:
			last = time.Now()
			wait = 0
		case time.Since(last) < soon:
			wait = takeSoon
		case m.worker.occupied() >= m.worker.Places:
			wait = takeBusy
		}
		timer.Reset(wait)
	}
}

// take takes what is new.
func (m *mailbox) take(ctx context.Context) (int, error) {
	n, err := m.worker.folder.readFrom(requestsFile, m.offset, m.buf)
	if err != nil {
		return 0, err
	}
	n = beforeNUL(m.buf[:n])
	m.offset += int64(n)
	return n, m.lines.add(m.buf[:n], func(line []byte) {
		var r request
		if json.Unmarshal(line, &r) == nil {
			m.worker.seen()
			m.worker.handle(ctx, r)
		}
	})
}

// send adds an answer. Signs are in a file of their own.
func (m *mailbox) send(a answer) {
	if a.Sign != nil {
		return
	}
	line, err := json.Marshal(a)
	if err != nil {
		m.worker.log.Error("An answer can't be written", "error", err)
		return
	}
	m.mu.Lock()
	m.behind = append(append(m.behind, line...), '\n')
	m.mu.Unlock()
	m.flush()
}

// flush writes what is to be written. A disk that is full may have room later.
func (m *mailbox) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.behind) == 0 {
		return
	}
	file, err := m.worker.folder.open(answersFile, os.O_WRONLY|os.O_APPEND)
	if err != nil {
		m.worker.log.Warn("An answer can't be written now", "error", err)
		return
	}
	n, err := file.Write(m.behind)
	m.behind = m.behind[n:]
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		m.worker.log.Warn("An answer can't be written now", "error", err)
	}
}
