package static_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/provider/providertest"
	"github.com/tranter-ci/tranter/internal/provider/static"
)

var (
	_ tranter.Provider = (*static.Provider)(nil)
	_ tranter.Checker  = (*static.Provider)(nil)
)

// port is one that answers on this machine, or no longer does.
func port(t *testing.T, open bool) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if open {
		t.Cleanup(func() { l.Close() })
	} else {
		l.Close()
	}
	return l.Addr().(*net.TCPAddr).Port
}

func host(name, address string, port int) static.Host {
	return static.Host{Name: name, Login: tranter.Login{Host: address, Port: port}}
}

func create(p *static.Provider, name string) (tranter.Machine, error) {
	return p.Create(context.Background(), tranter.MachineSpec{Name: name}, nil)
}

func TestHostsAreGivenOutByName(t *testing.T) {
	up, away := host("build-1", "127.0.0.1", port(t, true)), host("build-2", "127.0.0.1", port(t, false))
	up.Login.User, up.Login.Identity, up.Capacity = "ci", "/keys/ci", 4
	p, err := static.New(static.Options{Hosts: []static.Host{up, away}})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Names(); !slices.Equal(got, []string{"build-1", "build-2"}) {
		t.Errorf("names %v", got)
	}
	got, err := create(p, "build-1")
	want := tranter.Machine{Name: "build-1", ID: got.ID, Power: tranter.PowerOn, Login: up.Login, Ref: got.Ref}
	if diff := cmp.Diff(want, got); err != nil || diff != "" || !strings.HasPrefix(got.ID, "127.0.0.1:") {
		t.Errorf("%v %s\n%s", err, got.ID, diff)
	}
	if got, err := create(p, "build-2"); err != nil || got.Power != tranter.PowerUnknown {
		t.Errorf("one that does not answer: %+v %v", got, err)
	}
	if _, err := create(p, "build-3"); !errors.Is(err, tranter.ErrRejected) || !strings.Contains(err.Error(), `"build-3"`) {
		t.Errorf("one that is not configured: %v", err)
	}
}

func TestNothingIsEverRemoved(t *testing.T) {
	p, err := static.New(static.Options{Hosts: []static.Host{host("a", "127.0.0.1", port(t, true)), host("b", "127.0.0.1", port(t, false))}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "a", "unknown"} {
		if err := p.Destroy(t.Context(), tranter.MachineRef{Name: name}); err != nil {
			t.Error(err)
		}
	}
	machines, err := p.List(t.Context(), tranter.Mark{}, []tranter.MachineRef{{Name: "gone from the configuration"}})
	power := map[string]tranter.Power{}
	for _, m := range machines {
		power[m.Name] = m.Power
	}
	want := map[string]tranter.Power{"a": tranter.PowerOn, "b": tranter.PowerUnknown}
	if diff := cmp.Diff(want, power); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

// Its jobs come to their end before it is given up.
func TestAHostThatIsNotConfiguredAnyMoreIsThereUntilItIsDestroyed(t *testing.T) {
	a, b := host("a", "127.0.0.1", port(t, true)), host("b", "127.0.0.1", port(t, true))
	before, err := static.New(static.Options{Hosts: []static.Host{a, b}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := create(before, "b")
	if err != nil {
		t.Fatal(err)
	}
	after, err := static.New(static.Options{Hosts: []static.Host{a}})
	if err != nil {
		t.Fatal(err)
	}
	machines, err := after.List(t.Context(), tranter.Mark{}, []tranter.MachineRef{{Name: "a"}, {Name: "b", Ref: m.Ref}})
	if err != nil || len(machines) != 2 || cmp.Diff(m, machines[1]) != "" {
		t.Errorf("%v %+v", err, machines)
	}
	if machines, err := after.List(t.Context(), tranter.Mark{}, nil); err != nil || len(machines) != 1 {
		t.Errorf("once it is not known any more: %v %+v", err, machines)
	}
}

func TestWhatEveryProviderMustDo(t *testing.T) {
	hosts := []static.Host{host("a", "127.0.0.1", port(t, true)), host("b", "127.0.0.1", port(t, true))}
	providertest.Run(t, providertest.Subject{
		New: func(t testing.TB) tranter.Provider {
			p, err := static.New(static.Options{Hosts: hosts})
			if err != nil {
				t.Fatal(err)
			}
			return p
		},
		Alive: func(_ testing.TB, name string) bool { return name == "a" || name == "b" },
		Fixed: []string{"a", "b"},
	})
}

// An address from which nothing ever comes back.
func TestAHostThatSwallowsPacketsIsNotWaitedForLong(t *testing.T) {
	var hosts []static.Host
	for _, n := range []string{"a", "b", "c", "d"} {
		hosts = append(hosts, host(n, "192.0.2.1", 1+len(hosts)))
	}
	p, err := static.New(static.Options{Hosts: hosts, Wait: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	machines, err := p.List(t.Context(), tranter.Mark{}, nil)
	if took := time.Since(began); took > 10*time.Second || err != nil || len(machines) != 4 || machines[0].Power != tranter.PowerUnknown {
		t.Errorf("%v after %s: %+v", err, took, machines)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if _, err := p.List(ended, tranter.Mark{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

func TestHostsThatCanNotBe(t *testing.T) {
	for _, c := range []struct {
		name  string
		hosts []static.Host
		want  string
	}{
		{"none", nil, "at least one is needed"},
		{"no name", []static.Host{host("", "h", 0)}, `host 1: its name is ""`},
		{"a name with blanks", []static.Host{host("a", "g", 0), host("a b", "h", 0)}, `host 2: its name is "a b"`},
		{"a name like a flag", []static.Host{host("-a", "h", 0)}, `its name is "-a"`},
		{"no address", []static.Host{host("a", "", 0)}, `a has the address ""`},
		{"an address like a flag", []static.Host{host("a", "-oProxyCommand=x", 0)}, "expected a host name"},
		{"a user in the address", []static.Host{host("a", "u@h", 0)}, "expected a host name"},
		{"port", []static.Host{host("a", "h", 65536)}, "a has the port 65536"},
		{"capacity", []static.Host{{Name: "a", Login: tranter.Login{Host: "h"}, Capacity: -1}}, "a has the capacity -1"},
		{"one name twice", []static.Host{host("a", "g", 0), host("A", "h", 0)}, "host 2: there is another host A"},
		{"one address twice", []static.Host{host("a", "H", 0), host("b", "h", 22)}, "host b: h:22 is the address of host a too"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := static.New(static.Options{Hosts: c.hosts})
			if _, ok := errors.AsType[*tranter.ConfigError](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

func TestAKeyThatIsMissingIsFoundBefore(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "key")
	good, bad := host("a", "g", 0), host("b", "h", 0)
	bad.Login.Identity = missing
	for _, c := range []struct {
		hosts []static.Host
		want  string
	}{{[]static.Host{good}, ""}, {[]static.Host{good, bad}, "key of host b: open " + missing}} {
		p, err := static.New(static.Options{Hosts: c.hosts})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(t.Context()); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
