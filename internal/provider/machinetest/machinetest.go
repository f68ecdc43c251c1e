// Package machinetest gives tests real machines: containers with an SSH server and a Docker Engine of their own, on the
// engine of this machine. Only tests call it.
//
// Image and network stay for the next tests; machines go when their test ends.
package machinetest

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/provider/container"
)

// process is what is made once for a test process.
type process struct {
	mu      sync.Mutex
	image   string
	network string
	driver  string
}

var shared = &process{} //nolint:gochecknoglobals // made once for all tests of a process

// NetworkName is the name of the bridge that the tests' machines are on.
const NetworkName = "tranter-test-machines"

// Label is on all machines of tests.
const Label = "io.tranter.machinetest"

const (
	makeLimit = 3 * time.Minute
	callLimit = 30 * time.Second
)

// Image makes the image of machines on the engine of this machine, once for its content, and returns its name. It has
// the program init, sshd, dockerd and what these need (see container.BuildImage).
func Image(t testing.TB) string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.image != "" {
		return shared.image
	}
	api := enginetest.Client(t, enginetest.Host(t))
	defer only(t, "machines.lock")()
	ctx, cancel := context.WithTimeout(t.Context(), makeLimit)
	defer cancel()
	ref, err := container.BuildImage(ctx, api)
	if err != nil {
		t.Fatalf("make the image of machines (run tools/setup test): %v", err)
	}
	removeOld(ctx, t, api, ref)
	sweep(t, api)
	shared.image = ref
	return ref
}

// Bare returns the name of an image whose machines have an SSH server, and an engine that is installed but does not run:
// they cost next to nothing.
func Bare(t testing.TB) string {
	t.Helper()
	image := Image(t)
	name, tag, _ := strings.Cut(image, ":")
	ref := name + "-bare:" + tag
	api := enginetest.Client(t, enginetest.Host(t))
	defer only(t, "machines.lock")()
	ctx, cancel := context.WithTimeout(t.Context(), callLimit)
	defer cancel()
	if _, err := api.ImageInspect(ctx, ref); err == nil {
		return ref
	}
	made, err := api.ContainerCreate(ctx, client.ContainerCreateOptions{Config: &apicontainer.Config{Image: image}})
	if err != nil {
		t.Fatalf("make the image %s: %v", ref, err)
	}
	defer Remove(t, made.ID)
	_, err = api.ContainerCommit(ctx, made.ID, client.ContainerCommitOptions{Reference: ref, Changes: []string{"ENV TRANTER_ENGINE=off"}})
	if err != nil {
		t.Fatalf("make the image %s: %v", ref, err)
	}
	return ref
}

// removeOld removes the images that earlier states of the tree have made, when no machine uses them and no test run can.
func removeOld(ctx context.Context, t testing.TB, api *client.Client, current string) {
	t.Helper()
	const age = 2 * time.Hour
	name, tag, _ := strings.Cut(current, ":")
	images, err := api.ImageList(ctx, client.ImageListOptions{Filters: make(client.Filters).Add("reference", name, name+"-bare")})
	if err != nil {
		t.Fatalf("list the images of machines: %v", err)
	}
	for _, image := range images.Items {
		kept := slices.ContainsFunc(image.RepoTags, func(ref string) bool { return strings.HasSuffix(ref, ":"+tag) })
		if !kept && time.Since(time.Unix(image.Created, 0)) > age {
			_, _ = api.ImageRemove(ctx, image.ID, client.ImageRemoveOptions{})
		}
	}
}

// sweep removes machines of test processes that were killed.
func sweep(t testing.TB, api *client.Client) {
	t.Helper()
	const age = time.Hour
	found, err := api.ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("label", Label)})
	if err != nil {
		t.Fatalf("list the machines of tests: %v", err)
	}
	for _, c := range found.Items {
		if time.Since(time.Unix(c.Created, 0)) > age {
			Remove(t, c.ID)
		}
	}
}

// Network makes the bridge for machines if it is not there, and returns its name. The host reaches what is on it. All
// tests share it, and it stays.
func Network(t testing.TB) string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.network != "" {
		return shared.network
	}
	api := enginetest.Client(t, enginetest.Host(t))
	defer only(t, "machines.lock")()
	ctx, cancel := context.WithTimeout(t.Context(), callLimit)
	defer cancel()
	if err := makeNetwork(ctx, api); err != nil {
		t.Fatalf("make the network of machines: %v", err)
	}
	shared.network = NetworkName
	return shared.network
}

// makeNetwork makes the bridge with the first subnet 172.31.N.0/24 that is free.
func makeNetwork(ctx context.Context, api *client.Client) error {
	const first, last, bits = 200, 254, 24
	_, err := api.NetworkInspect(ctx, NetworkName, client.NetworkInspectOptions{})
	for n := byte(first); err != nil && n <= last; n++ {
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 31, n, 0}), bits)
		if taken(subnet) {
			continue
		}
		_, err = api.NetworkCreate(ctx, NetworkName, client.NetworkCreateOptions{
			Driver: "bridge", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: subnet}}},
		})
	}
	return err
}

// taken says whether this machine has an address in a network: of the engine's bridges, or others.
func taken(subnet netip.Prefix) bool {
	addresses, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(addresses, func(a net.Addr) bool {
		own, err := netip.ParsePrefix(a.String())
		return err == nil && own.Overlaps(subnet)
	})
}

// Driver builds docker-machine-driver-lab, whose machines are containers, and returns the directory that it is in.
func Driver(t testing.TB) string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.driver != "" {
		return shared.driver
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/tranter-ci/tranter").Output()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	top := strings.TrimSpace(string(out))
	defer only(t, "driver.lock")()
	dir := filepath.Join(top, "bin", "machinetest")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const name = "docker-machine-driver-lab"
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", filepath.Join(dir, name+".new"), ".")
	cmd.Dir = filepath.Join(top, "tools", "labdriver")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	if err := os.Rename(filepath.Join(dir, name+".new"), filepath.Join(dir, name)); err != nil { // another test may run the old one
		t.Fatal(err)
	}
	shared.driver = dir
	return dir
}

// Key returns the file of the private key that opens the machines of this user's tests, and the public key.
func Key(t testing.TB) (path, public string) {
	t.Helper()
	path, public, err := container.Key(filepath.Join(cacheDir(t), "machines"))
	if err != nil {
		t.Fatal(err)
	}
	return path, public
}

// only waits for a lock and returns what gives it back: tests of several packages run at the same time.
func only(t testing.TB, name string) func() {
	t.Helper()
	return enginetest.Only(t, filepath.Join(cacheDir(t), name))
}

func cacheDir(t testing.TB) string {
	t.Helper()
	base, err := os.UserCacheDir()
	if err != nil {
		base = "/var/tmp"
	}
	dir := filepath.Join(base, "tranter-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
