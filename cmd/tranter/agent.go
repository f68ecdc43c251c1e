package main

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
	"github.com/tranter-ci/tranter/internal/diskspace"
	"github.com/tranter-ci/tranter/internal/gitlab"
)

// newAgent returns the commands that run inside environments. They are for the manager, not for people.
func newAgent(s streams) *cobra.Command {
	cmd := group("agent", "Work through a phase of a job, inside its environment", "", newAgentRun(), newAgentAttach(s), newAgentCancel(), newAgentTerminal(), newAgentRoom(s), newAgentServe(s), newAgentConnect(s), newAgentLaunch(), newAgentWorker(s))
	cmd.Hidden = true
	return cmd
}

func newAgentRun() *cobra.Command {
	return &cobra.Command{
		Use:   "run DIR",
		Short: "Carry out the phase in DIR",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runAgent(cmd.Context(), args[0])
		},
	}
}

// agentRun tells the directory of a command line with which executors start an agent.
func agentRun(args []string) (dir string, ok bool) {
	if len(args) != 3 || args[0] != "agent" || args[1] != "run" || strings.HasPrefix(args[2], "-") {
		return "", false
	}
	return args[2], true
}

func runAgent(ctx context.Context, dir string) error {
	return agent.Run(ctx, dir, agent.Work{Artifacts: artifacts})
}

// artifacts connects an agent to the coordinator of its job.
func artifacts(s tranter.Server) (transfer.Artifacts, error) {
	return gitlab.New(gitlab.Options{
		URL: s.URL, TLSCAPEM: s.TLSCA, TLSCertFile: s.TLSCert, TLSKeyFile: s.TLSKey, Version: clientVersion(),
	})
}

func newAgentAttach(s streams) *cobra.Command {
	cmd := &cobra.Command{Use: "attach DIR", Short: "Copy the journal of the phase in DIR to standard output, then its result", Args: cobra.ExactArgs(1)}
	offset := cmd.Flags().Int64("offset", 0, "byte of the journal to start at")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return agent.ServeAttach(cmd.Context(), args[0], *offset, s.out)
	}
	return cmd
}

func newAgentCancel() *cobra.Command {
	cmd := &cobra.Command{Use: "cancel DIR", Short: "End the phase in DIR", Args: cobra.ExactArgs(1)}
	abort := cmd.Flags().Bool("abort", false, "end it at once, without after_script")
	grace := cmd.Flags().Duration("grace", 10*time.Second, "time that the script gets to end")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return agent.Cancel(args[0], *abort, *grace)
	}
	return cmd
}

func newAgentRoom(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "room DIR",
		Short: "Print how much room is left on the disk of DIR, as JSON",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			room, err := diskspace.Of(args[0])
			if err != nil {
				return err
			}
			return json.NewEncoder(s.out).Encode(room)
		},
	}
}

func newAgentTerminal() *cobra.Command {
	return &cobra.Command{
		Use:   "terminal DIR",
		Short: "Hold an interactive terminal beside the phase in DIR, in frames over standard input and output",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return agent.Terminal(cmd.Context(), args[0], os.Stdin, os.Stdout)
		},
	}
}
