package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// localExecutor says where the jobs of a local pipeline run.
type localExecutor struct {
	name       string // shell or docker
	image      string // of jobs that name none
	privileged bool

	address string // at which the coordinator listens for jobs to reach it
	network string // of jobs' containers; empty: the engine's default

	preload []string  // images that machines get from this host's engine
	say     io.Writer // where news of machines are told; nil: nowhere
}

// defaultImage is of a job that names none, when jobs run in containers.
const defaultImage = "debian:stable-slim"

func addExecutorFlags(flags *pflag.FlagSet, e *localExecutor) {
	flags.StringVar(&e.name, "executor", "shell", "where jobs run: shell (this host) or docker (containers, of the engine that DOCKER_HOST or the default socket leads to)")
	flags.StringVar(&e.image, "image", defaultImage, "with --executor docker: image of jobs that name none")
	flags.BoolVar(&e.privileged, "privileged", false, "with --executor docker: run containers with all rights on this host, for nested engines")
}

// settle checks what was asked for and finds out where the coordinator has to listen.
func (e *localExecutor) settle(ctx context.Context, dir string, log *slog.Logger) error {
	switch e.name {
	case "", "shell":
		e.name, e.address = "shell", "127.0.0.1:0"
		return nil
	case "docker":
		return e.settleEngine(ctx, log)
	case machineExecutor:
		return e.settleMachines(ctx, dir, log)
	}
	return fmt.Errorf("--executor %s: only shell and docker are there for local pipelines", e.name)
}

// settleEngine finds an address of this host that is reached from containers, and from no other host.
func (e *localExecutor) settleEngine(ctx context.Context, log *slog.Logger) error {
	found, err := engine.Open(ctx, engine.Options{Log: log})
	if err != nil {
		return fmt.Errorf("connect to a container engine for --executor docker: %w", err)
	}
	defer found.Close() //nolint:errcheck // nothing is under way on it
	facts := found.Facts()
	if !facts.Local {
		return fmt.Errorf("the engine at %s is on another host: its containers can't reach this one, from which they get their sources; use an engine on this host", found.Host())
	}
	if gateway := bridgeGateway(ctx, found); gateway != "" {
		e.address = net.JoinHostPort(gateway, "0")
		return nil
	}
	if facts.Rootless && !facts.Podman {
		return errors.New("the engine is rootless and has no bridge that this host could be reached by: use an engine with one, or Podman")
	}
	e.address, e.network = "127.0.0.1:0", "host"
	return nil
}

// bridgeGateway returns this host's address on the engine's default bridge, if it has one.
func bridgeGateway(ctx context.Context, e *engine.Engine) string {
	found, err := e.API().NetworkInspect(ctx, "bridge", client.NetworkInspectOptions{})
	if err != nil {
		return ""
	}
	for _, c := range found.Network.IPAM.Config {
		gateway := c.Gateway
		if !gateway.IsValid() { // an engine that has chosen it does not always tell
			gateway = c.Subnet.Masked().Addr().Next()
		}
		if !gateway.IsValid() {
			continue
		}
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(gateway.String(), "0"))
		if err == nil && l.Close() == nil {
			return gateway.String()
		}
	}
	return ""
}

// configure makes a runner's section say it.
func (e *localExecutor) configure(r *config.Runner) {
	if r.Executor = cmp.Or(e.name, "shell"); r.Executor == "shell" {
		return
	}
	if r.Executor == machineExecutor {
		e.configureMachines(r)
	}
	r.BuildsDir, r.CacheDir = "", ""
	d := &r.Docker
	d.Image, d.Privileged, d.NetworkMode = cmp.Or(e.image, defaultImage), e.privileged, e.network
	d.PullPolicy, d.AllowedPullPolicies = config.OneOrMany{"if-not-present"}, []string{"always", "if-not-present", "never"}
	d.Volumes = []string{containerCacheDir}
}
