package engine

import (
	"context"
	"net"
	"path/filepath"

	"github.com/Microsoft/go-winio"
)

func dialPipe(ctx context.Context, pipe string) (net.Conn, error) {
	return winio.DialPipeContext(ctx, filepath.FromSlash(pipe))
}
