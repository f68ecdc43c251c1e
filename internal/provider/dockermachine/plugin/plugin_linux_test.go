package plugin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/rpc"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tranter-ci/tranter/internal/provider/machinetest"
)

// labDriver returns the tests' driver, which is served by the reference plugin server.
func labDriver(t *testing.T) string {
	t.Helper()
	return filepath.Join(machinetest.Driver(t), "docker-machine-driver-lab")
}

// start starts a plugin until the test ends, and sees to it that nothing of it is left.
func start(t *testing.T, o Options) *Process {
	t.Helper()
	p, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, p)
	})
	return p
}

func nothingLeft(t *testing.T, p *Process) {
	t.Helper()
	if err := unix.Kill(p.cmd.Process.Pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process %d is still there (%v): a zombie at least", p.cmd.Process.Pid, err)
	}
}

// script writes a program that stands in for a plugin.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), prefix+"fake")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// served returns a plugin whose server is serve, in this process.
func served(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return script(t, "echo "+l.Addr().String()+"; exec sleep 1000")
}

func log() (*slog.Logger, func() string) {
	b := &buffer{}
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelInfo})), b.String
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestADriverOfTheReferenceServerTellsItsOptionsAndTakesThem(t *testing.T) {
	logger, printed := log()
	p := start(t, Options{Driver: labDriver(t), Machine: "m1", Log: logger, Debug: true})
	ctx := t.Context()
	flags, err := p.Flags(ctx)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{"swarm-master": false, "swarm-host": "", "swarm-discovery": ""}
	kinds := map[string]any{}
	for _, f := range flags {
		values[f.Name], kinds[f.Name] = f.Default, f.Default
	}
	for name, want := range map[string]any{"lab-token": "", "lab-size": 0, "lab-ssh-port": 22, "lab-hang": false, "lab-ssh-user": "root"} {
		if got := kinds[name]; got != want {
			t.Errorf("default of %s: got %#v, want %#v", name, got, want)
		}
	}
	if got, ok := kinds["lab-tag"].([]string); !ok || len(got) != 0 {
		t.Errorf("default of lab-tag: got %#v, want an empty list", kinds["lab-tag"])
	}
	if i := slices.IndexFunc(flags, func(f Flag) bool { return f.Name == "lab-token" }); flags[i].EnvVar != "LAB_TOKEN" || flags[i].Usage == "" {
		t.Errorf("lab-token: got %+v, want its variable and its usage", flags[i])
	}
	if err := p.SetConfig(ctx, json.RawMessage(`{"MachineName":"m1","StorePath":"/nowhere"}`)); err != nil {
		t.Fatal(err)
	}
	values["lab-token"], values["lab-image"] = "much-secret", "some:image"
	values["lab-tag"] = []string{"a=b", "c=d"}
	p.Hide([]string{"much-secret", ""})
	if err := p.SetFlags(ctx, values); err != nil {
		t.Fatal(err)
	}
	raw, err := p.Config(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var config struct{ MachineName, StorePath, Token, Image, SSHUser string }
	if err := json.Unmarshal(raw, &config); err != nil {
		t.Fatal(err)
	}
	if config.MachineName != "m1" || config.StorePath != "/nowhere" || config.Token != "much-secret" || config.Image != "some:image" || config.SSHUser != "root" {
		t.Errorf("the driver's state is %+v", config)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	out := printed()
	if strings.Contains(out, "much-secret") || strings.Contains(out, "does not exist") || strings.Contains(out, "did not go smoothly") {
		t.Errorf("the log has a secret in it, or a value did not arrive:\n%s", out)
	}
	if !strings.Contains(out, "logging in with token [hidden]") || !strings.Contains(out, "machine=m1") {
		t.Errorf("the log lacks the driver's output or the machine's name:\n%s", out)
	}
}

func TestDebugOutputIsShownOnlyOnDemand(t *testing.T) {
	for _, debug := range []bool{false, true} {
		logger, printed := log()
		path := script(t, "echo trouble >&2; printf '127.0.0.1:9\\nhello\\n'; exec sleep 10")
		if _, err := Start(t.Context(), Options{Driver: path, Log: logger, Debug: debug}); err == nil {
			t.Fatal("nothing listens there, and it was started")
		}
		if got := strings.Contains(printed(), "trouble"); got != debug {
			t.Errorf("debug %v: standard error logged: %v", debug, got)
		}
		if !strings.Contains(printed(), "hello") {
			t.Errorf("standard output is not logged:\n%s", printed())
		}
	}
}

func TestAnErrorOfADriverIsItsText(t *testing.T) {
	p := start(t, Options{Driver: labDriver(t)})
	err := p.SetFlags(t.Context(), map[string]any{"lab-token": ""})
	said, ok := errors.AsType[*DriverError](err)
	if !ok || said.Method != "SetConfigFromFlags" || !strings.Contains(said.Text, "requires the --lab-token option") {
		t.Fatalf("got %v, want what the driver says", err)
	}
	if _, err := p.State(t.Context()); err == nil {
		t.Fatal("a machine that was never made has a state")
	}
}

func TestADriverThatDoesNotStartIsAnErrorThatSaysWhy(t *testing.T) {
	for name, c := range map[string]struct{ driver, want string }{
		"missing program":    {"/nowhere/docker-machine-driver-x", "can't be run"},
		"unknown name":       {"nosuchcloud", "not installed: no program docker-machine-driver-nosuchcloud in PATH"},
		"strange name":       {"a b", "can't be a driver's name"},
		"core driver":        {"rackspace", "built into docker-machine"},
		"exits":              {script(t, "echo it is not my day >&2; exit 3"), "exit status 3); its last words: it is not my day"},
		"panics":             {script(t, "echo 'panic: oh no' >&2; echo 'goroutine 1 [running]:' >&2; exit 2"), "its last words: panic: oh no"},
		"garbage":            {script(t, "echo hello, world; exec sleep 1000"), `it is "hello, world"`},
		"endless line":       {script(t, "head -c 1000000 /dev/zero | tr '\\0' x; exec sleep 1000"), "the first line it prints has to be"},
		"other host":         {script(t, "echo 192.0.2.1:80; exec sleep 1000"), "local address"},
		"name for a host":    {script(t, "echo localhost:80; exec sleep 1000"), "local address"},
		"no port":            {script(t, "echo 127.0.0.1:0; exec sleep 1000"), "local address"},
		"nobody listens":     {script(t, "echo 127.0.0.1:9; exec sleep 1000"), "connect to it"},
		"not a plugin":       {served(t, func(c net.Conn) { fmt.Fprint(c, "SSH-2.0-OpenSSH\r\n") }), "does not speak its protocol"},
		"refuses":            {served(t, func(c net.Conn) { fmt.Fprint(c, "HTTP/1.0 404 Not Found\r\n\r\n") }), "404 Not Found"},
		"closes":             {served(t, func(c net.Conn) { answer(c, nil) }), "its connection is broken"},
		"breaks the rules":   {served(t, func(c net.Conn) { answer(c, []byte("\x07abcdefghij")) }), "breaks the protocol"},
		"announces too much": {served(t, func(c net.Conn) { answer(c, append([]byte{0xfc, 0x3f, 0xff, 0xff, 0xff}, make([]byte, 17<<20)...)) }), "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Start(t.Context(), Options{Driver: c.driver})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want something with %q", err, c.want)
			}
		})
	}
}

// answer takes a connection as a plugin does, sends what it is given, and reads on until the other side has had enough.
func answer(c net.Conn, data []byte) {
	in := bufio.NewReader(c)
	if _, err := http.ReadRequest(in); err != nil {
		return
	}
	fmt.Fprint(c, "HTTP/1.0 200 Connected to Go RPC\n\n")
	_, _ = c.Write(data)
	if data != nil {
		_, _ = io.Copy(io.Discard, in)
	}
}

// oldDriver is a plugin of another age.
type oldDriver struct{ version int }

func (o *oldDriver) GetVersion(_ struct{}, v *int) error {
	*v = o.version
	return nil
}

func (o *oldDriver) Heartbeat(_ struct{}, _ *struct{}) error { return nil }

func (o *oldDriver) GetState(_ struct{}, state *int) error {
	*state = 77
	return nil
}

func (o *oldDriver) GetConfigRaw(_ struct{}, raw *[]byte) error {
	*raw = []byte("{broken")
	return nil
}

func (o *oldDriver) GetCreateFlags(_ struct{}, flags *[]any) error {
	*flags = []any{"a text"}
	return nil
}

func serveOld(t *testing.T, name string, version int) string {
	t.Helper()
	server := rpc.NewServer()
	if err := server.RegisterName(name, &oldDriver{version}); err != nil {
		t.Fatal(err)
	}
	return served(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			fmt.Fprint(c, "HTTP/1.0 200 Connected to Go RPC\n\n")
			server.ServeConn(c)
		}
	})
}

func TestAnOldPluginIsCalledByItsOldName(t *testing.T) {
	p := start(t, Options{Driver: serveOld(t, oldServiceName, 1)})
	if p.service != oldServiceName {
		t.Errorf("service %s", p.service)
	}
	if _, err := p.State(t.Context()); err == nil || !strings.Contains(err.Error(), "77") {
		t.Errorf("a state that there is not: %v", err)
	}
	if _, err := p.Config(t.Context()); err == nil || !strings.Contains(err.Error(), "not JSON") {
		t.Errorf("a config that is not JSON: %v", err)
	}
	if _, err := p.Flags(t.Context()); err == nil || !strings.Contains(err.Error(), "of a kind") {
		t.Errorf("an option that is a text: %v", err)
	}
	_, err := Start(t.Context(), Options{Driver: serveOld(t, serviceName, 2)})
	if err == nil || !strings.Contains(err.Error(), "speaks version 2") {
		t.Errorf("a plugin of version 2: %v", err)
	}
}

func TestAPluginThatSaysNothingIsGivenUp(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("enough"))
	defer cancel()
	begun := time.Now()
	_, err := Start(ctx, Options{Driver: labDriver(t), Environment: []string{"LAB_START=silent"}})
	if err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("got %v, want the context's cause", err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestAPluginThatIsKilledFailsWhatIsPending(t *testing.T) {
	before := runtime.NumGoroutine()
	control := t.TempDir()
	if err := os.WriteFile(filepath.Join(control, "hang"), []byte("state\nremove"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Start(t.Context(), Options{Driver: labDriver(t), Environment: []string{"LAB_CONTROL=" + control}})
	if err != nil {
		t.Fatal(err)
	}
	pending := make(chan error, 2)
	go func() {
		_, err := p.State(t.Context())
		pending <- err
	}()
	go func() { pending <- p.Remove(t.Context()) }()
	if _, err := p.Flags(t.Context()); err != nil { // answered while the others wait
		t.Fatal(err)
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	for range 2 {
		err := <-pending
		if ended, ok := errors.AsType[*EndedError](err); !ok || ended.How != "signal: killed" {
			t.Errorf("got %v, want an EndedError", err)
		}
	}
	if took := time.Since(killed); took > 10*time.Second {
		t.Errorf("pending calls failed after %v", took)
	}
	<-p.Done()
	if err := p.Create(t.Context()); err == nil {
		t.Error("a call of a dead plugin succeeds")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, p)
	for deadline := time.Now().Add(2 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
		runtime.Gosched()
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	control := t.TempDir()
	if err := os.WriteFile(filepath.Join(control, "hang"), []byte("state"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, Options{Driver: labDriver(t), Environment: []string{"LAB_CONTROL=" + control}})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("enough"))
	defer cancel()
	if _, err := p.State(ctx); err == nil || !strings.Contains(err.Error(), "GetState: enough") {
		t.Errorf("got %v, want the context's cause", err)
	}
	if _, err := p.Config(t.Context()); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestAFrozenPluginIsEnded(t *testing.T) {
	p := start(t, Options{Driver: labDriver(t), every: 20 * time.Millisecond, patience: 200 * time.Millisecond})
	if err := p.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var err error
	for err == nil { // a signal takes a moment
		_, err = p.Config(t.Context())
	}
	if !strings.Contains(err.Error(), "it has not answered for 200ms") {
		t.Errorf("got %v, want that it was frozen", err)
	}
}

func TestARequestThatAFrozenPluginDoesNotTakeFails(t *testing.T) {
	p := start(t, Options{Driver: labDriver(t), patience: 200 * time.Millisecond})
	if err := p.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	err := p.SetConfig(t.Context(), []byte(`{"Image":"`+strings.Repeat("x", 32<<20)+`"}`))
	if _, ended := errors.AsType[*EndedError](err); !ended {
		t.Errorf("got %v, want an EndedError", err)
	}
}

func TestHeartbeatsKeepAPluginAlive(t *testing.T) {
	server := rpc.NewServer()
	beats := &beaten{n: make(chan struct{}, 100)}
	if err := server.RegisterName(serviceName, beats); err != nil {
		t.Fatal(err)
	}
	p := start(t, Options{every: 10 * time.Millisecond, Driver: served(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			fmt.Fprint(c, "HTTP/1.0 200 Connected to Go RPC\n\n")
			server.ServeConn(c)
		}
	})})
	for range 5 {
		<-beats.n
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

type beaten struct{ n chan struct{} }

func (b *beaten) GetVersion(_ struct{}, v *int) error {
	*v = 1
	return nil
}

func (b *beaten) Heartbeat(_ struct{}, _ *struct{}) error {
	select {
	case b.n <- struct{}{}:
	default:
	}
	return nil
}

func TestWhatAPluginHasStartedEndsWithIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	path := script(t, "sleep 1000 & echo $! > "+file+"; exec "+labDriver(t))
	p := start(t, Options{Driver: path})
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); runs(pid); {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", pid)
		}
		runtime.Gosched()
	}
}

// runs says whether a process is there and no zombie: whoever inherits it has to take its end.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

func TestACoreDriverIsServedByDockerMachine(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "name")
	text := "#!/bin/sh\necho $MACHINE_PLUGIN_DRIVER_NAME $MACHINE_PLUGIN_TOKEN > " + file + "; exec " + labDriver(t) + "\n"
	if err := os.WriteFile(filepath.Join(dir, "rancher-machine"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	start(t, Options{Driver: "google", Environment: []string{"PATH=" + dir + ":" + os.Getenv("PATH")}})
	got, err := os.ReadFile(file)
	if err != nil || string(got) != "google 42\n" {
		t.Errorf("it was started with %q (%v)", got, err)
	}
	if os.Getenv("MACHINE_PLUGIN_TOKEN") != "" {
		t.Error("this process has the variable itself")
	}
}

func TestLongAndStrangeLinesAreRead(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	var lines []string
	drain(strings.NewReader("a\r\n\n"+long+"\nb\nlast"), func(l string) { lines = append(lines, l) })
	want := []string{"a", "", strings.Repeat("x", maxLine) + "... (the line goes on)", "b", "last"}
	if !slices.Equal(lines, want) {
		t.Errorf("got %d lines: %.100q", len(lines), lines)
	}
}

func TestADriverDoesNotGetGitLabsTokens(t *testing.T) {
	t.Setenv("CI_SERVER_TOKEN", "abc")
	t.Setenv("TRANTER_TEST_TOKEN", "glrt-t1_abcdefghij")
	t.Setenv("CLOUD_TOKEN", "a cloud's")
	_, err := Start(t.Context(), Options{Driver: script(t, `echo "have $CI_SERVER_TOKEN$TRANTER_TEST_TOKEN$CLOUD_TOKEN$OWN" >&2; exit 1`), Environment: []string{"OWN=, and its own"}})
	if err == nil || !strings.Contains(err.Error(), "have a cloud's, and its own") {
		t.Errorf("error %v", err)
	}
}

func TestNoPartOfASecretIsToldWhereWordsAreCut(t *testing.T) {
	secret := "hunter2-hunter2-hunter2"
	p := &Process{name: "fake", exited: make(chan struct{}), ended: make(chan struct{})}
	close(p.exited)
	close(p.ended)
	p.Hide([]string{"hunter2", "", secret})
	p.words.add(strings.Repeat("x", maxWords-10) + secret + strings.Repeat("y", maxWords))
	if text := p.endedError(t.Context()).Error(); strings.Contains(text, "hunter") || !strings.Contains(text, "x[hidden]") {
		t.Errorf("it is %q", text)
	}
}

func FuzzAnythingAPluginAnswersIsSurvived(f *testing.F) {
	register()
	f.Add([]byte("\x07abcdefghij"))
	f.Add([]byte{0xfc, 0x3f, 0xff, 0xff, 0xff})
	f.Fuzz(func(_ *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		p := &Process{name: "fuzz", service: serviceName, exited: make(chan struct{}), ended: make(chan struct{})}
		close(p.exited)
		close(p.ended)
		p.client = newClient(ours, bufio.NewReader(ours), &meter{r: ours, left: maxMessage}, time.Second)
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		sent := p.client.Go(serviceName+".GetCreateFlags", struct{}{}, new([]any), make(chan *rpc.Call, 1))
		_, _ = theirs.Write(data)
		theirs.Close()
		<-sent.Done
		_ = p.client.Close()
	})
}
