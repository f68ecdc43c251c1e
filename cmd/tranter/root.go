package main

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newRoot builds the command tree.
func newRoot(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "tranter",
		Short: "Run GitLab CI jobs in fresh environments, and pipelines without a GitLab",
		Long: `Tranter takes CI jobs from GitLab and runs each in a fresh environment.

It reads GitLab Runner's config.toml and has GitLab Runner's commands, flags and
environment variables where the two overlap.`,
		Example: `  tranter demo                          run a sample pipeline on this machine
  tranter pipeline run                  run the .gitlab-ci.yml of this directory
  tranter register --url https://gitlab.example.com --token glrt-...
  tranter run --config config.toml      take jobs from GitLab`,
		Version:           version,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return fromEnvironment(cmd) },
	}
	root.SetVersionTemplate(versionText())
	addLogFlags(root.PersistentFlags())
	root.AddCommand(commands(s)...)
	return root
}

// versionText is what --version prints.
func versionText() string {
	return fmt.Sprintf("Version:      %s\nGit revision: %s\nBuilt:        %s\nGO version:   %s\nOS/Arch:      %s/%s\n",
		version, commit, date, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// group returns a command that only holds others.
func group(use, short, example string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Example: example}
	cmd.AddCommand(children...)
	return cmd
}

// onlyFlags refuses arguments, which are mostly the values of switches: "--locked false" has to be "--locked=false".
func onlyFlags(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if _, err := strconv.ParseBool(args[0]); err == nil {
		return fmt.Errorf("%q belongs to no flag: a switch has its value after an equals sign, as in --switch=%s", args[0], args[0])
	}
	return fmt.Errorf("%q belongs to no flag, and %q takes nothing but flags: \"%s --help\" lists them", args[0], cmd.CommandPath(), cmd.CommandPath())
}

// doubleDashes lets long flags be written with one dash, as GitLab Runner's command line does: "-config" means
// "--config". Only exact names of long flags are changed, and nothing after "--" or after "machine ssh", where a command for
// another machine may follow.
func doubleDashes(root *cobra.Command, args []string) []string {
	known := map[string]bool{}
	walk(root, func(cmd *cobra.Command) {
		collect := func(f *pflag.Flag) { known[f.Name] = true }
		cmd.Flags().VisitAll(collect)
		cmd.PersistentFlags().VisitAll(collect)
	})
	changed := make([]string, 0, len(args))
	for i, arg := range args {
		if arg == "--" || arg == "ssh" && i > 0 && args[i-1] == "machine" {
			return append(changed, args[i:]...)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		if len(name) > 1 && strings.HasPrefix(arg, "-") && known[name] {
			arg = "-" + arg
		}
		changed = append(changed, arg)
	}
	return changed
}

func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, child := range cmd.Commands() {
		walk(child, visit)
	}
}
