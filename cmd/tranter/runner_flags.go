package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter/internal/config"
)

// addRunnerFlags defines the flags that set keys of a runner's section, with their environment variables (contract 12.3).
// Those named in except have another meaning for the command.
func addRunnerFlags(flags *pflag.FlagSet, except ...string) {
	for _, f := range config.Flags() {
		for i, name := range []string{f.Name, f.Alias} {
			if name == "" || slices.Contains(except, name) || flags.Lookup(name) != nil {
				continue
			}
			define(flags, f, name, i == 0 && !slices.Contains(except, f.Short))
			if i == 0 && f.Env != "" {
				withEnv(flags, name, f.Env)
			}
		}
	}
}

// define adds one flag, with its letter if it may have it. Flags of what is not built are accepted, and in no help.
func define(flags *pflag.FlagSet, f config.Flag, name string, lettered bool) {
	short := f.Short
	if !lettered || short != "" && flags.ShorthandLookup(short) != nil {
		short = ""
	}
	switch {
	case f.Bool:
		flags.StringP(name, short, "", f.About)
		flags.Lookup(name).NoOptDefVal = "true"
	case f.List:
		flags.StringArrayP(name, short, nil, f.About)
	default:
		flags.StringP(name, short, "", f.About)
	}
	flags.Lookup(name).Hidden = f.NotBuilt
}

// runnerValues returns what addRunnerFlags' flags were set to, by name.
func runnerValues(flags *pflag.FlagSet) map[string][]string {
	values := map[string][]string{}
	for _, f := range config.Flags() {
		for _, name := range []string{f.Name, f.Alias} {
			flag := flags.Lookup(name)
			if name == "" || flag == nil || !flag.Changed {
				continue
			}
			if list, ok := flag.Value.(pflag.SliceValue); ok {
				values[f.Name] = list.GetSlice()
				continue
			}
			values[f.Name] = []string{flag.Value.String()}
		}
	}
	return values
}

// sectionConfig makes a configuration of one section that is in no file.
func sectionConfig(section config.Section) (config.Config, []config.Problem, error) {
	editor, err := config.Edit(nil)
	if err != nil {
		return config.Config{}, nil, err
	}
	if err := editor.AppendRunner(section); err != nil {
		return config.Config{}, nil, fmt.Errorf("settings from the command line: %w", err)
	}
	c, problems := config.Parse(config.Source{Name: "command line", Data: editor.Bytes(), Getenv: os.Getenv, ReadFile: os.ReadFile})
	for i := range problems {
		problems[i].Line, problems[i].Column = 0, 0 // nobody has seen the text
	}
	return c, problems, nil
}

// problemList is a list of problems as one error, a line each.
type problemList []config.Problem

func (l problemList) Error() string {
	lines := make([]string, 0, len(l))
	for _, p := range l {
		if p.Severity == config.Error {
			lines = append(lines, p.String())
		}
	}
	return strings.Join(lines, "\n")
}
