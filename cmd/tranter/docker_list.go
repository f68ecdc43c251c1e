package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/executor/docker/janitor"
)

// listedEngine is an engine in the output of docker ls.
type listedEngine struct {
	Engine  string         `json:"engine"` // the name of its machine
	Runners []string       `json:"runners,omitempty"`
	Things  []janitor.Made `json:"things"`
}

func newDockerList(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the containers, networks and volumes that the docker executor has made",
		Long: `List the containers, networks and volumes that managers have made on the container
engines of the docker executor, with the jobs that they are for. What is still there an hour
after its expiry is removed by any manager that uses the engine.`,
		Example: `  tranter docker ls
  tranter docker ls --runner "build host" --output json`,
		Args: onlyFlags,
	}
	where := addEngineFlags(cmd)
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		engines := []listedEngine{}
		err := where.eachEngine(cmd, s, func(ctx context.Context, e *openedEngine) error {
			made, err := janitor.List(ctx, e.engine)
			if err != nil {
				return err
			}
			listed := listedEngine{Engine: e.engine.Facts().Name, Runners: e.runners, Things: made}
			engines = append(engines, listed)
			if *output == "text" {
				fmt.Fprintf(s.out, "Engine %s%s: %s\n", printable(listed.Engine), printable(e.of()), plural(len(made), "thing"))
				printMade(s.out, made, time.Now())
			}
			return nil
		})
		if *output == "json" {
			if failed := writeJSON(s.out, engines); failed != nil {
				return failed
			}
		}
		return err
	}
	return cmd
}

func printMade(w io.Writer, made []janitor.Made, now time.Time) {
	if len(made) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT\tNAME\tTYPE\tSTATE\tAGE\tEXPIRES\tJOB")
	for _, m := range made {
		age := "?"
		if !m.Created.IsZero() {
			age = short(now.Sub(m.Created))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.What, printable(m.Name), printable(cmp.Or(m.Type, "-")), printable(cmp.Or(m.State, "-")), age,
			expiresIn(m.Expires, now), printable(cmp.Or(m.Job, "-")))
	}
	_ = t.Flush()
}

// expiresIn says when something is nobody's any more.
func expiresIn(at, now time.Time) string {
	switch {
	case at.IsZero():
		return "-"
	case at.Before(now):
		return short(now.Sub(at)) + " ago"
	default:
		return "in " + short(at.Sub(now))
	}
}
