package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/tranter-ci/tranter/internal/view"
)

// upgradeLimit is how long the new version gets to answer.
const upgradeLimit = leaveLimit + 40*time.Second

func newUpgrade(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Replace the running manager by the version that is installed now; jobs go on",
		Long: `Let the manager of this host become the program that has its file's name now: install the
new version over the old one, then call this. The process stays, with its id; running jobs
go on, and the new version takes them up. SIGUSR2 does the same.`,
		Example: `  install -m 0755 tranter-new /usr/local/bin/tranter && tranter upgrade`,
		Args:    onlyFlags,
	}
	client := addControlFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := client()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), upgradeLimit)
		defer cancel()
		before, err := c.status(ctx)
		if err != nil {
			return err
		}
		// The manager may have made way before its answer was sent to its end.
		if err := c.upgrade(ctx); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			return err
		}
		after, err := c.awaitSuccessor(ctx, before.Started)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "The manager runs version %s now, and has taken up %s.\n", after.Version, view.Count(len(after.Jobs), "job"))
		return nil
	}
	return cmd
}

// awaitSuccessor returns the state of the first manager that was started later.
func (c *controlClient) awaitSuccessor(ctx context.Context, started time.Time) (statusAnswer, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := c.status(ctx)
		if err == nil && status.Started.After(started) && status.State == "running" {
			return status, nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = errors.New("the old one is still there")
			}
			return status, fmt.Errorf("the new version does not answer; the manager's log says why: %w", err)
		case <-tick.C:
		}
	}
}
