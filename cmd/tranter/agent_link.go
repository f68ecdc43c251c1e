package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/agent"
	agentlink "github.com/tranter-ci/tranter/internal/agent/link"
)

// workerName is the name under which this program carries out phases below an image's entrypoint: one word, for entrypoints
// that are the beginning of a shell's command line.
const workerName = "tranter-work"

// agentRoot is where the agent of a container works.
const agentRoot = "/.tranter/job"

// These two are in the tree of commands for their help only: they run without it.

func newAgentServe(s streams) *cobra.Command {
	return &cobra.Command{
		Use:                "serve ROOT [--umask N] [--open DIR]... [-- ENTRYPOINT...]",
		Short:              "Be the main process of a container and carry out what comes on standard input",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return linkAgent(cmd.Context(), "serve", args, s)
		},
	}
}

func newAgentConnect(s streams) *cobra.Command {
	return &cobra.Command{
		Use:                "connect ROOT",
		Short:              "Connect standard input and output to the main process of this container",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return linkAgent(cmd.Context(), "connect", args, s)
		},
	}
}

// linkAgent carries out one of the commands of a container's agent.
func linkAgent(ctx context.Context, command string, args []string, s streams) error {
	if command == "serve" {
		serving, err := parseServing(args)
		if err != nil {
			return err
		}
		return agentlink.Serve(ctx, serving, agent.Work{Artifacts: artifacts}, agentlink.Streams{In: s.in, Out: s.out, Err: s.err})
	}
	if len(args) != 1 {
		return fmt.Errorf("agent connect takes the agent's directory, not %d arguments", len(args))
	}
	return agentlink.Connect(ctx, args[0], agentlink.Streams{In: s.in, Out: s.out, Err: s.err})
}

// parseServing reads the arguments of "agent serve".
func parseServing(args []string) (agentlink.Serving, error) {
	serving := agentlink.Serving{Umask: -1}
	if len(args) == 0 {
		return serving, fmt.Errorf("agent serve needs the agent's directory")
	}
	serving.Root = args[0]
	flags := flag.NewFlagSet("agent serve", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Func("umask", "octal", func(v string) error {
		mask, err := strconv.ParseUint(v, 8, 9)
		serving.Umask = int(mask) //nolint:gosec // it has nine bits
		return err
	})
	flags.Func("open", "a directory", func(v string) error {
		serving.Open = append(serving.Open, v)
		return nil
	})
	if err := flags.Parse(args[1:]); err != nil {
		return serving, fmt.Errorf("agent serve: %w", err)
	}
	serving.Entrypoint = flags.Args()
	return serving, nil
}

// runWorker carries out phases below an image's entrypoint and returns the exit code.
func runWorker(ctx context.Context, stderr io.Writer) int {
	root := os.Getenv(agentlink.WorkEnv)
	if root == "" { // the entrypoint has emptied the environment
		root = agentRoot
	}
	if err := agentlink.Work(ctx, root, agent.Work{Artifacts: artifacts}); err != nil {
		fmt.Fprintf(stderr, "tranter: %v\n", err)
		return 1
	}
	return 0
}
