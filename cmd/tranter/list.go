package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// listedRunner is a runner in the output of list.
type listedRunner struct {
	Name     string `json:"name"`
	Executor string `json:"executor"`
	Token    string `json:"token"` // shortened
	URL      string `json:"url"`
	ID       int64  `json:"id,omitempty"`
	Line     int    `json:"line"`
	Problem  string `json:"problem,omitempty"`
}

func newList(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the runners of the configuration",
		Long: `List the runners of the configuration, one a line, with their tokens shortened.
No server is asked; "tranter verify" does that.`,
		Example: `  tranter list
  tranter list --config /etc/gitlab-runner/config.toml --output json`,
		Args: onlyFlags,
	}
	path := addConfigFlag(cmd.Flags())
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(*cobra.Command, []string) error {
		file, err := readRunners(*path, true)
		if err != nil {
			return err
		}
		runners := []listedRunner{}
		for _, r := range file.config.Runners {
			listed := listedRunner{Name: r.Name, Executor: r.Executor, Token: shownToken(r), URL: cmp.Or(r.URL, r.Raw.URL), ID: r.ID, Line: r.Line}
			if err := file.faults[r.Index]; err != nil {
				listed.Problem = err.Error()
			}
			runners = append(runners, listed)
		}
		if *output == "json" {
			return writeJSON(s.out, runners)
		}
		printRunners(s.out, runners, output.wide())
		for _, r := range runners {
			if r.Problem != "" {
				fmt.Fprintln(s.err, r.Problem)
			}
		}
		return nil
	}
	return cmd
}

// printRunners lists runners for people: as GitLab Runner does, unless the list is to be wide.
func printRunners(w io.Writer, runners []listedRunner, wide bool) {
	if wide {
		t := newTable(w, wide, "NAME", "EXECUTOR", "TOKEN", "URL", "ID", "LINE", "PROBLEM")
		for _, r := range runners {
			id := "-"
			if r.ID != 0 {
				id = strconv.FormatInt(r.ID, 10)
			}
			t.row(r.Name, r.Executor, r.Token, r.URL, id, r.Line, r.Problem)
		}
		t.end()
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range runners {
		fmt.Fprintf(t, "%s\tExecutor=%s\tToken=%s\tURL=%s\n", cmp.Or(r.Name, "-"), r.Executor, r.Token, r.URL)
	}
	_ = t.Flush() // nobody reads on
}
