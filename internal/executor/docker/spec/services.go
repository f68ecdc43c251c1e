package spec

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/variables"
)

// Service is one of the job's services (runner contract, section 9.11).
type Service struct {
	Name       string   // of the image, as the job or the settings give it, variables put in
	Image      string   // the same with a tag
	Aliases    []string // host names under which it is reached; the first is for messages
	PullPolicy []string // that the job asks for
	Platform   string   // that the job asks for; "": the engine's
	Container  string   // its name
	Configured bool     // by the settings, not by the job

	slug       slug
	env        variables.List
	command    []string
	entrypoint []string
	user       string
	platform   *ocispec.Platform
}

// mostPorts is how many of a service's ports are tried.
const mostPorts = 20

// Ports returns the ports at which the service is looked for: what its variable HEALTHCHECK_TCP_PORT says, else the first
// that its image exposes.
func (v Service) Ports(exposed []int) []int {
	if port, err := strconv.ParseUint(strings.TrimSpace(v.env.Get("HEALTHCHECK_TCP_PORT")), 10, 16); err == nil && port > 0 {
		return []int{int(port)}
	}
	ports := slices.Compact(slices.Sorted(slices.Values(exposed)))
	return ports[:min(len(ports), mostPorts)]
}

func (s *Spec) compileServices() error {
	configured := s.job.in.Settings.Services
	all := make([]tranter.Image, 0, len(configured)+len(s.job.in.Job.Services))
	for _, c := range configured {
		all = append(all, definition(c))
	}
	all = append(all, s.job.in.Job.Services...)
	if limit := s.job.in.Settings.ServicesLimit; limit.Set && limit.Value >= 0 && len(all) > limit.Value {
		return &tranter.ConfigError{Err: fmt.Errorf("the job needs %d services, with those of the configuration; services_limit in [runners.docker] allows %d", len(all), limit.Value)}
	}
	taken := map[string]string{}
	for i, d := range all {
		v, err := s.job.service(d)
		if err != nil {
			return err
		}
		v.Configured = i < len(configured)
		if v.Aliases = s.job.freeAliases(v, d.Alias, taken); len(v.Aliases) == 0 {
			s.job.warn("Service %s is not started: all of its names are taken by services before it. Give it an alias of its own.", v.Name)
			continue
		}
		v.Container = serviceName(s.Prefix, hostNames(v.slug.service)[0], i)
		s.Services = append(s.Services, v)
	}
	return nil
}

// definition returns a service of the settings as a job would write it.
func definition(c config.Service) tranter.Image {
	d := tranter.Image{Name: c.Name, Alias: c.Alias, Command: c.Command, Entrypoint: c.Entrypoint}
	for _, kv := range c.Environment {
		if k, v, ok := strings.Cut(kv, "="); ok && k != "" {
			d.Variables = append(d.Variables, tranter.Variable{Key: k, Value: v})
		}
	}
	return d
}

func (j *job) service(d tranter.Image) (Service, error) {
	name := j.expand(d.Name)
	if name == "" {
		return Service{}, &tranter.ConfigError{Err: errors.New("a service of the job has no image: write name: to it")}
	}
	v := Service{Name: name, slug: parseService(name), PullPolicy: d.PullPolicy, command: d.Command}
	v.Image = v.slug.image
	opts, err := parseExecutorOpts(d.ExecutorOpts)
	if err != nil {
		return v, fmt.Errorf("service %s: %w", name, err)
	}
	v.user, v.Platform = j.expand(opts.User), j.expand(opts.Platform)
	if v.platform, err = parsePlatform(v.Platform); err != nil {
		return v, &tranter.ConfigError{Err: fmt.Errorf("service %s: %w", name, err)}
	}
	if err := j.checkUser(v.user); err != nil {
		return v, err
	}
	v.entrypoint = j.overwritten("Service "+name, d.Entrypoint)
	v.env = j.serviceVariables(d.Variables)
	if j.in.Mirror != "" && looksLikeEngine(v.slug) {
		v.command = withMirror(v.command, j.in.Mirror)
	}
	return v, nil
}

// serviceVariables returns the variables of a service: those of the job that everybody may see or that the runner
// provides, and its own, which may refer to all (runner contract, section 5.5).
func (j *job) serviceVariables(own []tranter.Variable) variables.List {
	all := slices.Concat(j.vars, variables.List(own))
	var out variables.List
	for _, v := range j.vars.Effective() {
		if v.Public || v.Internal {
			out = append(out, v)
		}
	}
	for _, v := range own {
		if !v.Raw {
			v.Value = all.ExpandString(v.Value, j.in.Dirs.Temp)
		}
		out = append(out, v)
	}
	return out.Effective()
}

// freeAliases returns the names of a service that no service before it has, and takes them.
func (j *job) freeAliases(v Service, declared string, taken map[string]string) []string {
	var out []string
	for _, name := range slices.Concat(v.slug.aliases, splitAliases(j.expand(declared))) {
		other, used := taken[name]
		switch {
		case !hostAlias().MatchString(name):
			j.warn("Service %s: %q can't be its alias, because it is no host name.", v.Name, cut(name, longestName))
		case used && slices.Contains(out, name): // its own
		case used:
			j.warn("Service %s: the alias %s is taken by service %s.", v.Name, name, other)
		default:
			taken[name] = v.Name
			out = append(out, name)
		}
	}
	return out
}

// environ returns the variables of a service for its container: file variables as paths. What can't be a variable of a
// process is left out: the engine would refuse the whole.
func (j *job) environ(v Service) []string {
	out := make([]string, 0, len(v.env))
	for _, e := range v.env {
		value := e.Value
		if e.File {
			value = j.in.Dirs.Temp + "/" + e.Key
		}
		if e.Key == "" || strings.ContainsAny(e.Key, "=\x00") || strings.ContainsRune(value, 0) {
			continue
		}
		out = append(out, e.Key+"="+value)
	}
	return out
}

// serviceHost returns the settings of a service's container that are about the host.
func (s *Spec) serviceHost(v Service) *container.HostConfig {
	d := s.job.in.Settings
	h := s.host()
	h.Resources = s.parts.serviceResources
	h.Devices = serviceDevices(d.ServicesDevices, v.Name)
	h.Privileged = s.job.servicePrivileged(v.Name)
	h.CapAdd, h.CapDrop = d.ServicesCapAdd, d.ServicesCapDrop
	h.Tmpfs = d.ServicesTmpfs
	h.Init = s.job.init()
	h.LogConfig = s.parts.serviceLog
	setSecurity(h, s.parts.serviceSecurity)
	return h
}
