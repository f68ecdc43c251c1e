package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter/internal/agent"
	"github.com/tranter-ci/tranter/internal/diskspace"
)

// Serving says how an agent is the main process of a container.
type Serving struct {
	Root       string   // directory for phases and sockets; it is made if it is not there
	Entrypoint []string // of the image; empty: none
	Umask      int      // -1: as it is
	Open       []string // directories to make everybody's at the start
	Worker     string   // program that the entrypoint gets to run; empty: tranter-work beside this program
}

// Streams are the standard streams of a process.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Names in the root directory.
const (
	ownDir     = "agent"  // of the main process alone
	mainSocket = "socket" // in there: for Connect
	workSocket = "work"   // for the worker, until it has come
)

// lastAttach is how long those who are attached get to see the end of a phase when the agent is told to end.
const lastAttach = 2 * time.Second

// server is the main process of a container.
type server struct {
	Serving
	local    *local    // without an entrypoint
	entrance *entrance // with one
	trouble  []string
	socket   net.Listener
	owned    sync.WaitGroup

	mu    sync.Mutex
	conns map[*conn]io.Closer // the socket; nil for the standard streams
	over  bool
}

// Serve answers requests that come on std, and from who connects by Connect, until ctx ends or the process is told to
// end by SIGTERM; then phases that run are ended in an orderly way. That its input ends is no reason to end. Its own umask and
// dumpability are changed: it must be the process's main business.
func Serve(ctx context.Context, s Serving, w agent.Work, std Streams) error {
	ctx, release := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer release()
	defer surviveBrokenPipes()()
	srv, err := newServer(ctx, s, w)
	if err != nil {
		return err
	}
	connected, disconnect := context.WithCancel(context.WithoutCancel(ctx))
	defer disconnect()
	stopReaping := srv.reap()
	defer stopReaping()
	first := newConn(srv.handler(), std.In, std.Out, std.Err)
	srv.add(first, nil)
	go first.read(connected) // a read that waits for input ends with the process
	srv.owned.Go(func() { srv.accept(connected) })
	<-ctx.Done()
	return srv.end(connected, disconnect)
}

func newServer(ctx context.Context, s Serving, w agent.Work) (*server, error) {
	srv := &server{Serving: s, conns: map[*conn]io.Closer{}}
	if s.Umask >= 0 {
		setUmask(s.Umask)
	}
	guardProcess()
	if err := srv.makeRoot(); err != nil {
		return nil, err
	}
	for _, dir := range s.Open {
		if err := openUp(dir); err != nil {
			srv.trouble = append(srv.trouble, err.Error())
		}
	}
	path := filepath.Join(s.Root, ownDir, mainSocket)
	_ = os.Remove(path) // of an agent that was killed
	socket, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("wait for connections: %w", err)
	}
	srv.socket = socket
	if len(s.Entrypoint) > 0 {
		srv.entrance = newEntrance(ctx, s)
	} else {
		srv.local = newLocal(ctx, s.Root, w)
	}
	return srv, nil
}

// openUp makes a directory everybody's. It may be in a volume in which an earlier job has left a link in its place, to
// something that is not everybody's: a link is not followed.
func openUp(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil { //nolint:gosec // for everybody
		return err
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|noLink, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o777), f.Close())
}

// makeRoot makes the root directory and what the main process needs in it. A worker of another user has to be able to make
// directories in it, too.
func (s *server) makeRoot() error {
	err := os.Mkdir(s.Root, 0o700)
	if errors.Is(err, os.ErrNotExist) {
		err = os.MkdirAll(s.Root, 0o700)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the agent's directory: %w", err)
	}
	if len(s.Entrypoint) > 0 {
		_ = os.Chmod(s.Root, 0o777|os.ModeSticky) //nolint:gosec // where it is not ours it has that mode already
	}
	if err := ownDirectory(filepath.Join(s.Root, ownDir)); err != nil {
		return fmt.Errorf("make the agent's directory: %w", err)
	}
	return nil
}

// reap has the exit states taken of processes that come to this one.
func (s *server) reap() (stop func()) {
	if s.entrance != nil {
		return watchChildren(s.entrance.reap)
	}
	return watchChildren(s.local.reap)
}

func (s *server) handler() handler {
	if s.entrance != nil {
		return handler{
			enter: func(ctx context.Context, environ []string) (Hello, error) {
				h, err := s.entrance.enter(ctx, environ)
				h.Room, h.Trouble = s.room(), s.trouble
				return h, err
			},
			phases: func(context.Context) (phases, error) { return s.entrance.phases() },
		}
	}
	return handler{
		enter: func(context.Context, []string) (Hello, error) {
			h := introduce()
			h.Room, h.Trouble = s.room(), s.trouble
			return h, nil
		},
		phases: func(context.Context) (phases, error) { return s.local, nil },
	}
}

// introduce returns what this process says about itself.
func introduce() Hello {
	host, _ := os.Hostname()
	return Hello{UID: os.Getuid(), GID: os.Getgid(), Host: host}
}

func (s *server) room() diskspace.Room {
	dir := "/"
	if len(s.Open) > 0 {
		dir = s.Open[0]
	}
	room, _ := diskspace.Of(dir) // nothing is known then
	return room
}

// add keeps a connection, unless the agent is about to end.
func (s *server) add(c *conn, closer io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.conns[c] = closer
	}
	return !s.over
}

func (s *server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// accept takes those who connect.
func (s *server) accept(ctx context.Context) {
	for {
		socket, err := s.socket.Accept()
		if err != nil {
			return
		}
		s.owned.Go(func() {
			defer func() { _ = socket.Close() }()
			ctx, stop := context.WithCancel(ctx)
			c := newFramedConn(s.handler(), socket)
			if s.add(c, socket) {
				c.read(ctx)
			}
			stop() // nobody is there for answers
			c.wait()
			s.remove(c)
		})
	}
}

// newFramedConn returns the agent's end of a socket.
func newFramedConn(h handler, socket net.Conn) *conn {
	f := &framed{dst: socket}
	return newConn(h, socket, frameWriter{f, channelJournals}, frameWriter{f, channelEvents})
}

// end ends the phases, lets those who are attached see it, and ends the connections.
func (s *server) end(ctx context.Context, disconnect context.CancelFunc) error {
	_ = s.socket.Close()
	var err error
	if s.entrance != nil {
		err = s.entrance.end() //nolint:contextcheck // it has a limit of its own
	} else {
		err = s.local.stop(ctx)
	}
	s.awaitAttached()
	s.mu.Lock()
	s.over = true
	for c := range s.conns {
		c.emit(event{Bye: true})
	}
	disconnect()
	for _, closer := range s.conns {
		if closer != nil {
			_ = closer.Close()
		}
	}
	s.mu.Unlock()
	if s.entrance != nil {
		s.entrance.close()
	}
	s.owned.Wait()
	return err
}

func (s *server) awaitAttached() {
	limit := time.NewTimer(lastAttach)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.attached() {
		select {
		case <-tick.C:
		case <-limit.C:
			return
		}
	}
}

func (s *server) attached() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.mu.Lock()
		n := len(c.attaches)
		c.mu.Unlock()
		if n > 0 {
			return true
		}
	}
	return false
}

// surviveBrokenPipes lets a write to a standard stream that nobody reads any more be an error and not the end. Unlike an
// ignored signal it is not passed on to the job's programs.
func surviveBrokenPipes() (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGPIPE)
	return func() { signal.Stop(signals) }
}

// Connect copies between standard streams and the agent that serves root, until either ends.
func Connect(ctx context.Context, root string, std Streams) error {
	defer surviveBrokenPipes()()
	guardProcess() // what goes through it is no business of the job's processes
	var d net.Dialer
	socket, err := d.DialContext(ctx, "unix", filepath.Join(root, ownDir, mainSocket))
	if err != nil {
		return fmt.Errorf("reach the agent: %w", err)
	}
	ctx, left := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { _ = socket.Close() })()
	go func() { // a read that waits for input ends with the process
		_, _ = io.Copy(socket, std.In)
		left()
	}()
	err = unframe(socket, std.Out, std.Err)
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil:
		err = errors.New("it has ended")
	}
	left()
	return fmt.Errorf("connection to the agent: %w", err)
}
