package docker_test

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

// sluice is a way to an engine that can be shut: connections break, and new ones are taken but get no answer.
type sluice struct {
	socket net.Listener
	engine string        // path of its socket
	held   chan struct{} // gets one when a connection is taken that has no answer
	owned  sync.WaitGroup

	mu    sync.Mutex
	shut  bool
	conns []net.Conn
}

func newSluice(t *testing.T, host string) *sluice {
	t.Helper()
	socket, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	g := &sluice{socket: socket, engine: strings.TrimPrefix(host, "unix://"), held: make(chan struct{}, 1)}
	g.owned.Go(g.accept)
	t.Cleanup(func() {
		_ = socket.Close()
		g.set(true)
		g.set(false)
		g.owned.Wait()
	})
	return g
}

func (g *sluice) accept() {
	for {
		c, err := g.socket.Accept()
		if err != nil {
			return
		}
		g.mu.Lock()
		g.conns = append(g.conns, c)
		if g.shut {
			select {
			case g.held <- struct{}{}:
			default:
			}
		} else if engine, err := net.Dial("unix", g.engine); err == nil {
			g.conns = append(g.conns, engine)
			g.owned.Go(func() { _, _ = io.Copy(engine, c); _ = engine.(*net.UnixConn).CloseWrite() })
			g.owned.Go(func() { _, _ = io.Copy(c, engine); _ = c.Close() })
		}
		g.mu.Unlock()
	}
}

// set shuts or opens the sluice. All connections that there are end.
func (g *sluice) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for _, c := range g.conns {
		_ = c.Close()
	}
	g.conns = nil
}

// A job is cancelled also while its engine takes requests and does not answer: whoever cancels it does not wait for that,
// and the agent is told once the engine answers again.
func TestACancelWhileTheEngineHangs(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	g := newSluice(t, r.settings.Host)
	r.settings.Host = "unix://" + g.socket.Addr().String()
	r.options.Settings.Host = r.settings.Host
	r.open()
	r.sources()
	p := r.phase("script", tranter.PlaceBuild, "echo begun", "sleep 300")
	if err := r.session.Start(r.context(), p); err != nil {
		t.Fatal(err)
	}
	journal := &tail{}
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() {
		result, err := r.session.Attach(r.context(), p.ID, 0, journal)
		if err != nil || result.Status != tranter.PhaseCanceled {
			t.Errorf("%+v, %v\n%s", result, err, journal)
		}
	})
	g.set(true)
	<-g.held // by who follows the phase
	began := time.Now()
	if err := r.session.Cancel(r.context(), p.ID, false, time.Second); err != nil || time.Since(began) > 20*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	g.set(false)
}
