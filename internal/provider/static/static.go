// Package static provides machines that are there already: hosts from the configuration. None is ever created or removed;
// what Create gives out is the host of that name, and what Destroy does is nothing.
package static

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter"
)

// Host is one machine of the configuration.
type Host struct {
	Name     string // letters, digits, dashes and dots; unique
	Login    tranter.Login
	Capacity int // jobs at once; 0: as many as the pool says
}

// Options say which hosts there are.
type Options struct {
	Hosts []Host
	Wait  time.Duration // at most, for a host's SSH port to answer; 0: two seconds
}

const (
	defaultWait = 2 * time.Second
	// probes is how many hosts are asked at the same time.
	probes  = 32
	sshPort = 22
	maxName = 253
	maxPort = 65535
)

// Provider gives out the hosts of a configuration. It is a tranter.Provider and a tranter.Checker.
type Provider struct {
	hosts []Host
	wait  time.Duration
}

// New returns a Provider of o's hosts. All that is wrong with them is in the error, a *tranter.ConfigError.
func New(o Options) (*Provider, error) {
	var wrong []error
	if len(o.Hosts) == 0 {
		wrong = append(wrong, errors.New("no hosts: at least one is needed"))
	}
	names, addresses := map[string]bool{}, map[string]string{}
	for i, h := range o.Hosts {
		if err := h.check(); err != nil {
			wrong = append(wrong, fmt.Errorf("host %d: %w", i+1, err))
			continue
		}
		if name := strings.ToLower(h.Name); names[name] {
			wrong = append(wrong, fmt.Errorf("host %d: there is another host %s", i+1, h.Name))
		} else {
			names[name] = true
		}
		// Two names for one machine would put two machines' jobs on it.
		address := h.address()
		if other, ok := addresses[address]; ok {
			wrong = append(wrong, fmt.Errorf("host %s: %s is the address of host %s too", h.Name, address, other))
		}
		addresses[address] = h.Name
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, &tranter.ConfigError{Err: err}
	}
	return &Provider{hosts: slices.Clone(o.Hosts), wait: cmp.Or(o.Wait, defaultWait)}, nil
}

func (h Host) check() error {
	switch {
	case h.Name == "" || len(h.Name) > maxName || strings.Trim(h.Name, nameCharacters) != "" || strings.HasPrefix(h.Name, "-"):
		return fmt.Errorf("its name is %q: expected letters, digits, dashes and dots", h.Name)
	case h.Login.Host == "" || strings.ContainsAny(h.Login.Host, " \t\r\n/@") || strings.HasPrefix(h.Login.Host, "-"):
		return fmt.Errorf("%s has the address %q: expected a host name or an IP address", h.Name, h.Login.Host)
	case h.Login.Port < 0 || h.Login.Port > maxPort:
		return fmt.Errorf("%s has the port %d: expected 1 to %d", h.Name, h.Login.Port, maxPort)
	case h.Capacity < 0:
		return fmt.Errorf("%s has the capacity %d: expected 1 or more", h.Name, h.Capacity)
	}
	return nil
}

const nameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."

// address is where the host's SSH server listens.
func (h Host) address() string {
	return net.JoinHostPort(strings.ToLower(strings.Trim(h.Login.Host, "[]")), strconv.Itoa(cmp.Or(h.Login.Port, sshPort)))
}

// Names returns the hosts' names, in the order of the configuration.
func (p *Provider) Names() []string {
	names := make([]string, len(p.hosts))
	for i, h := range p.hosts {
		names[i] = h.Name
	}
	return names
}

// Check says whether the key files of the hosts are there and can be read. It does not ask the hosts: one that is away may
// come back.
func (p *Provider) Check(context.Context) error {
	var wrong []error
	for _, h := range p.hosts {
		if h.Login.Identity == "" {
			continue
		}
		f, err := os.Open(h.Login.Identity)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("key of host %s: %w", h.Name, err))
			continue
		}
		f.Close()
	}
	if err := errors.Join(wrong...); err != nil {
		return &tranter.ConfigError{Err: err}
	}
	return nil
}

// Create returns the host that is called spec.Name, whether it answers or not: what waits for that is provisioning.
func (p *Provider) Create(ctx context.Context, spec tranter.MachineSpec, _ func(json.RawMessage)) (tranter.Machine, error) {
	i := p.find(spec.Name)
	if i < 0 {
		return tranter.Machine{}, fmt.Errorf("there is no host %q in the configuration: %w", spec.Name, tranter.ErrRejected)
	}
	return p.look(ctx, p.hosts[i]), ctx.Err()
}

func (p *Provider) find(name string) int {
	return slices.IndexFunc(p.hosts, func(h Host) bool { return h.Name == name })
}

// Destroy has nothing to do: the host stays what it is.
func (p *Provider) Destroy(context.Context, tranter.MachineRef) error { return nil }

// List returns all hosts, and those of known that are not configured any more: they are there until they are destroyed, and
// may have jobs. It tries each one's SSH port: a host that does not answer, or is reached only through another, has
// PowerUnknown.
func (p *Provider) List(ctx context.Context, _ tranter.Mark, known []tranter.MachineRef) ([]tranter.Machine, error) {
	hosts := slices.Clip(p.hosts)
	for _, m := range known {
		var h Host
		if p.find(m.Name) < 0 && json.Unmarshal(m.Ref, &h) == nil && h.Name == m.Name && h.check() == nil {
			hosts = append(hosts, h)
		}
	}
	machines := make([]tranter.Machine, len(hosts))
	var group errgroup.Group
	group.SetLimit(probes)
	for i, h := range hosts {
		group.Go(func() error {
			machines[i] = p.look(ctx, h)
			return nil
		})
	}
	_ = group.Wait() // none fails
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list the hosts: %w", err)
	}
	return machines, nil
}

// look says how a host stands.
func (p *Provider) look(ctx context.Context, h Host) tranter.Machine {
	m := tranter.Machine{Name: h.Name, ID: h.address(), Power: tranter.PowerUnknown, Login: h.Login}
	if ref, err := json.Marshal(h); err == nil { // for the day when the configuration does not have it any more
		m.Ref = ref
	}
	ctx, stop := context.WithTimeout(ctx, p.wait)
	defer stop()
	var d net.Dialer
	if conn, err := d.DialContext(ctx, "tcp", h.address()); err == nil {
		_ = conn.Close()
		m.Power = tranter.PowerOn
	}
	return m
}
