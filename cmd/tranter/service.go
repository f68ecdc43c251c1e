package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/service"
)

// serviceFlags say which service is meant.
type serviceFlags struct {
	name    string
	perUser bool
}

func addServiceFlags(flags *pflag.FlagSet) *serviceFlags {
	f := &serviceFlags{}
	flags.StringVarP(&f.name, "service", "n", service.DefaultName, "name of the service")
	flags.BoolVar(&f.perUser, "user-service", false, "a service of the user who asks, not of the system")
	return f
}

// systemd is the one that has the service.
func (f *serviceFlags) systemd() (service.Systemd, error) {
	if err := service.ValidName(f.name); err != nil {
		return service.Systemd{}, err
	}
	if !f.perUser {
		return service.Systemd{}, nil
	}
	if os.Geteuid() == 0 {
		return service.Systemd{}, errors.New("--user-service is for an ordinary user: root's is the system's, without that flag")
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return service.Systemd{}, fmt.Errorf("find the directory of the user's units: %w", err)
	}
	return service.Systemd{PerUser: true, ConfDir: dir}, nil
}

// systemctl is how its user talks to systemd by hand.
func (f *serviceFlags) systemctl() string {
	if f.perUser {
		return "systemctl --user"
	}
	return "systemctl"
}

// installFlags are those of install.
type installFlags struct {
	*serviceFlags
	config, state, dir, user, initUser string
	hardened, show                     bool
}

func newInstall(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Make the manager a service of systemd, which starts with the host",
		Long: `Write a unit for systemd and have it started with the host from now on; "tranter start"
starts it at once. A configuration that is not there yet is made, without runners. Running
jobs go on when the service is restarted or its program is upgraded.`,
		Example: `  tranter install
  tranter install --user builder --working-directory /home/builder   # jobs of the shell executor run as builder
  tranter install --hardened                                         # all jobs run in containers or on machines
  tranter install --user-service                                     # without root: a service of yours`,
		Args: onlyFlags,
	}
	f := installFlags{serviceFlags: addServiceFlags(cmd.Flags())}
	path := addConfigFlag(cmd.Flags())
	cmd.Flags().StringVar(&f.state, "state-dir", "", "directory of the manager's state (default: one that systemd makes, /var/lib and the service's name)")
	cmd.Flags().StringVarP(&f.dir, "working-directory", "d", "", "directory that builds and caches without a directory of their own are made in (default: the home of --user, else the state directory)")
	cmd.Flags().StringVarP(&f.user, "user", "u", "", "system user as whom the shell executor runs jobs (default: as the manager)")
	cmd.Flags().StringVarP(&f.initUser, "init-user", "i", "", "system user as whom the manager itself runs (default: root)")
	cmd.Flags().BoolVar(&f.hardened, "hardened", false, "confine the manager; not when jobs run on this host itself (executors shell and custom)")
	cmd.Flags().BoolVar(&f.show, "print", false, "only print the unit")
	cmd.Flags().Bool("syslog", false, "accepted; no effect: systemd's journal has the log")
	_ = cmd.Flags().MarkHidden("syslog")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f.config = *path
		return f.install(cmd.Context(), s)
	}
	return cmd
}

// unit is what the flags say about it.
func (f installFlags) unit() (service.Unit, error) {
	self, err := os.Executable()
	if err != nil {
		return service.Unit{}, fmt.Errorf("find this program: %w", err)
	}
	u := service.Unit{
		Name: f.name, Program: programPath(self), JobUser: f.user, InitUser: f.initUser, PerUser: f.perUser,
	}
	if f.perUser && f.state == "" {
		f.state = defaultStateDir()
	}
	if f.dir == "" && f.user != "" {
		account, err := user.Lookup(f.user)
		if err != nil {
			return u, fmt.Errorf("--user: %w", err)
		}
		f.dir = account.HomeDir
	}
	for from, to := range map[string]*string{f.config: &u.Config, f.state: &u.StateDir, f.dir: &u.WorkingDir} {
		if from == "" {
			continue
		}
		if *to, err = filepath.Abs(from); err != nil {
			return u, fmt.Errorf("find %s: %w", from, err)
		}
	}
	return u, nil
}

func (f installFlags) install(ctx context.Context, s streams) error {
	systemd, err := f.systemd()
	if err != nil {
		return err
	}
	u, err := f.unit()
	if err != nil {
		return err
	}
	text, err := u.Text()
	if err != nil {
		return err
	}
	if f.show {
		_, err = io.WriteString(s.out, text)
		return err
	}
	if !f.perUser && os.Geteuid() != 0 {
		return errors.New("only root can install a service of the system; --user-service installs one of yours")
	}
	if err := f.seeToConfig(s, u.Config); err != nil {
		return err
	}
	if path := systemd.Packaged(f.name); path != "" {
		fmt.Fprintf(s.err, "The unit of the package, %s, has no effect any more: the new one comes before it.\n", path)
	}
	err = systemd.Install(ctx, u, f.hardened)
	if errors.Is(err, service.ErrNoSystemd) {
		fmt.Fprintf(s.out, "The unit is written: %s\nsystemd does not run here. Where it does: systemctl daemon-reload, then systemctl enable --now %s.\nWithout it: %s\n",
			systemd.Path(f.name), f.name, startByHand(u.Config))
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "The service %s is installed, and starts with the host: %s\n\"tranter start%s\" starts it now.\n", f.name, systemd.Path(f.name), f.again())
	if f.perUser {
		fmt.Fprintln(s.out, `It ends when you log out, unless root says "loginctl enable-linger" for you.`)
	}
	return nil
}

// again are the flags that name this service in another command.
func (f *serviceFlags) again() string {
	text := ""
	if f.name != service.DefaultName {
		text += " --service " + f.name
	}
	if f.perUser {
		text += " --user-service"
	}
	return text
}

// seeToConfig makes the configuration if there is none, and warns of what does not go with the service.
func (f installFlags) seeToConfig(s streams, path string) error {
	c, problems, err := parseConfig(path, false)
	if errors.Is(err, fs.ErrNotExist) {
		return makeConfig(s, path)
	}
	if err != nil {
		return err
	}
	printProblems(s.err, problems, config.Error)
	for _, r := range c.Runners {
		here := r.Executor == "shell" || r.Executor == "custom"
		if here && f.hardened {
			return fmt.Errorf("runner %s runs jobs on this host (executor %s), and --hardened would confine them: leave it out", r.Name, r.Executor)
		}
		if r.Executor == "shell" && f.user == "" && !f.perUser && (f.initUser == "" || f.initUser == "root") {
			fmt.Fprintf(s.err, "Jobs of runner %s run as root on this host: name another user with --user.\n", r.Name)
		}
	}
	return nil
}

// makeConfig makes a configuration without runners.
func makeConfig(s streams, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the configuration's directory: %w", err)
	}
	if err := os.WriteFile(path, []byte("concurrent = 1\n"), 0o600); err != nil {
		return fmt.Errorf("make the configuration: %w", err)
	}
	fmt.Fprintf(s.out, "There was no configuration: %s is made. \"tranter register\" adds runners.\n", path)
	return nil
}

// startByHand is how a manager is started without a service.
func startByHand(config string) string { return "tranter run --config " + config }

func newUninstall(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop the service and remove its unit; configuration and state stay",
		Long: `Stop the service as "tranter stop" does, running jobs finish, and remove the unit that
"tranter install" has written. Configuration and state stay.`,
		Example: `  tranter uninstall`,
		Args:    onlyFlags,
	}
	f := addServiceFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		systemd, err := f.systemd()
		if err != nil {
			return err
		}
		err = systemd.Uninstall(cmd.Context(), f.name)
		if errors.Is(err, fs.ErrNotExist) {
			if path := systemd.Packaged(f.name); path != "" {
				return fmt.Errorf("the service %s belongs to the package that has installed %s: remove that", f.name, path)
			}
			return fmt.Errorf("there is no service %s: %w", f.name, err)
		}
		if err != nil && !errors.Is(err, service.ErrNoSystemd) {
			return err
		}
		fmt.Fprintf(s.out, "The service %s is removed.\n", f.name)
		return nil
	}
	return cmd
}
