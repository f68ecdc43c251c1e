package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/site"
)

func newSiteShow(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Print what comes out of a site file, or how that differs from what there is",
		Long: `Print all runners of a site file as they come out, with all variables replaced. Secrets are stars.

With --diff, print how the configuration that "site apply" has written differs from what
it would write now (lines with - are there, those with + would be), and what "site apply"
would change in GitLab.`,
		Example: `  tranter site show -c site.toml
  tranter site show --output json
  tranter site show --diff
  tranter site show --diff --offline`,
		Args: cobra.MaximumNArgs(1),
	}
	flags := cmd.Flags()
	c := siteShow{s: s, path: addSiteFlag(flags), output: addOutputFlag(flags), stateDir: addStateDirFlag(flags)}
	flags.BoolVar(&c.diff, "diff", false, "print differences from what there is")
	flags.BoolVar(&c.offline, "offline", false, "with --diff, do not ask GitLab")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if c.log, err = logFlags(flags).logger(s.err, new(slog.LevelVar)); err != nil {
			return err
		}
		return c.run(cmd.Context(), args)
	}
	return cmd
}

// siteShow is the command site show.
type siteShow struct {
	s              streams
	log            *slog.Logger
	path, stateDir *string
	output         *outputFormat
	diff, offline  bool
}

func (c *siteShow) run(ctx context.Context, args []string) error {
	file := namedSite(*c.path, args)
	parsed, problems, err := parseSite(file)
	if err != nil {
		return err
	}
	printProblems(c.s.err, problems, config.Warning)
	if found := blocking(problems); len(found) > 0 {
		return fmt.Errorf("%s can't be shown: %s", file, countProblems(found))
	}
	if c.diff {
		return c.differences(ctx, parsed)
	}
	if *c.output == "json" {
		return writeJSON(c.s.out, parsed.Show())
	}
	text, err := config.Write(parsed.Show())
	if err != nil {
		return fmt.Errorf("show the site: %w", err)
	}
	_, err = c.s.out.Write(text)
	return err
}

// differences prints how what there is differs from what the site file says.
func (c *siteShow) differences(ctx context.Context, parsed site.Site) error {
	dir, err := stateDir(*c.stateDir, parsed.Manager.StateDir)
	if err != nil {
		return err
	}
	if err := c.onDisk(parsed, dir); err != nil || c.offline {
		return err
	}
	plan, err := siteDifference(ctx, parsed, dir, c.log)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.s.out, "\n%s", plan)
	return nil
}

// onDisk compares with the configuration that was generated.
func (c *siteShow) onDisk(parsed site.Site, dir string) error {
	path, err := siteConfigPath(dir, parsed.Name)
	if err != nil {
		return err
	}
	tokens, err := loadSiteTokens(dir, parsed.Name)
	if err != nil {
		return err
	}
	there, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(c.s.out, "%s is not there yet: \"tranter site apply\" writes it.\n", path)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the generated configuration: %w", err)
	}
	now, err := site.RenderConfig(parsed, tokens)
	if err != nil {
		return fmt.Errorf("generate the configuration: %w", err)
	}
	lines := parsed.Difference(string(there), string(now))
	if len(lines) == 0 {
		fmt.Fprintf(c.s.out, "%s is as it would be written now.\n", path)
		return nil
	}
	fmt.Fprintf(c.s.out, "--- %s\n+++ as it would be written now\n", path)
	for _, line := range lines {
		fmt.Fprintln(c.s.out, line)
	}
	return nil
}
