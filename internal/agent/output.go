package agent

import (
	"errors"
	"io"
	"os"
	"os/exec"
)

// Reads of a program's output: little memory for most, as much as a pipe holds for one that prints a lot. Larger pipes
// gain nothing, and a user has room for few.
const (
	readSmall = 16 << 10
	readLarge = 64 << 10
)

// copyWell lets the output of cmd, as far as it does not go to a file, be read in pieces that fit how much there is.
func copyWell(cmd *exec.Cmd) {
	same := cmd.Stdout != nil && cmd.Stdout == cmd.Stderr
	cmd.Stdout = readWell(cmd.Stdout)
	if same {
		cmd.Stderr = cmd.Stdout // the program gets one pipe for both
		return
	}
	cmd.Stderr = readWell(cmd.Stderr)
}

func readWell(w io.Writer) io.Writer {
	if _, file := w.(*os.File); file || w == nil {
		return w
	}
	return &reading{w}
}

// reading is a writer to which package os/exec leaves the reading of a program's output.
type reading struct{ io.Writer }

// ReadFrom copies what r has to the writer until it ends. What was read is passed on at once.
func (w *reading) ReadFrom(r io.Reader) (total int64, err error) {
	buf := make([]byte, readSmall)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			total += int64(n)
			if _, err := w.Write(buf[:n]); err != nil {
				return total, err
			}
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		if n == len(buf) && n < readLarge {
			buf = make([]byte, readLarge)
		}
	}
}
