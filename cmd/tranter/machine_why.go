package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/pool"
	"github.com/tranter-ci/tranter/internal/view"
)

// machineStory is the output of machine why.
type machineStory struct {
	Name    string              `json:"name"`
	Why     string              `json:"why,omitempty"` // it is in its state, in a sentence; empty: it is gone
	Now     *pool.MachineStatus `json:"now,omitempty"` // nothing: it is gone
	History []fleet.Event       `json:"history"`
}

func newMachineWhy(s streams, open machineOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "why NAME",
		Short: "Tell what has happened to a machine, when, and why",
		Long: `Tell in a sentence, with the numbers, what a machine does, since when, and why it is there. Then
its history: when it was wanted, created, made ready, lent to jobs and removed, how long each
took, and the reason of each decision. Machines that are gone are remembered too; those have to
be named whole.`,
		Example: `  tranter machine why runner-t1-auto-1790000000-1a2b3c4d
  tranter machine why 1a2b3c4d --output json`,
		Args: cobra.ExactArgs(1),
	}
	reach := addMachineFlags(cmd, s, open)
	completing(cmd, reach, 1)
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return reach(cmd.Context(), fromBook, func(c *machineClient) error {
			story := machineStory{Name: args[0]}
			m, err := c.find(cmd.Context(), args[0])
			switch {
			case err == nil:
				story.Name, story.Now = m.Name, &m
				story.Why = c.why(cmd.Context(), m, time.Now())
			case !gone(err):
				return err
			}
			if story.History, err = c.past(cmd.Context(), story.Name); err != nil {
				return err
			}
			if *output == "json" {
				return writeJSON(s.out, story)
			}
			c.tellWhetherAlone(s.err)
			printStory(s.out, story, time.Now())
			return nil
		})
	}
	return cmd
}

// printStory tells a machine's history.
func printStory(w io.Writer, story machineStory, now time.Time) {
	fmt.Fprintf(w, "Machine %s.", view.Printable(story.Name))
	if n := len(story.History); story.Why != "" {
		fmt.Fprintf(w, " %s", story.Why)
	} else if n > 0 && story.Now == nil {
		last := story.History[n-1]
		fmt.Fprintf(w, " It is gone: it went %s, after %s.", view.Ago(last.At, now), view.Short(last.At.Sub(story.History[0].At)))
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var before time.Time
	for _, e := range story.History {
		after := ""
		if !before.IsZero() {
			after = "+" + view.Short(e.At.Sub(before))
		}
		before = e.At
		fmt.Fprintf(t, "%s\t%s\t%s\n", e.At.Local().Format(time.DateTime), after, view.Printable(eventText(e)))
	}
	_ = t.Flush()
}

// why tells in a sentence what a machine does and why, as the page does.
func (c *machineClient) why(ctx context.Context, m pool.MachineStatus, now time.Time) string {
	if !c.alone {
		if s, err := c.snapshot(ctx); err == nil {
			if i := slices.IndexFunc(s.Machines, func(other view.Machine) bool { return other.Name == m.Name }); i >= 0 {
				return view.WhyMachine(s, s.Machines[i], now)
			}
		}
	}
	text := fmt.Sprintf("%s for %s%s", view.StateWord(string(m.State)), view.Since(m.Since, now), because(view.Printable(reasonOf(m))))
	if m.Deadline != nil {
		text += fmt.Sprintf("; it has to leave that state by %s, %s", view.Clock(*m.Deadline, now), view.When(*m.Deadline, now))
	}
	return sentence(text)
}

func because(reason string) string {
	if reason == "-" {
		return ""
	}
	return ": " + reason
}

// eventText is an event in words.
func eventText(e fleet.Event) string {
	text := eventVerb(e)
	if e.Reason != "" && len(e.Boot) == 0 { // the steps say it
		text += ": " + e.Reason
	}
	switch {
	case !e.Retry.IsZero():
		text += "; tried again " + e.Retry.Local().Format(time.TimeOnly)
	case e.Kind == fleet.MachineDraining && !e.Deadline.IsZero():
		text += "; until " + e.Deadline.Local().Format(time.TimeOnly)
	}
	return text
}

// eventVerb is what has happened, without the reason.
func eventVerb(e fleet.Event) string {
	switch e.Kind {
	case fleet.MachineWanted:
		return wantedText(e)
	case fleet.MachineFailed:
		return failedText(e.Class)
	case fleet.MachineReady:
		return "ready for jobs" + stepsText(e.Boot)
	case fleet.LeaseGranted:
		return "lent to job " + e.Job
	case fleet.LeaseReleased:
		if e.Clean {
			return "job " + e.Job + " has left, and left it clean"
		}
		return "job " + e.Job + " has left"
	case fleet.MachineGone:
		if e.Orphan {
			return "removed as far as possible; something may be left at the provider"
		}
		return "gone"
	default:
		return cmp.Or(plainEvents()[e.Kind], strings.ReplaceAll(string(e.Kind), "_", " "))
	}
}

// plainEvents are the words for events that say nothing more than their kind and their reason.
func plainEvents() map[fleet.Kind]string {
	return map[fleet.Kind]string{
		fleet.JobQueued:       "a job waits for a machine",
		fleet.JobLeft:         "a job waits for a machine no more",
		fleet.MachineNoted:    "the provider has named what it creates",
		fleet.MachineCreated:  "created; it boots",
		fleet.MachineStopping: "stopped",
		fleet.MachineStarting: "started again",
		fleet.MachineAdopted:  "found at the provider with our mark, and taken over",
		fleet.MachineSeen:     "the provider tells something new of it",
		fleet.MachineMissed:   "missing in the provider's list",
		fleet.MachineDraining: "takes no more jobs",
		fleet.MachineRemoving: "to be removed",
		fleet.RemovalFailed:   "its removal has failed",
		fleet.Throttled:       "the provider wants to be asked less often",
	}
}

func wantedText(e fleet.Event) string {
	text := "wanted"
	if e.ByHand {
		text += " by a person"
	}
	if e.Set != "" {
		text += ", with option set " + e.Set
	}
	return text
}

func failedText(class fleet.Class) string {
	switch class {
	case fleet.NoCapacity:
		return "not created, as the provider has no room for it"
	case fleet.Rejected:
		return "not created, as the provider refuses the request as it is"
	case fleet.Unready:
		return "created, but it could not be made ready"
	default:
		return "its creation has failed"
	}
}

// stepsText lists steps with their durations.
func stepsText(steps []tranter.Timing) string {
	if len(steps) == 0 {
		return ""
	}
	parts := make([]string, 0, len(steps))
	for _, step := range steps {
		parts = append(parts, step.Step+" "+view.Short(step.Took))
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
