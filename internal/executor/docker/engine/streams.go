package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/containerd/errdefs/pkg/errhttp"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// Streams is a connection to the standard streams of a process in a container. Stdout and Stderr must both be read all
// the time: what one of them does not take stops the other too. Both end with io.EOF when the process has closed its own
// or has ended, and with io.ErrUnexpectedEOF or the connection's error when the connection broke in the middle of a
// frame; a connection that breaks between two cannot be told from the end of the process.
type Streams struct {
	// Close of Stdin tells a program of Exec that no more comes, and its output goes on. With Attach, engines take it for
	// the wish to leave: unless the container was made with StdinOnce, the process's input stays open and the output ends
	// for us.
	Stdin  io.WriteCloser
	Stdout io.Reader
	Stderr io.Reader

	conn    net.Conn
	readers [2]*io.PipeReader
	copying sync.WaitGroup
	once    sync.Once
}

// Attach connects to the streams of a container's main process; call it before the container is started, so that nothing
// is missed. The context is for making the connection, unless spare, which may be nil, has one. Explain has been applied to
// the error.
func (e *Engine) Attach(ctx context.Context, containerID string, spare *Spare) (*Streams, error) {
	query := url.Values{"stream": {"1"}, "stdin": {"1"}, "stdout": {"1"}, "stderr": {"1"}}
	target := "/containers/" + url.PathEscape(containerID) + "/attach?" + query.Encode()
	s, err := e.upgradeOver(ctx, spare.take(ctx), target)
	if s == nil && err == nil {
		s, err = e.upgrade(ctx, target, nil)
	}
	if err != nil {
		return nil, Explain(fmt.Errorf("attach to container %s: %w", containerID, err))
	}
	return s, nil
}

// Exec starts a program in a running container as a user (empty: the container's), without a terminal, and connects to
// its streams. The context is for making the connection; the program goes on when the streams are closed. Explain has
// been applied to the error.
func (e *Engine) Exec(ctx context.Context, containerID string, argv []string, user string) (*Streams, error) {
	exec, err := e.API().ExecCreate(ctx, containerID, client.ExecCreateOptions{
		User: user, Cmd: argv, AttachStdin: true, AttachStdout: true, AttachStderr: true,
	})
	if err == nil {
		var s *Streams
		if s, err = e.upgrade(ctx, "/exec/"+url.PathEscape(exec.ID)+"/start", container.ExecStartRequest{}); err == nil {
			return s, nil
		}
	}
	return nil, Explain(fmt.Errorf("run a program in container %s: %w", containerID, err))
}

// upgrade makes a connection of its own, which the engine takes out of HTTP. The client of the engine's API can do that
// too, but leaves out the engine's message when the engine refuses.
func (e *Engine) upgrade(ctx context.Context, path string, body any) (*Streams, error) {
	request, err := e.upgradeRequest(path, body)
	if err != nil {
		return nil, err
	}
	conn, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	return upgraded(ctx, conn, request)
}

// upgradeOver is upgrade over a connection that was made some time ago. It returns nothing if there is none, or if it has
// been lost since.
func (e *Engine) upgradeOver(ctx context.Context, conn net.Conn, path string) (*Streams, error) {
	if conn == nil {
		return nil, nil //nolint:nilnil // there is neither
	}
	request, err := e.upgradeRequest(path, nil)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	s, err := upgraded(ctx, conn, request)
	if Gone(err) {
		return nil, nil //nolint:nilnil // the same
	}
	return s, err
}

// upgraded makes streams of a connection, which it closes if it can't.
func upgraded(ctx context.Context, conn net.Conn, request *http.Request) (*Streams, error) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = conn.Close()
	})
	in := bufio.NewReaderSize(conn, frameBuffer)
	err := handshake(conn, in, request)
	if !stop() {
		<-ended
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return newStreams(conn, in), nil
}

func (e *Engine) upgradeRequest(path string, body any) (*http.Request, error) {
	content := []byte{}
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("write a request to the engine: %w", err)
		}
	}
	target := "http://" + client.DummyHost + e.address.base + "/v" + e.API().ClientVersion() + path
	//nolint:noctx // the context ends the connection
	request, err := http.NewRequest(http.MethodPost, target, bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("make a request to the engine: %w", err)
	}
	if e.address.scheme == schemeTCP {
		request.Host = e.address.hostPort(false)
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "tcp")
	request.Header.Set("Content-Type", "application/json")
	return request, nil
}

// maxRefusal is how much of an engine's refusal is read.
const maxRefusal = 64 << 10

// handshake sends the request and reads the answer; what follows in the reader are the streams.
func handshake(conn net.Conn, in *bufio.Reader, request *http.Request) error {
	if err := request.Write(conn); err != nil {
		return fmt.Errorf("send a request to the engine: %w", err)
	}
	response, err := http.ReadResponse(in, request)
	if err != nil {
		return fmt.Errorf("read the engine's answer: %w", err)
	}
	defer response.Body.Close()
	// Engines answered 200 before they were asked to upgrade, and some still do.
	if response.StatusCode == http.StatusSwitchingProtocols || response.StatusCode == http.StatusOK {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxRefusal))
	if err != nil {
		return fmt.Errorf("read the engine's refusal (%s): %w", response.Status, err)
	}
	var refusal common.ErrorResponse
	if json.Unmarshal(text, &refusal) != nil || refusal.Message == "" {
		refusal.Message = response.Status + " " + string(text)
	}
	return &refused{kind: errhttp.ToNative(response.StatusCode), message: strings.TrimSpace(refusal.Message)}
}

// refused is the engine's answer to a request that it does not carry out.
type refused struct {
	kind    error // of containerd/errdefs
	message string
}

func (e *refused) Error() string { return "the engine refused: " + e.message }
func (e *refused) Unwrap() error { return e.kind }

func newStreams(conn net.Conn, in *bufio.Reader) *Streams {
	stdout, stdoutWriter := io.Pipe()
	stderr, stderrWriter := io.Pipe()
	s := &Streams{Stdin: halfOf(conn), Stdout: stdout, Stderr: stderr, conn: conn, readers: [2]*io.PipeReader{stdout, stderr}}
	s.copying.Go(func() {
		err := demultiplex(in, stdoutWriter, stderrWriter)
		stdoutWriter.CloseWithError(err)
		stderrWriter.CloseWithError(err)
	})
	return s
}

// Close ends the connection and waits until nothing of it is left; reads that wait end with an error. Closing again is
// harmless.
func (s *Streams) Close() {
	s.once.Do(func() {
		_ = s.conn.Close()
		for _, r := range s.readers {
			r.CloseWithError(net.ErrClosed)
		}
	})
	s.copying.Wait()
}

// stdin is the half of a connection that we write to.
type stdin struct{ net.Conn }

func halfOf(conn net.Conn) io.WriteCloser { return stdin{conn} }

func (s stdin) Close() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// frameBuffer is the size of the buffers between the engine and a reader. Engines send frames of at most 32 KiB.
const frameBuffer = 64 << 10

// frameHeader is how long a frame's header is: a byte that says which stream, three of nothing, four for the length.
const frameHeader = 8

// demultiplex copies frames to the stream that each is for, in pieces of bounded size whatever length a frame claims. It
// returns nil at the end of the connection. (The engine's own package reads whole frames, as large as they claim to be,
// and takes half a frame for the end.)
func demultiplex(in io.Reader, stdout, stderr io.Writer) error {
	buffer := make([]byte, frameBuffer)
	for {
		if _, err := io.ReadFull(in, buffer[:frameHeader]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read the streams of a container: %w", err)
		}
		left := int64(binary.BigEndian.Uint32(buffer[4:frameHeader]))
		out := stdout
		switch kind := stdcopy.StdType(buffer[0]); kind {
		case stdcopy.Stdin, stdcopy.Stdout:
		case stdcopy.Stderr:
			out = stderr
		case stdcopy.Systemerr:
			text, _ := io.ReadAll(io.LimitReader(in, min(left, maxRefusal)))
			return fmt.Errorf("the engine broke off the streams of a container: %s", bytes.TrimSpace(text))
		default:
			return fmt.Errorf("read the streams of a container: the engine sent a frame of unknown kind %d", kind)
		}
		if err := copyFrame(out, in, left, buffer); err != nil {
			return err
		}
	}
}

// CopyLogs copies what a container has written, as the engine's logs have it, to one writer, in pieces of bounded size. It
// returns nil at the end of the logs.
func CopyLogs(out io.Writer, logs io.Reader) error { return demultiplex(logs, out, out) }

func copyFrame(out io.Writer, in io.Reader, left int64, buffer []byte) error {
	for left > 0 {
		n, err := in.Read(buffer[:min(left, int64(len(buffer)))])
		left -= int64(n)
		if n > 0 {
			if _, err := out.Write(buffer[:n]); err != nil {
				return fmt.Errorf("pass on the output of a container: %w", err)
			}
		}
		if err == nil || left == 0 {
			continue
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read the streams of a container: %w", err)
	}
	return nil
}
