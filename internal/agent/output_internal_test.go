package agent

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// pieces keeps the sizes of writes.
type pieces struct {
	bytes.Buffer
	sizes []int
	err   error
}

func (p *pieces) Write(b []byte) (int, error) {
	p.sizes = append(p.sizes, len(b))
	if p.err != nil {
		return 0, p.err
	}
	return p.Buffer.Write(b)
}

func noise(n int) []byte {
	data := make([]byte, n)
	rand.New(rand.NewSource(1)).Read(data)
	return data
}

func TestOutputIsReadInLargePieces(t *testing.T) {
	t.Parallel()
	data := noise(1 << 20)
	var got pieces
	n, err := (&reading{&got}).ReadFrom(bytes.NewReader(data))
	if err != nil || n != int64(len(data)) || !bytes.Equal(got.Bytes(), data) {
		t.Fatalf("%d of %d bytes, %v", n, len(data), err)
	}
	if most := len(data)/readLarge + 2; len(got.sizes) > most || got.sizes[0] > readSmall {
		t.Errorf("pieces of %v", got.sizes)
	}
}

// A program that prints a little is heard at once, and goes on only then.
func TestOutputIsPassedOnAtOnce(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd := exec.Command("sh", "-c", "echo one; read answer; echo two >&2; echo $answer")
	cmd.Stdin = r
	seen := &answering{after: "one\n", answer: func() { _, _ = w.WriteString("three\n") }}
	cmd.Stdout, cmd.Stderr = seen, seen
	if err := execute(t.Context(), cmd, func() time.Duration { return time.Second }); err != nil {
		t.Fatal(err)
	}
	if got := seen.String(); got != "one\ntwo\nthree\n" { // both streams by one pipe: in order
		t.Errorf("%q", got)
	}
}

// answering writes an answer when it has seen a text.
type answering struct {
	bytes.Buffer
	after  string
	answer func()
}

func (a *answering) Write(p []byte) (int, error) {
	n, err := a.Buffer.Write(p)
	if a.String() == a.after {
		a.answer()
	}
	return n, err
}

func TestReadingEndsWithTheWriter(t *testing.T) {
	t.Parallel()
	full := errors.New("no room")
	got := pieces{err: full}
	if _, err := (&reading{&got}).ReadFrom(bytes.NewReader(noise(1 << 20))); !errors.Is(err, full) || len(got.sizes) != 1 {
		t.Errorf("%v after %d pieces", err, len(got.sizes))
	}
	broken := errors.New("unreadable")
	if _, err := (&reading{io.Discard}).ReadFrom(io.MultiReader(bytes.NewReader([]byte("x")), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A journal is copied from any byte on, in pieces of limited size; what a job does to it, such as cutting it short, is
// no error. A silent job's attachment holds no memory.
func TestJournalCopier(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	data := noise(3*copyLarge + 17)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got pieces
	c := journalCopier{journal: f, offset: 5, dst: &got}
	look := func(want int) {
		t.Helper()
		if n, err := c.copy(); err != nil || n != int64(want) {
			t.Fatalf("%d bytes, want %d: %v", n, want, err)
		}
	}
	look(len(data) - 5)
	look(0)
	if cap(c.buf) > copyKept {
		t.Errorf("a buffer of %d bytes is kept", cap(c.buf))
	}
	if _, err := f.WriteString("more"); err != nil {
		t.Fatal(err)
	}
	look(4)
	if want := append(data[5:], "more"...); !bytes.Equal(got.Bytes(), want) || len(got.sizes) != 5 {
		t.Errorf("pieces of %v", got.sizes)
	}
	if err := f.Truncate(10); err != nil {
		t.Fatal(err)
	}
	look(0)
}
