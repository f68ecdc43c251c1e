package apptainer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// mostPorts is how many of a service's ports are tried.
const mostPorts = 20

// ports are those at which a service is looked for: what its variable HEALTHCHECK_TCP_PORT says, else the first that its
// image exposes.
func (v *service) ports() []int {
	if port, err := strconv.ParseUint(strings.TrimSpace(v.env.Get("HEALTHCHECK_TCP_PORT")), 10, 16); err == nil && port > 0 {
		return []int{int(port)}
	}
	return v.known[:min(len(v.known), mostPorts)]
}

// awaitServices waits until the services answer, and warns of those that do not: never does that keep a job from being
// run (runner contract, section 9.11).
func (o *opening) awaitServices(ctx context.Context) error {
	limit := o.options.Settings.WaitForServicesTimeout
	if len(o.services) == 0 || limit < 0 {
		return nil
	}
	o.printf("Waiting for services to be up and running (timeout %d seconds)...", int(limit.Seconds()))
	why := make([]string, len(o.services))
	var all errgroup.Group
	for i, v := range o.services {
		all.Go(func() error {
			why[i] = o.awaitService(ctx, v, limit)
			return nil
		})
	}
	_ = all.Wait() // it returns nothing
	for i, v := range o.services {
		if why[i] != "" && ctx.Err() == nil {
			o.printf("\n*** WARNING: Service %s probably didn't start properly.\n\nHealth check error:\n%s\n\nService container logs:\n%s\n*********\n",
				cut(v.name), why[i], lastLines(filepath.Join(v.box, logFile), mostShown))
		}
	}
	return context.Cause(ctx)
}

// mostShown is how much of a service's output is shown.
const mostShown = 64 << 10

// awaitService returns why a service is not there, or nothing. One that has ended is not waited for any longer.
func (o *opening) awaitService(ctx context.Context, v *service, limit time.Duration) string {
	ports := v.ports()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	over := time.NewTimer(limit)
	defer over.Stop()
	if len(ports) == 0 {
		over.Reset(min(limit, time.Second)) // it may end at once, which can be told
	}
	for {
		for _, port := range ports {
			if o.session.answers(ctx, port) {
				return ""
			}
		}
		select {
		case <-v.ended:
			if v.err == nil {
				return "the service has ended with exit code 0"
			}
			return "the service has ended: " + v.err.Error()
		case <-ctx.Done():
			return ""
		case <-over.C:
			if len(ports) == 0 {
				return fmt.Sprintf("service %s has no exposed ports: nobody can tell whether it is up; write EXPOSE in its Dockerfile, or set its variable HEALTHCHECK_TCP_PORT", cut(v.name))
			}
			return fmt.Sprintf("nothing answers at 127.0.0.1, port %s", strings.Trim(fmt.Sprint(ports), "[]"))
		case <-tick.C:
		}
	}
}

// answers says whether somebody listens at a port of the services' network.
func (s *session) answers(ctx context.Context, port int) bool {
	if s.state.Network != 0 {
		return listens(s.state.Network, port)
	}
	dialing, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	c, err := (&net.Dialer{}).DialContext(dialing, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// listens says whether somebody listens at a port in the network of a process.
func listens(process, port int) bool {
	want := fmt.Sprintf(":%04X", port)
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", process, name))
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(io.LimitReader(f, 16<<20))
		found := false
		for lines.Scan() && !found {
			fields := strings.Fields(lines.Text()) // number, local address, other address, state, ...
			found = len(fields) > 3 && fields[3] == "0A" && strings.HasSuffix(fields[1], want)
		}
		_ = f.Close()
		if found {
			return true
		}
	}
	return false
}

// networkScript makes the loopback of a new network work, and keeps the network.
const networkScript = `ip link set lo up || exit 1
echo ready
exec sleep 1000000000
`

// networkTime is how long it may take to make a network.
const networkTime = 10 * time.Second

// ownNetwork makes the job's network, if it gets one: a process that does nothing holds it.
func (o *opening) ownNetwork(ctx context.Context) error {
	if o.options.Settings.Network != "job" || o.session.state.Container == nil && len(o.services) == 0 {
		return nil
	}
	s := o.session
	mark := s.box(networkDir)
	argv := []string{o.tools.Unshare, "--net"}
	if os.Geteuid() != 0 {
		argv = append(argv, "--user", "--map-root-user")
	}
	argv = append(argv, o.tools.Shell, "-c", networkScript)
	ended := make(chan error, 1)
	cmd, err := s.detach(invocation{Argv: argv, Env: (container{}).hostEnv(mark)}, mark, func(err error) { ended <- err })
	if err != nil {
		return fmt.Errorf("make the job's network: %w", err)
	}
	s.state.Network = cmd.Process.Pid
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(networkTime)
	defer limit.Stop()
	for {
		if strings.Contains(lastLines(filepath.Join(mark, logFile), mostTail), "ready\n") {
			return s.save()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-ended:
			return configError("network = \"job\" in [runners.apptainer] can't be had on this host (%w): %s", errors.Join(err), lastLines(filepath.Join(mark, logFile), mostTail))
		case <-limit.C:
			return errors.New("make the job's network: it takes too long")
		case <-tick.C:
		}
	}
}

// network returns the process whose network the job is in, or 0 for the host's. That process must still be the one that
// was started.
func (s *session) network() (int, error) {
	if s.state.Network == 0 {
		return 0, nil
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.state.Network))
	if err != nil || !slices.Contains(strings.Split(string(data), "\x00"), marker+"="+s.box(networkDir)) {
		return 0, errors.New("the job's network is gone: somebody has ended the process that held it")
	}
	return s.state.Network, nil
}
