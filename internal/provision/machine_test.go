package provision_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provider/machinetest"
	"github.com/tranter-ci/tranter/internal/provision"
	"github.com/tranter-ci/tranter/internal/remote"
)

func machineOf(m *machinetest.Machine) tranter.Machine {
	return tranter.Machine{Name: m.Name, Login: m.Login, Power: tranter.PowerOn}
}

// limited bounds what a test may wait for.
func limited(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// open prepares or resumes a machine and returns the steps besides.
func open(t testing.TB, m *machinetest.Machine, s provision.Settings, kept json.RawMessage) (*provision.Host, json.RawMessage, []string) {
	t.Helper()
	var steps []string
	h, kept, err := provision.New(s, provision.Options{}).Open(limited(t, 90*time.Second), machineOf(m), kept, func(step tranter.Timing) {
		steps = append(steps, step.Step)
		t.Logf("%s: %v", step.Step, step.Took.Round(time.Millisecond))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h, kept, steps
}

// ask asks the machine's engine for something.
func ask(t testing.TB, h *provision.Host, path string) string {
	t.Helper()
	conn, err := h.Dial(limited(t, 30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// run runs a command and returns what it says.
func run(t testing.TB, h *provision.Host, command string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if err := h.Run(limited(t, 30*time.Second), command, nil, &out, &errs); err != nil {
		t.Fatalf("%s: %v\n%s%s", command, err, &out, &errs)
	}
	return strings.TrimSpace(out.String())
}

func TestAMachineIsMadeReadyAndTakenUpAgain(t *testing.T) {
	t.Parallel()
	m := machinetest.Start(t, machinetest.Options{Files: map[string]string{
		"/etc/docker/daemon.json": `{"debug": true, "labels": ["old=1"]}`,
	}})
	settings := provision.Settings{
		Owner: "feed", Linger: time.Hour,
		Before: "#!/bin/bash\nset -e\n[[ $TRANTER_MACHINE == machine-* ]]\nid -u >/before; echo $http_proxy >>/before; echo \"it's noise\"",
		After:  "[ -S /var/run/docker.sock ] && touch /after",
		Ready:  "test -e /after && test -e /before",
		GPU:    "true",
		Proxy:  provision.ProxySettings{HTTP: "http://proxy.example:3128", No: "localhost,it's"},
		Engine: provision.EngineSettings{
			Mirrors: []string{"http://mirror.example:5000"}, Labels: []string{"kind=test"}, Options: []string{"max-concurrent-downloads=7"},
			Insecure: []string{"registry.example:5000"},
		},
	}
	h, kept, steps := open(t, m, settings, nil)
	if want := []string{"login", "deadline", "before", "configure", "engine", "after", "ready", "gpu"}; !slices.Equal(steps, want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
	for _, want := range []string{`"kind=test"`, "http://mirror.example:5000", `"registry.example:5000"`, `"Debug":true`} {
		if info := ask(t, h, "/info"); !strings.Contains(info, want) {
			t.Errorf("the engine does not have %s: %s", want, info)
		}
	}
	if got := run(t, h, "cat /before"); got != "0\nhttp://proxy.example:3128" {
		t.Errorf("before: %q", got)
	}
	if got := run(t, h, "ls -ld /run/tranter"); !strings.HasPrefix(got, "drwx------") {
		t.Errorf("the state directory is %s", got)
	}
	if got := h.Environment(); !slices.Contains(got, "DOCKER_HOST=ssh://root@"+m.Address+":22") {
		t.Errorf("environment %q", got)
	}
	before := run(t, h, "cat /run/tranter/deadline; kill -9 $(cat /run/tranter/watch.pid)")
	settings.Linger = 2 * time.Hour
	h, again, steps := open(t, m, settings, kept)
	if want := []string{"login", "deadline", "engine"}; !slices.Equal(steps, want) || !bytes.Equal(kept, again) {
		t.Errorf("steps %q, want %q; %s, %s", steps, want, kept, again)
	}
	if after := run(t, h, "cat /run/tranter/deadline"); after <= before {
		t.Errorf("the deadline went from %s to %s", before, after)
	}
	run(t, h, "n=0; until kill -0 $(cat /run/tranter/watch.pid); do n=$((n+1)); [ $n -lt 50 ]; sleep 0.1; done")

	t.Run("another manager does not get it", func(t *testing.T) {
		settings := settings
		settings.Owner = "c0ffee"
		_, _, err := provision.New(settings, provision.Options{}).Open(limited(t, time.Minute), machineOf(m), nil, nil)
		if held, ok := errors.AsType[*provision.HeldError](err); !ok || held.Owner != "feed" || held.For < time.Hour {
			t.Errorf("error %v", err)
		}
		run(t, h, "echo feed 5 >/run/tranter/owner") // as if its hold had ended long ago
		open(t, m, settings, kept)
		if err := h.Check(limited(t, time.Minute)); err == nil || !strings.Contains(err.Error(), "c0ffee") {
			t.Errorf("the first owner: error %v", err)
		}
		run(t, h, "rm /run/tranter/owner")
	})
	t.Run("a lost connection is made anew", func(t *testing.T) {
		for range 2 {
			h.Run(limited(t, 30*time.Second), "kill -9 $PPID", nil, nil, nil)
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					if err := h.Check(limited(t, time.Minute)); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		}
	})
	t.Run("an address is reached from it", func(t *testing.T) {
		conn, err := h.Reach(limited(t, time.Minute), "tcp", "127.0.0.1:22")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, "SSH-2.0") {
			t.Errorf("it says %q, %v", line, err)
		}
	})
	t.Run("another machine at its address is not taken for it", func(t *testing.T) {
		other := machinetest.Start(t, machinetest.Options{Image: machinetest.Bare(t)})
		_, _, err := provision.New(settings, provision.Options{}).Open(limited(t, time.Minute), machineOf(other), kept, nil)
		if e, ok := errors.AsType[*remote.HostKeyError](err); !ok || !e.Pinned {
			t.Errorf("error %v", err)
		}
	})
}

func TestAMachineWhoseEngineIsReachedByTLS(t *testing.T) {
	t.Parallel()
	m := machinetest.Start(t, machinetest.Options{})
	settings := provision.Settings{Owner: "feed", Linger: time.Hour, Engine: provision.EngineSettings{TLS: true, ExtraNames: []string{"more.example"}}}
	h, kept, steps := open(t, m, settings, nil)
	if want := []string{"certificates", "login", "deadline", "configure", "engine"}; !slices.Equal(steps, want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
	if info := ask(t, h, "/info"); !strings.Contains(info, `"ServerVersion"`) {
		t.Errorf("the engine says %s", info)
	}
	for line := range strings.Lines(run(t, h, "ls -l /etc/docker/*.pem")) {
		if !strings.HasPrefix(line, "-rw-------") {
			t.Errorf("others may read %s", line)
		}
	}
	if got := run(t, h, "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"); strings.Contains(got, "PRIVATE KEY") {
		t.Error("a key is in a command line")
	}
	plain := &http.Client{Timeout: 10 * time.Second}
	if answer, err := plain.Get("https://" + m.Address + ":2376/_ping"); err == nil {
		answer.Body.Close()
		t.Error("anybody may talk to the engine")
	}
	if got := h.Environment(); !slices.Contains(got, "DOCKER_HOST=tcp://"+m.Address+":2376") {
		t.Errorf("environment %q", got)
	}
	if authority, certificate, key := h.Certificates(); authority == "" || certificate == "" || key == "" {
		t.Error("there are no certificates")
	}
	h, _, _ = open(t, m, settings, kept)
	if err := h.Check(limited(t, time.Minute)); err != nil {
		t.Error(err)
	}
}

func TestAMachineEndsItselfWhenNobodyChecks(t *testing.T) {
	t.Parallel()
	m := machinetest.Start(t, machinetest.Options{})
	h, _, _ := open(t, m, provision.Settings{Owner: "feed", Linger: 6 * time.Second}, nil) // a check takes seconds on a busy host
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for range 7 { // longer than it lingers
		<-tick.C
		if err := h.Check(limited(t, 30*time.Second)); err != nil {
			t.Fatalf("it did not live on: %v", err)
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	for h.Run(limited(t, 2*time.Second), "true", nil, nil, nil) == nil {
		if time.Now().After(deadline) {
			t.Fatal("it lives on without a check")
		}
		<-tick.C
	}
}

func TestWhatFailsWhileAMachineIsMadeReady(t *testing.T) {
	t.Parallel()
	m := machinetest.Start(t, machinetest.Options{})
	full := "mkdir -p /etc/docker && mount -t tmpfs -o size=4k none /etc/docker && head -c 8192 /dev/zero >/etc/docker/full; true"
	for _, c := range []struct {
		name  string
		s     provision.Settings
		limit time.Duration
		says  []string
	}{
		{"before", provision.Settings{Before: "echo oh; echo dear >&2; exit 4"}, time.Minute, []string{"step before", "status 4", "oh", "dear"}},
		{"an interpreter that is not there", provision.Settings{Before: "#!/no/such/shell -x\n"}, time.Minute, []string{"step before", "/no/such/shell"}},
		{"after", provision.Settings{After: "kill -9 $$"}, time.Minute, []string{"step after", "status 137"}},
		{"never ready", provision.Settings{Ready: "echo not yet; false"}, 4 * time.Second, []string{"after engine", "not yet", "not over in time"}},
		{"no device", provision.Settings{GPU: "nvidia-smi-is-not-here"}, time.Minute, []string{"step gpu", "status 127", "nvidia-smi-is-not-here"}},
		{"a disk that is full", provision.Settings{Before: full, Engine: provision.EngineSettings{TLS: true}}, time.Minute, []string{"step certificates", "cannot write /etc/docker/", "disk full", "No space left"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), c.limit)
			defer cancel()
			_, _, err := provision.New(c.s, provision.Options{}).Open(ctx, machineOf(m), nil, nil)
			if _, ok := errors.AsType[*provision.StepError](err); !ok {
				t.Fatalf("error %v", err)
			}
			for _, want := range c.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}
