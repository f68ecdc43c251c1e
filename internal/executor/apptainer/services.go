package apptainer

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/lazy"
	"github.com/tranter-ci/tranter/internal/variables"
)

// service is one of the job's services (runner contract, section 9.11). All are at 127.0.0.1: on the host's network, or on
// the job's own.
type service struct {
	name    string
	aliases []string
	given   tranter.Image
	env     variables.List
	box     string
	known   []int // ports that its image exposes

	ended chan struct{} // closed once its process has ended, with err
	err   error
}

// planServices lists the job's services, those of the configuration first.
func (o *opening) planServices() error {
	s := o.options.Settings
	var all []tranter.Image
	for _, c := range s.Services {
		d := tranter.Image{Name: c.Name, Alias: c.Alias, Command: c.Command, Entrypoint: c.Entrypoint}
		for _, kv := range c.Environment {
			if k, v, ok := strings.Cut(kv, "="); ok && k != "" {
				d.Variables = append(d.Variables, tranter.Variable{Key: k, Value: v})
			}
		}
		all = append(all, d)
	}
	all = append(all, o.given.Job.Services...)
	if s.ServicesLimit >= 0 && len(all) > s.ServicesLimit {
		return configError("the job needs %d services, with those of the configuration; services_limit in [runners.apptainer] allows %d", len(all), s.ServicesLimit)
	}
	taken := map[string]bool{}
	for i, d := range all {
		v := &service{
			name: o.job.ExpandString(d.Name, ""), given: d, env: o.serviceVariables(d.Variables),
			box: o.session.box("service-" + strconv.Itoa(i)), ended: make(chan struct{}),
		}
		if v.name == "" {
			return configError("a service of the job has no image: write name: to it")
		}
		if i >= len(s.Services) && !allowed(s.AllowedServices, configuredNames(s.Services), v.name) {
			return refused("allowed_services", s.AllowedServices, v.name)
		}
		if o.takeAliases(v, taken); len(v.aliases) == 0 {
			o.printf("WARNING: Service %s is not started: all of its names are taken by services before it. Give it an alias of its own.", cut(v.name))
			continue
		}
		o.services = append(o.services, v)
	}
	return nil
}

// takeAliases gives a service those of its names that no service before it has.
func (o *opening) takeAliases(v *service, taken map[string]bool) {
	for _, alias := range slices.Concat(hostNames(v.name), strings.FieldsFunc(o.job.ExpandString(v.given.Alias, ""), isSeparator)) {
		switch {
		case !hostAlias().MatchString(alias):
			o.printf("WARNING: Service %s: %q can't be its alias, because it is no host name.", cut(v.name), cut(alias))
		case slices.Contains(v.aliases, alias):
		case taken[alias]:
			o.printf("WARNING: Service %s: the alias %s is taken by a service before it.", cut(v.name), alias)
		default:
			taken[alias] = true
			v.aliases = append(v.aliases, alias)
		}
	}
}

func configuredNames(services []config.ApptainerService) []string {
	names := make([]string, 0, len(services))
	for _, s := range services {
		names = append(names, s.Name)
	}
	return names
}

func isSeparator(r rune) bool { return r == ' ' || r == ',' || r == '\t' || r == '\n' }

var (
	hostAlias  = lazy.Regexp(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}$`)
	notInAlias = lazy.Regexp(`[^A-Za-z0-9_./-]`)
)

// hostNames returns the names of a service that its image gives it: the name without the registry's port, tag and
// digest, with two things in place of a slash.
func hostNames(name string) []string {
	name, _, _ = strings.Cut(name, "@")
	name = strings.TrimPrefix(name, "docker://")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	if host, rest, ok := strings.Cut(name, "/"); ok {
		host, _, _ = strings.Cut(host, ":")
		name = host + "/" + rest
	}
	name = strings.Trim(notInAlias().ReplaceAllString(name, "-"), "-._/")
	if name == "" {
		name = "service"
	}
	return slices.Compact([]string{strings.ReplaceAll(name, "/", "__"), strings.ReplaceAll(name, "/", "-")})
}

// serviceVariables returns those of the job that everybody may see or that the runner provides, and the service's own,
// which may refer to all (runner contract, section 5.5).
func (o *opening) serviceVariables(own []tranter.Variable) variables.List {
	all := slices.Concat(o.job, variables.List(own))
	var out variables.List
	for _, v := range o.job.Effective() {
		if v.Public || v.Internal {
			out = append(out, v)
		}
	}
	for _, v := range own {
		if !v.Raw {
			v.Value = all.ExpandString(v.Value, o.given.Dirs.Temp)
		}
		out = append(out, v)
	}
	return out.Effective()
}

// hosts writes the container's file of host names, in which the services are. Without services there is none: the
// host's is bound where the runtime does not do that by itself.
func (o *opening) hosts() (string, error) {
	if len(o.services) == 0 {
		if o.runtime.sif() || o.runtime == charliecloud {
			return "", nil
		}
		return "/etc/hosts", nil
	}
	path := o.session.box("hosts")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	data, err := readBounded("/etc/hosts")
	if err != nil {
		data = []byte("127.0.0.1\tlocalhost\n")
	}
	b := bytes.NewBuffer(bytes.TrimRight(data, "\n"))
	b.WriteByte('\n')
	for _, s := range o.services {
		fmt.Fprintf(b, "127.0.0.1\t%s\n", strings.Join(s.aliases, " "))
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil { //nolint:gosec // for all users of the container
		return "", fmt.Errorf("write the names of the services: %w", err)
	}
	return path, nil
}

// startServices starts the services, each in a container of its own, and waits for them.
func (o *opening) startServices(ctx context.Context) error {
	if err := o.ownNetwork(ctx); err != nil {
		return err
	}
	for _, v := range o.services {
		o.printf("Starting service %s ...", cut(v.name))
		if err := o.startService(ctx, v); err != nil {
			return err
		}
	}
	return o.awaitServices(ctx)
}

// startService starts a service's process, which outlives the manager. What it prints is kept in a file.
func (o *opening) startService(ctx context.Context, v *service) error {
	img, err := o.image(ctx, v.name, v.given.PullPolicy)
	if err != nil {
		return err
	}
	c, err := o.container(img, v.box)
	if err != nil {
		return err
	}
	c.Nvidia, c.AMD, c.Writable, c.Dir = false, false, true, img.Config.WorkingDir
	for _, e := range v.env {
		value := e.Value
		if e.File {
			value = filepath.Join(o.given.Dirs.Temp, e.Key)
		}
		if e.Key != "" && !strings.ContainsAny(e.Key, "=\x00") && !strings.ContainsRune(value, 0) {
			c.Env = append(c.Env, e.Key+"="+value)
		}
	}
	argv := v.argv(img.Config.Entrypoint, img.Config.Cmd, o.options.Settings.DisableEntrypointOverwrite)
	if len(argv) == 0 {
		return configError("service %s has no command: neither its image nor the job says what to run; write command: to it", cut(v.name))
	}
	made, err := c.command(o.session.state.Network, v.box, argv)
	if err != nil {
		return err
	}
	if _, err = o.session.detach(made, v.box, func(err error) {
		v.err = err
		close(v.ended)
	}); err != nil {
		return fmt.Errorf("start the container of service %s: %w", cut(v.name), err)
	}
	v.known = img.Config.Ports
	return nil
}

// argv is the service's command line: what the job says instead of what the image says.
func (v *service) argv(entrypoint, command []string, fixed bool) []string {
	if overwritten(v.given.Entrypoint) && !fixed {
		entrypoint, command = v.given.Entrypoint, nil
	} else if len(v.given.Entrypoint) == 1 && !fixed {
		entrypoint = nil
	}
	if len(v.given.Command) > 0 {
		command = v.given.Command
	}
	return slices.Concat(entrypoint, command)
}

const logFile = "log"

// detach starts what outlives the manager: mark is its directory, in which its output is, and its mark. ended is told how
// it has ended while this process lives.
func (s *session) detach(made invocation, mark string, ended func(error)) (*exec.Cmd, error) {
	if err := os.MkdirAll(mark, 0o700); err != nil {
		return nil, err
	}
	output, err := os.OpenFile(filepath.Join(mark, logFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	cmd := exec.Command(made.Argv[0], made.Argv[1:]...) //nolint:gosec // the runtime of the configuration
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = made.Env, mark, output, output
	ownSession(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended(cmd.Wait())
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits = append(s.waits, func() { <-done })
	return cmd, nil
}
