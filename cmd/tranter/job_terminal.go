package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/term"

	"github.com/tranter-ci/tranter"
)

// detachKey is Ctrl-].
const detachKey = 0x1d

var errDetached = errors.New("detached")

// localTerminal is the window, or the pipe, at the user's side.
type localTerminal struct {
	in  io.Reader
	out io.Writer
	fd  int // of in, if it is a window; else -1

	exact bool   // pass on what is typed as it is, and no end of a line that it does not have
	lost  string // what it means when the other end is gone without a word
}

func newLocalTerminal(s streams) *localTerminal {
	l := &localTerminal{in: s.in, out: s.out, fd: -1, lost: "the job, or the manager, has ended"}
	if f, ok := s.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) { //nolint:gosec // it is a small number
		l.fd = int(f.Fd()) //nolint:gosec // as above
	}
	return l
}

// use connects the window to t until the shell there has ended, and returns its exit code. The error is errDetached if
// the user has left before.
func (l *localTerminal) use(ctx context.Context, t tranter.Terminal) (code int, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer stop(nil)
	if l.fd >= 0 {
		before, err := term.MakeRaw(l.fd)
		if err != nil {
			return 0, fmt.Errorf("prepare the window: %w", err)
		}
		defer func() {
			err = errors.Join(err, term.Restore(l.fd, before))
			_, _ = io.WriteString(l.out, "\r\n")
		}()
		l.fit(t)
		owned.Go(func() { l.watchSize(ctx, t) })
	}
	// Nobody waits for this one: what reads a window can't be ended, and the process ends soon.
	go func() {
		if err := l.typed(t); err != nil {
			stop(err)
		}
	}()
	var failed error
	shown := make(chan struct{})
	owned.Go(func() {
		defer close(shown)
		_, failed = io.Copy(l.out, t)
	})
	select {
	case <-shown:
		err = failed
	case <-ctx.Done():
		err = context.Cause(ctx)
		_ = t.Close()
		<-shown
	}
	if code, ok := t.ExitCode(); ok && !errors.Is(err, errDetached) {
		return code, nil
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New(l.lost)
	}
	return 0, err
}

// typed passes on what is typed, to the end of it. The error is errDetached if the user leaves.
func (l *localTerminal) typed(t tranter.Terminal) error {
	buffer := make([]byte, 4096)
	last := byte('\n')
	for {
		n, err := l.in.Read(buffer)
		text := buffer[:n]
		at := -1
		if l.fd >= 0 {
			at = bytes.IndexByte(text, detachKey)
		}
		if at >= 0 {
			text = text[:at]
		}
		if len(text) > 0 {
			last = text[len(text)-1]
			if _, err := t.Write(text); err != nil {
				return nil //nolint:nilerr // it has ended: what it shows tells why
			}
		}
		switch {
		case at >= 0:
			return errDetached
		case err != nil:
			if last != '\n' && !l.exact { // the end of the input has cut a line off
				_, _ = t.Write([]byte{'\n'})
			}
			_ = t.CloseWrite()
			return nil
		}
	}
}

// watchSize tells the shell when the window has another size, until ctx ends.
func (l *localTerminal) watchSize(ctx context.Context, t tranter.Terminal) {
	known := resizeSignals()
	if len(known) == 0 {
		return
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, known...)
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			l.fit(t)
		}
	}
}

// fit gives the terminal the size of the window.
func (l *localTerminal) fit(t tranter.Terminal) {
	if columns, rows, err := term.GetSize(l.fd); err == nil {
		_ = t.Resize(uint16(columns), uint16(rows)) //nolint:gosec // the system has them as 16 bits
	}
}
