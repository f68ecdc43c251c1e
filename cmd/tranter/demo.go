package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/examples"
)

func newDemo(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a sample pipeline on this machine, from nothing",
		Long: `Write a sample project to the state directory and run its pipeline, through the
local stand-in for GitLab and the real runner: stages and needs, a matrix, artifacts
and a dotenv variable that are passed on, a cache, an allowed failure and a manual
job. It needs git and bash, no configuration and no network; with --executor docker
or --machines, a local container engine and an image for the jobs.`,
		Example: `  tranter demo
  tranter demo --executor docker
  tranter demo --machines --web 127.0.0.1:9253
  tranter demo --state-dir /tmp/demo`,
		Args: cobra.NoArgs,
	}
	state := cmd.Flags().String("state-dir", "", "directory for the sample project, logs and artifacts (default: demo in the user's cache directory)")
	var executor localExecutor
	addExecutorFlags(cmd.Flags(), &executor)
	var page string
	addPageFlag(cmd.Flags(), &page)
	machines := cmd.Flags().Bool("machines", false, "run the jobs on machines that come and go: containers, of a local engine, with an engine of their own")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *machines {
			executor.name = machineExecutor
		}
		dir := *state
		if dir == "" {
			dir = filepath.Join(cacheRoot(), "demo")
		}
		dir, err := filepath.Abs(dir)
		if err != nil {
			return fmt.Errorf("find the state directory: %w", err)
		}
		project, err := writeDemo(dir)
		if err != nil {
			return err
		}
		err = runPipeline(cmd.Context(), s, &runOptions{
			pipelineRequest: pipelineRequest{dir: project}, state: filepath.Join(dir, "state"), concurrent: max(2, runtime.NumCPU()), brief: true, executor: executor, page: page,
			logs: logFlags(cmd.Flags()),
		})
		if err == nil {
			fmt.Fprintf(s.out, "project    %s   (change it, then: tranter pipeline run %s)\n", project, shellWord(project))
		}
		return err
	}
	return cmd
}

// writeDemo writes the sample project anew below dir and returns where it is.
func writeDemo(dir string) (string, error) {
	project := filepath.Join(dir, "demo")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", noStateDir(err)
	}
	if err := ownDir(dir); err != nil {
		return "", err
	}
	if err := os.RemoveAll(project); err != nil {
		return "", fmt.Errorf("remove the sample project of an earlier demo: %w", err)
	}
	if err := os.CopyFS(dir, examples.Demo); err != nil {
		return "", fmt.Errorf("write the sample project: %w", err)
	}
	return project, nil
}
