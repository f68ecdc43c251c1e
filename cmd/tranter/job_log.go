package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
)

func newJobLog(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "log JOB",
		Short: "Print the log of a job that runs or has ended",
		Long: `Print the log of a job that the manager has, or of one that has ended and whose log is kept
on this host (keep_logs). JOB is the job's key, its number or its name.

Time stamps, markers of sections and whatever else a terminal would obey are left out; colours
stay on a terminal, unless NO_COLOR is set. With --raw the log is printed as GitLab gets it.`,
		Example: `  tranter job log 4711
  tranter job log rspec --follow
  tranter job log 4711 --raw > job.log`,
		Args: cobra.ExactArgs(1),
	}
	client := addControlFlags(cmd)
	completingJobs(cmd, client, true)
	follow := cmd.Flags().BoolP("follow", "f", false, "go on until the job has ended")
	raw := cmd.Flags().Bool("raw", false, "print the log as it is, with everything that is in it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := client()
		if err != nil {
			return err
		}
		job, err := c.find(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if job.key() == "" {
			return fmt.Errorf("job %s has no log yet: it waits in GitLab (\"tranter job why %s\" tells what for)", job.label(), args[0])
		}
		log, err := c.anyLog(cmd.Context(), job.key(), *follow)
		if err != nil {
			return fmt.Errorf("the log of job %s: %w", job.label(), err)
		}
		defer log.Close()
		return printLog(s.out, log, *raw)
	}
	return cmd
}

// anyLog opens the log of a job: by the manager, or what is kept where none runs.
func (c *controlClient) anyLog(ctx context.Context, key string, follow bool) (io.ReadCloser, error) {
	log, err := c.jobLog(ctx, key, 0, follow)
	if !errors.Is(err, errNotRunning) {
		return log, err
	}
	kept, err := keptLogs(c.dir)
	if err != nil {
		return nil, err
	}
	f, err := kept.Open(key)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, tranter.ErrNotFound) {
		return nil, missing("it is not kept on this host any more (keep_logs says for how long it is)")
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// printLog prints a log for people, or as it is.
func printLog(w io.Writer, log io.Reader, raw bool) error {
	if raw {
		_, err := io.Copy(w, log)
		return logEnd(err)
	}
	var failed error
	reader := &logReader{color: isTerminal(w) && os.Getenv("NO_COLOR") == "", emit: func(line logLine) {
		if failed == nil {
			_, failed = fmt.Fprintln(w, line.text)
		}
	}}
	_, err := io.Copy(reader, log)
	reader.end()
	return errors.Join(logEnd(err), failed)
}

// logEnd is the error of a log that could not be read to its end.
func logEnd(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the log has broken off: %w", err)
}
