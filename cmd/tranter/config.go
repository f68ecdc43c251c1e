package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/view"
)

func newConfig(s streams) *cobra.Command {
	return group("config", "Check, show and explain the configuration", `  tranter config check
  tranter config show --output json
  tranter config explain builds_dir`,
		newConfigCheck(s), newConfigShow(s), newConfigExplain(s))
}

func newConfigCheck(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Print what is wrong with the configuration; exit code 1 when it can't be used",
		Long: `Print every problem of the configuration with its file, line and column, and what
the file amounts to.

An error keeps "tranter run" from using the file: a wrong type, a key that is given
twice, a combination that can't work. A warning tells of something that is probably
not meant, such as an unknown key. A note tells of a key whose feature is not built yet.`,
		Example: `  tranter config check
  tranter config check --config /etc/gitlab-runner/config.toml --strict`,
		Args: cobra.NoArgs,
	}
	path := addConfigFlag(cmd.Flags())
	strict := cmd.Flags().Bool("strict", false, "count unknown keys as errors")
	cmd.RunE = func(*cobra.Command, []string) error {
		c, problems, err := parseExisting(*path)
		if err != nil {
			return err
		}
		if *strict {
			for i := range problems {
				if problems[i].Unknown {
					problems[i].Severity = config.Error
				}
			}
		}
		printProblems(s.err, problems, config.Note)
		if config.Failed(problems, false) {
			return fmt.Errorf("%s can't be used: %s", *path, countProblems(problems))
		}
		printSummary(s.out, *path, c, problems)
		return nil
	}
	return cmd
}

// parseExisting is parseConfig for a file that has to be there.
func parseExisting(path string) (config.Config, []config.Problem, error) {
	c, problems, err := parseConfig(path, false)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil, fmt.Errorf("there is no configuration %s: name another with --config, or make one with \"tranter register\"", path)
	}
	return c, problems, err
}

// countProblems says how many problems of each kind there are.
func countProblems(problems []config.Problem) string {
	var parts []string
	for _, kind := range []config.Severity{config.Error, config.Warning, config.Note} {
		n := 0
		for _, p := range problems {
			if p.Severity == kind {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, view.Count(n, kind.String()))
		}
	}
	return strings.Join(parts, ", ")
}

// printSummary tells what a usable file amounts to.
func printSummary(w io.Writer, path string, c config.Config, problems []config.Problem) {
	state := "is good"
	if len(problems) > 0 {
		state = "can be used, with " + countProblems(problems)
	}
	fmt.Fprintf(w, "%s %s: %s, at most %s at the same time.\n", path, state, view.Count(len(c.Runners), "runner"), view.Count(c.Concurrent, "job"))
	if len(c.Runners) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nLINE\tNAME\tEXECUTOR\tJOBS\tTOKEN\tSERVER")
	for _, r := range c.Runners {
		jobs := c.Concurrent
		if r.Limit > 0 {
			jobs = min(jobs, r.Limit)
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\t%s\n", r.Line, cmp.Or(r.Name, "-"), r.Executor, jobs, r.Token.Short(), r.URL)
	}
	_ = t.Flush()
}

func newConfigShow(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the effective configuration",
		Long: `Print the configuration with all defaults filled in and the values that $VAR and
token_file stand for. Tokens are shortened, other secrets are stars.`,
		Example: `  tranter config show
  tranter config show --config config.toml --output json`,
		Args: cobra.NoArgs,
	}
	path := addConfigFlag(cmd.Flags())
	output := addOutputFlag(cmd.Flags())
	cmd.RunE = func(*cobra.Command, []string) error {
		c, problems, err := parseExisting(*path)
		if err != nil {
			return err
		}
		printProblems(s.err, problems, config.Warning)
		if found := blocking(problems); len(found) > 0 {
			return fmt.Errorf("%s can't be shown: %s", *path, countProblems(found))
		}
		render := config.Render
		if *output == "json" {
			render = config.RenderJSON
		}
		text, err := render(c)
		if err != nil {
			return fmt.Errorf("show the configuration: %w", err)
		}
		_, err = s.out.Write(text)
		return err
	}
	return cmd
}

func newConfigExplain(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain [KEY]",
		Short: "Explain a key of the configuration, or list all of them",
		Long: `Explain a key: its meaning, type, default, flag and environment variable. A key may
be named by its end, such as image, or in full, such as runners.docker.image.
Without KEY, all keys are listed by section.`,
		Example: `  tranter config explain concurrent
  tranter config explain docker.image
  tranter config explain '[runners.cache]'
  tranter config explain`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			listKeys(s.out)
			return nil
		}
		doc, err := config.Explain(args[0])
		if err != nil {
			return fmt.Errorf("%w (\"tranter config explain\" lists all)", err)
		}
		fmt.Fprint(s.out, doc.String())
		return nil
	}
	return cmd
}

// keySection is a section of the configuration with its keys, for people to read.
type keySection struct {
	title string
	about string
	keys  []config.Doc
}

// keySections groups the table of keys by section.
func keySections() []keySection {
	var sections []keySection
	about := map[string]string{}
	for _, d := range config.Keys() {
		if len(d.Keys) > 0 {
			about[strings.ToLower(d.Key)] = d.About
		}
		i := slices.IndexFunc(sections, func(s keySection) bool { return s.title == d.Section })
		if i < 0 {
			i = len(sections)
			key := strings.ToLower(strings.Trim(d.Section, "[]"))
			sections = append(sections, keySection{title: d.Section, about: about[key]})
		}
		sections[i].keys = append(sections[i].keys, d)
	}
	return sections
}

func listKeys(w io.Writer) {
	for i, section := range keySections() {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w, section.title)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, d := range section.keys {
			about := d.About
			if !d.Built {
				about = "(not built yet) " + about
			}
			fmt.Fprintf(t, "  %s\t%s\n", shortKey(d), about)
		}
		_ = t.Flush()
	}
}

// shortKey is a key without its section.
func shortKey(d config.Doc) string { return d.Key[strings.LastIndexByte(d.Key, '.')+1:] }

// configurationReference renders the table of all keys as one page of Markdown.
func configurationReference() string {
	var b strings.Builder
	b.WriteString("# Configuration keys\n\nGenerated by `make gen` from the table of keys; `tranter config explain KEY` prints one. ")
	b.WriteString("Letter case does not matter in keys. A duration is a string such as `\"5m\"`; where the type says seconds, it is a plain number.\n")
	b.WriteString("Keys marked *not yet* are read and checked, but their feature is not built yet.\n")
	for _, section := range keySections() {
		title := "`" + section.title + "`"
		if !strings.HasPrefix(section.title, "[") {
			title = "The top of the file"
		}
		fmt.Fprintf(&b, "\n## %s\n", title)
		if section.about != "" {
			fmt.Fprintf(&b, "\n%s\n", section.about)
		}
		b.WriteString("\n| key | type | default | meaning |\n|---|---|---|---|\n")
		for _, d := range section.keys {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", shortKey(d), d.Type, code(d.Default), cell(keyMeaning(d)))
		}
	}
	return b.String()
}

// keyMeaning is all that a row of the reference says about a key besides type and default.
func keyMeaning(d config.Doc) string {
	text := d.About
	if !d.Built {
		text = "*Not yet.* " + text
	}
	if len(d.Allowed) > 0 && !strings.Contains(d.About, d.Allowed[0]) {
		text += " One of: " + strings.Join(d.Allowed, ", ") + "."
	}
	if len(d.Old) > 0 {
		text += " Old spelling: `" + strings.Join(d.Old, "`, `") + "`."
	}
	if d.Flag != "" {
		text += " Flag `" + d.Flag + "`"
		if d.Env != "" {
			text += ", variable `" + d.Env + "`"
		}
		text += "."
	}
	return text
}

// code marks a default as literal text; words stay as they are.
func code(text string) string {
	if text == "" || text == "none" || text == "see the description" {
		return text
	}
	return "`" + text + "`"
}

// cell makes a text fit into a table of Markdown.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(text)
}
