package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/view"
)

func newVerify(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Ask GitLab whether the runners' tokens are valid; exit code 1 when one is not",
		Long: `Ask GitLab whether the tokens of all runners, or of those that are selected, are valid.

Only a server that refuses a token makes it invalid (exit code 1). A server that can't
be reached proves nothing: that is a warning, and no runner is removed for it.`,
		Example: `  tranter verify
  tranter verify --name "build host"
  tranter verify --delete          remove the runners that GitLab does not know any more`,
		Args: onlyFlags,
	}
	path := addConfigFlag(cmd.Flags())
	var want selection
	want.addName(cmd.Flags())
	want.addURL(cmd.Flags())
	want.addToken(cmd.Flags())
	remove := cmd.Flags().Bool("delete", false, "remove runners whose token is not valid from the configuration")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := logFlags(cmd.Flags()).logger(s.err, new(slog.LevelVar))
		if err != nil {
			return err
		}
		file, err := readRunners(*path, want.empty())
		if err != nil {
			return err
		}
		runners, err := want.of(file)
		if err != nil {
			return err
		}
		invalid := verifyAll(cmd.Context(), s, file, runners, log)
		if len(invalid) == 0 {
			return nil
		}
		if !*remove {
			return fmt.Errorf("%s not valid: create the runner anew in GitLab, or remove it with \"tranter verify --delete\"", view.Count(len(invalid), "token"))
		}
		if err := removeSections(cmd.Context(), *path, invalid); err != nil {
			return err
		}
		for _, r := range invalid {
			fmt.Fprintf(s.out, "Runner %s is removed from %s.\n", runnerLabel(r), *path)
		}
		return nil
	}
	return cmd
}

// verifyAll tells about each runner, and returns those whose token is not valid.
func verifyAll(ctx context.Context, s streams, file runnersFile, runners []config.Runner, log *slog.Logger) []config.Runner {
	var invalid []config.Runner
	if len(runners) == 0 {
		fmt.Fprintf(s.out, "There are no runners in %s.\n", file.path)
	}
	for _, r := range runners {
		result, err := file.verifyRunner(ctx, r, log)
		switch result {
		case tokenValid:
			fmt.Fprintf(s.out, "Runner %s is valid.\n", runnerLabel(r))
		case tokenInvalid:
			fmt.Fprintf(s.out, "Runner %s is not valid: %v.\n", runnerLabel(r), err)
			invalid = append(invalid, r)
		default:
			log.Warn("Whether the runner is valid could not be told", "runner", shownToken(r), "name", r.Name, "url", r.URL, "error", err)
		}
	}
	return invalid
}
