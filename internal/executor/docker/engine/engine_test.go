package engine_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	tranter "github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

func nothing(string) string { return "" }

func open(t testing.TB, o engine.Options) *engine.Engine {
	t.Helper()
	e, err := engine.OpenWith(t.Context(), o, nothing)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func local(t testing.TB) *engine.Engine {
	t.Helper()
	return open(t, engine.Options{Host: enginetest.Host(t)})
}

// create makes a container that runs a program, and removes it when the test ends.
func create(t testing.TB, e *engine.Engine, image string, host *container.HostConfig, argv ...string) (string, error) {
	t.Helper()
	created, err := e.API().ContainerCreate(t.Context(), client.ContainerCreateOptions{
		Config:     &container.Config{Image: enginetest.Image(t, image), Entrypoint: argv, OpenStdin: true},
		HostConfig: host,
	})
	if err != nil {
		return "", err
	}
	api := enginetest.Client(t, enginetest.Host(t)) // e may be cut off at the end
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if _, err := api.ContainerRemove(ctx, created.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil && !engine.Missing(err) {
			t.Errorf("remove a container: %v", err)
		}
	})
	return created.ID, nil
}

func mustCreate(t testing.TB, e *engine.Engine, argv ...string) string {
	t.Helper()
	id, err := create(t, e, "busybox", nil, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func start(t testing.TB, e *engine.Engine, id string) {
	t.Helper()
	if _, err := e.API().ContainerStart(t.Context(), id, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestWhatAnEngineSaysAboutItself(t *testing.T) {
	e := local(t)
	f := e.Facts()
	if f.ID == "" || f.OS != "linux" || f.Arch != runtime.GOARCH || f.RootDir == "" || f.CPUs < 1 || f.Memory < 1<<20 || !f.Local || f.Podman {
		t.Errorf("%+v", f)
	}
	if got := e.API().ClientVersion(); got != f.APIVersion || got == "" {
		t.Errorf("version %s in use, and the facts say %s", got, f.APIVersion)
	}
	current, err := e.Current(t.Context())
	if err != nil || current != f {
		t.Errorf("now %+v, error %v", current, err)
	}
}

func TestTheVersionOfTheAPICanBePinned(t *testing.T) {
	host := enginetest.Host(t)
	pin := func(version string) (*engine.Engine, error) {
		return engine.OpenWith(t.Context(), engine.Options{Host: host}, func(name string) string {
			return map[string]string{"DOCKER_API_VERSION": version}[name]
		})
	}
	e, err := pin("1.40")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if got := e.API().ClientVersion(); got != "1.40" {
		t.Errorf("version %s", got)
	}
	if _, err := pin("many"); err == nil {
		t.Error("a malformed version was taken")
	} else if _, ok := errors.AsType[*tranter.ConfigError](err); !ok {
		t.Errorf("error %v", err)
	}
	_, err = pin(client.MaxAPIVersion)
	if _, ok := errors.AsType[*engine.VersionError](err); !ok || !strings.Contains(err.Error(), "DOCKER_API_VERSION asks for "+client.MaxAPIVersion+": unset it") {
		t.Errorf("error %v", err)
	}
}

func TestAnEngineThatIsTooOldOrNone(t *testing.T) {
	for version, says := range map[string]string{
		"1.30": "has version 1.30 of the API, and 1.40 or newer is needed: update the engine",
		"":     "is no container engine",
	} {
		fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", version) }))
		host := "tcp://" + fake.Listener.Addr().String()
		_, err := engine.OpenWith(t.Context(), engine.Options{Host: host}, nothing)
		fake.Close()
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), host) || engine.Gone(err) {
			t.Errorf("version %q: error %v, want %q", version, err, says)
		}
	}
}

func TestAnEngineThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	for host, c := range map[string]struct {
		cause error
		says  string
	}{
		"unix://" + filepath.Join(dir, "missing"): {syscall.ENOENT, "there is no such socket: install and start the engine"},
		"unix://" + dead:                  {syscall.ECONNREFUSED, "nothing listens there: start the engine"},
		"tcp://" + closedPort(t):          {syscall.ECONNREFUSED, "nothing listens there: start the engine"},
		"tcp://no-such-host.invalid:2375": {nil, "the name no-such-host.invalid cannot be looked up"},
	} {
		_, err := engine.OpenWith(t.Context(), engine.Options{Host: host}, nothing)
		if !engine.Gone(err) || !strings.Contains(err.Error(), "cannot connect to the engine at "+host) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, gone %v", host, err, engine.Gone(err))
		}
		if c.cause != nil && !errors.Is(err, c.cause) {
			t.Errorf("%s: the cause %v is lost", host, c.cause)
		}
	}
	for _, host := range []string{"/var/run/docker.sock", "ssh://a:b@c", "ssh://"} {
		_, err := engine.OpenWith(t.Context(), engine.Options{Host: host}, nothing)
		if _, ok := errors.AsType[*tranter.ConfigError](err); !ok {
			t.Errorf("%s: error %v", host, err)
		}
	}
}

func closedPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// relay passes connections on to the engine until it is cut, and again when it is mended.
type relay struct {
	host   string // of the relay, as DOCKER_HOST has it
	target string
	l      net.Listener
	mu     sync.Mutex
	conns  []net.Conn
	broken bool
	done   sync.WaitGroup
}

func newRelay(t testing.TB, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{host: "tcp://" + l.Addr().String(), target: strings.TrimPrefix(target, "unix://"), l: l}
	r.done.Go(r.serve)
	t.Cleanup(func() {
		l.Close()
		r.cut()
		r.done.Wait()
	})
	return r
}

func (r *relay) serve() {
	for {
		in, err := r.l.Accept()
		if err != nil {
			return
		}
		r.done.Go(func() { r.pass(in) })
	}
}

func (r *relay) pass(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("unix", r.target)
	if err != nil {
		return
	}
	defer out.Close()
	r.mu.Lock()
	broken := r.broken
	r.conns = append(r.conns, in, out)
	r.mu.Unlock()
	if broken {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		io.Copy(out, in)
		out.(*net.UnixConn).CloseWrite()
	})
	both.Go(func() {
		io.Copy(in, out)
		in.(interface{ CloseWrite() error }).CloseWrite()
	})
	both.Wait()
}

// cut ends all connections and takes no more.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = true
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

func (r *relay) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = false
}

func TestAnEngineThatGoesAndComesBack(t *testing.T) {
	r := newRelay(t, enginetest.Host(t))
	e := open(t, engine.Options{Host: r.host})
	if e.Facts().Local {
		t.Error("an engine over TCP is local")
	}
	id := mustCreate(t, e, "sh", "-c", "read line; echo $line; echo end")
	s, err := e.Attach(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	start(t, e, id)
	r.cut()
	if text, _ := io.ReadAll(s.Stdout); len(text) != 0 {
		t.Errorf("stdout after the cut: %q", text)
	}
	if _, err = e.API().Info(t.Context(), client.InfoOptions{}); !engine.Gone(err) || !engine.Gone(engine.Explain(err)) {
		t.Errorf("error %v", err)
	}
	if _, err = e.Exec(t.Context(), id, []string{"true"}, ""); !engine.Gone(err) {
		t.Errorf("error %v", err)
	}
	if _, err = e.Attach(t.Context(), id, nil); !engine.Gone(err) {
		t.Errorf("error %v", err)
	}
	r.mend()
	again, err := e.Attach(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	again.Stdin.Write([]byte("still there\n"))
	if text, err := io.ReadAll(again.Stdout); err != nil || string(text) != "still there\nend\n" {
		t.Errorf("stdout %q, error %v", text, err)
	}
	if _, err := e.Current(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTheStreamsOfAContainer(t *testing.T) {
	e := local(t)
	id := mustCreate(t, e, "sh", "-c", "read line; echo $line; echo problem >&2; exit 3")
	s, err := e.Attach(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	start(t, e, id)
	out, errs := both(s, func() { fmt.Fprint(s.Stdin, "hello\n") })
	if out != "hello\n" || errs != "problem\n" {
		t.Errorf("stdout %q, stderr %q", out, errs)
	}
	s.Close()
	s.Close()
}

// both does something while both streams are read to their ends.
func both(s *engine.Streams, do func()) (string, string) {
	var out, errs bytes.Buffer
	var reading sync.WaitGroup
	reading.Go(func() { io.Copy(&out, s.Stdout) })
	reading.Go(func() { io.Copy(&errs, s.Stderr) })
	do()
	reading.Wait()
	return out.String(), errs.String()
}

func TestAProgramInARunningContainer(t *testing.T) {
	e := local(t)
	id := mustCreate(t, e, "sh", "-c", "cat")
	if _, err := e.Exec(t.Context(), id, []string{"true"}, ""); !engine.Conflict(err) {
		t.Errorf("in a container that does not run: error %v", err)
	}
	start(t, e, id)
	s, err := e.Exec(t.Context(), id, []string{"sh", "-c", "id -u; cat >&2"}, "1000")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, errs := both(s, func() {
		fmt.Fprint(s.Stdin, "aloud")
		s.Stdin.Close()
	})
	if out != "1000\n" || errs != "aloud" {
		t.Errorf("stdout %q, stderr %q", out, errs)
	}
}

func TestClosingStreamsWhileTheyAreRead(t *testing.T) {
	e := local(t)
	id := mustCreate(t, e, "sh", "-c", "yes")
	s, err := e.Attach(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	start(t, e, id)
	var reading sync.WaitGroup
	reading.Go(func() { io.Copy(io.Discard, s.Stdout) })
	reading.Go(func() { io.Copy(io.Discard, s.Stderr) })
	s.Close()
	reading.Wait()
	if _, err := s.Stdin.Write([]byte("x")); err == nil {
		t.Error("closed streams took input")
	}
	if _, err := s.Stdout.Read(make([]byte, 1)); err == nil {
		t.Error("closed streams gave output")
	}
	// Nobody reads: closing must not wait for a reader.
	idle, err := e.Attach(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	idle.Close()
}

func TestContainersThatAreNotThere(t *testing.T) {
	e := local(t)
	if _, err := e.Attach(t.Context(), "no-such-container", nil); !engine.Missing(err) || engine.Gone(err) || !strings.Contains(err.Error(), "No such container: no-such-container") {
		t.Errorf("attach: %v", err)
	}
	if _, err := e.Exec(t.Context(), "no-such-container", []string{"true"}, ""); !engine.Missing(err) {
		t.Errorf("exec: %v", err)
	}
	if _, err := e.Attach(t.Context(), "../../info?x=", nil); err == nil || engine.Gone(err) {
		t.Errorf("a hostile name: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Attach(ctx, "no-such-container", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
}

func TestAnEngineThatDoesNotAnswerIsNotWaitedForBeyondTheContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := engine.OpenWith(ctx, engine.Options{Host: "tcp://" + l.Addr().String()}, nothing); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestAdviceForWhatTheEngineRefuses(t *testing.T) {
	e := local(t)
	for name, c := range map[string]struct {
		host *container.HostConfig
		argv []string
		says string
	}{
		"no such program":         {argv: []string{"/no/such/program"}, says: "check entrypoint of the job's image"},
		"no such program in PATH": {argv: []string{"nosuchprogram"}, says: "check entrypoint of the job's image"},
		"not a program":           {argv: []string{"/etc/passwd"}, says: "cannot be executed by the container's user"},
		"too little memory":       {host: &container.HostConfig{Resources: container.Resources{Memory: 1 << 20}}, says: "memory of [runners.docker] is too small"},
		"too many CPUs":           {host: &container.HostConfig{Resources: container.Resources{NanoCPUs: 1e15}}, says: "more than the engine's machine has"},
		"an unknown runtime":      {host: &container.HostConfig{Runtime: "nosuch"}, says: "no such runtime"},
		"an unknown isolation":    {host: &container.HostConfig{Isolation: "hyperv"}, says: "does not know this isolation"},
		"an invalid volume":       {host: &container.HostConfig{Binds: []string{"a:b:c:d"}}, says: "check volumes"},
		"a relative target":       {host: &container.HostConfig{Binds: []string{"/a:b"}}, says: "check volumes"},
		"a target twice":          {host: &container.HostConfig{Binds: []string{"/a:/t", "/b:/t"}}, says: "have the same target"},
		"no such device":          {host: &container.HostConfig{Resources: container.Resources{Devices: []container.DeviceMapping{{PathOnHost: "/dev/nosuch", PathInContainer: "/dev/x", CgroupPermissions: "rwm"}}}}, says: "check devices"},
		"no such network":         {host: &container.HostConfig{NetworkMode: "nosuchnetwork"}, says: "check network_mode"},
		"a GPU":                   {host: &container.HostConfig{Resources: container.Resources{DeviceRequests: []container.DeviceRequest{{Count: -1, Capabilities: [][]string{{"gpu"}}}}}}, says: "no driver for that device"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.argv == nil {
				c.argv = []string{"true"}
			}
			id, err := create(t, e, "busybox", c.host, c.argv...)
			if err == nil {
				_, err = e.API().ContainerStart(t.Context(), id, client.ContainerStartOptions{})
			}
			advised := engine.Explain(err)
			if advised == nil || !strings.Contains(advised.Error(), c.says) || !errors.Is(advised, err) || engine.Gone(advised) {
				t.Errorf("error %v, want %q", advised, c.says)
			}
			if engine.Invalid(advised) != engine.Invalid(err) || engine.Missing(advised) != engine.Missing(err) {
				t.Errorf("the advice changes the class of %v", err)
			}
		})
	}
}

func TestNothingIsLeftOfAClosedEngine(t *testing.T) {
	host := enginetest.Host(t)
	enginetest.Image(t, "busybox")
	before := runtime.NumGoroutine()
	t.Run("use", func(t *testing.T) {
		e := open(t, engine.Options{Host: host})
		id := mustCreate(t, e, "sh", "-c", "yes")
		for range 3 {
			s, err := e.Attach(t.Context(), id, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
		}
		start(t, e, id)
	})
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before+2 { // a connection whose other half is closing may take a moment
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
		runtime.Gosched()
	}
}

func frame(kind byte, content string) string {
	header := make([]byte, 8)
	header[0] = kind
	binary.BigEndian.PutUint32(header[4:], uint32(len(content)))
	return string(header) + content
}

func TestFrames(t *testing.T) {
	for name, c := range map[string]struct {
		in, out, errs, says string
	}{
		"nothing":          {},
		"both":             {in: frame(1, "a") + frame(2, "b") + frame(0, "c") + frame(1, ""), out: "ac", errs: "b"},
		"a large one":      {in: frame(1, strings.Repeat("x", 1<<20)), out: strings.Repeat("x", 1<<20)},
		"half a header":    {in: frame(1, "a")[:5], says: "unexpected EOF"},
		"half a frame":     {in: frame(1, "abc")[:9], out: "a", says: "unexpected EOF"},
		"the engine's end": {in: frame(3, "the disk is on fire\n"), says: "the disk is on fire"},
		"unknown":          {in: frame(9, "x"), says: "unknown kind 9"},
	} {
		var out, errs bytes.Buffer
		err := engine.Demultiplex(strings.NewReader(c.in), &out, &errs)
		if out.String() != c.out || errs.String() != c.errs {
			t.Errorf("%s: stdout %d bytes, stderr %q", name, out.Len(), errs.String())
		}
		if (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want %q", name, err, c.says)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte(frame(1, "a") + frame(2, "b")))
	f.Add([]byte("\x01\x00\x00\x00\xff\xff\xff\xffx"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out, errs bytes.Buffer
		err := engine.Demultiplex(bytes.NewReader(in), &out, &errs)
		if out.Len()+errs.Len() > len(in) {
			t.Errorf("more came out than went in: %d", out.Len()+errs.Len())
		}
		if err == nil && len(in) > 0 && out.Len()+errs.Len() > len(in)-8 {
			t.Errorf("%d of %d bytes are content", out.Len()+errs.Len(), len(in))
		}
	})
}

// BenchmarkStdout says how fast the output of a container comes out here.
func BenchmarkStdout(b *testing.B) {
	e := local(b)
	const size = 1 << 28
	b.SetBytes(size)
	for b.Loop() {
		quiet := &container.HostConfig{LogConfig: container.LogConfig{Type: "none"}} // as the containers of jobs
		id, err := create(b, e, "busybox", quiet, "dd", "if=/dev/zero", "bs=64k", fmt.Sprintf("count=%d", size/(64<<10)))
		if err != nil {
			b.Fatal(err)
		}
		s, err := e.Attach(b.Context(), id, nil)
		if err != nil {
			b.Fatal(err)
		}
		start(b, e, id)
		go io.Copy(io.Discard, s.Stderr)
		n, err := io.Copy(io.Discard, s.Stdout)
		if n != size || err != nil {
			b.Fatalf("%d bytes, error %v", n, err)
		}
		s.Close()
	}
}

// BenchmarkDemultiplex is the same without an engine.
func BenchmarkDemultiplex(b *testing.B) {
	in := strings.Repeat(frame(1, strings.Repeat("x", 32<<10)), 1<<10)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if err := engine.Demultiplex(strings.NewReader(in), io.Discard, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
