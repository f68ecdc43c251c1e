package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
)

// Facts is what an engine says about itself.
type Facts struct {
	ID         string // of the engine; the address of one that has none, as Podman
	Name       string // of the machine that it runs on
	OS, Arch   string // as Go calls them: linux, amd64
	Version    string // of the engine
	APIVersion string // in use
	RootDir    string // where the engine keeps images and containers, on its machine

	Rootless    bool
	Podman      bool
	Local       bool // it is reached by a socket of this machine: its paths are, as a rule, paths here
	LiveRestore bool // containers go on while the engine is restarted

	CPUs   int
	Memory int64 // bytes
}

// Refresh asks the engine what it is, and picks the version of the API anew: after a restart both may have changed.
// Explain has been applied to the error.
func (e *Engine) Refresh(ctx context.Context) (Facts, error) {
	e.gather.Lock()
	defer e.gather.Unlock()
	e.stale.Store(false)
	facts, err := e.ask(ctx)
	if err != nil {
		e.stale.Store(true)
		return Facts{}, Explain(err)
	}
	e.facts.Store(&facts)
	return facts, nil
}

func (e *Engine) ask(ctx context.Context) (Facts, error) {
	version, err := e.version(ctx)
	if err != nil {
		return Facts{}, err
	}
	api := e.api.Load()
	if api == nil || api.ClientVersion() != version {
		if api, err = e.newAPI(version); err != nil {
			return Facts{}, err
		}
	}
	answer, err := api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return Facts{}, fmt.Errorf("ask the engine what it is: %w", err)
	}
	server, err := api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return Facts{}, fmt.Errorf("ask the engine for its version: %w", err)
	}
	if old := e.api.Swap(api); old != nil && old != api {
		_ = old.Close()
	}
	facts := factsOf(answer.Info, server)
	facts.APIVersion = version
	facts.ID = cmp.Or(facts.ID, e.address.text)
	facts.Local = e.address.scheme == schemeUnix || e.address.scheme == schemePipe
	return facts, nil
}

// version asks the engine for the newest version of the API that it has, and returns the one to use.
func (e *Engine) version(ctx context.Context) (string, error) {
	api, err := e.newAPI("")
	if err != nil {
		return "", err
	}
	defer func() { _ = api.Close() }()
	ping, err := api.Ping(ctx, client.PingOptions{})
	if err != nil {
		return "", err
	}
	return e.negotiate(ping.APIVersion)
}

func factsOf(info system.Info, server client.ServerVersionResult) Facts {
	has := func(option string) bool {
		return slices.ContainsFunc(info.SecurityOptions, func(s string) bool { return s == option || strings.HasPrefix(s, option+",") })
	}
	return Facts{
		ID: info.ID, Name: info.Name, OS: server.Os, Arch: server.Arch, Version: info.ServerVersion, RootDir: info.DockerRootDir,
		Rootless: has("name=rootless"), LiveRestore: info.LiveRestoreEnabled,
		Podman: slices.ContainsFunc(server.Components, func(c system.ComponentVersion) bool { return c.Name == "Podman Engine" }),
		CPUs:   info.NCPU, Memory: info.MemTotal,
	}
}

// parsePinned reads DOCKER_API_VERSION: 1.41 or v1.41; empty if there is none.
func parsePinned(text string) (string, error) {
	version := strings.TrimPrefix(strings.TrimSpace(text), "v")
	if version == "" {
		return "", nil
	}
	major, minor, found := strings.Cut(version, ".")
	_, wrongMajor := strconv.ParseUint(major, 10, 16)
	_, wrongMinor := strconv.ParseUint(minor, 10, 16)
	if !found || wrongMajor != nil || wrongMinor != nil {
		return "", fmt.Errorf("DOCKER_API_VERSION is %q: it must be a version such as 1.41", text)
	}
	if versions.LessThan(version, oldest) || versions.GreaterThan(version, client.MaxAPIVersion) {
		return "", fmt.Errorf("DOCKER_API_VERSION is %q: versions from %s to %s can be used", text, oldest, client.MaxAPIVersion)
	}
	return version, nil
}
