package container

import (
	"net/netip"
	"os"
	"strings"
)

// nameservers returns the variable that tells a machine which name servers its engine's containers are to ask. Without it
// they would ask public ones: what a machine asks itself is an address inside of it, where its containers can't reach it.
// It is nothing if the engine is elsewhere, or this machine has none that others can ask.
func nameservers(local bool) []string {
	if !local {
		return nil
	}
	for _, path := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if found := reachableNameservers(string(data)); len(found) > 0 {
			return []string{"TRANTER_NAMESERVERS=" + strings.Join(found, " ")}
		}
	}
	return nil
}

// reachableNameservers reads those of a resolv.conf that are no addresses of the machine for itself.
func reachableNameservers(text string) []string {
	var found []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		const enough = 3 // resolvers use no more
		if len(fields) < 2 || fields[0] != "nameserver" || len(found) == enough {
			continue
		}
		if at, err := netip.ParseAddr(fields[1]); err == nil && at.Zone() == "" && !at.IsLoopback() && !at.IsUnspecified() {
			found = append(found, at.String())
		}
	}
	return found
}
