package container

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	tranter "github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

func TestErrorsAreOfAKind(t *testing.T) {
	const full, wrong = "no capacity", "rejected"
	for text, want := range map[string]string{
		"write /var/lib/docker/x: no space left on device":                          full,
		"fork/exec /proc/self/exe: cannot allocate memory":                          full,
		"no available IPv4 addresses on this network's address pools: x":            full,
		"all predefined address pools have been fully subnetted":                    full,
		"adding interface vethx to bridge br-1 failed: exchange full":               full,
		"Minimum memory limit allowed is 6MB":                                       wrong,
		"OCI runtime create failed: unable to apply caps: operation not permitted":  wrong,
		"Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available":    wrong,
		"exec: \"/sbin/init\": stat /sbin/init: no such file or directory: unknown": wrong,
		"the engine has had enough":                                                 "",
	} {
		err := classed(errors.New(text), "create the machine m")
		got := ""
		switch {
		case errors.Is(err, tranter.ErrNoCapacity):
			got = full
		case errors.Is(err, tranter.ErrRejected):
			got = wrong
		}
		if got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
		if !strings.Contains(err.Error(), "create the machine m: ") {
			t.Errorf("%v does not say what was done", err)
		}
	}
	for _, err := range []error{fmt.Errorf("no such image: %w", errdefs.ErrNotFound), fmt.Errorf("x: %w", errdefs.ErrInvalidArgument), &MissingError{}} {
		if got := classed(err, "x"); !errors.Is(got, tranter.ErrRejected) || !errors.Is(got, err) {
			t.Errorf("%v", got)
		}
	}
	if err := classed(nil, "x"); err != nil {
		t.Error(err)
	}
}

func TestProgramsThatAreMissingAreNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := machineFiles()
	missing, ok := errors.AsType[*MissingError](err)
	if !ok {
		t.Fatalf("error %v", err)
	}
	for _, program := range []string{"containerd", "bash", "ssh-keygen", "busybox"} {
		if !slices.Contains(missing.Programs, program) {
			t.Errorf("%s is not among %v", program, missing.Programs)
		}
	}
	if slices.Contains(missing.Programs, "docker") {
		t.Error("docker is not needed")
	}
	if says := "apt-get install bash busybox-static containerd"; !strings.Contains(err.Error(), says) {
		t.Errorf("%q does not say %q", err, says)
	}
}

func TestTheSameFilesAreTheSameImage(t *testing.T) {
	files, err := machineFiles()
	if err != nil {
		t.Fatal(err)
	}
	small := slices.DeleteFunc(slices.Clone(files), func(f file) bool { return f.size > 1<<20 })
	first, err := contentHash(small)
	if again, err := contentHash(small); err != nil || again != first {
		t.Errorf("%q, then %q, error %v", first, again, err)
	}
	if err != nil || len(first) != 12 {
		t.Fatalf("%q, error %v", first, err)
	}
	small[len(small)-1].mode ^= 0o100
	if second, err := contentHash(small); err != nil || second == first {
		t.Errorf("%q, error %v", second, err)
	}
	seen := map[string]bool{}
	for _, f := range files {
		parent := f.name[:strings.LastIndex(strings.TrimSuffix(f.name, "/"), "/")+1]
		if seen[f.name] || parent != "" && !seen[parent] {
			t.Errorf("%s is there twice, or before its directory", f.name)
		}
		seen[f.name] = true
	}
	for _, name := range []string{"usr/sbin/init", "usr/sbin/dockerd", "usr/bin/sh", "usr/bin/grep", "usr/sbin/iptables", "etc/ssh/sshd_config"} {
		if !seen[name] {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestAFileThatShrinksIsNoticed(t *testing.T) {
	path := t.TempDir() + "/f"
	if err := os.WriteFile(path, []byte("four"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := file{name: "f", mode: 0o644, from: path, size: 5}
	if err := writeTar(io.Discard, []file{f}); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("error %v", err)
	}
	f.size = 3
	var out bytes.Buffer
	if err := writeTar(&out, []file{f}); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&out)
	head, err := r.Next()
	data, _ := io.ReadAll(r)
	if err != nil || head.Name != "f" || head.Mode != 0o644 || string(data) != "fou" {
		t.Errorf("%+v %q, error %v", head, data, err)
	}
}

func TestNameServersThatOthersCanAsk(t *testing.T) {
	text := "# a comment\nnameserver 127.0.0.53\nnameserver 10.0.0.1 # x\nnameserver\nnameserver fe80::1%eth0\nnameserver ::1\n" +
		"search a b\nnameserver 2001:db8::1\nnameserver nonsense; rm -rf /\nnameserver 10.0.0.2\nnameserver 10.0.0.3"
	if got := strings.Join(reachableNameservers(text), " "); got != "10.0.0.1 2001:db8::1 10.0.0.2" {
		t.Errorf("%q", got)
	}
	if got := nameservers(false); len(got) > 0 {
		t.Errorf("%v for an engine that is elsewhere", got)
	}
}

func FuzzNameServers(f *testing.F) {
	f.Add("nameserver 10.0.0.1\nnameserver ::1")
	f.Add("nameserver\t1.2.3.4 ; x\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		found := reachableNameservers(text)
		if len(found) > 3 {
			t.Errorf("%q: %d servers", text, len(found))
		}
		for _, server := range found { // they become arguments of a program
			if _, err := netip.ParseAddr(server); err != nil || strings.ContainsAny(server, " \n") {
				t.Errorf("%q: %q", text, server)
			}
		}
	})
}

func FuzzSizes(f *testing.F) {
	for _, seed := range []string{"2g", "512m", "1.5", "1e9", "-1", "0", "1/2", ".5", "0x10", "99999999999999999999"} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, memory, cpus string) {
		s, err := (size{}).with(memory, cpus)
		if err == nil && (s.memory < 0 || s.nanos < 0 || memory != "" && s.memory == 0) {
			t.Errorf("%q, %q: %+v", memory, cpus, s)
		}
	})
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"1.5": 15e8, ".25": 25e7, "2": 2e9, "0x10": -1, "1e3": -1, "0": -1, "1/2": -1, "1.2.3": -1, "99999999": -1} {
		s, err := (size{}).with("", text)
		if want < 0 && err == nil || want >= 0 && (err != nil || s.nanos != want) {
			t.Errorf("cpus %q: %d, error %v; want %d", text, s.nanos, err, want)
		}
	}
	s, err := (size{memory: 1, nanos: 2}).with("2g", "")
	if err != nil || s.memory != 2<<30 || s.nanos != 2 {
		t.Errorf("%+v, error %v", s, err)
	}
}

func TestAnImageThatIsGoneIsMadeAgain(t *testing.T) {
	p, err := New(Options{Host: enginetest.Host(t), Dir: t.TempDir(), Network: "bridge"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.image = "tranter-machine:gone"
	name := "again-" + strings.ToLower(rand.Text()[:8])
	defer func() {
		if err := p.Destroy(context.WithoutCancel(t.Context()), tranter.MachineRef{Name: name}); err != nil {
			t.Error(err)
		}
	}()
	if _, err := p.Create(t.Context(), tranter.MachineSpec{Name: name}, func(json.RawMessage) {}); err != nil {
		t.Fatal(err)
	}
	if p.image == "tranter-machine:gone" {
		t.Error("it still is thought to be there")
	}
}
