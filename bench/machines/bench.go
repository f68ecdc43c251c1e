//go:build linux

package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/bench/measure"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
	"github.com/tranter-ci/tranter/internal/provider/container"
)

// network is the bridge of the machines; it is removed at the end.
const network = "tranter-bench-machines"

// bench is what all measurements share.
type bench struct {
	options
	api     *client.Client
	facts   system.Info
	dir     string // where everything is made; it is removed at the end
	machine string // image of machines
	volume  string // of the runner's program on engines
	rows    [][]string
	runners []string // short tokens, by which what is left is found
}

func newBench(ctx context.Context, o options) (b *bench, err error) {
	b = &bench{options: o}
	b.host = cmp.Or(b.host, os.Getenv("DOCKER_HOST"), client.DefaultDockerHost)
	if !strings.HasPrefix(b.host, "unix://") {
		return nil, fmt.Errorf("the engine at %s is not reached by a socket of this machine: use -host unix://PATH", b.host)
	}
	if b.api, err = client.New(client.WithHost(b.host)); err != nil {
		return nil, err
	}
	found, err := b.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return nil, fmt.Errorf("no engine answers at %s: %w", b.host, err)
	}
	b.facts = found.Info
	for name, into := range map[string]*string{"busybox": &b.image, "helper": &b.helper} {
		if *into, err = b.findImage(ctx, name, *into); err != nil {
			return nil, err
		}
	}
	if b.machine, err = container.BuildImage(ctx, b.api); err != nil {
		return nil, fmt.Errorf("make the image of machines: %w", err)
	}
	if b.driver, err = filepath.Abs(b.driver); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "bench-machines-"); err != nil {
		return nil, err
	}
	err = b.copyProgram()
	if err == nil {
		_, err = b.api.NetworkCreate(ctx, network, client.NetworkCreateOptions{Driver: "bridge"})
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(b.dir))
	}
	return b, nil
}

// copyProgram makes a copy of the runner with a content of its own, so that no engine has it. What comes after an
// executable's end is never read.
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

// findImage finds out which image to use, and whether the engine has it: nothing is pulled.
func (b *bench) findImage(ctx context.Context, name, given string) (string, error) {
	const tests = "tranter-test/"
	if given == "" {
		found, err := b.api.ImageList(ctx, client.ImageListOptions{Filters: make(client.Filters).Add("reference", tests+name)})
		if err != nil {
			return "", fmt.Errorf("list the engine's images: %w", err)
		}
		for _, image := range found.Items {
			if i := slices.IndexFunc(image.RepoTags, func(tag string) bool { return strings.HasPrefix(tag, tests+name+":") }); i >= 0 {
				return image.RepoTags[i], nil
			}
		}
		return "", fmt.Errorf("the engine has no image %s%s: make it with \"go test ./internal/executor/docker/enginetest\", or name another (see -h)", tests, name)
	}
	if _, err := b.api.ImageInspect(ctx, given); err != nil {
		return "", fmt.Errorf("the image %s: %w", given, err)
	}
	return given, nil
}

// describe prints where it is measured.
func (b *bench) describe() {
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("%s, %s, %d processors, %.0f GB, kernel %s, load %s", b.facts.OperatingSystem, measure.Processor(), runtime.NumCPU(),
		float64(b.facts.MemTotal)/1e9, b.facts.KernelVersion, load)
	fmt.Printf("Machines: containers of engine %s, %s. Each has an SSH server and an engine of the same version. Jobs: %s in the host's network, no sources.\n",
		b.facts.ServerVersion, b.facts.Driver, b.image)
}

// row adds one to the table.
func (b *bench) row(cells ...string) {
	b.rows = append(b.rows, cells)
	fmt.Fprintln(os.Stderr, strings.Join(cells, " | "))
}

func (b *bench) print() {
	fmt.Println("\n| what | target | measured | how | manager |")
	fmt.Println(strings.Repeat("|---", 5) + "|")
	for _, r := range b.rows {
		fmt.Println("| " + strings.Join(r, " | ") + " |")
	}
}

// close removes what is left on the engine and on the disk.
func (b *bench) close(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	var err error
	for _, short := range b.runners {
		err = errors.Join(err, b.sweep(ctx, short))
	}
	err = errors.Join(err, b.remove(ctx, "name", b.volume))
	if _, gone := b.api.VolumeInspect(ctx, b.volume, client.VolumeInspectOptions{}); gone == nil {
		_, failed := b.api.VolumeRemove(ctx, b.volume, client.VolumeRemoveOptions{})
		err = errors.Join(err, failed)
	}
	_, failed := b.api.NetworkRemove(ctx, network, client.NetworkRemoveOptions{})
	return errors.Join(err, failed, b.api.Close(), os.RemoveAll(b.dir))
}

// sweep removes a runner's machines, and the containers of jobs that ran here.
func (b *bench) sweep(ctx context.Context, short string) error {
	return errors.Join(b.remove(ctx, "name", "runner-"+strings.ToLower(short)+"-"), b.remove(ctx, "label", spec.LabelRunner+"="+short))
}

func (b *bench) remove(ctx context.Context, filter, value string) error {
	found, err := b.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add(filter, value)})
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range found.Items {
		_, err := b.api.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
