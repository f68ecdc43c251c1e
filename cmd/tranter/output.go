package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter/internal/lazy"
	"github.com/tranter-ci/tranter/internal/view"
)

// outputFormat is the value of --output.
type outputFormat string

func (o *outputFormat) String() string { return string(*o) }

// Set takes text, wide or json.
func (o *outputFormat) Set(s string) error {
	if s != "text" && s != "wide" && s != "json" {
		return fmt.Errorf("%q is not known: use text, wide or json", s)
	}
	*o = outputFormat(s)
	return nil
}

// Type names the value in the help.
func (o *outputFormat) Type() string { return "text|wide|json" }

// wide says whether lists have all their columns.
func (o *outputFormat) wide() bool { return *o == "wide" }

// addOutputFlag defines --output.
func addOutputFlag(flags *pflag.FlagSet) *outputFormat {
	format := outputFormat("text")
	flags.Var(&format, "output", "form of the output: text, for people, wide, the same with more columns where there are any, or json, for programs")
	return &format
}

// table is a list for people. Cells hold nothing that a terminal obeys, and are never empty.
type table struct {
	w     *tabwriter.Writer
	shown []bool // by column
}

// newTable begins a list with the heads of its columns. Those that begin with a plus are there only if it is wide.
func newTable(w io.Writer, wide bool, heads ...string) *table {
	t := &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	names := make([]any, 0, len(heads))
	for _, head := range heads {
		name, more := strings.CutPrefix(head, "+")
		t.shown = append(t.shown, wide || !more)
		names = append(names, name)
	}
	t.row(names...)
	return t
}

// row adds a line with a cell for each column, also for those that are not shown.
func (t *table) row(cells ...any) {
	shown := make([]string, 0, len(cells))
	for i, cell := range cells {
		if t.shown[i] {
			shown = append(shown, cmp.Or(view.Printable(fmt.Sprint(cell)), "-"))
		}
	}
	fmt.Fprintln(t.w, strings.Join(shown, "\t"))
}

// end writes the list.
func (t *table) end() { _ = t.w.Flush() }

// audience passes on what is written, and notices when nobody reads it any more: left is called once.
type audience struct {
	w    io.Writer
	left func()
	once sync.Once
}

// Write implements io.Writer.
func (a *audience) Write(p []byte) (int, error) {
	n, err := a.w.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		a.once.Do(a.left)
	}
	return n, err
}

var plainWord = lazy.Regexp(`^[A-Za-z0-9_@%+=:,./-]+$`)

// shellWord is a text as it can be typed into a shell.
func shellWord(text string) string {
	if plainWord().MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
