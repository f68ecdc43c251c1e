package provision

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/remote"
	"github.com/tranter-ci/tranter/internal/remote/sshtest"
)

func FuzzLinesOfAMachine(f *testing.F) {
	for _, seed := range []string{"@m step engine\n", "@m held a 5\n@m done", "noise\r\n@m ask daemon x e30=\n", "@m \x00 \n@m fail a \x1b[31m\xff\n", strings.Repeat("x", 3000)} {
		f.Add([]byte(seed), 7)
	}
	f.Fuzz(func(t *testing.T, said []byte, cut int) {
		var events []event
		l := &lines{limit: 200, each: func(line string) error {
			if len(line) > 200 {
				t.Fatalf("a line of %d bytes", len(line))
			}
			if e, ours := parseLine(line, "m"); ours {
				events = append(events, e)
			}
			return nil
		}}
		cut = min(max(cut, 0), len(said))
		for _, part := range [][]byte{said[:cut], said[cut:]} {
			if n, err := l.Write(part); n != len(part) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
		}
		for _, e := range events {
			if !isWord(e.verb) || e.name != "" && !isWord(e.name) {
				t.Errorf("%q", e)
			}
			if text := clean(e.text, 50); len(text) > 53 || strings.ContainsAny(text, "\x00\x1b\r\n") {
				t.Errorf("%q", text)
			}
		}
	})
}

func FuzzWhatIsKept(f *testing.F) {
	f.Add([]byte(`{"version":1,"host_key":"ssh-ed25519 AAAA","tls":{"port":2376}}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := parseKept(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := parseKept(again); err != nil || !reflect.DeepEqual(k, second) {
			t.Errorf("%+v became %+v, %v", k, second, err)
		}
	})
}

func FuzzMergingADaemonFile(f *testing.F) {
	f.Add([]byte(`{"a":1,"labels":["x"]}`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`{} {}`))
	f.Fuzz(func(t *testing.T, existing []byte) {
		wanted := map[string]any{"labels": []any{"k=v"}, "mtu": int64(1400)}
		answer, err := merge(existing, wanted)
		if err != nil || answer == "same" {
			return
		}
		if strings.ContainsAny(answer, "\r\n") {
			t.Fatalf("more than a line: %q", answer)
		}
		if again, err := merge([]byte(answer), wanted); err != nil || again != "same" {
			t.Errorf("%q, then %q, %v", answer, again, err)
		}
	})
}

func TestMergingADaemonFile(t *testing.T) {
	wanted := map[string]any{"labels": []any{"k=v"}, "mtu": int64(1400)}
	for existing, want := range map[string]string{
		`{}`: `{"labels":["k=v"],"mtu":1400}`,
		`{"debug":true,"big":12345678901234567890,"labels":["old"]}`: `{"big":12345678901234567890,"debug":true,"labels":["k=v"],"mtu":1400}`,
		"{\n\"mtu\": 1400, \"labels\": [\"k=v\"], \"x\": {} }\n":     "same",
	} {
		if got, err := merge([]byte(existing), wanted); err != nil || got != want {
			t.Errorf("%s: %s, %v", existing, got, err)
		}
	}
	for _, existing := range []string{"", "null", "[]", "{", "{} x"} {
		if got, err := merge([]byte(existing), wanted); err == nil {
			t.Errorf("%q: %s", existing, got)
		}
	}
}

func TestOptionsOfTheEngine(t *testing.T) {
	e := EngineSettings{
		Mirrors: []string{"http://m"}, Insecure: []string{"r:5000"}, StorageDriver: "overlay2", Labels: []string{"a=b"},
		Options: []string{
			"--debug", "live-restore=false", "mtu=1450", "log-driver=local", "log-opt=max-size=10m", "log-opt=max-file=3", "label=c=d",
			"default-ulimit=nofile=1024:2048", "default-ulimit=core=0", "default-address-pool=base=10.9.0.0/16,size=24", "graph=/data",
			"dns=1.1.1.1", "registry-mirror=http://n", "add-runtime=x=/usr/bin/x",
		},
	}
	d, err := e.daemon()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"data-root":"/data","debug":true,"default-address-pools":[{"base":"10.9.0.0/16","size":24}],` +
		`"default-ulimits":{"core":{"Hard":0,"Name":"core","Soft":0},"nofile":{"Hard":2048,"Name":"nofile","Soft":1024}},` +
		`"dns":["1.1.1.1"],"insecure-registries":["r:5000"],"labels":["c=d","a=b"],"live-restore":false,"log-driver":"local",` +
		`"log-opts":{"max-file":"3","max-size":"10m"},"mtu":1450,"registry-mirrors":["http://n","http://m"],` +
		`"runtimes":{"x":{"path":"/usr/bin/x"}},"storage-driver":"overlay2"}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestSettingsThatAreWrong(t *testing.T) {
	for want, s := range map[string]Settings{
		"characters other than":     {Owner: "a b"},
		"must not be negative":      {Linger: -1},
		"before contains a NUL":     {Before: "\x00"},
		"login.user":                {Login: LoginSettings{User: "a\nb"}},
		"login.port":                {Login: LoginSettings{Port: 70000}},
		"the engine's port":         {Engine: EngineSettings{Port: -1}},
		"absolute path":             {Engine: EngineSettings{Socket: "run/docker.sock"}},
		"install_url":               {Engine: EngineSettings{InstallURL: "file:///x"}},
		"engine.certificate_names":  {Engine: EngineSettings{ExtraNames: []string{""}}},
		"not KEY=VALUE":             {Engine: EngineSettings{Labels: []string{"x"}}},
		"name of a variable":        {Engine: EngineSettings{Environment: []string{"A B=secret"}}},
		"take it out":               {Engine: EngineSettings{Options: []string{"host=tcp://x"}}},
		"must be a number":          {Engine: EngineSettings{Options: []string{"mtu=big"}}},
		"log-opt=NAME=VALUE":        {Engine: EngineSettings{Options: []string{"log-opt=x"}}},
		"NAME=SOFT[:HARD]":          {Engine: EngineSettings{Options: []string{"default-ulimit=x=y"}}},
		"base=NETWORK":              {Engine: EngineSettings{Options: []string{"default-address-pool=x=y"}}},
		"size must be a number":     {Engine: EngineSettings{Options: []string{"default-address-pool=size=y"}}},
		"which is not NAME=VALUE":   {Engine: EngineSettings{Options: []string{"=x"}}},
		"provision.http_proxy cont": {Proxy: ProxySettings{HTTP: "a\nb"}},
	} {
		err := s.Check()
		if _, ok := errors.AsType[*tranter.ConfigError](err); !ok || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: error %v", want, err)
		}
	}
	if err := (Settings{}).Check(); err != nil {
		t.Error(err)
	}
}

func TestPausesGrow(t *testing.T) {
	last := time.Duration(0)
	for waited := time.Duration(0); waited < time.Minute; waited += 50 * time.Millisecond {
		low, high := pauseAfter(waited, 0), pauseAfter(waited, 1)
		if low < 40*time.Millisecond || high > 2400*time.Millisecond || low >= high || low < last {
			t.Fatalf("after %v: from %v to %v", waited, low, high)
		}
		last = low
	}
}

func TestCertificatesOfAMachine(t *testing.T) {
	now := time.Now()
	made, server, err := newCredentials([]string{"machine-1", "10.1.2.3", "localhost", "more.example"}, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := newCredentials([]string{"machine-2", "10.1.2.3"}, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	handshake := func(c credentials, name string) error {
		config, err := c.config(name)
		if err != nil {
			t.Fatal(err)
		}
		return speakTLS(t, made, server, config)
	}
	for _, name := range []string{"machine-1", "10.1.2.3", "localhost", "more.example"} {
		if err := handshake(made, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := handshake(made, "machine-2"); err == nil {
		t.Error("it has another's name")
	}
	if err := handshake(other, "machine-1"); err == nil {
		t.Error("it is let in with another machine's certificate")
	}
}

// fakeRoot is the beginning of what a machine of a test runs in place of what it is told; $M is the marker.
const fakeRoot = `
size=${SSH_ORIGINAL_COMMAND#*head -c }
script=$(head -c "${size%%)*}")
M=${script#*M=\'}
M=${M%%\'*}
say() { echo "@$M $*"; }
`

// fake starts a machine that runs a script of the test's, which is in the file, whatever it is told.
func fake(t *testing.T, script string) (m tranter.Machine, s *sshtest.Server, file string) {
	t.Helper()
	file = t.TempDir() + "/fake"
	sshtest.Write(t, file, fakeRoot+script)
	s = sshtest.Start(t, "ForceCommand sh "+file)
	return tranter.Machine{Name: "fake", Login: tranter.Login{Host: "127.0.0.1", Port: s.Port, User: s.User, Identity: s.Identity}}, s, file
}

func TestAMachineThatLies(t *testing.T) {
	t.Parallel()
	m, _, file := fake(t, "")
	for name, c := range map[string]struct{ script, want string }{
		"says nothing":              {"exit 0", "ended without a word"},
		"has no sudo":               {"echo sudo: a password is required >&2; exit 1", "cannot become root"},
		"fails with colours":        {`say start; say "fail before $(printf '\033[31mred\033[0m')"; echo "the cause" >&2`, "step before: [31mred[0m; it said: the cause"},
		"asks what nobody knows":    {"say start; say ask password; read -r x; say fail x $x", "what is that?"},
		"asks without end":          {"say start; while say ask x; do :; done", "it asks too much"},
		"sends a daemon.json of no": {"say start; say ask daemon none '!!!'; read -r x; say fail configure $x", "did not arrive whole"},
		"talks without end":         {"say start; (head -c 3000000 /dev/zero | tr '\\0' x; yes | head -c 1000000) >&2; head -c 3000000 /dev/zero; echo; say fail gpu done", "step gpu: done"},
		"is held for ever":          {"say start; say held evil 99999999999999999999", "another manager (evil)"},
		"knows a marker of old":     {"say start; echo @00000000000000000000000000000000 done; say step nonsense; exit 3", "ended without a word"},
	} {
		t.Run(name, func(t *testing.T) {
			sshtest.Write(t, file, fakeRoot+c.script)
			_, _, err := New(Settings{}, Options{}).Open(t.Context(), m, nil, func(step tranter.Timing) {
				if step.Step != "login" {
					t.Errorf("step %q", step.Step)
				}
			})
			if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 8000 {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestAMachineThatTellsOfStepsWithoutEnd(t *testing.T) {
	t.Parallel()
	m, s, _ := fake(t, "say start; n=0; while [ $n -lt 300 ]; do say step before; say step after; say fact group new; n=$((n+1)); done; say fail gpu enough")
	steps := map[string]int{}
	_, _, err := New(Settings{}, Options{}).Open(t.Context(), m, nil, func(step tranter.Timing) { steps[step.Step]++ })
	if err == nil || !strings.Contains(err.Error(), "step gpu: enough") || steps["before"] != 1 || steps["after"] != 1 || len(steps) != 3 {
		t.Errorf("steps %v, error %v", steps, err)
	}
	if n := strings.Count(s.Log(), "Accepted publickey"); n != 2 {
		t.Errorf("%d connections", n)
	}
}

func TestLoggingInToAMachine(t *testing.T) {
	t.Parallel()
	m, s, _ := fake(t, "say start; say refuse start that will do")
	t.Run("through another", func(t *testing.T) {
		far, near := s, sshtest.Start(t)
		settings := Settings{Login: LoginSettings{Jump: near.URL("")}}
		_, _, err := New(settings, Options{Env: near.Env}).Open(t.Context(), m, nil, nil)
		if _, ok := errors.AsType[*tranter.ConfigError](err); !ok || !strings.Contains(err.Error(), "that will do") {
			t.Fatalf("error %v", err)
		}
		if !strings.Contains(near.Log(), "Accepted publickey") || !strings.Contains(far.Log(), "Accepted publickey") {
			t.Error("the way did not go through the other")
		}
		sshtest.Write(t, near.KnownHosts, "")
		_, _, err = New(settings, Options{Env: near.Env}).Open(t.Context(), m, nil, nil)
		if _, ok := errors.AsType[*tranter.ConfigError](err); !ok || !strings.Contains(err.Error(), "login.jump") {
			t.Errorf("one that nobody knows: error %v", err)
		}
	})
	t.Run("with the keys of the user", func(t *testing.T) {
		m := m
		m.Login.Identity = ""
		_, _, err := New(Settings{}, Options{Env: s.Env}).Open(t.Context(), m, nil, nil)
		if err == nil || !strings.Contains(err.Error(), "that will do") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("without a key", func(t *testing.T) {
		m := m
		m.Login.Identity = s.Dir + "/nothing"
		_, _, err := New(Settings{}, Options{Env: s.Env}).Open(t.Context(), m, nil, nil)
		if _, ok := errors.AsType[*tranter.ConfigError](err); !ok || !strings.Contains(err.Error(), "no key to log in with") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("that boots", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go booting(l, net.JoinHostPort("127.0.0.1", strings.TrimPrefix(s.URL(""), "ssh://"+s.User+"@127.0.0.1:")))
		m := m
		m.Login.Port = l.Addr().(*net.TCPAddr).Port
		_, _, err = New(Settings{}, Options{}).Open(t.Context(), m, nil, nil)
		if err == nil || !strings.Contains(err.Error(), "that will do") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("that never lets in", func(t *testing.T) {
		stranger := s.Dir + "/stranger"
		sshtest.Keygen(t, stranger)
		m := m
		m.Login.Identity = stranger
		ctx := t.Context()
		p := New(Settings{}, Options{})
		target, err := p.target(m, "")
		if err != nil {
			t.Fatal(err)
		}
		p.refusal = 100 * time.Millisecond
		_, err = p.login(ctx, m.Name, target)
		if e, ok := errors.AsType[*remote.AuthError](err); !ok || !strings.Contains(err.Error(), stranger) || !strings.Contains(e.Target, s.User) {
			t.Errorf("error %v", err)
		}
	})
}

// booting closes the first connections, and carries the next.
func booting(l net.Listener, to string) {
	for n := 0; ; n++ {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if n < 3 {
			conn.Close()
			continue
		}
		through, err := net.Dial("tcp", to)
		if err != nil {
			conn.Close()
			continue
		}
		go func() { io.Copy(through, conn); through.Close() }()
		go func() { io.Copy(conn, through); conn.Close() }()
	}
}
