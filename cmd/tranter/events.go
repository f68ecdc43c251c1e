package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// eventFlags are those of events.
type eventFlags struct {
	query  view.EventQuery
	level  string
	since  time.Duration
	follow bool
	output *outputFormat
}

func newEvents(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "List what the manager of this host did and why, or follow it",
		Long: `List what has happened, with the reasons: what the manager did with jobs, machines, batch jobs
and runners. The last ones come last. They are kept for a time (keep_events) and known while no
manager runs too. With --follow, go on with what happens.`,
		Example: `  tranter events
  tranter events --level warning --since 24h
  tranter events --machine runner-t1-auto-1790000000-1a2b3c4d
  tranter events --kind machine_ --follow --output json`,
		Args: onlyFlags,
	}
	client := addControlFlags(cmd)
	f := &eventFlags{}
	flags := cmd.Flags()
	flags.StringVar(&f.query.Text, "search", "", "only events with this in their text")
	flags.StringVar(&f.query.Kind, "kind", "", "only events of this kind, or whose kind begins with this, such as job_ended or machine_")
	flags.StringVar(&f.level, "level", "", "only events that somebody should care for: warning or error")
	flags.StringVar(&f.query.Runner, "runner", "", "only events of this runner, by its name or its short token")
	flags.StringVar(&f.query.Job, "job", "", "only events of this job, by its key")
	flags.StringVar(&f.query.Machine, "machine", "", "only events of this machine")
	flags.StringVar(&f.query.Batch, "batch", "", "only events of this batch job, by its name")
	flags.DurationVar(&f.since, "since", 0, "only events within this time, such as 24h")
	flags.IntVar(&f.query.Limit, "limit", 100, "how many to list at most, the latest")
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on with what happens")
	f.output = addOutputFlag(flags)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.check(); err != nil {
			return err
		}
		c, err := client()
		if err != nil {
			return err
		}
		return f.run(cmd.Context(), s.out, c.dir)
	}
	completeFlag(cmd, "level", func(context.Context) []string {
		return []string{string(tranter.EventWarning), string(tranter.EventError)}
	})
	return cmd
}

func (f *eventFlags) check() error {
	switch f.query.Level = tranter.EventLevel(f.level); {
	case f.since < 0:
		return fmt.Errorf("--since: %v is in the future", f.since)
	case f.query.Limit < 1:
		return fmt.Errorf("--limit: %d is less than 1", f.query.Limit)
	case f.level != "" && f.query.Level != tranter.EventWarning && f.query.Level != tranter.EventError:
		return fmt.Errorf("--level: %q is neither warning nor error", f.level)
	}
	return nil
}

// eventSource has what has happened.
type eventSource interface {
	Events(ctx context.Context, q view.EventQuery) ([]tranter.Event, error)
}

func (f *eventFlags) run(ctx context.Context, w io.Writer, dir string) error {
	history, err := openPast(ctx, dir)
	if err != nil {
		return err
	}
	defer history.Close() //nolint:errcheck // it was only read
	if f.since > 0 {
		f.query.From = time.Now().Add(-f.since)
	}
	f.query.Runner = shortOf(ctx, history, f.query.Runner)
	events, err := f.next(ctx, history)
	if err != nil {
		return err
	}
	if !f.follow {
		return f.print(w, events)
	}
	return f.watch(ctx, w, history, events)
}

// jobSource has jobs that have ended.
type jobSource interface {
	Jobs(ctx context.Context, q view.JobQuery) ([]tranter.JobHistory, error)
}

// shortOf returns the short token of a runner that is named by that or by its name, which its jobs tell.
func shortOf(ctx context.Context, history jobSource, runner string) string {
	if runner == "" {
		return ""
	}
	jobs, err := history.Jobs(ctx, view.JobQuery{Runner: runner, Limit: 1})
	if err != nil || len(jobs) == 0 {
		return runner
	}
	return jobs[0].Runner
}

// next returns the events that are wanted, the latest last.
func (f *eventFlags) next(ctx context.Context, history eventSource) ([]tranter.Event, error) {
	events, err := history.Events(ctx, f.query)
	slices.Reverse(events)
	return events, err
}

// print lists events for people or programs.
func (f *eventFlags) print(w io.Writer, events []tranter.Event) error {
	if *f.output == "json" {
		return writeJSON(w, append([]tranter.Event{}, events...))
	}
	if len(events) == 0 {
		fmt.Fprintln(w, "No such event is known.")
		return nil
	}
	t := newTable(w, f.output.wide(), "TIME", "LEVEL", "KIND", "OF", "+RUNNER", "+JOB", "+MACHINE", "+BATCH JOB", "+TOOK", "TEXT")
	for i := range events {
		e := &events[i]
		took := "-"
		if e.Took > 0 {
			took = view.Short(e.Took)
		}
		t.row(e.Time.Local().Format(time.DateTime), levelWord(e.Level), e.Kind, eventOf(e), e.Runner, e.Job, e.Machine, e.Batch, took, e.Text)
	}
	t.end()
	return nil
}

func levelWord(level tranter.EventLevel) string {
	if level == tranter.EventInfo {
		return "info"
	}
	return string(level)
}

// eventPace is how often the store is asked for what is new.
const eventPace = 500 * time.Millisecond

// watch prints events, one a line, and then those that come, until ctx ends. They are read from the store, so that none is missed,
// whatever becomes of the manager meanwhile.
func (f *eventFlags) watch(ctx context.Context, w io.Writer, history eventSource, events []tranter.Event) error {
	tick := time.NewTicker(eventPace)
	defer tick.Stop()
	last := int64(0)
	for {
		for i := range events {
			if e := &events[i]; e.ID > last {
				if err := f.printOne(w, e); err != nil {
					return err
				}
				last = e.ID
				f.query.From = e.Time.Add(-time.Minute) // those of several writers come out of order
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		f.query.Limit = 1000
		var err error
		if events, err = f.next(ctx, history); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		slices.SortStableFunc(events, func(a, b tranter.Event) int { return int(a.ID - b.ID) })
	}
}

func (f *eventFlags) printOne(w io.Writer, e *tranter.Event) error {
	if *f.output == "json" {
		return json.NewEncoder(w).Encode(e)
	}
	text := fmt.Sprintf("%s  %-7s  %-16s  %s  %s", e.Time.Local().Format(time.DateTime), levelWord(e.Level), e.Kind, eventOf(e), e.Text)
	if f.output.wide() {
		text += fmt.Sprintf("  runner=%s job=%s machine=%s batch=%s", e.Runner, e.Job, e.Machine, e.Batch)
	}
	_, err := fmt.Fprintln(w, view.Printable(text))
	return err
}
