package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/view"
)

func newUnregister(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "unregister",
		Short: "Remove runners from GitLab and from the configuration",
		Long: `Remove runners from GitLab and their sections from the configuration.

Of a runner that was created in GitLab (its token begins with glrt-) only this manager
is removed there; the runner itself is deleted in GitLab. A runner that GitLab does not
let go stays in the configuration, and the exit code is 1.`,
		Example: `  tranter unregister --name "build host"
  tranter unregister --url https://gitlab.example.com --token glrt-...
  tranter unregister --all-runners`,
		Args: onlyFlags,
	}
	u := unregistration{s: s, path: addConfigFlag(cmd.Flags())}
	u.addFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if u.log, err = logFlags(cmd.Flags()).logger(s.err, new(slog.LevelVar)); err != nil {
			return err
		}
		return u.run(cmd.Context())
	}
	return cmd
}

// unregistration is the command unregister.
type unregistration struct {
	s    streams
	log  *slog.Logger
	path *string
	want selection
	all  bool

	tls struct{ ca, cert, key string } // for a runner that is not in the file
}

func (u *unregistration) addFlags(flags *pflag.FlagSet) {
	u.want.addName(flags)
	u.want.addURL(flags)
	withEnv(flags, "url", "CI_SERVER_URL")
	u.want.addToken(flags)
	withEnv(flags, "token", "CI_SERVER_TOKEN")
	flags.BoolVar(&u.all, "all-runners", false, "all runners of the configuration")
	for _, f := range []struct {
		to               *string
		name, env, about string
	}{
		{&u.tls.ca, "tls-ca-file", "CI_SERVER_TLS_CA_FILE", "PEM file of certificate authorities, for a runner that is not in the configuration"},
		{&u.tls.cert, "tls-cert-file", "CI_SERVER_TLS_CERT_FILE", "PEM file of the client certificate, for such a runner"},
		{&u.tls.key, "tls-key-file", "CI_SERVER_TLS_KEY_FILE", "PEM file of its key, for such a runner"},
	} {
		flags.StringVar(f.to, f.name, "", f.about)
		withEnv(flags, f.name, f.env)
	}
}

func (u *unregistration) run(ctx context.Context) error {
	file, err := readRunners(*u.path, true)
	if err != nil {
		return err
	}
	runners, err := u.runners(file)
	if err != nil {
		return err
	}
	var gone []config.Runner
	failed := 0
	for _, r := range runners {
		if err := u.unregister(ctx, file, r); err != nil {
			failed++
			u.log.Error("The runner could not be unregistered: it stays in the configuration", "runner", shownToken(r), "name", r.Name, "url", r.URL, "error", err)
			continue
		}
		gone = append(gone, r)
		fmt.Fprintf(u.s.out, "Runner %s is unregistered from %s.\n", runnerLabel(r), r.URL)
		if createdToken(r.Token) {
			fmt.Fprintln(u.s.out, "Its token stays valid on other hosts; the runner itself is deleted in GitLab.")
		}
	}
	if err := removeSections(ctx, *u.path, gone); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%s could not be unregistered: see above", view.Count(failed, "runner"))
	}
	return nil
}

// runners returns what is to be unregistered: sections of the file, or the runner that the flags describe.
func (u *unregistration) runners(file runnersFile) ([]config.Runner, error) {
	switch {
	case u.all:
		return file.config.Runners, nil
	case u.want.name != "":
		return selection{name: u.want.name}.of(file) // what the environment says of a token is about another runner
	case u.want.token == "":
		return nil, errors.New("name the runners: --name, or --url and --token, or --all-runners")
	}
	runners, err := u.want.of(file)
	if err == nil || u.want.url == "" {
		return runners, err
	}
	r := config.DefaultRunner()
	r.Index, r.URL, r.Token = -1, u.want.url, u.want.token
	r.TLSCAFile, r.TLSCertFile, r.TLSKeyFile = u.tls.ca, u.tls.cert, u.tls.key
	return []config.Runner{r}, nil
}

func (u *unregistration) unregister(ctx context.Context, file runnersFile, r config.Runner) error {
	client, err := file.server(r, u.log)
	if err != nil {
		return err
	}
	err = unregisterManager(ctx, client)
	if errors.Is(err, tranter.ErrForbidden) {
		return fmt.Errorf("%w; \"tranter verify --delete\" removes runners whose token is not valid any more", err)
	}
	return err
}

// unregisterManager removes a runner, or this manager of it. A server forgets managers that it has not heard of for a
// while; then the token alone tells whether the runner is there, and asking makes the manager known again.
func unregisterManager(ctx context.Context, client *gitlab.Client) error {
	err := client.Unregister(ctx)
	if !errors.Is(err, tranter.ErrNotFound) {
		return err
	}
	if _, e := client.Verify(ctx); e != nil {
		return errors.Join(err, e)
	}
	return client.Unregister(ctx)
}
