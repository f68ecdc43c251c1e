package container

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// ensureNetwork returns the id of the bridge called name; it is made if it is not there, with the subnet if that is valid.
// Of two processes that make it at the same time, both get the older one.
func ensureNetwork(ctx context.Context, api *client.Client, name string, subnet netip.Prefix) (string, error) {
	id, err := oldestNetwork(ctx, api, name)
	if err != nil || id != "" {
		return id, err
	}
	options := client.NetworkCreateOptions{Driver: "bridge", Labels: map[string]string{labelMachine + ".network": "1"}}
	if subnet.IsValid() {
		options.IPAM = &network.IPAM{Config: []network.IPAMConfig{{Subnet: subnet}}}
	}
	made, err := api.NetworkCreate(ctx, name, options)
	if err != nil {
		return otherNetwork(ctx, api, name, err)
	}
	id, err = oldestNetwork(ctx, api, name)
	if err == nil && id != made.ID && id != "" {
		if _, err := api.NetworkRemove(ctx, made.ID, client.NetworkRemoveOptions{}); err != nil && !engine.Missing(err) {
			return "", err
		}
	}
	return id, err
}

// otherNetwork returns the id of the network that somebody else makes at this moment: an engine refuses a second one of
// that subnet before it lists the first. If none comes, the error is cause.
func otherNetwork(ctx context.Context, api *client.Client, name string, cause error) (string, error) {
	const tries, pause = 20, 50 * time.Millisecond
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for range tries {
		if id, err := oldestNetwork(ctx, api, name); err == nil && id != "" {
			return id, nil
		}
		select {
		case <-ctx.Done():
			return "", cause
		case <-tick.C:
		}
	}
	return "", cause
}

// oldestNetwork returns the id of the network called name that all agree on; empty if there is none.
func oldestNetwork(ctx context.Context, api *client.Client, name string) (string, error) {
	all, err := api.NetworkList(ctx, client.NetworkListOptions{Filters: make(client.Filters).Add("name", name)})
	if err != nil {
		return "", err
	}
	found := slices.DeleteFunc(all.Items, func(n network.Summary) bool { return n.Name != name })
	if len(found) == 0 {
		return "", nil
	}
	oldest := slices.MinFunc(found, func(a, b network.Summary) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	if oldest.Driver != "bridge" {
		return "", fmt.Errorf("a network of that name is there, and its driver is %q instead of bridge", oldest.Driver)
	}
	return oldest.ID, nil
}
