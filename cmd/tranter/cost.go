package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/cost"
	"github.com/tranter-ci/tranter/internal/view"
)

// costFlags are the flags of cost.
type costFlags struct {
	config, state   *string
	by              string
	month, from, to string
	week, today     bool
	project, runner string
	output          costFormat
	byGiven         bool // --by
}

// costFormat is the value of --output of cost.
type costFormat string

func (o *costFormat) String() string { return string(*o) }

// Set takes text, wide, json or csv.
func (o *costFormat) Set(s string) error {
	if !slices.Contains([]string{"text", "wide", "json", "csv"}, s) {
		return fmt.Errorf("%q is not known: use text, wide, json or csv", s)
	}
	*o = costFormat(s)
	return nil
}

// Type names the value in the help.
func (o *costFormat) Type() string { return "text|wide|json|csv" }

func newCost(s streams) *cobra.Command {
	f := costFlags{output: "text"}
	cmd := &cobra.Command{
		Use:   "cost",
		Short: "Say what machines and batch jobs have cost, by project, runner, job, user, ref, tag, day, month or machine",
		Long: `Say what machines and batch jobs have cost in this month, or in another time, and whose share
is whose. A machine's cost is shared among its jobs by the time they hold it, in equal parts
while several do; what no job held is idle. Prices are those of [[cost.price]] and of
price_per_hour in the configuration; a machine keeps the price that it was made with. Batch
jobs cost by the processors and GPUs that they hold. Minutes are those of jobs times the cost
factors of [[cost.factor]]. A job with several tags is in the line of each, so that lines by
tag add up to more than the total.

With --project and without --by, it is said in one line what that project has cost.
It works while a manager runs, which is asked for the jobs that run, and when none does.`,
		Example: `  tranter cost                                      this month, by project
  tranter cost --project group/app --week           what a project has cost this week
  tranter cost --by day --month 2026-11
  tranter cost --by project --month 2026-11 --output csv > november.csv
  tranter cost --by user --from 2026-11-01 --to 2026-11-15 --runner big`,
		Args: onlyFlags,
	}
	flags := cmd.Flags()
	f.config, f.state = addConfigFlag(flags), addStateDirFlag(flags)
	flags.StringVar(&f.by, "by", string(cost.ByProject), "what to add up by: project, runner, job, user, ref, tag, day, month or machine")
	flags.StringVar(&f.month, "month", "", "the month, such as 2026-11 (default: this month)")
	flags.BoolVar(&f.week, "week", false, "this week, since Monday")
	flags.BoolVar(&f.today, "today", false, "today")
	flags.StringVar(&f.from, "from", "", "begin of the time: a date such as 2026-11-01, or a time such as 2026-11-01T08:00:00Z")
	flags.StringVar(&f.to, "to", "", "end of the time, which is not in it; a date stands for its midnight (default: now)")
	flags.StringVar(&f.project, "project", "", "only the jobs of this project, by its full path")
	flags.StringVar(&f.runner, "runner", "", "only this runner, by name or short token")
	flags.Var(&f.output, "output", "form of the output: text, for people, wide, the same with more columns, json, for programs, or csv, for spreadsheets")
	cmd.MarkFlagsMutuallyExclusive("month", "week", "today", "from")
	for _, other := range []string{"month", "week", "today"} {
		cmd.MarkFlagsMutuallyExclusive(other, "to")
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f.byGiven = flags.Changed("by")
		return f.run(cmd.Context(), s)
	}
	return cmd
}

func (f *costFlags) run(ctx context.Context, s streams) error {
	now := time.Now()
	q, err := f.query(now)
	if err != nil {
		return err
	}
	c, _, err := parseConfig(*f.config, true)
	if err != nil {
		return err
	}
	dir, err := stateDir(*f.state, c.StateDir)
	if err != nil {
		return err
	}
	past, err := openPast(ctx, dir)
	if err != nil {
		return err
	}
	defer past.Close() //nolint:errcheck // it was only read
	prices := pricesOf(c)
	report, err := billsOf(past, func() cost.Table { return prices }, runningJobs(dir)).Report(ctx, q)
	if err != nil {
		return err
	}
	switch f.output {
	case "json":
		return writeJSON(s.out, report)
	case "csv":
		return cost.WriteCSV(s.out, report)
	}
	if f.project != "" && !f.byGiven && f.output == "text" {
		fmt.Fprintln(s.out, costSentence(f.project, report, now))
		return nil
	}
	printCost(s.out, report, f.output == "wide", now)
	printPriceless(s.err, c, report)
	return nil
}

// runningJobs asks the manager of a state directory for the jobs that run. If none runs, there are none.
func runningJobs(dir string) func(context.Context) []tranter.JobHistory {
	return func(ctx context.Context) []tranter.JobHistory {
		ctx, stop := context.WithTimeout(ctx, 5*time.Second)
		defer stop()
		snap, err := newControlClient(dir).snapshot(ctx)
		if err != nil {
			return nil
		}
		out := make([]tranter.JobHistory, 0, len(snap.Jobs))
		for _, j := range snap.Jobs {
			out = append(out, j.JobHistory)
		}
		return out
	}
}

// query makes the query of the flags.
func (f *costFlags) query(now time.Time) (cost.Query, error) {
	q := cost.Query{By: cost.Key(f.by), Project: f.project, Runner: f.runner}
	known := []cost.Key{cost.ByProject, cost.ByRunner, cost.ByJob, cost.ByUser, cost.ByRef, cost.ByTag, cost.ByDay, cost.ByMonth, cost.ByMachine}
	if !slices.Contains(known, q.By) {
		return q, fmt.Errorf("--by: %q is none of project, runner, job, user, ref, tag, day, month, machine", f.by)
	}
	var err error
	if q.From, q.To, err = f.time(now); err != nil {
		return q, err
	}
	if !q.From.Before(q.To) {
		return q, fmt.Errorf("the time ends at %s, which is not after its begin, %s", q.To.Format(time.RFC3339), q.From.Format(time.RFC3339))
	}
	return q, nil
}

// time returns the begin and the end of the time that is wanted.
func (f *costFlags) time(now time.Time) (from, to time.Time, err error) {
	y, mo, d := now.Date()
	today := time.Date(y, mo, d, 0, 0, 0, 0, now.Location())
	month := time.Date(y, mo, 1, 0, 0, 0, 0, now.Location())
	switch {
	case f.today:
		return today, today.AddDate(0, 0, 1), nil
	case f.week:
		monday := today.AddDate(0, 0, -(int(now.Weekday())+6)%7)
		return monday, monday.AddDate(0, 0, 7), nil
	case f.month != "":
		month, err = time.ParseInLocation("2006-01", f.month, now.Location())
		if err != nil {
			return from, to, fmt.Errorf("--month: %q is no month: write it as %s", f.month, now.Format("2006-01"))
		}
	case f.from != "" || f.to != "":
		return f.between(now)
	}
	return month, month.AddDate(0, 1, 0), nil
}

func (f *costFlags) between(now time.Time) (from, to time.Time, err error) {
	if f.from == "" {
		return from, to, errors.New("--to needs --from")
	}
	if from, err = parseMoment(f.from, now); err != nil {
		return from, to, fmt.Errorf("--from: %w", err)
	}
	if f.to == "" {
		return from, now, nil
	}
	if to, err = parseMoment(f.to, now); err != nil {
		return from, to, fmt.Errorf("--to: %w", err)
	}
	return from, to, nil
}

// parseMoment reads a date or a time.
func parseMoment(text string, now time.Time) (time.Time, error) {
	for _, form := range []string{time.DateOnly, time.RFC3339, "2006-01-02T15:04", "2006-01-02 15:04", time.DateTime} {
		if t, err := time.ParseInLocation(form, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no date and no time: write 2026-11-01 or 2026-11-01T08:00:00Z", text)
}

// costSentence says what a project has cost.
func costSentence(project string, r cost.Report, now time.Time) string {
	l := r.Total
	what := "nothing that has a price"
	if l.Cost > 0 {
		what = view.Money(l.Cost, r.Currency)
	}
	text := fmt.Sprintf("%s has cost %s %s: %s, %s", view.Printable(project), what, period(r, now), view.Count(l.Jobs, "job"), view.Short(l.Time))
	if l.MachineTime > 0 {
		text += fmt.Sprintf(", %.1f machine hours", l.MachineHours)
	}
	if l.CPUTime > 0 {
		text += fmt.Sprintf(", %.1f CPU hours", l.CPUTime.Hours())
	}
	if r.Unpriced > 0 {
		text += fmt.Sprintf("; %d of them where nothing has a price", r.Unpriced)
	}
	return text + "."
}

// period says from when to when, in days as far as they are whole; the future is not told.
func period(r cost.Report, now time.Time) string {
	to := r.To
	if to.After(now) {
		to = now
	}
	form := func(t time.Time) string {
		if h, m, s := t.Clock(); h+m+s == 0 {
			return t.Format(time.DateOnly)
		}
		return t.Format("2006-01-02 15:04")
	}
	return "from " + form(r.From) + " to " + form(to)
}

// printCost lists a report for people.
func printCost(w io.Writer, r cost.Report, wide bool, now time.Time) {
	fmt.Fprintf(w, "Cost %s, by %s:\n", period(r, now), r.By)
	if len(r.Lines) == 0 && r.Total.MachineTime == 0 {
		fmt.Fprintln(w, "Nothing is known to have run in that time.")
		return
	}
	t := newTable(w, wide, strings.ToUpper(string(r.By)), "JOBS", "TIME", "MACHINE HOURS", "+CPU HOURS", "+GPU HOURS", "+MINUTES", "COST", "+OF IT WASTED")
	lines := r.Lines
	if r.Idle.MachineTime > 0 {
		lines = append(slices.Clone(lines), r.Idle)
	}
	for _, l := range append(slices.Clone(lines), r.Total) {
		t.row(l.Name, l.Jobs, view.Short(l.Time), hours(l.MachineHours), hours(l.CPUTime.Hours()), hours(l.GPUTime.Hours()), fmt.Sprintf("%.0f", l.Minutes),
			view.Money(l.Cost, r.Currency), view.Money(l.Waste, r.Currency))
	}
	t.end()
	if r.Idle.MachineTime > 0 {
		fmt.Fprintf(w, "Idle machines are %.0f %% of the cost of machines.\n", 100*r.IdleShare)
	}
}

// printPriceless says what has no price, and how it gets one.
func printPriceless(w io.Writer, c config.Config, r cost.Report) {
	switch {
	case r.Unpriced == 0:
	case !pricesOf(c).Priced() && r.Total.Cost > 0:
		fmt.Fprintln(w, "The configuration names no price: machines have the one that they were made with, and the rest has none. Name the configuration with --config.")
	case !pricesOf(c).Priced():
		fmt.Fprintf(w, "No price is known, so that only times are told: write [[cost.price]] with per_hour or cpu_hour into the configuration.\n")
	default:
		fmt.Fprintf(w, "%s ran where nothing has a price: an entry of [[cost.price]] that fits is missing.\n", view.Count(r.Unpriced, "job"))
	}
}
