package engine

import (
	"context"
	"io"
)

// OpenWith is Open with an environment of its own.
func OpenWith(ctx context.Context, o Options, env func(string) string) (*Engine, error) {
	return open(ctx, o, env)
}

// Demultiplex is what splits the streams of a container.
func Demultiplex(in io.Reader, stdout, stderr io.Writer) error {
	return demultiplex(in, stdout, stderr)
}

// UsesStdio says whether an engine over SSH is reached through docker system dial-stdio.
func UsesStdio(e *Engine) bool {
	return e.dialer.(*tunnel).socket.UsesStdio()
}
