package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/moby/client"
)

// Gateway returns the address at which machines reach the host of their engine. The network is made if it is not there.
func (p *Provider) Gateway(ctx context.Context) (string, error) {
	api, err := p.api(ctx)
	if err != nil {
		return "", err
	}
	id, err := ensureNetwork(ctx, api, p.options.Network, p.subnet)
	if err != nil {
		return "", fmt.Errorf("make the network of machines: %w", err)
	}
	found, err := api.NetworkInspect(ctx, id, client.NetworkInspectOptions{})
	if err != nil {
		return "", fmt.Errorf("look at the network of machines: %w", err)
	}
	for _, c := range found.Network.IPAM.Config {
		if c.Gateway.IsValid() {
			return c.Gateway.String(), nil
		}
	}
	return "", errors.New("the network of machines has no gateway")
}
