package main

import (
	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/batch/launch"
)

// newAgentLaunch returns the command that runs the command of a launch, and outlives the manager.
func newAgentLaunch() *cobra.Command {
	return &cobra.Command{
		Use:   "launch DIR",
		Short: "Run the command of the launch in DIR, once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return launch.Run(cmd.Context(), args[0])
		},
	}
}
