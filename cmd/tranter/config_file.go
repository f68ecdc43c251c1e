package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter/internal/config"
)

const (
	rootConfigPath     = "/etc/gitlab-runner/config.toml"
	packagedConfigPath = "/etc/tranter/config.toml" // that of the packages; where it is there, it is meant
)

// defaultConfigPath is where config.toml is when no flag names it (contract 11): GitLab Runner's own places, so that
// an installation is found as it is.
func defaultConfigPath() string {
	if os.Geteuid() == 0 {
		if _, err := os.Stat(packagedConfigPath); err == nil {
			return packagedConfigPath
		}
		return rootConfigPath
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".gitlab-runner", "config.toml")
	}
	return "config.toml"
}

// addConfigFlag defines --config.
func addConfigFlag(flags *pflag.FlagSet) *string {
	path := flags.StringP("config", "c", defaultConfigPath(), "configuration file")
	withEnv(flags, "config", "CONFIG_FILE")
	return path
}

// parseConfig reads and checks the file at path. A file that is not there is an empty configuration when it may be
// missing. Problems that are not errors are for the caller to show.
func parseConfig(path string, mayBeMissing bool) (config.Config, []config.Problem, error) {
	data, err := os.ReadFile(path)
	if err != nil && (!mayBeMissing || !errors.Is(err, fs.ErrNotExist)) {
		return config.Config{}, nil, fmt.Errorf("read the configuration: %w", err)
	}
	settings, problems := config.Parse(config.Source{Name: path, Data: data, Getenv: os.Getenv, ReadFile: os.ReadFile})
	return settings, problems, nil
}

// printProblems writes the problems of at least the given severity, one a line.
func printProblems(w io.Writer, problems []config.Problem, least config.Severity) {
	for _, p := range problems {
		if p.Severity >= least {
			fmt.Fprintln(w, p.String())
		}
	}
}
