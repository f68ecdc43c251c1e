package spec

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/variables"
)

// NetworkRequest is a network to be made for the job.
type NetworkRequest struct {
	Name    string
	Options client.NetworkCreateOptions
}

// Network returns the network that the job gets for itself, or nil (runner contract, section 9.10).
func (s *Spec) Network() *NetworkRequest {
	if !s.net.own {
		return nil
	}
	r := &NetworkRequest{Name: string(s.net.mode), Options: client.NetworkCreateOptions{
		Driver: network.NetworkBridge, EnableIPv6: &s.job.in.Settings.EnableIPv6, Labels: s.labels.of(nil),
	}}
	if mtu := s.job.in.Settings.NetworkMTU; mtu > 0 {
		r.Options.Options = map[string]string{"com.docker.network.driver.mtu": strconv.Itoa(mtu)}
	}
	return r
}

// macVersion is the engine's API since which a container's MAC address belongs to its network.
const macVersion = 44

// networking is how the job's containers are connected.
type networking struct {
	*job

	mode   container.NetworkMode
	own    bool // the network is made for the job
	linked bool // names of services come from hosts entries
	mac    network.HardwareAddr
	dns    []netip.Addr
}

func (n *networking) compile() error {
	d := n.in.Settings
	n.mode = container.NetworkMode(d.NetworkMode)
	if d.NetworkMode == "" && n.in.Flags["FF_NETWORK_PER_BUILD"] {
		n.own = true
		n.mode = container.NetworkMode(variables.NetworkName(n.in.Runner.ShortToken, n.in.Job.Info.ProjectID, n.in.Slots.Project, n.in.Job.ID))
	}
	n.linked = n.mode == "" || n.mode == network.NetworkDefault || n.mode == network.NetworkBridge
	for _, text := range d.DNS {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return invalid("dns", fmt.Errorf("%q is not an IP address", text))
		}
		n.dns = append(n.dns, a)
	}
	if n.in.Podman && len(n.links()) > 0 {
		return invalid("links", errors.New("Podman has no links; put the containers into one network with network_mode")) //nolint:staticcheck // a name
	}
	if err := n.compileMAC(); err != nil {
		return err
	}
	n.warnOfNetwork()
	return nil
}

func (n *networking) compileMAC() error {
	text := n.in.Settings.MACAddress
	if text == "" {
		return nil
	}
	mac, err := net.ParseMAC(text)
	if err != nil {
		return invalid("mac_address", fmt.Errorf("%q is not a MAC address: write it as 92:d0:c6:0a:29:33", text))
	}
	switch {
	case !apiAtLeast(n.in.API, macVersion):
		n.warn("mac_address in [runners.docker] has no effect: it needs an engine with API 1.%d, this one has %s.", macVersion, n.in.API)
	case n.mode.IsHost() || n.mode.IsContainer() || n.mode.IsNone():
		n.warn("mac_address in [runners.docker] has no effect with network_mode = %q.", string(n.mode))
	default:
		n.mac = network.HardwareAddr(mac)
	}
	return nil
}

// warnOfNetwork tells what is left out because the engine refuses it in this mode.
func (n *networking) warnOfNetwork() {
	d := n.in.Settings
	var left []string
	shares := n.mode.IsContainer()
	for _, key := range []struct {
		name     string
		set, off bool
	}{
		{"hostname", d.Hostname != "", shares},
		{"dns", len(d.DNS) > 0, shares},
		{"extra_hosts", len(d.ExtraHosts) > 0, shares},
		{"links", len(d.Links) > 0, shares || n.mode.IsHost() || n.mode.IsNone()},
	} {
		if key.set && key.off {
			left = append(left, key.name)
		}
	}
	if len(left) > 0 {
		n.warn("With network_mode = %q in [runners.docker], these have no effect: %s.", string(n.mode), strings.Join(left, ", "))
	}
}

// apiAtLeast says whether an API version is 1.minor or later; one that can't be read is the latest.
func apiAtLeast(version string, minor int) bool {
	major, rest, ok := strings.Cut(version, ".")
	n, err := strconv.Atoi(rest)
	return !ok || err != nil || major != "1" || n >= minor
}

// userDefined says whether the network is one that somebody has made, which resolves names of containers.
func (n *networking) userDefined() bool {
	return !n.linked && !n.mode.IsHost() && !n.mode.IsNone() && !n.mode.IsContainer()
}

// byHosts says whether the names of services come from hosts entries. On Podman they do on every network: it resolves names
// only where a plugin of its networks for that is installed.
func (n *networking) byHosts() bool { return n.linked || n.in.Podman && n.userDefined() }

// endpoint returns how a container is known on the network; nil: as the engine wants it.
func (n *networking) endpoint(aliases []string, mac network.HardwareAddr, links []string) *network.NetworkingConfig {
	e := &network.EndpointSettings{MacAddress: mac}
	name := string(n.mode)
	if name == "" {
		name = network.NetworkDefault
	}
	if n.userDefined() {
		e.Aliases, e.Links = aliases, links
	} else if mac == nil {
		return nil
	}
	return &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{name: e}}
}

// setNetwork fills in what is about the network, and leaves out what the engine refuses in this mode.
func (s *Spec) setNetwork(c *container.Config, h *container.HostConfig, hosts []Host) {
	h.NetworkMode = s.net.mode
	if s.net.mode.IsContainer() {
		c.Hostname = ""
		return
	}
	h.DNS, h.DNSSearch = s.net.dns, s.job.in.Settings.DNSSearch
	h.ExtraHosts = slices.Concat(s.job.in.Settings.ExtraHosts, s.hostEntries(hosts))
}

// links returns the containers that are linked in, where that is possible.
func (n *networking) links() []string {
	if n.mode.IsContainer() || n.mode.IsHost() || n.mode.IsNone() {
		return nil
	}
	return n.in.Settings.Links
}

// shortID is how many characters of a container's id are its own host name.
const shortID = 12

// HostLines returns lines of the hosts file for the services that run, where the network does not know their names: for a
// container that was made before them.
func (s *Spec) HostLines(hosts []Host) []string {
	entries := s.hostEntries(hosts)
	for i, e := range entries {
		name, address, _ := strings.Cut(e, ":")
		entries[i] = address + "\t" + name
	}
	return entries
}

// hostEntries returns entries of the hosts file for the services that run, where the network does not know their names.
func (s *Spec) hostEntries(hosts []Host) []string {
	var out []string
	if !s.Linked && !s.net.mode.IsHost() {
		return nil
	}
	for _, h := range hosts {
		if h.Service < 0 || h.Service >= len(s.Services) {
			continue
		}
		names, addresses := s.Services[h.Service].Aliases, h.Addresses
		if s.net.mode.IsHost() { // where all listen on the same addresses
			addresses = []string{"127.0.0.1"}
		} else if h.ID != "" {
			names = append(slices.Clone(names), cut(h.ID, shortID))
		}
		for _, address := range addresses {
			for _, name := range names {
				out = append(out, name+":"+address)
			}
		}
	}
	return out
}
