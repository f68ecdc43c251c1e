package remote

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/crypto/ssh"
)

// PTY is the terminal that a command gets on the machine.
type PTY struct {
	Term   string // as in TERM; empty: xterm
	Size   Size
	Resize <-chan Size // its later sizes; nil: it stays as it is
}

// Size is the size of a terminal, in characters.
type Size struct{ Columns, Rows int }

// Streams are a command's standard streams; those that are nil are empty.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Shell is Run for people: the command has a terminal if pty is not nil, an empty command is the user's login shell, and it
// returns when the command has ended, whether or not stdin has. It may still be reading from stdin then; what it reads is
// lost.
func (c *Conn) Shell(ctx context.Context, command string, pty *PTY, s Streams) error {
	session, err := c.session(ctx)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	session.Stdin = s.In
	return c.finish(ctx, session, s.Out, s.Err, func() error {
		if pty != nil {
			if err := c.terminal(session, pty, ended); err != nil {
				return err
			}
		}
		if command != "" {
			return session.Run(command)
		}
		if err := session.Shell(); err != nil {
			return err
		}
		return session.Wait()
	})
}

// terminal asks for a terminal and keeps its size.
func (c *Conn) terminal(session *ssh.Session, pty *PTY, ended <-chan struct{}) error {
	term := pty.Term
	if term == "" {
		term = "xterm"
	}
	if err := session.RequestPty(term, pty.Size.Rows, pty.Size.Columns, ssh.TerminalModes{}); err != nil {
		return fmt.Errorf("ask for a terminal: %w", err)
	}
	c.spawn(func() {
		for {
			select {
			case <-ended:
				return
			case size, more := <-pty.Resize:
				if !more {
					return
				}
				if session.WindowChange(size.Rows, size.Columns) != nil {
					return
				}
			}
		}
	})
	return nil
}
