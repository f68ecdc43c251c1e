package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter/internal/view"
)

// print says all that to people.
func (m *migration) print(w io.Writer) {
	fmt.Fprintf(w, "Configuration %s, store %s\n", m.Config, m.Store)
	if m.StoreNote != "" {
		fmt.Fprintf(w, "The store: %s.\n", m.StoreNote)
	}
	for _, r := range m.Runners {
		r.print(w)
	}
	if len(m.Runners) == 0 {
		fmt.Fprintln(w, "\nThe configuration has no runners.")
	}
	if len(m.File) > 0 {
		fmt.Fprintln(w, "\nThe rest of the configuration")
		printNotes(w, m.File)
	}
	m.printStore(w)
}

func (r *migratedRunner) print(w io.Writer) {
	of := r.Executor
	if r.Pool != "" && r.makesMachines() {
		of += ", pool " + r.Pool
	}
	fmt.Fprintf(w, "\nRunner %s: %s\n", r.title(), view.Printable(of))
	block := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(w, "  %s\n", title)
		for _, line := range lines {
			fmt.Fprintf(w, "    %s\n", line)
		}
	}
	block(fmt.Sprintf("Taken over as it is: %s", view.Count(len(r.Same), "key")), wrapped(r.Same))
	block("Means something else", noteLines(r.Different))
	block("Can't work, or has no effect", noteLines(r.Failing))
	block("Warnings", noteLines(r.Warnings))
	if r.Driver != nil {
		text := r.Driver.Path
		if r.Driver.Error != "" {
			text = "not found: " + r.Driver.Error
		}
		block("Driver "+view.Printable(r.Driver.Name), []string{view.Printable(text)})
	}
	if r.makesMachines() {
		block(view.Count(len(r.Machines), "machine")+" in the store", machineLines(r.Machines))
	}
	if r.Idle != nil {
		block("Idle machines to expect, from each minute of the next 365 days", r.Idle.lines())
	}
	block("Suggestions", r.Suggestions)
}

func (m *migration) printStore(w io.Writer) {
	if len(m.Broken) > 0 {
		fmt.Fprintln(w, "\nBroken entries of the store: what they stand for may still run, look at the provider's console")
		for _, b := range m.Broken {
			of := ""
			if b.Runner != "" {
				of = fmt.Sprintf(" (of runner %q)", b.Runner)
			}
			fmt.Fprintf(w, "  %s%s: %s\n", view.Printable(b.Name), view.Printable(of), view.Printable(b.Text))
		}
	}
	if len(m.Strangers) > 0 {
		fmt.Fprintln(w, "\nMachines of the store that are no runner's: they are left alone")
		for _, line := range machineLines(m.Strangers) {
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
	if slices.ContainsFunc(m.Runners, func(r *migratedRunner) bool {
		return slices.ContainsFunc(r.Machines, func(m migratedMachine) bool { return m.State == "adopted" })
	}) {
		fmt.Fprintf(w, "\nThe next \"tranter run\" prepares the adopted machines if it is started within %d days; a later one removes them.\n", adoptionTime/(24*time.Hour))
	}
}

func machineLines(machines []migratedMachine) []string {
	var out []string
	for _, m := range machines {
		address := m.Address
		if address == "" {
			address = "no address"
		}
		line := fmt.Sprintf("%s: driver %s, %s, of %s", m.Name, m.Driver, address, m.Saved.UTC().Format("2006-01-02 15:04"))
		if m.State != "found" {
			line += ": " + m.State
		}
		out = append(out, view.Printable(line))
		for _, note := range m.Notes {
			out = append(out, "  "+view.Printable(note))
		}
	}
	return out
}

func noteLines(notes []migrationNote) []string {
	var out []string
	for _, n := range notes {
		line := ""
		if n.Line > 0 {
			line = fmt.Sprintf("line %d: ", n.Line)
		}
		if n.Key != "" {
			line += n.Key + ": "
		}
		line += n.Text
		if n.Hint != "" {
			line += ". " + n.Hint
		}
		out = append(out, view.Printable(line))
	}
	return out
}

func printNotes(w io.Writer, notes []migrationNote) {
	for _, line := range noteLines(notes) {
		fmt.Fprintf(w, "  %s\n", line)
	}
}

// wrapped puts words into lines.
func wrapped(words []string) []string {
	const width = 100
	var out []string
	line := ""
	for _, word := range words {
		if line != "" && len(line)+len(word) > width {
			out = append(out, strings.TrimSuffix(line, " "))
			line = ""
		}
		line += view.Printable(word) + " "
	}
	if line != "" {
		out = append(out, strings.TrimSuffix(line, " "))
	}
	return out
}
