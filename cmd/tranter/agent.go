package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
	"github.com/tranter-ci/tranter/internal/gitlab"
)

// newAgent returns the commands that run inside environments. They are for the manager, not for people.
func newAgent(s streams) *cobra.Command {
	cmd := group("agent", "Work through a phase of a job, inside its environment", "", newAgentRun(), newAgentAttach(s), newAgentCancel())
	cmd.Hidden = true
	return cmd
}

func newAgentRun() *cobra.Command {
	return &cobra.Command{
		Use:   "run DIR",
		Short: "Carry out the phase in DIR",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return agent.Run(cmd.Context(), args[0], agent.Work{Artifacts: artifacts})
		},
	}
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
