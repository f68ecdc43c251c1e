package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/service"
)

func newStart(s streams) *cobra.Command {
	return serviceVerb(s, "start", "Start the service that install has made", "started: it takes jobs")
}

func newRestart(s streams) *cobra.Command {
	return serviceVerb(s, "restart", "Restart the service; running jobs go on, and the new start takes them up", "restarted: it takes jobs, and has taken up those that ran")
}

// serviceVerb is a command that has systemd do one thing.
func serviceVerb(s streams, verb, short, done string) *cobra.Command {
	cmd := &cobra.Command{Use: verb, Short: short, Example: "  tranter " + verb, Args: onlyFlags}
	f := addServiceFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		systemd, err := f.systemd()
		if err != nil {
			return err
		}
		if err := systemd.Do(cmd.Context(), verb, f.name); err != nil {
			return f.explain(verb, err)
		}
		fmt.Fprintf(s.out, "The service %s is %s.\n", f.name, done)
		return nil
	}
	return cmd
}

// explain says what to do about an order that systemd has not carried out.
func (f *serviceFlags) explain(verb string, err error) error {
	if !errors.Is(err, service.ErrNoSystemd) {
		return fmt.Errorf("%w\n%s status %s, and journalctl -u %s, say more", err, f.systemctl(), f.name, f.name)
	}
	switch verb {
	case "start":
		return fmt.Errorf("%w: start the manager by hand, with %q", err, "tranter run")
	case "restart":
		return fmt.Errorf("%w: end the manager with %q, which spares running jobs, and start it with %q", err, "tranter drain --leave-jobs --wait", "tranter run")
	default:
		return fmt.Errorf("%w: end the manager with %q", err, "tranter drain --wait")
	}
}

// stopFlags are those of stop.
type stopFlags struct {
	*serviceFlags
	now, leave, fromSystemd bool
}

func newStop(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop the service when its running jobs have finished",
		Long: `Stop the service: it takes no new jobs, and ends when those that run have finished, or after
two hours, when they are ended and reported. The command waits for that; when it is
interrupted, the service goes on draining.`,
		Example: `  tranter stop
  tranter stop --leave-jobs   # at once; jobs go on by themselves, the next start takes them up
  tranter stop --now          # at once; jobs are ended, and reported as such`,
		Args: onlyFlags,
	}
	f := stopFlags{serviceFlags: addServiceFlags(cmd.Flags())}
	client := addControlFlags(cmd)
	cmd.Flags().BoolVar(&f.now, "now", false, "end running jobs and report them, within shutdown_timeout")
	cmd.Flags().BoolVar(&f.leave, "leave-jobs", false, "let running jobs go on by themselves; the next start takes them up")
	cmd.Flags().BoolVar(&f.fromSystemd, "from-systemd", false, "as the unit's own command: spare jobs at a restart, else drain")
	_ = cmd.Flags().MarkHidden("from-systemd")
	cmd.MarkFlagsMutuallyExclusive("now", "leave-jobs", "from-systemd")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		systemd, err := f.systemd()
		if err != nil {
			return err
		}
		c, err := client()
		if err != nil {
			return err
		}
		c = f.ofService(cmd, c)
		if f.fromSystemd {
			return endForSystemd(cmd.Context(), s, systemd, f.name, c)
		}
		if err := f.stop(cmd.Context(), systemd, c); err != nil {
			return f.explain("stop", err)
		}
		fmt.Fprintf(s.out, "The service %s has stopped.\n", f.name)
		return nil
	}
	return cmd
}

// ofService is the client of a service of another name, whose state systemd keeps beside ours, unless something names a
// state directory.
func (f *serviceFlags) ofService(cmd *cobra.Command, c *controlClient) *controlClient {
	if f.name == service.DefaultName || f.perUser || cmd.Flags().Changed("state-dir") || os.Getenv("STATE_DIRECTORY") != "" || c.dir != rootStateDir {
		return c
	}
	return newControlClient(filepath.Join(filepath.Dir(rootStateDir), f.name))
}

func (f *stopFlags) stop(ctx context.Context, systemd service.Systemd, c *controlClient) error {
	if f.leave {
		if !systemd.Booted() {
			return service.ErrNoSystemd
		}
		if err := c.leave(ctx); err != nil && !errors.Is(err, errNotRunning) {
			return err
		}
	}
	if f.now {
		// Asked to stop first, systemd does not start it anew.
		if err := systemd.StopSoon(ctx, f.name); err != nil {
			return err
		}
		if err := systemd.Signal(ctx, f.name, "SIGTERM"); err != nil {
			return err
		}
	}
	return systemd.Do(ctx, "stop", f.name)
}

// endForSystemd is the unit's ExecStop. It returns when the manager has ended, or can't be told to: systemd ends it then.
func endForSystemd(ctx context.Context, s streams, systemd service.Systemd, name string, c *controlClient) error {
	pid, err := strconv.Atoi(os.Getenv("MAINPID"))
	if err != nil {
		return nil //nolint:nilerr // it has ended by itself
	}
	spare, err := systemd.Sparing(ctx, name)
	if err != nil {
		// Jobs that go on can still be taken up; ended ones can't.
		fmt.Fprintf(s.err, "systemd does not tell why the service is stopped; jobs are left for the next start: %v\n", err)
		spare = true
	}
	if spare {
		err = c.leave(ctx)
	} else {
		err = c.drain(ctx)
	}
	if err != nil && !errors.Is(err, errNotRunning) {
		return err
	}
	return awaitEnd(ctx, pid)
}

// awaitEnd returns when a process is not there any more.
func awaitEnd(ctx context.Context, pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil
	}
	defer func() { _ = p.Release() }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for p.Signal(syscall.Signal(0)) == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
