package enginetest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/client"
)

// Clean fails the test for every container, network and volume on the engine at host that has all the labels, each
// "name" or "name=value".
func Clean(t testing.TB, host string, labels ...string) {
	t.Helper()
	api := Client(t, host)
	filters := make(client.Filters).Add("label", labels...)
	containers, err := api.ContainerList(context.WithoutCancel(t.Context()), client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		t.Fatalf("list containers: %v", err)
	}
	for _, c := range containers.Items {
		t.Errorf("a container is left: %v (%s, %s)", c.Names, c.Image, c.Status)
	}
	networks, err := api.NetworkList(context.WithoutCancel(t.Context()), client.NetworkListOptions{Filters: filters})
	if err != nil {
		t.Fatalf("list networks: %v", err)
	}
	for _, n := range networks.Items {
		t.Errorf("a network is left: %s", n.Name)
	}
	volumes, err := api.VolumeList(context.WithoutCancel(t.Context()), client.VolumeListOptions{Filters: filters})
	if err != nil {
		t.Fatalf("list volumes: %v", err)
	}
	for _, v := range volumes.Items {
		if hasAll(v.Labels, labels) {
			t.Errorf("a volume is left: %s", v.Name)
		}
	}
}

// hasAll looks once more: Podman lists the volumes that have any of the labels.
func hasAll(labels map[string]string, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(text string) bool {
		name, value, exact := strings.Cut(text, "=")
		is, ok := labels[name]
		return !ok || exact && is != value
	})
}
