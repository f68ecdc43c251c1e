package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/site"
	"github.com/tranter-ci/tranter/internal/view"
)

func newSiteCheck(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Print what is wrong with a site file; exit code 1 when it can't be used",
		Long: `Print every problem of a site file, and of what it includes, with its file, line and
column, and the runners that come out of it.

Variables that only a job knows, such as $CUSTOM_ENV_CI_JOB_ID in [executor], are no problem.`,
		Example: `  tranter site check
  tranter site check -c site.toml --strict`,
		Args: cobra.MaximumNArgs(1),
	}
	path := addSiteFlag(cmd.Flags())
	strict := cmd.Flags().Bool("strict", false, "count unknown keys as errors")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		file := namedSite(*path, args)
		parsed, problems, err := parseSite(file)
		if err != nil {
			return err
		}
		for i := range problems {
			if *strict && problems[i].Unknown {
				problems[i].Severity = config.Error
			}
		}
		printProblems(s.err, problems, config.Note)
		if config.Failed(problems, false) {
			return fmt.Errorf("%s can't be used: %s", file, countProblems(problems))
		}
		printSite(s.out, file, parsed, problems)
		return nil
	}
	return cmd
}

// printSite tells what a usable site file amounts to.
func printSite(w io.Writer, path string, s site.Site, problems []config.Problem) {
	state := "is good"
	if len(problems) > 0 {
		state = "can be used, with " + countProblems(problems)
	}
	fmt.Fprintf(w, "%s %s: site %s with %s at %s.\n", path, state, s.Name, view.Count(len(s.Runners), "runner"), s.URL)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nLINE\tNAME\tSERVES\tTAGS\tEXECUTOR\tRUNS")
	for _, r := range s.Runners {
		serves := r.Scope.String()
		if n := len(r.Projects); n > 0 {
			serves += fmt.Sprintf(" and %d more", n)
		}
		tags := strings.Join(r.Tags, ",")
		if r.RunUntagged.Or(false) {
			tags = strings.TrimPrefix(tags+",(untagged)", ",")
		}
		executor := r.Section.Executor
		if executor == "" {
			executor = "-"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\n", r.Line, r.Name, view.Printable(serves), view.Printable(tags), executor, view.Printable(siteWay(&r)))
	}
	_ = t.Flush()
}

// siteWay says where a runner's jobs run.
func siteWay(r *site.Runner) string {
	switch {
	case r.Launch != nil:
		return "launched by " + r.Launch.Executable
	case r.Section.Batch.Scheduler != "":
		return r.Section.Batch.Scheduler + ", " + r.Section.Batch.Order
	case r.Section.Executor == "":
		return "elsewhere"
	}
	return "here"
}
