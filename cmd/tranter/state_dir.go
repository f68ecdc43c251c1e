package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
)

// addStateDirFlag defines --state-dir; empty means what stateDir finds.
func addStateDirFlag(flags *pflag.FlagSet) *string {
	dir := flags.String("state-dir", "", "directory of the manager's state (default: state_dir of the configuration, else "+defaultStateDir()+")")
	withEnv(flags, "state-dir", "TRANTER_STATE_DIR")
	return dir
}

const rootStateDir = "/var/lib/tranter"

// defaultStateDir is where state is kept when nothing names a place: systemd's choice, else the system's place for root,
// else the user's.
func defaultStateDir() string {
	if dir := os.Getenv("STATE_DIRECTORY"); dir != "" {
		return filepath.SplitList(dir)[0]
	}
	if os.Geteuid() == 0 {
		return rootStateDir
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "tranter")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "tranter")
	}
	return ".tranter"
}

// stateDir returns the directory that the flag names, else the one that the configuration names, else the default.
func stateDir(flag, configured string) (string, error) {
	dir := flag
	if dir == "" {
		dir = configured
	}
	if dir == "" {
		dir = defaultStateDir()
	}
	return filepath.Abs(dir)
}
