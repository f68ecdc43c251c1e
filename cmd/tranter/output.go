package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/pflag"
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

func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
