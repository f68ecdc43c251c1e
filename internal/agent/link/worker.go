package link

import (
	"context"
	"fmt"
	"net"
	"path/filepath"

	"github.com/tranter-ci/tranter/internal/agent"
)

// Work carries out phases for the main process that serves root, as the user and with the environment that an image's
// entrypoint has given to this process, until the main process ends.
func Work(ctx context.Context, root string, w agent.Work) error {
	defer surviveBrokenPipes()()
	guardProcess()
	var d net.Dialer
	socket, err := d.DialContext(ctx, "unix", filepath.Join(root, workSocket))
	if err != nil {
		return fmt.Errorf("reach the agent whose worker this is: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = socket.Close() })()
	l := newLocal(ctx, root, w)
	defer watchChildren(l.reap)()
	connected, disconnect := context.WithCancel(context.WithoutCancel(ctx))
	c := newFramedConn(handler{
		enter:  func(context.Context, []string) (Hello, error) { return introduce(), nil },
		phases: func(context.Context) (phases, error) { return l, nil },
	}, socket)
	c.read(connected)
	disconnect()
	c.wait()
	_ = socket.Close()
	return l.stop(ctx)
}
