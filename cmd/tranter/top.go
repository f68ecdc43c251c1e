package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

func newTop(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch jobs, machines, runners and events live in the terminal, and act on them",
		Long: `Show what the manager of this host does, live: how many jobs run and wait and for how long,
what needs attention, and lists of jobs, waiting jobs, machines, runners and events.

Keys: tab or 1 to 5 change the list, j and k choose, enter tells why something is as it is and
shows the last lines of a job's log, a lists all that needs attention, / filters. c cancels a job,
d drains a machine, x removes one, p pauses or resumes a runner; each asks first. q quits.

It draws only what has changed, at most once in --interval, so that it can be used over a slow
link. Colours are left out with NO_COLOR. If the manager ends, top waits for the next one.`,
		Example: `  tranter top
  tranter top --interval 5s
  tranter top --once | grep LEAK`,
		Args: onlyFlags,
	}
	client := addControlFlags(cmd)
	interval := cmd.Flags().Duration("interval", time.Second, "time between two looks; at least 1s")
	once := cmd.Flags().Bool("once", false, "print all that there is once, as plain text, and end")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *interval < time.Second {
			return fmt.Errorf("--interval: %s is too short: use 1s or more", *interval)
		}
		c, err := client()
		if err != nil {
			return err
		}
		manager := &topManager{client: c, feed: &topFeed{}}
		if *once || !capable(s) {
			return printTop(cmd.Context(), s.out, manager)
		}
		return watchTop(cmd.Context(), s, manager, *interval)
	}
	return cmd
}

// capable says whether a screen can be drawn: on a terminal that can do more than print lines.
func capable(s streams) bool {
	return isTerminal(s.out) && isTerminal(s.in) && os.Getenv("TERM") != "dumb"
}

// terminalWidth is how wide the terminal is that w is; 0: it is none.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd())) //nolint:gosec // it is a small number
	if err != nil {
		return 0
	}
	return width
}

func printTop(ctx context.Context, w io.Writer, m *topManager) error {
	snapshot, events, err := m.look(ctx)
	if err != nil {
		return err
	}
	for _, line := range topOnce(snapshot, events[:min(len(events), 20)], terminalWidth(w)) {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// watchTop shows the screen until the user quits.
func watchTop(ctx context.Context, s streams, m *topManager, interval time.Duration) error {
	ctx, stop := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer stop()
	owned.Go(func() { m.listen(ctx, interval) })
	model := &topModel{ctx: ctx, source: m, interval: interval, colors: os.Getenv("NO_COLOR") == ""}
	_, err := tea.NewProgram(model, tea.WithContext(ctx), tea.WithInput(s.in), tea.WithOutput(s.out)).Run()
	if errors.Is(err, tea.ErrInterrupted) || ctx.Err() != nil {
		return nil // it was told to end
	}
	return err
}

// topManager is the manager of a state directory, as top looks at it.
type topManager struct {
	client *controlClient
	feed   *topFeed
}

// topFeed is what has happened last.
type topFeed struct {
	mu     sync.Mutex
	primed bool            // the past was read
	events []tranter.Event // the latest first
}

// feedRoom is how many events are kept.
const feedRoom = 300

// add puts an event before the others.
func (f *topFeed) add(e tranter.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = slices.Insert(f.events[:min(len(f.events), feedRoom-1)], 0, e)
}

// last returns what has happened last, with what the store has of it the first time.
func (f *topFeed) last(past func() []tranter.Event) []tranter.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.primed {
		f.primed = true
		for _, e := range past() {
			if !slices.ContainsFunc(f.events, func(o tranter.Event) bool { return eventID(&o) == eventID(&e) }) {
				f.events = append(f.events, e)
			}
		}
	}
	return slices.Clone(f.events)
}

// look implements topSource.
func (m *topManager) look(ctx context.Context) (view.Snapshot, []tranter.Event, error) {
	s, err := m.client.snapshot(ctx)
	if err != nil {
		return s, nil, err
	}
	return s, m.feed.last(func() []tranter.Event { return pastEvents(ctx, m.client.dir, view.EventQuery{Limit: 100}) }), nil
}

// pastEvents are those that the store has; none if it can't be read.
func pastEvents(ctx context.Context, dir string, q view.EventQuery) []tranter.Event {
	h, err := openPast(ctx, dir)
	if err != nil {
		return nil
	}
	defer h.Close() //nolint:errcheck // it was only read
	events, err := h.Events(ctx, q)
	if err != nil {
		return nil
	}
	return events
}

// tailBytes is how much of the end of a log is read for its last lines.
const tailBytes = 16 << 10

// tail implements topSource.
func (m *topManager) tail(ctx context.Context, job string, size int64) ([]string, error) {
	log, err := m.client.jobLog(ctx, job, max(0, size-tailBytes), false)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	read, err := readLog(io.LimitReader(log, 4*tailBytes), false)
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	if size > tailBytes && len(read) > 1 {
		read = read[1:] // it begins within a line
	}
	lines := make([]string, 0, len(read))
	for _, l := range read {
		lines = append(lines, l.text)
	}
	return lines, nil
}

// act implements topSource.
func (m *topManager) act(ctx context.Context, a topAction) error {
	switch a.verb {
	case "cancel":
		return m.client.cancelJob(ctx, a.name)
	case "pause", "resume":
		return m.client.pauseRunner(ctx, a.name, a.verb == "pause")
	}
	machines := &machineClient{controlClient: m.client}
	if a.verb == "drain" {
		return machines.drain(ctx, a.name, "a person wants it")
	}
	return machines.remove(ctx, a.name, true)
}

// listen takes in what happens until ctx ends, from whichever manager runs.
func (m *topManager) listen(ctx context.Context, pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		_ = m.client.follow(ctx, func(e tranter.Event) error { // the look says what is wrong
			m.feed.add(e)
			return nil
		})
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
