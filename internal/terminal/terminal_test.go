package terminal_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter/internal/terminal"
)

// echo is a terminal that shows what is typed, and ends with its exit code at the end of the input.
type echo struct {
	in    *io.PipeWriter
	out   *io.PipeReader
	code  int
	mu    sync.Mutex
	ended bool
	sizes [][2]uint16
	shut  int
}

func newEcho(code int) *echo {
	r, w := io.Pipe()
	return &echo{in: w, out: r, code: code}
}

func (e *echo) Read(p []byte) (int, error)  { return e.out.Read(p) }
func (e *echo) Write(p []byte) (int, error) { return e.in.Write(p) }

func (e *echo) Resize(columns, rows uint16) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sizes = append(e.sizes, [2]uint16{columns, rows})
	return nil
}

func (e *echo) CloseWrite() error {
	e.mu.Lock()
	e.ended = true
	e.mu.Unlock()
	return e.in.Close()
}

func (e *echo) ExitCode() (int, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.code, e.ended
}

func (e *echo) Close() error {
	e.mu.Lock()
	e.shut++
	e.mu.Unlock()
	_ = e.in.Close()
	return e.out.Close()
}

// serve has a terminal served at the other end of a connection.
func serve(t rapidOrTest, e *echo) (near net.Conn, served <-chan error) {
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- terminal.Serve(far, far, e, func() { _ = far.Close() }) }()
	t.Cleanup(func() { _ = near.Close() })
	return near, done
}

type rapidOrTest interface {
	Helper()
	Cleanup(func())
}

// Whatever is typed, in pieces of any size, comes back as it was, and the exit code with it.
func TestBytesAndExitCodesArrive(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		pieces := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 200), 0, 10).Draw(rt, "pieces")
		if rapid.Bool().Draw(rt, "long") {
			pieces = append(pieces, bytes.Repeat([]byte("x"), terminal.MaxPayload+17))
		}
		code := rapid.IntRange(-1, 255).Draw(rt, "code")
		e := newEcho(code)
		near, served := serve(rt, e)
		s, err := terminal.Connect(context.Background(), near, near, near.Close)
		if err != nil {
			rt.Fatal(err)
		}
		go func() {
			for _, p := range pieces {
				_, _ = s.Write(p)
			}
			_ = s.Resize(80, 25)
			_ = s.CloseWrite()
		}()
		got, err := io.ReadAll(s)
		if want := bytes.Join(pieces, nil); err != nil || !bytes.Equal(got, want) {
			rt.Fatalf("%d bytes came back of %d, %v", len(got), len(want), err)
		}
		if c, ok := s.ExitCode(); !ok || c != code {
			rt.Fatalf("exit code %d, known: %v, want %d", c, ok, code)
		}
		if err := <-served; err != nil {
			rt.Fatal(err)
		}
		if len(e.sizes) != 1 || e.sizes[0] != [2]uint16{80, 25} {
			rt.Fatalf("sizes: %v", e.sizes)
		}
	})
}

func TestTheTerminalEndsWithItsUser(t *testing.T) {
	t.Parallel()
	e := newEcho(0)
	near, served := serve(t, e)
	s, err := terminal.Connect(t.Context(), near, near, near.Close)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-served
	if e.shut == 0 {
		t.Error("the terminal is still open")
	}
	if _, err := io.ReadAll(s); err == nil {
		t.Error("a terminal that was closed reads as one whose shell has ended")
	}
	if _, ok := s.ExitCode(); ok {
		t.Error("an exit code of a shell that was not seen to end")
	}
}

func TestWhyThereIsNoTerminal(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	go func() { _ = terminal.Fail(far, errors.New("the moon is full")) }()
	if _, err := terminal.Connect(t.Context(), near, near, near.Close); err == nil || !strings.Contains(err.Error(), "the moon is full") {
		t.Errorf("%v", err)
	}
	near, far = net.Pipe()
	defer far.Close()
	brief, stop := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, errors.New("too slow"))
	defer stop()
	if _, err := terminal.Connect(brief, near, near, near.Close); err == nil || !strings.Contains(err.Error(), "too slow") {
		t.Errorf("%v", err)
	}
}

// Nothing that comes from a job's environment makes the reader fail otherwise than with an error, or take much memory.
func FuzzStream(f *testing.F) {
	f.Add([]byte("s\x00\x00\x00\x00d\x00\x00\x00\x02hix\x00\x00\x00\x04\x00\x00\x00\x07"))
	f.Add([]byte("s\x00\x00\x00\x00d\xff\xff\xff\xff"))
	f.Add([]byte("s\x00\x00\x00\x00x\x00\x00\x00\x01a"))
	f.Add([]byte("f\x00\x00\x00\x02no"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := terminal.Connect(t.Context(), bytes.NewReader(data), io.Discard, func() error { return nil })
		if err != nil {
			return
		}
		out, err := io.ReadAll(s)
		if _, ok := s.ExitCode(); (err == nil) != ok {
			t.Errorf("error %v, exit code known: %v", err, ok)
		}
		if len(out) > len(data) {
			t.Errorf("%d bytes of %d", len(out), len(data))
		}
	})
}

// Who is told that the shell has ended can open another terminal at once: the one before is closed by then.
func TestTheTerminalIsClosedWhenItsEndIsTold(t *testing.T) {
	t.Parallel()
	e := newEcho(3)
	near, served := serve(t, e)
	s, err := terminal.Connect(t.Context(), near, near, near.Close)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(s); err != nil {
		t.Error(err)
	}
	e.mu.Lock()
	shut := e.shut
	e.mu.Unlock()
	if shut == 0 {
		t.Error("the end is told before the terminal is closed")
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// apart is a command whose standard error is apart from its output.
type apart struct {
	*echo

	errors io.Reader
}

func (a apart) Errors() io.Reader { return a.errors }

func TestStandardErrorStaysApartWhereThatIsWanted(t *testing.T) {
	t.Parallel()
	for _, wanted := range []bool{true, false} {
		reader, writer := io.Pipe()
		e := newEcho(3)
		near, far := net.Pipe()
		defer near.Close()
		done := make(chan error, 1)
		go func() { done <- terminal.Serve(far, far, apart{e, reader}, func() { _ = far.Close() }) }()
		s, err := terminal.Connect(t.Context(), near, near, near.Close)
		if err != nil {
			t.Fatal(err)
		}
		var errs bytes.Buffer
		if wanted {
			s.Errors(&errs)
		}
		long := strings.Repeat("e", 100<<10)
		go func() {
			_, _ = s.Write([]byte("out"))
			_, _ = writer.Write([]byte(long))
			_ = s.CloseWrite()
			_ = writer.Close() // after the end of the output: it is waited for
		}()
		out, err := io.ReadAll(s)
		if code, ok := s.ExitCode(); err != nil || !ok || code != 3 {
			t.Errorf("code %d, %v, %v", code, ok, err)
		}
		if wanted && (string(out) != "out" || errs.String() != long) || !wanted && len(out) != len(long)+3 {
			t.Errorf("apart %v: %d bytes of output, %d of errors", wanted, len(out), errs.Len())
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestAUserWhoIsGoneEndsBothStreams(t *testing.T) {
	t.Parallel()
	reader, writer := io.Pipe()
	defer writer.Close()
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- terminal.Serve(far, far, closing{apart{newEcho(0), reader}, reader.Close}, func() { _ = far.Close() })
	}()
	if _, err := terminal.Connect(t.Context(), near, near, near.Close); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = writer.Write([]byte("x")) }()
	_ = near.Close()
	<-done
}

// closing is an apart whose Close ends its standard error, as it has to.
type closing struct {
	apart

	also func() error
}

func (c closing) Close() error { return errors.Join(c.also(), c.apart.Close()) }
