package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// envAnnotation marks a flag whose value may come from an environment variable.
const envAnnotation = "environment variable"

// withEnv says that the flag called name takes its value from the environment variable env when it is not given on the
// command line.
func withEnv(flags *pflag.FlagSet, name, env string) {
	f := flags.Lookup(name)
	if f.Annotations == nil {
		f.Annotations = map[string][]string{}
	}
	f.Annotations[envAnnotation] = append(f.Annotations[envAnnotation], env)
	f.Usage += fmt.Sprintf(" [$%s]", env)
}

// fromEnvironment sets the flags of cmd that were not given and whose environment variable is.
func fromEnvironment(cmd *cobra.Command) error {
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || err != nil {
			return
		}
		for _, env := range f.Annotations[envAnnotation] {
			value, ok := os.LookupEnv(env)
			if !ok || value == "" {
				continue
			}
			if e := cmd.Flags().Set(f.Name, value); e != nil {
				err = fmt.Errorf("environment variable %s: %w", env, e)
			}
			return
		}
	})
	return err
}
