package spec

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// parts are the compiled pieces of which requests are put together.
type parts struct {
	resources, serviceResources container.Resources
	security, serviceSecurity   security
	log, serviceLog             container.LogConfig

	privileged, helperPrivileged bool

	user       string
	entrypoint []string // that the job asks for; nil: the image's
	platform   *ocispec.Platform
}

// compileLog works out where the engine puts what containers print. The agent's streams are a protocol and are kept only
// if the settings ask for it; what services print is read back.
func (s *Spec) compileLog() error {
	options := s.job.in.Settings.LogOptions
	for _, k := range slices.Sorted(maps.Keys(options)) {
		if k != "env" && k != "labels" {
			return invalid("log_options", fmt.Errorf("%q is not supported: only env and labels are", k))
		}
	}
	s.parts.serviceLog = container.LogConfig{Type: "json-file", Config: options}
	s.parts.log = container.LogConfig{Type: "none"}
	if len(options) > 0 {
		s.parts.log = s.parts.serviceLog
	}
	return nil
}

// Helper returns the request for the helper container (runner contract, section 9.6). It runs as the user of its image.
func (s *Spec) Helper(image Image, hosts []Host) client.ContainerCreateOptions {
	h := s.agentHost()
	h.Privileged = s.parts.helperPrivileged
	c := s.agentConfig(image, stockHelper)
	c.Entrypoint = s.serve(true)
	s.setNetwork(c, h, hosts)
	h.Links = s.net.links()
	return client.ContainerCreateOptions{
		Name: s.Prefix + "-predefined", Config: c, HostConfig: h,
		NetworkingConfig: s.net.endpoint([]string{s.Prefix + "-predefined"}, nil, h.Links),
	}
}

// Build returns the request for the build container (runner contract, section 9.6).
func (s *Spec) Build(image Image, hosts []Host) client.ContainerCreateOptions {
	h := s.agentHost()
	h.Privileged = s.parts.privileged
	h.PidMode = container.PidMode(s.job.in.Settings.PIDMode)
	h.Init = s.job.init()
	c := s.agentConfig(image, stockBuild)
	c.User = s.parts.user
	c.Entrypoint = s.serve(s.Helperless)
	if e := s.Entrypoint(image); len(e) > 0 {
		c.Entrypoint = append(append(c.Entrypoint, "--"), e...)
	}
	s.setNetwork(c, h, hosts)
	h.Links = s.net.links()
	return client.ContainerCreateOptions{
		Name: s.Prefix + "-build", Config: c, HostConfig: h, Platform: s.parts.platform,
		NetworkingConfig: s.net.endpoint([]string{"build", s.Prefix + "-build"}, s.net.mac, h.Links),
	}
}

// Service returns the request for the container of Services[i].
func (s *Spec) Service(i int, image Image, hosts []Host) client.ContainerCreateOptions {
	v := s.Services[i]
	h := s.serviceHost(v)
	c := &container.Config{
		Image: image.Use, User: v.user, Env: s.job.environ(v), Cmd: v.command, Entrypoint: v.entrypoint, Labels: s.labels.ofService(v),
	}
	s.setNetwork(c, h, hosts)
	return client.ContainerCreateOptions{
		Name: v.Container, Config: c, HostConfig: h, Platform: v.platform,
		NetworkingConfig: s.net.endpoint(v.Aliases, nil, nil),
	}
}

// Entrypoint returns what is run before the job's shell: what the job asks for, else the image's; empty: nothing. An
// entrypoint of one empty word is how a job says that it wants none.
func (s *Spec) Entrypoint(image Image) []string {
	e := s.parts.entrypoint
	if e == nil {
		e = image.Entrypoint
	}
	if len(e) > 0 && e[0] == "" {
		return nil
	}
	return e
}

// serve returns the command of a container's main process. The job's files are to be for every user of its containers,
// hence no umask, unless the settings say otherwise.
func (s *Spec) serve(open bool) []string {
	out := []string{AgentProgram, "agent", "serve", AgentRoot}
	if !s.job.in.Flags["FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR"] {
		out = append(out, "--umask", "0")
	}
	if open {
		for _, dir := range s.Open {
			out = append(out, "--open", dir)
		}
	}
	return out
}

// agentConfig returns what a container has in which an agent is the main process. Nothing of the job is in it: that comes
// over the stream.
func (s *Spec) agentConfig(image Image, kind string) *container.Config {
	name := s.job.in.Settings.Hostname
	if name == "" {
		name = s.Unique
	}
	return &container.Config{
		Image: image.Use, Hostname: name, OpenStdin: true, AttachStdin: true, AttachStdout: true, AttachStderr: true,
		Labels: s.labels.of(map[string]string{"type": kind}),
	}
}

// agentHost returns the same about the host.
func (s *Spec) agentHost() *container.HostConfig {
	d := s.job.in.Settings
	h := s.host()
	h.Resources = s.parts.resources
	h.GroupAdd, h.CapAdd, h.CapDrop = d.GroupAdd, d.CapAdd, d.CapDrop
	h.IpcMode = container.IpcMode(d.IPCMode)
	h.OomScoreAdj, h.Sysctls = d.OOMScoreAdjust, d.Sysctls
	h.VolumesFrom = d.VolumesFrom
	h.LogConfig = s.parts.log
	h.Tmpfs = map[string]string{}
	maps.Copy(h.Tmpfs, d.Tmpfs)
	h.Tmpfs[AgentRoot] = "mode=1777"
	if room := s.job.in.Agent.Room; room > 0 {
		h.Tmpfs[AgentRoot] += ",size=" + strconv.FormatInt(room, 10)
	}
	h.Mounts = append(h.Mounts, mount.Mount{
		Type: mount.TypeVolume, Source: s.job.in.Agent.Volume, Target: AgentDir, ReadOnly: true,
		VolumeOptions: &mount.VolumeOptions{NoCopy: true},
	})
	setSecurity(h, s.parts.security)
	return h
}

// host returns what all containers have, services too.
func (s *Spec) host() *container.HostConfig {
	d := s.job.in.Settings
	return &container.HostConfig{
		Binds: slices.Clone(s.vols.binds), Mounts: slices.Clone(s.vols.mounts), VolumeDriver: d.VolumeDriver,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		Runtime:       d.Runtime, Isolation: container.Isolation(d.Isolation),
		UsernsMode: container.UsernsMode(d.UsernsMode), ShmSize: d.SHMSize,
	}
}

func setSecurity(h *container.HostConfig, sec security) {
	h.SecurityOpt, h.MaskedPaths, h.ReadonlyPaths = sec.options, sec.maskedPaths, sec.readonlyPaths
}

// init says whether a process of the engine's is the container's first one.
func (j *job) init() *bool {
	if !j.in.Flags["FF_USE_INIT_WITH_DOCKER_EXECUTOR"] {
		return nil
	}
	on := true
	return &on
}
