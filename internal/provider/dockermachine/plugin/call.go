package plugin

import (
	"bufio"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"time"
)

// The names of the service: that of today's plugins, and that of those before 0.5.1 (docker-machine, section 1.3).
const (
	serviceName    = "RPCServerDriver"
	oldServiceName = "RpcServerDriver"
)

// maxMessage is far more than any answer of a driver has.
const maxMessage = 16 << 20

// maxErrorText is how much of a driver's error is kept.
const maxErrorText = 4 << 10

// DriverError is what a driver says has gone wrong. It is all text: the protocol carries no kinds of errors.
type DriverError struct {
	Driver, Method, Text string
}

func (e *DriverError) Error() string {
	return fmt.Sprintf("driver %s: %s: %s", e.Driver, e.Method, e.Text)
}

// State is a driver's state of a machine (docker-machine, section 1.4).
type State int

// The states in their order on the wire.
const (
	None State = iota
	Running
	Paused
	Saved
	Stopped
	Stopping
	Starting
	Failed
	TimedOut
)

// call asks the plugin for something. It ends with ctx, with whose cause, and with the process.
func call[R any](ctx context.Context, p *Process, method string, argument any) (R, error) {
	var none R
	if err := context.Cause(ctx); err != nil {
		return none, err
	}
	reply := new(R) // it may be written to after ctx has ended: nobody looks then
	sent := p.client.Go(p.service+"."+method, argument, reply, make(chan *rpc.Call, 1))
	select {
	case <-sent.Done:
	case <-ctx.Done():
		return none, fmt.Errorf("driver %s has not answered %s: %w", p.name, method, context.Cause(ctx))
	case <-p.exited:
		return none, p.endedError(ctx)
	}
	if sent.Error == nil {
		return *reply, nil
	}
	if said, ok := errors.AsType[rpc.ServerError](sent.Error); ok {
		text := p.clean(string(said))
		if len(text) > maxErrorText {
			text = text[:maxErrorText] + "..."
		}
		return none, &DriverError{Driver: p.name, Method: method, Text: text}
	}
	why := fmt.Sprintf("it breaks the protocol: %.200s", p.clean(sent.Error.Error()))
	_, broken := errors.AsType[*net.OpError](sent.Error)
	if broken || errors.Is(sent.Error, io.ErrUnexpectedEOF) || errors.Is(sent.Error, rpc.ErrShutdown) || errors.Is(sent.Error, io.EOF) {
		why = "its connection is broken"
		waitFor(p.exited, endLimit) // most likely that is why
	}
	p.kill(why)
	return none, p.endedError(ctx)
}

func (p *Process) do(ctx context.Context, method string) error {
	_, err := call[struct{}](ctx, p, method, struct{}{})
	return err
}

// PreCreateCheck lets the driver look whether Create may work.
func (p *Process) PreCreateCheck(ctx context.Context) error { return p.do(ctx, "PreCreateCheck") }

// Create creates the machine. It must be called in the process that got SetFlags.
func (p *Process) Create(ctx context.Context) error { return p.do(ctx, "Create") }

// Remove removes the machine.
func (p *Process) Remove(ctx context.Context) error { return p.do(ctx, "Remove") }

// Start starts a machine that was stopped.
func (p *Process) Start(ctx context.Context) error { return p.do(ctx, "Start") }

// Stop stops a machine.
func (p *Process) Stop(ctx context.Context) error { return p.do(ctx, "Stop") }

// State asks for the machine's state.
func (p *Process) State(ctx context.Context) (State, error) {
	n, err := call[int](ctx, p, "GetState", struct{}{})
	if err == nil && (n < int(None) || n > int(TimedOut)) {
		return None, fmt.Errorf("driver %s: GetState answers %d, which no driver may", p.name, n)
	}
	return State(n), err
}

// SSH asks how the machine is reached.
func (p *Process) SSH(ctx context.Context) (host string, port int, err error) {
	if host, err = call[string](ctx, p, "GetSSHHostname", struct{}{}); err != nil {
		return "", 0, err
	}
	port, err = call[int](ctx, p, "GetSSHPort", struct{}{})
	return host, port, err
}

// SSHUser asks who is to log in, and with which key.
func (p *Process) SSHUser(ctx context.Context) (user, key string, err error) {
	if user, err = call[string](ctx, p, "GetSSHUsername", struct{}{}); err != nil {
		return "", "", err
	}
	key, err = call[string](ctx, p, "GetSSHKeyPath", struct{}{})
	return user, key, err
}

// Config asks for the driver's state, as JSON. It holds secrets.
func (p *Process) Config(ctx context.Context) (json.RawMessage, error) {
	raw, err := call[[]byte](ctx, p, "GetConfigRaw", struct{}{})
	if err == nil && !json.Valid(raw) {
		return nil, fmt.Errorf("driver %s: GetConfigRaw answers something that is not JSON", p.name)
	}
	return raw, err
}

// SetConfig gives the driver its state. What raw does not mention stays as it is.
func (p *Process) SetConfig(ctx context.Context, raw json.RawMessage) error {
	_, err := call[struct{}](ctx, p, "SetConfigRaw", []byte(raw))
	return err
}

// Flags asks which options the driver knows.
func (p *Process) Flags(ctx context.Context) ([]Flag, error) {
	raw, err := call[[]any](ctx, p, "GetCreateFlags", struct{}{})
	if err != nil {
		return nil, err
	}
	flags := make([]Flag, 0, len(raw))
	for _, r := range raw {
		f, ok := flagOf(r)
		if !ok {
			return nil, fmt.Errorf("driver %s has an option of a kind that no driver may have", p.name)
		}
		flags = append(flags, f)
	}
	return flags, nil
}

// SetFlags gives the driver the values of its options: of each one that Flags lists, in the type that its Default has.
func (p *Process) SetFlags(ctx context.Context, values map[string]any) error {
	var argument any = &rpcFlags{Values: values}
	_, err := call[struct{}](ctx, p, "SetConfigFromFlags", &argument)
	return err
}

// meter bounds what is read for one message: a length comes from the other side.
type meter struct {
	r    io.Reader
	left int64
}

func (m *meter) Read(b []byte) (int, error) {
	if m.left <= 0 {
		return 0, fmt.Errorf("an answer is longer than %d bytes", maxMessage)
	}
	n, err := m.r.Read(b[:min(int64(len(b)), m.left)])
	m.left -= int64(n)
	return n, err
}

// codec is net/rpc's own, with a bound.
type codec struct {
	conn     net.Conn
	patience time.Duration // for the other side to take a request
	in       *meter
	dec      *gob.Decoder
	out      *bufio.Writer
	enc      *gob.Encoder
}

func newClient(conn net.Conn, buffered *bufio.Reader, in *meter, patience time.Duration) *rpc.Client {
	out := bufio.NewWriter(conn)
	return rpc.NewClientWithCodec(&codec{conn: conn, patience: patience, in: in, dec: gob.NewDecoder(buffered), out: out, enc: gob.NewEncoder(out)})
}

func (c *codec) WriteRequest(r *rpc.Request, body any) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
		return err
	}
	if err := c.enc.Encode(r); err != nil {
		return err
	}
	if err := c.enc.Encode(body); err != nil {
		return err
	}
	return c.out.Flush()
}

func (c *codec) ReadResponseHeader(r *rpc.Response) error {
	c.in.left = maxMessage
	return c.decode(r)
}

func (c *codec) ReadResponseBody(body any) error { return c.decode(body) }

// decode survives what package gob does not promise to.
func (c *codec) decode(to any) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("an answer can't be read: %v", fault)
		}
	}()
	return c.dec.Decode(to)
}

func (c *codec) Close() error { return c.conn.Close() }
