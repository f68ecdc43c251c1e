package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"unicode"

	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// outputFormat is the value of --output.
type outputFormat string

func (o *outputFormat) String() string { return string(*o) }

// Set takes text or json.
func (o *outputFormat) Set(s string) error {
	if s != "text" && s != "json" {
		return fmt.Errorf("%q is not known: use text or json", s)
	}
	*o = outputFormat(s)
	return nil
}

// Type names the value in the help.
func (o *outputFormat) Type() string { return "text|json" }

// addOutputFlag defines --output.
func addOutputFlag(flags *pflag.FlagSet) *outputFormat {
	format := outputFormat("text")
	flags.Var(&format, "output", "form of the output: text, for people, or json, for programs")
	return &format
}

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

// printable is a text of others, such as a job's name, as it can stand in a table: what a terminal would obey is replaced.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return unicode.ReplacementChar
	}, text)
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
