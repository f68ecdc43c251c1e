package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/executor/docker/janitor"
	"github.com/tranter-ci/tranter/internal/view"
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
			if *output != "json" {
				fmt.Fprintf(s.out, "Engine %s%s: %s\n", view.Printable(listed.Engine), view.Printable(e.of()), view.Count(len(made), "thing"))
				printMade(s.out, made, output.wide(), time.Now())
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

func printMade(w io.Writer, made []janitor.Made, wide bool, now time.Time) {
	if len(made) == 0 {
		return
	}
	t := newTable(w, wide, "WHAT", "NAME", "TYPE", "STATE", "AGE", "EXPIRES", "JOB", "+MANAGER")
	for _, m := range made {
		age := "?"
		if !m.Created.IsZero() {
			age = view.Short(now.Sub(m.Created))
		}
		t.row(m.What, m.Name, m.Type, m.State, age, view.When(m.Expires, now), m.Job, m.Owner)
	}
	t.end()
}
