package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/view"
)

func newResetToken(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reset-token",
		Short: "Replace the tokens of runners by new ones",
		Long: `Have GitLab replace the tokens of runners, and write the new ones into the configuration,
or into the token_file. The old tokens are not valid any more afterwards.

With --pat the right to do so comes from a personal access token, so that a token that
has expired can be replaced too. A token that the configuration takes from an environment
variable can't be replaced here: nobody but you can set the variable.`,
		Example: `  tranter reset-token --name "build host"
  tranter reset-token --url https://gitlab.example.com --id 42
  tranter reset-token --all-runners --pat glpat-...`,
		Args: onlyFlags,
	}
	c := resetting{s: s, path: addConfigFlag(cmd.Flags())}
	flags := cmd.Flags()
	c.want.addName(flags)
	c.want.addURL(flags)
	flags.Int64VarP(&c.want.id, "id", "i", 0, "the runner with this number on its server")
	flags.BoolVar(&c.all, "all-runners", false, "all runners of the configuration")
	flags.Var(secretValue{&c.pat}, "pat", "personal access token that may administer the runner")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if c.log, err = logFlags(flags).logger(s.err, new(slog.LevelVar)); err != nil {
			return err
		}
		return c.run(cmd.Context())
	}
	return cmd
}

// resetting is the command reset-token.
type resetting struct {
	s    streams
	log  *slog.Logger
	path *string
	want selection
	all  bool
	pat  tranter.Secret
}

func (c *resetting) run(ctx context.Context) error {
	file, err := readRunners(*c.path, false)
	if err != nil {
		return err
	}
	runners, err := c.runners(file)
	if err != nil {
		return err
	}
	// Between a reset and the writing of the new token nothing may end this process.
	ctx, stop := signal.NotifyContext(ctx, stopSignals()...)
	defer stop()
	failed := 0
	seen := map[config.Raw]bool{}
	for _, r := range runners {
		same := config.Raw{URL: r.URL, Token: r.Token}
		if r.Token != "" && seen[same] {
			continue // the section has got the new token together with an earlier one
		}
		seen[same] = true
		err := context.Cause(ctx)
		if err == nil {
			err = c.reset(ctx, file, r)
		}
		if err != nil {
			failed++
			c.log.Error("The token could not be replaced", "runner", shownToken(r), "name", r.Name, "url", r.URL, "error", err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%s not replaced: see above", view.Count(failed, "token"))
	}
	return nil
}

func (c *resetting) runners(file runnersFile) ([]config.Runner, error) {
	switch {
	case c.all:
		return file.config.Runners, nil
	case c.want.name != "":
		return selection{name: c.want.name}.of(file)
	case c.want.url == "" || c.want.id == 0:
		return nil, errors.New("name the runners: --name, or --url and --id, or --all-runners")
	default:
		return c.want.of(file)
	}
}

func (c *resetting) reset(ctx context.Context, file runnersFile, r config.Runner) error {
	client, err := file.server(r, c.log)
	if err != nil {
		return err
	}
	renew := client.ResetToken
	if c.pat != "" {
		if r.ID == 0 {
			return fmt.Errorf("the section in line %d has no id, which --pat needs: add the runner's number in GitLab as id", r.Line)
		}
		renew = func(ctx context.Context) (gitlab.Registered, error) {
			return client.ResetTokenWithPAT(ctx, r.ID, c.pat)
		}
	}
	got, err := renewToken(ctx, *c.path, r, renew, time.Now())
	if err != nil {
		return err
	}
	r.Token = got.Token
	until := "does not expire"
	if !got.TokenExpiresAt.IsZero() {
		until = "expires at " + got.TokenExpiresAt.Format(time.RFC3339)
	}
	fmt.Fprintf(c.s.out, "Runner %s has a new token, which %s.\n", runnerLabel(r), until)
	return nil
}
