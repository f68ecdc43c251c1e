//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/executor/docker"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

// Images of the tests by which the flags' defaults are found.
const (
	testImages   = "tranter-test/"
	gitImage     = "debian"
	jobImage     = "busybox"
	serviceImage = "ports"
)

// bench is what all measurements share.
type bench struct {
	options
	api     *client.Client
	socket  string // of the engine
	facts   system.Info
	dir     string            // where everything is made; it is removed at the end
	images  map[string]string // by the names above
	gateway string            // this host's address on the engine's bridge
	volume  string            // of the runner's program on the engine
	group   *group            // of the containers
	meter   *meter
	runners []string // short tokens, by which what is left is found
}

func newBench(ctx context.Context, o options) (b *bench, err error) {
	b = &bench{options: o, images: map[string]string{}}
	if b.host == "" {
		b.host = os.Getenv("DOCKER_HOST")
	}
	if b.host == "" {
		b.host = client.DefaultDockerHost
	}
	var local bool
	if b.socket, local = strings.CutPrefix(b.host, "unix://"); !local {
		return nil, fmt.Errorf("the engine at %s is not reached by a socket of this machine, so its processor time can't be measured: use -host unix://PATH", b.host)
	}
	if b.api, err = client.New(client.WithHost(b.host)); err != nil {
		return nil, err
	}
	found, err := b.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return nil, fmt.Errorf("no engine answers at %s: %w", b.host, err)
	}
	b.facts = found.Info
	if err := b.findImages(ctx); err != nil {
		return nil, err
	}
	b.gateway = b.findGateway(ctx)
	if b.dir, err = os.MkdirTemp("", "bench-docker-"); err != nil {
		return nil, err
	}
	b.group = newGroup(b.facts.CgroupDriver)
	b.meter = newMeter(b.socket, b.group)
	if err := errors.Join(b.copyProgram(), repository(ctx, filepath.Join(b.dir, "repo"))); err != nil {
		return nil, errors.Join(err, os.RemoveAll(b.dir))
	}
	return b, nil
}

// copyProgram makes a copy of the runner with a content of its own, so that its volume on the engine is of this run alone
// and can be removed. What comes after an executable's end is never read.
func (b *bench) copyProgram() error {
	data, err := os.ReadFile(b.program)
	if err != nil {
		return fmt.Errorf("read the runner (make build): %w", err)
	}
	data = append(data, "\nbench "+rand.Text()...)
	sum := sha256.Sum256(data)
	b.volume = "tranter-agent-" + hex.EncodeToString(sum[:])[:16]
	b.program = filepath.Join(b.dir, "tranter")
	return os.WriteFile(b.program, data, 0o755) //nolint:gosec // a program
}

// findImages finds out which images to use, and whether the engine has them: nothing is pulled.
func (b *bench) findImages(ctx context.Context) error {
	for name, given := range map[string]string{jobImage: b.image, gitImage: b.gitImage, serviceImage: b.serviceImage, "helper": b.helper} {
		switch {
		case given == "" && name == "helper":
			given = docker.OwnHelper
		case given == "":
			found, err := b.api.ImageList(ctx, client.ImageListOptions{Filters: make(client.Filters).Add("reference", testImages+name)})
			if err != nil {
				return fmt.Errorf("list the engine's images: %w", err)
			}
			if len(found.Items) == 0 || len(found.Items[0].RepoTags) == 0 {
				return fmt.Errorf("the engine has no image %s%s: make it with \"go test ./internal/executor/docker/enginetest\", or name another (see -h)", testImages, name)
			}
			given = ownTag(found.Items[0].RepoTags, testImages+name)
		}
		if _, err := b.api.ImageInspect(ctx, given); err != nil {
			return fmt.Errorf("the image %s (pull it, or for the helper image: make helper-image): %w", given, err)
		}
		b.images[name] = given
	}
	return nil
}

// ownTag returns the tag of a repository, among those that an image has in several.
func ownTag(tags []string, repository string) string {
	for _, t := range tags {
		if strings.HasPrefix(t, repository+":") {
			return t
		}
	}
	return tags[0]
}

// loopback is where the coordinator listens for containers in the host's network.
const loopback = "127.0.0.1"

// address is where the coordinator listens for a scenario's containers.
func (b *bench) address(sc scenario) (string, error) {
	switch {
	case sc.network == "host":
		return loopback, nil
	case b.gateway == "":
		return "", errors.New("the engine has no default bridge with an IPv4 address, over which containers reach the coordinator: measure with -network host and without services and variants")
	}
	return b.gateway, nil
}

// findGateway returns this host's address as containers on the engine's default bridge, and on a job's own network, reach
// it; empty: there is none.
func (b *bench) findGateway(ctx context.Context) string {
	found, err := b.api.NetworkInspect(ctx, "bridge", client.NetworkInspectOptions{})
	if err != nil {
		return ""
	}
	for _, c := range found.Network.IPAM.Config {
		if gateway := c.Gateway; gateway.Is4() {
			return gateway.String()
		} else if c.Subnet.IsValid() && c.Subnet.Addr().Is4() {
			return c.Subnet.Masked().Addr().Next().String() // an engine that has chosen it does not always tell
		}
	}
	return ""
}

// describe prints the machine and the method.
func (b *bench) describe() {
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("%s, %s, %d processors, %.0f GB, kernel %s, load %s", b.facts.OperatingSystem, cpuModel(), runtime.NumCPU(),
		float64(b.facts.MemTotal)/1e9, b.facts.KernelVersion, load)
	fmt.Printf("Engine %s, API %s, %s, cgroup %s (%s). Images: jobs %s, with git %s, services %s, helper %s.\n", b.facts.ServerVersion, b.api.ClientVersion(),
		b.facts.Driver, b.facts.CgroupVersion, b.facts.CgroupDriver, b.images[jobImage], b.images[gitImage], b.images[serviceImage], b.images["helper"])
	fmt.Printf("The coordinator listens on %s for containers in the host's network, else on %s. Engine's processor time: %s.\n", loopback, b.gateway, b.meter.method())
}

// close removes what is left on the engine and on the disk.
func (b *bench) close(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	var err error
	for _, short := range b.runners {
		err = errors.Join(err, b.sweep(ctx, "label", spec.LabelRunner+"="+short))
	}
	err = errors.Join(err, b.sweep(ctx, "volume", b.volume))
	if _, gone := b.api.VolumeInspect(ctx, b.volume, client.VolumeInspectOptions{}); gone == nil {
		_, failed := b.api.VolumeRemove(ctx, b.volume, client.VolumeRemoveOptions{})
		err = errors.Join(err, failed)
	}
	b.group.remove()
	return errors.Join(err, b.api.Close(), os.RemoveAll(b.dir))
}

// sweep removes containers that a filter finds, and if that is a label also networks and volumes.
func (b *bench) sweep(ctx context.Context, filter, value string) error {
	filters := make(client.Filters).Add(filter, value)
	containers, err := b.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range containers.Items {
		_, err := b.api.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		errs = append(errs, err)
	}
	if filter != "label" {
		return errors.Join(errs...)
	}
	networks, err := b.api.NetworkList(ctx, client.NetworkListOptions{Filters: filters})
	errs = append(errs, err)
	for _, n := range networks.Items {
		_, err := b.api.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
		errs = append(errs, err)
	}
	volumes, err := b.api.VolumeList(ctx, client.VolumeListOptions{Filters: filters})
	errs = append(errs, err)
	for _, v := range volumes.Items {
		_, err := b.api.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{Force: true})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// quiet waits until a runner's containers are gone: what a job has left is removed after its end.
func (b *bench) quiet(ctx context.Context, short string) error {
	filters := make(client.Filters).Add("label", spec.LabelRunner+"="+short)
	for {
		left, err := b.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
		if err != nil || len(left.Items) == 0 {
			return err
		}
		if err := settle(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// settle waits; it is a measurement, not a test.
func settle(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// repository makes a git repository of 21 commits and 50 files of 20 KiB.
func repository(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // git's server reads it
		return err
	}
	git := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "-c", "user.name=bench", "-c", "user.email=bench@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %v: %w: %s", args, err, out)
		}
		return nil
	}
	if err := git("init", "-q", "-b", "main"); err != nil {
		return err
	}
	const commits, files, size = 21, 50, 20 << 10
	for commit := range commits {
		for i := range files {
			if commit > 0 && i != commit {
				continue
			}
			if err := noise(filepath.Join(dir, fmt.Sprintf("file%d.txt", i)), size); err != nil {
				return err
			}
		}
		if err := errors.Join(git("add", "."), git("commit", "-q", "-m", fmt.Sprint("commit ", commit))); err != nil {
			return err
		}
	}
	return nil
}

// noise writes letters that shrink little.
func noise(path string, size int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(hex.NewEncoder(f), rand.Reader, int64(size/2))
	return errors.Join(err, f.Close())
}
