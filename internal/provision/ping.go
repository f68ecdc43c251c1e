package provision

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	// pingTimeout is for one question to an engine.
	pingTimeout = 20 * time.Second
	// engineTimeout is how long an engine may take to answer at first.
	engineTimeout = 90 * time.Second
)

// maxHead bounds the answer.
const maxHead = 16 << 10

// ping asks an engine whether it is well.
func ping(ctx context.Context, dial func(context.Context) (net.Conn, error)) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, "GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n"); err != nil {
		return fmt.Errorf("ask the engine: %w", err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxHead)), nil)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("ask the engine: %w", err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the engine answers with status %d", answer.StatusCode)
	}
	return nil
}

// awaitEngine asks until the engine is well.
func awaitEngine(ctx context.Context, dial func(context.Context) (net.Conn, error)) error {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	began := time.Now()
	for {
		err := ping(ctx, dial)
		if err == nil {
			return nil
		}
		if !wait(ctx, began) {
			return fmt.Errorf("after %v: %w", time.Since(began).Round(time.Millisecond), err)
		}
	}
}
