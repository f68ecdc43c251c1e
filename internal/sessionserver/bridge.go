package sessionserver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/tranter-ci/tranter"
)

// The subprotocols: messages are the terminal's bytes, or those as base64 text.
const (
	protocolRaw    = "terminal.gitlab.com"
	protocolBase64 = "base64.terminal.gitlab.com"
)

const (
	messageLimit = 1 << 20 // of what a user pastes
	pieceBytes   = 16 << 10
	// A peer that is gone without a word is noticed by a ping that it does not answer.
	pingInterval = 30 * time.Second
	pingLimit    = 20 * time.Second
)

// exec connects a websocket to a terminal.
func (s *Server) exec(w http.ResponseWriter, r *http.Request, g guest) {
	if !isUpgrade(r.Header) {
		http.Error(w, "a terminal is reached by a websocket", http.StatusMethodNotAllowed)
		return
	}
	opening, cancel := context.WithTimeoutCause(r.Context(), s.openLimit, fmt.Errorf("the job has no terminal within %v", s.openLimit))
	defer cancel()
	t, err := g.open(opening)
	if err != nil {
		http.Error(w, err.Error(), refusal(err))
		return
	}
	defer t.Close()
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{protocolRaw, protocolBase64},
		// Browsers come by way of GitLab, which has checked them; the token is what lets in.
		InsecureSkipVerify: true,
	})
	if err != nil {
		s.log.Warn("A terminal could not be attached", "error", err)
		return // Accept has answered
	}
	s.log.Info("A terminal is attached by way of GitLab", "from", r.RemoteAddr)
	conn.SetReadLimit(messageLimit)
	b := bridge{conn: conn, terminal: t, encoded: conn.Subprotocol() == protocolBase64}
	b.carry(r.Context())
	s.log.Info("A terminal is detached", "from", r.RemoteAddr)
}

func isUpgrade(h http.Header) bool {
	has := func(key, token string) bool {
		for _, line := range h.Values(key) {
			for part := range strings.SplitSeq(line, ",") {
				if strings.EqualFold(strings.TrimSpace(part), token) {
					return true
				}
			}
		}
		return false
	}
	return has("Connection", "upgrade") && has("Upgrade", "websocket")
}

// bridge is a websocket and a terminal.
type bridge struct {
	conn     *websocket.Conn
	terminal tranter.Terminal
	encoded  bool
}

// carry passes on what comes from either side until one has ended, and closes both.
func (b bridge) carry(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer stop()
	owned.Go(func() {
		b.receive(ctx)
		_ = b.terminal.Close()
	})
	owned.Go(func() {
		b.ping(ctx)
		stop()
	})
	err := b.send(ctx)
	_ = b.terminal.Close() // what is typed into it ends, too
	switch {
	case errors.Is(err, io.EOF):
		_ = b.conn.Close(websocket.StatusNormalClosure, "the shell has ended")
	default:
		_ = b.conn.Close(websocket.StatusGoingAway, "the terminal has ended")
	}
}

// receive passes on what is typed.
func (b bridge) receive(ctx context.Context) {
	for {
		_, message, err := b.conn.Read(ctx)
		if err != nil {
			return
		}
		if b.encoded {
			n, err := base64.StdEncoding.Decode(message, message)
			if err != nil {
				_ = b.conn.Close(websocket.StatusInvalidFramePayloadData, "not base64")
				return
			}
			message = message[:n]
		}
		if _, err := b.terminal.Write(message); err != nil {
			return
		}
	}
}

// send passes on what is shown. The error is io.EOF when the shell has ended.
func (b bridge) send(ctx context.Context) error {
	buffer := make([]byte, pieceBytes)
	for {
		n, err := b.terminal.Read(buffer)
		if n > 0 {
			if err := b.write(ctx, buffer[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

func (b bridge) write(ctx context.Context, p []byte) error {
	if b.encoded {
		return b.conn.Write(ctx, websocket.MessageText, base64.StdEncoding.AppendEncode(nil, p))
	}
	return b.conn.Write(ctx, websocket.MessageBinary, p)
}

// ping returns when the user is gone, or ctx has ended.
func (b bridge) ping(ctx context.Context) {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		limited, cancel := context.WithTimeout(ctx, pingLimit)
		err := b.conn.Ping(limited)
		cancel()
		if err != nil {
			return
		}
	}
}
