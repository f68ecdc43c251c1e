package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAddresses(t *testing.T) {
	for text, want := range map[string]address{
		"unix:///var/run/docker.sock":  {scheme: "unix", path: "/var/run/docker.sock"},
		"tcp://host":                   {scheme: "tcp", host: "host"},
		"tcp://host:":                  {scheme: "tcp", host: "host"},
		"tcp://10.0.0.1:2376":          {scheme: "tcp", host: "10.0.0.1:2376"},
		"tcp://[::1]:2375/base/":       {scheme: "tcp", host: "[::1]:2375", base: "/base"},
		"ssh://me@host:22/run/d.sock/": {scheme: "ssh", path: "/run/d.sock"},
		"ssh://host":                   {scheme: "ssh"},
	} {
		want.text = text
		got, err := parseAddress(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, error %v", text, got, err)
		}
	}
}

func TestAddressesThatAreNone(t *testing.T) {
	for text, says := range map[string]string{
		"":                                    "has no scheme",
		"/var/run/docker.sock":                "write unix:///var/run/docker.sock",
		"unix://docker.sock":                  "must be absolute",
		"unix:///" + strings.Repeat("x", 200): "the system allows 103 bytes",
		"tcp://":                              "names no host",
		"tcp://:2375":                         "names no host",
		"tcp://host:99999":                    "is no port",
		"tcp://me:hunter2@host":               "has a user",
		"tcp://me:hunter2@host:x":             "malformed",
		"tcp://host?x=y":                      "more than host, port and path",
		"http://host":                         "write tcp://",
		"https://host":                        "tls_verify",
		"fd://":                               "give the socket's path",
		"npipe:////./pipe/docker":             "only Windows has",
		"gopher://host":                       "is not known",
		"tcp://a\x00b":                        "control characters",
	} {
		_, err := parseAddress(text)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: error %v, want %q", text, err, says)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %q says the password", text, err)
		}
	}
}

func TestTheUsualPorts(t *testing.T) {
	for host, want := range map[string][2]string{
		"host":     {"host:2375", "host:2376"},
		"[::1]":    {"[::1]:2375", "[::1]:2376"},
		"host:1":   {"host:1", "host:1"},
		"[fe::]:2": {"[fe::]:2", "[fe::]:2"},
	} {
		a := address{host: host}
		if got := [2]string{a.hostPort(false), a.hostPort(true)}; got != want {
			t.Errorf("%s: %v, want %v", host, got, want)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{"unix:///a", "tcp://h:1/b", "ssh://u@h:2/s", "npipe:////./pipe/x", "tcp://[::1]", "x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAddress(text)
		if err != nil {
			return
		}
		if a.scheme == schemeTCP {
			if _, _, err := net.SplitHostPort(a.hostPort(true)); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
		if a.scheme == schemeUnix && !filepath.IsAbs(a.path) {
			t.Errorf("%q: path %q", text, a.path)
		}
	})
}

func environment(values map[string]string) lookup {
	return func(name string) string { return values[name] }
}

func TestTheConfigurationOrElseTheEnvironmentSaysWhereTheEngineIs(t *testing.T) {
	env := environment(map[string]string{
		"DOCKER_HOST": "tcp://env:1", "DOCKER_CERT_PATH": "/env", "DOCKER_TLS_VERIFY": "1", "DOCKER_API_VERSION": "1.41",
	})
	for name, c := range map[string]struct {
		options Options
		env     lookup
		want    settings
	}{
		"all of the configuration":    {Options{Host: "tcp://cfg:2", CertPath: "/cfg", Verify: true}, env, settings{"tcp://cfg:2", "/cfg", true, "1.41"}},
		"a host without TLS":          {Options{Host: "tcp://cfg:2"}, env, settings{"tcp://cfg:2", "", false, "1.41"}},
		"all of the environment":      {Options{}, env, settings{"tcp://env:1", "/env", true, "1.41"}},
		"certificates without a host": {Options{CertPath: "/cfg"}, env, settings{"tcp://env:1", "/cfg", true, "1.41"}},
	} {
		if got := settle(t.Context(), c.options, c.env); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestWhereAnEngineIsLookedFor(t *testing.T) {
	got := strings.Join(candidates(environment(map[string]string{"XDG_RUNTIME_DIR": "/run/user/7"})), " ")
	if want := "/var/run/docker.sock /run/user/7/docker.sock /run/user/7/podman/podman.sock /run/podman/podman.sock"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	missing, dead, alive := in("missing"), in("dead"), in("alive")
	listen(t, alive)
	listen(t, dead).Close()
	if err := os.WriteFile(in("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, sockets := range map[string][]string{
		alive:   {missing, in("file"), dead, alive},
		dead:    {missing, dead},
		missing: {missing, in("file")},
	} {
		if got := usual(t.Context(), sockets); got != "unix://"+want {
			t.Errorf("of %v: %s, want %s", sockets, got, want)
		}
	}
}

// listen makes a socket that stays when it is closed.
func listen(t testing.TB, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	t.Cleanup(func() { l.Close() })
	return l
}

func TestPinnedVersions(t *testing.T) {
	for text, want := range map[string]string{"": "", "1.41": "1.41", " v1.44 ": "1.44"} {
		if got, err := parsePinned(text); err != nil || got != want {
			t.Errorf("%q: %q, error %v", text, got, err)
		}
	}
	for _, text := range []string{"1", "x.y", "1.41.2", "1.39", "1.99", "-1.41", "1."} {
		if _, err := parsePinned(text); err == nil || !strings.Contains(err.Error(), "DOCKER_API_VERSION") {
			t.Errorf("%q: error %v", text, err)
		}
	}
}

func TestASilentConnectionOfTCPIsGivenUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := parseAddress("tcp://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDialer(a, settings{}, os.Getenv, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for option, want := range map[int]int{unix.TCP_KEEPIDLE: 15, unix.TCP_KEEPINTVL: 10, unix.TCP_KEEPCNT: 3, unix.TCP_USER_TIMEOUT: 45000} {
			if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); err != nil || got != want {
				t.Errorf("option %d is %d, error %v; want %d", option, got, err, want)
			}
		}
	})
}

func TestASocketThatOneMayNotUse(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	listen(t, socket)
	if err := os.Chmod(socket, 0o600); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // without an unlock: the thread ends with its lost rights
		if _, _, failed := syscall.RawSyscall(syscall.SYS_SETRESUID, 65534, 65534, 65534); failed != 0 {
			result <- failed
			return
		}
		e := &Engine{address: address{text: "unix://" + socket}, dialer: local{address{scheme: schemeUnix, path: socket}}}
		_, err := e.connect(context.WithoutCancel(t.Context()))
		result <- err
	}()
	err := <-result
	explained := Explain(err)
	if !errors.Is(explained, os.ErrPermission) || Gone(err) || Gone(explained) {
		t.Errorf("error %v, gone %v", explained, Gone(err))
	}
	if !strings.Contains(explained.Error(), "no permission to use the socket: let this user use the engine: add it to the group") {
		t.Errorf("%q gives no advice", explained)
	}
}

func TestExplainGivesAdviceAndKeepsTheCause(t *testing.T) {
	for message, says := range map[string]string{
		"write /x: no space left on device":                                                 "disk of the engine is full",
		"could not find an available, non-overlapping IPv4 address pool among the defaults": "docker network prune",
		"all predefined address pools have been fully subnetted":                            "default-address-pools",
		"client version 1.24 is too old. Minimum supported API version is 1.44":             "unset DOCKER_API_VERSION",
		"client version 1.51 is too new. Maximum supported API version is 1.41":             "unset DOCKER_API_VERSION",
		"Bind for 0.0.0.0:80 failed: port is already allocated":                             "publish another",
		"could not find an available, non-overlapping IPv6 address pool":                    "remove enable_ipv6",
		"invalid CapAdd: unknown capability: \"CAP_FLY\"":                                   "check cap_add and cap_drop",
		"error looking up volume plugin x: plugin \"x\" not found":                          "check volume_driver",
		"could not select device driver \"\" with capabilities: [[gpu]]":                    "NVIDIA container toolkit",
		"OCI runtime create failed: unable to apply caps: operation not permitted":          "cannot give privileged",
		"OCI runtime create failed: mounting sysfs: operation not permitted":                "cannot give privileged",
		"exec /bin/x: exec format error":                                                    "another architecture",
		"exec: \"/x\": stat /x: no such file or directory":                                  "check entrypoint",
		"exec: \"/x\": permission denied":                                                   "cannot be executed",
		"invalid isolation 'hyperv': linux only supports 'default'":                         "isolation = \"default\"",
		"--storage-opt is supported only for overlay over xfs with 'pquota' mount option":   "pquota",
		"unable to find user nobody2: no matching entries in passwd file":                   "no such user",
	} {
		cause := errors.New(message)
		err := Explain(cause)
		if !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), message+": ") || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", message, err)
		}
		if again := Explain(err); !errors.Is(again, err) || again.Error() != err.Error() {
			t.Errorf("explained twice: %v", again)
		}
	}
	for _, err := range []error{nil, context.Canceled, errors.New("who knows"), &VersionError{}} {
		if got := Explain(err); !errors.Is(got, err) || !errors.Is(err, got) {
			t.Errorf("%v became %v", err, got)
		}
	}
}

func TestRefusedTellsSettingsFromEnginesThatDoNotWork(t *testing.T) {
	for message, want := range map[string]bool{
		"network x not found": true, "unable to find user x: no matching entries in passwd file": true, "Unknown runtime specified x": true,
		"invalid CapAdd: unknown capability: \"CAP_FLY\"": true, "exec /bin/x: exec format error": true,
		"write /x: no space left on device": false, "too many open files": false, "who knows": false,
		"mount /x: invalid mount config: no space left on device": false,
	} {
		if got := Refused(errors.New(message)); got != want {
			t.Errorf("%s: %v", message, got)
		}
	}
	if Refused(nil) {
		t.Error("nothing is refused")
	}
}

func TestWhatIsRefusedForGoodIsNotGone(t *testing.T) {
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}
	for _, cause := range []error{os.ErrPermission, alert, &tls.CertificateVerificationError{Err: errors.New("x")}} {
		if err := error(&dialError{cause: cause}); Gone(err) || Gone(Explain(err)) {
			t.Errorf("%v is gone", cause)
		}
	}
	for _, err := range []error{nil, context.Canceled, context.DeadlineExceeded, errors.New("x")} {
		if Gone(err) {
			t.Errorf("%v is gone", err)
		}
	}
}
