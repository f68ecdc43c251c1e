package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/link"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/image"
	"github.com/tranter-ci/tranter/internal/executor/docker/janitor"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

// started is a service whose container runs, or has run.
type started struct {
	spec.Service
	host  spec.Host
	ports []int
}

// startServices gets the images of the job's services, all at the same time, then starts them and learns where they are.
// Where the network does not resolve names, each is told of those before it (runner contract, section 9.10).
func (o *opening) startServices(ctx context.Context) error {
	o.started = make([]started, len(o.spec.Services))
	images := make([]image.Facts, len(o.spec.Services))
	all, getting := errgroup.WithContext(ctx)
	for i, v := range o.spec.Services {
		o.started[i].Service = v
		o.log.printf("Starting service %s ...", v.Image)
		all.Go(func() (err error) {
			images[i], err = o.serviceImage(getting, v)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	if o.spec.Linked {
		for i := range o.started {
			if err := o.startService(ctx, i, images[i]); err != nil {
				return err
			}
			o.hosts = append(o.hosts, o.started[i].host)
		}
		return nil
	}
	all, starting := errgroup.WithContext(ctx)
	for i := range o.started {
		all.Go(func() error { return o.startService(starting, i, images[i]) })
	}
	return all.Wait()
}

func (o *opening) serviceImage(ctx context.Context, v spec.Service) (image.Facts, error) {
	d := o.options.Settings
	if !v.Configured && !image.Allowed(d.AllowedServices, namesOf(d.Services), v.Name) {
		return image.Facts{}, image.Refused("allowed_services", d.AllowedServices, v.Name)
	}
	return o.image(ctx, image.Wanted{Name: v.Image, Platform: v.Platform, What: "service " + v.Name}, v.PullPolicy)
}

func (o *opening) startService(ctx context.Context, i int, facts image.Facts) error {
	s := &o.started[i]
	s.ports = s.Ports(facts.Ports)
	api := o.host.engine.API()
	made, err := api.ContainerCreate(ctx, o.spec.Service(i, spec.Image{Use: facts.Use, Entrypoint: facts.Entrypoint}, o.hosts))
	if err != nil {
		return creationError("service "+s.Name, err)
	}
	end := o.host.turn(ctx)
	_, err = api.ContainerStart(ctx, s.Container, client.ContainerStartOptions{})
	end()
	if err != nil {
		return creationError("service "+s.Name, err)
	}
	s.host = spec.Host{Service: i, ID: made.ID}
	found, err := api.ContainerInspect(ctx, s.Container, client.ContainerInspectOptions{})
	if err != nil {
		return fmt.Errorf("look at service %s: %w", s.Name, engine.Explain(err))
	}
	s.host.Addresses = addressesOf(found.Container)
	return nil
}

// namesOf returns the images of configured services, which jobs may use too.
func namesOf(services []config.Service) []string {
	var names []string
	for _, s := range services {
		names = append(names, s.Name)
	}
	return names
}

// addressesOf returns where a container is reached, on all of its networks.
func addressesOf(c container.InspectResponse) []string {
	var out []string
	if c.NetworkSettings == nil {
		return nil
	}
	for _, n := range c.NetworkSettings.Networks {
		for _, a := range []netip.Addr{n.IPAddress, n.GlobalIPv6Address} {
			if a.IsValid() && !a.IsUnspecified() {
				out = append(out, a.String())
			}
		}
	}
	return out
}

// awaitServices waits until the services answer, as seen from the job's containers, and warns of those that do not: never
// does that keep a job from being run (runner contract, section 9.11).
func (o *opening) awaitServices(ctx context.Context) error {
	limit := o.options.Settings.WaitForServicesTimeout
	if len(o.started) == 0 || limit < 0 {
		return nil
	}
	c, err := o.prober(ctx)
	if err != nil {
		return err
	}
	o.log.printf("Waiting for services to be up and running (timeout %d seconds)...", int(limit.Seconds()))
	all, ctx := errgroup.WithContext(ctx)
	for _, s := range o.started {
		all.Go(func() error {
			if why := o.awaitService(ctx, c, s, limit); why != "" {
				o.warnOf(ctx, s, why)
			}
			return context.Cause(ctx)
		})
	}
	return all.Wait()
}

// prober returns the agent from whose container services are looked for.
func (o *opening) prober(ctx context.Context) (*connection, error) {
	if b := o.session.box(tranter.PlaceHelper); b != nil {
		return b.client(ctx)
	}
	return o.session.box(tranter.PlaceBuild).client(ctx)
}

// awaitService returns why a service is not there, or nothing. One that has ended is not waited for any longer.
func (o *opening) awaitService(ctx context.Context, c *connection, s started, limit time.Duration) string {
	if len(s.ports) == 0 {
		if why := o.ended(ctx, s); why != "" {
			return why
		}
		return fmt.Sprintf("service %s has no exposed ports: nobody can tell whether it is up; write EXPOSE in its Dockerfile, or set its variable HEALTHCHECK_TCP_PORT", s.Name)
	}
	probing, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var watch errgroup.Group
	watch.Go(func() error {
		for pause(probing, time.Second) {
			if why := o.ended(probing, s); why != "" {
				stop(errors.New(why))
			}
		}
		return nil
	})
	probed, err := c.Probe(probing, []link.Target{{Name: s.Name, Address: o.addressOf(s), Ports: s.ports}}, limit)
	cause := context.Cause(probing)
	stop(nil)
	_ = watch.Wait() // it returns nothing
	switch {
	case cause != nil && ctx.Err() == nil:
		return cause.Error()
	case err != nil:
		return err.Error()
	case len(probed) > 0:
		return probed[0].Err
	}
	return ""
}

// addressOf is where the other containers find a service.
func (o *opening) addressOf(s started) string {
	if o.spec.Linked && len(s.host.Addresses) > 0 {
		return s.host.Addresses[0]
	}
	if mode := o.options.Settings.NetworkMode; mode == "host" || strings.HasPrefix(mode, "container:") {
		return "127.0.0.1"
	}
	return cmp.Or(s.Aliases[0], s.Container)
}

// ended returns how a service has ended, if it has.
func (o *opening) ended(ctx context.Context, s started) string {
	found, err := o.host.engine.API().ContainerInspect(ctx, s.Container, client.ContainerInspectOptions{})
	if err != nil || found.Container.State == nil {
		return ""
	}
	switch state := found.Container.State; state.Status {
	case container.StateExited, container.StateDead:
		if state.OOMKilled {
			return "the service has ended: it ran out of memory (service_memory in [runners.docker])"
		}
		return fmt.Sprintf("the service has ended with exit code %d", state.ExitCode)
	default:
		return ""
	}
}

// warnOf tells why a service may not work, with what it has printed.
func (o *opening) warnOf(ctx context.Context, s started, why string) {
	var b strings.Builder
	fmt.Fprintf(&b, "\n*** WARNING: Service %s probably didn't start properly.\n\nHealth check error:\n%s\n\nService container logs:\n", s.Name, why)
	b.WriteString(o.host.lastLines(ctx, s.Container))
	b.WriteString("\n*********\n\n")
	_, _ = o.log.Write([]byte(b.String()))
}

// image gets an image by the policies that the job has asked for, as far as they are allowed.
func (o *opening) image(ctx context.Context, w image.Wanted, asked []string) (image.Facts, error) {
	defer o.log.done(w.What)
	d := o.options.Settings
	var err error
	if w.Name, err = image.Reference(w.Name); err != nil {
		return image.Facts{}, err
	}
	if w.Policies, err = image.Effective(d.PullPolicy, d.AllowedPullPolicies, asked); err != nil {
		return image.Facts{}, err
	}
	w.Logins, w.Seen = o.logins, o.seen
	o.session.hold(o.host, janitor.Image, w.Name)
	facts, err := o.host.images.Get(ctx, w, o.log.of(w.What))
	if err == nil {
		o.session.hold(o.host, janitor.Image, facts.ID)
	}
	return facts, err
}

// creationError tells settings or an image that can't be used from an engine that does not work.
func creationError(what string, err error) error {
	explained := fmt.Errorf("start the container of %s: %w", what, engine.Explain(err))
	if engine.Invalid(err) || engine.Refused(err) {
		return &tranter.ConfigError{Err: explained}
	}
	return explained
}
