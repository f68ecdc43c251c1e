package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/site"
	"github.com/tranter-ci/tranter/internal/view"
)

func newSiteApply(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apply [FILE]",
		Short: "Create, change and remove runners in GitLab as the site file says",
		Long: `Make GitLab have the runners of a site file, and write the configuration that they run with.

The plan is shown first. Only what the file says is changed: a runner that somebody has
paused or locked in GitLab stays so unless the file says otherwise. Only runners that were
made from this state directory are ever removed, after a question or with --yes.

The runners' tokens are kept in the state directory, in site/NAME.tokens.json. Whatever
happens meanwhile, running the command again goes on where it was left: a runner that was
made although GitLab's answer got lost is found again by a mark in its maintenance note.`,
		Example: `  tranter site apply --dry-run
  tranter site apply -c site.toml --yes
  tranter site apply --rotate all
  tranter site apply --import-tokens hpc.tokens`,
		Args: cobra.MaximumNArgs(1),
	}
	flags := cmd.Flags()
	c := &siteApply{s: s, path: addSiteFlag(flags), stateDir: addStateDirFlag(flags)}
	flags.BoolVar(&c.dry, "dry-run", false, "only show the plan")
	flags.BoolVarP(&c.yes, "yes", "y", false, "remove runners without asking")
	flags.StringArrayVar(&c.facts.Rotate, "rotate", nil, "replace the token of the runner of this name, or of all")
	flags.DurationVar(&c.facts.RotateBefore, "rotate-before", defaultRotateBefore, "replace tokens that expire within this time")
	flags.BoolVar(&c.facts.KeepRemoved, "keep-removed", false, "leave runners in GitLab that are not in the file any more")
	flags.BoolVar(&c.facts.Adopt, "adopt", false, "take over the site's runners from another state directory, which can't use them any more then")
	flags.StringVar(&c.tokens, "import-tokens", "", "file with the tokens of runners that the bridge gitlab-meta-runner has made")
	flags.StringVar(&c.output, "generated-config-file", "", "where to write the configuration (default: site/NAME.config.toml in the state directory)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if c.log, err = logFlags(flags).logger(s.err, new(slog.LevelVar)); err != nil {
			return err
		}
		return c.run(cmd.Context(), args)
	}
	return cmd
}

// defaultRotateBefore leaves time for a week in which nobody applies.
const defaultRotateBefore = 7 * 24 * time.Hour

// siteApply is the command site apply.
type siteApply struct {
	s        streams
	log      *slog.Logger
	path     *string
	stateDir *string
	dry, yes bool
	facts    site.Facts // what the flags say of them
	tokens   string
	output   string
	backoff  time.Duration // of calls that are repeated; 0: as usual
	after    func(site.Step) error
}

func (c *siteApply) run(ctx context.Context, args []string) error {
	file := namedSite(*c.path, args)
	want, problems, err := parseSite(file)
	if err != nil {
		return err
	}
	printProblems(c.s.err, problems, config.Warning)
	if found := blocking(problems); len(found) > 0 {
		return fmt.Errorf("%s can't be applied: %s", file, countProblems(found))
	}
	dir, err := stateDir(*c.stateDir, want.Manager.StateDir)
	if err != nil {
		return err
	}
	// Between an answer that brings a token and its way to the disk nothing may end this process.
	ctx, stop := signal.NotifyContext(ctx, stopSignals()...)
	defer stop()
	return c.apply(ctx, want, dir)
}

// apply brings the server and the state directory into line with the site file.
func (c *siteApply) apply(ctx context.Context, want site.Site, dir string) error {
	unlock, err := lockSite(dir, want.Name, "", siteApplies)
	if err != nil {
		return err
	}
	defer unlock()
	record, err := c.open(want, dir)
	if err != nil {
		return err
	}
	server, err := dialSite(ctx, want, gitlab.ManagementOptions{Log: c.log, Backoff: c.backoff})
	if err != nil {
		return fmt.Errorf("site %s: %w", want.Name, err)
	}
	facts, plan, err := c.plan(ctx, server, want, record)
	if err != nil {
		return fmt.Errorf("site %s: %w", want.Name, err)
	}
	fmt.Fprint(c.s.out, want.Masked(plan.String()))
	if len(plan.Problems) > 0 {
		return fmt.Errorf("nothing is done: %s in the way, see above", view.Count(len(plan.Problems), "problem"))
	}
	if err := server.allow(plan); err != nil {
		return err
	}
	if c.dry {
		return nil
	}
	if err := c.confirm(plan); err != nil {
		return err
	}
	p := sitePlan{server: server, stateDir: dir, record: &record, facts: facts, out: c.s.out, log: c.log, after: c.after}
	err = p.run(ctx, plan)
	if errors.Is(err, errSiteStopped) {
		return err
	}
	return errors.Join(err, c.writeConfig(want, dir, record))
}

// open reads the state directory's record of the site, and makes sure that it is of the same server.
func (c *siteApply) open(want site.Site, dir string) (siteRecord, error) {
	record, err := readSiteRecord(dir, want.Name)
	if err != nil {
		return siteRecord{}, err
	}
	if record.URL != "" && !sameServer(record.URL, want.URL) && len(record.Runners) > 0 {
		path, _ := sitePath(dir, want.Name, siteTokensSuffix)
		return siteRecord{}, fmt.Errorf("the runners in %s are at %s, but the site file says %s: if only the server's address has changed, change it in that file too; else use another name or another --state-dir for the new server", path, record.URL, want.URL)
	}
	record.Site, record.URL = want.Name, strings.TrimRight(want.URL, "/")
	if c.tokens != "" {
		if err := record.importTokens(c.tokens, c.log); err != nil {
			return siteRecord{}, err
		}
	}
	if c.dry {
		record.Owner = siteOwner(record)
		return record, nil
	}
	return record, record.write(dir) // before anything is marked with its owner
}

// siteOwner is the owner of a record; one that was never written has none yet, and nothing has its mark.
func siteOwner(r siteRecord) string {
	if r.Owner == "" {
		return "new"
	}
	return r.Owner
}

// plan looks at the server and decides.
func (c *siteApply) plan(ctx context.Context, server *siteServer, want site.Site, record siteRecord) (site.Facts, site.Plan, error) {
	facts, err := server.survey(ctx, want, record)
	if err != nil {
		return site.Facts{}, site.Plan{}, err
	}
	facts.Rotate, facts.RotateBefore = c.facts.Rotate, c.facts.RotateBefore
	facts.KeepRemoved, facts.Adopt = c.facts.KeepRemoved, c.facts.Adopt
	return facts, site.Reconcile(want, facts), nil
}

// confirm asks before runners are removed.
func (c *siteApply) confirm(plan site.Plan) error {
	names := plan.Deletes()
	if len(names) == 0 || c.yes {
		return nil
	}
	what := fmt.Sprintf("%s to be removed from GitLab (%s)", view.Count(len(names), "runner"), strings.Join(names, ", "))
	if !isTerminal(c.s.in) {
		return fmt.Errorf("nothing is done: %s: say --yes if that is meant, or --keep-removed to leave what is not in the file any more", what)
	}
	answer, err := newAsker(c.s).ask(question{text: what + ". Go on? (yes/no)", preset: "no"})
	if err != nil {
		return err
	}
	if answer != "yes" && answer != "y" {
		return errors.New("nothing is done")
	}
	return nil
}

func (c *siteApply) writeConfig(want site.Site, dir string, record siteRecord) error {
	path := c.output
	if path == "" {
		var err error
		if path, err = siteConfigPath(dir, want.Name); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	changed, err := writeSiteConfig(path, want, record.tokens())
	if changed {
		fmt.Fprintf(c.s.out, "The configuration is in %s.\n", path)
	}
	return err
}

// siteDifference is what apply would do: for "site show --diff".
func siteDifference(ctx context.Context, want site.Site, dir string, log *slog.Logger) (site.Plan, error) {
	c := siteApply{log: log, dry: true, facts: site.Facts{RotateBefore: defaultRotateBefore}}
	record, err := c.open(want, dir)
	if err != nil {
		return site.Plan{}, err
	}
	server, err := dialSite(ctx, want, gitlab.ManagementOptions{Log: log})
	if err != nil {
		return site.Plan{}, fmt.Errorf("site %s: %w", want.Name, err)
	}
	_, plan, err := c.plan(ctx, server, want, record)
	if err != nil {
		return site.Plan{}, fmt.Errorf("site %s: %w", want.Name, err)
	}
	return plan, nil
}
