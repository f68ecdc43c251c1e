package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/site"
)

func newSite(s streams) *cobra.Command {
	return group("site", "Manage the runners of a site, and its cluster, by one file", `  tranter site example site.toml
  tranter site check -c site.toml
  tranter site show -c site.toml --diff`,
		newSiteCheck(s), newSiteShow(s), newSiteApply(s), newSiteRun(s), newSiteExample(s))
}

// addSiteFlag defines --config for a site file; empty means what defaultSitePath finds.
func addSiteFlag(flags *pflag.FlagSet) *string {
	path := flags.StringP("config", "c", "", "site file (default: site.toml beside config.toml, else gitlab-meta-runner.toml in ~/.config)")
	withEnv(flags, "config", "TRANTER_SITE")
	return path
}

// defaultSitePath is where the site file is when nothing names it: beside config.toml, else where the bridge
// gitlab-meta-runner has its file (hpc, section 1.1).
func defaultSitePath() string {
	path := filepath.Join(filepath.Dir(defaultConfigPath()), "site.toml")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if dir, err := os.UserConfigDir(); err == nil {
		old := filepath.Join(dir, "gitlab-meta-runner.toml")
		if _, err := os.Stat(old); err == nil {
			return old
		}
	}
	return path
}

// namedSite returns the path of the site file: the argument, else the flag's, else the default.
func namedSite(flag string, args []string) string {
	switch {
	case len(args) > 0:
		return args[0]
	case flag != "":
		return flag
	}
	return defaultSitePath()
}

// mostSiteFile bounds a site file, and what it takes in: other files than such may be without end.
const mostSiteFile = 4 << 20

// readSiteFile reads a site file, or one that it names.
func readSiteFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, mostSiteFile+1))
	if err == nil && len(data) > mostSiteFile {
		err = fmt.Errorf("%s is larger than %d MiB: it is no such file", path, mostSiteFile>>20)
	}
	return data, err
}

// parseSite reads and checks a site file.
func parseSite(path string) (site.Site, []config.Problem, error) {
	data, err := readSiteFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return site.Site{}, nil, fmt.Errorf("there is no site file %s: name another with --config, or write one with \"tranter site example %s\"", path, shellWord(path))
	}
	if err != nil {
		return site.Site{}, nil, fmt.Errorf("read the site file: %w", err)
	}
	source, err := siteSource(path, data)
	if err != nil {
		return site.Site{}, nil, err
	}
	s, problems := site.Parse(source)
	return s, problems, nil
}

// siteSource is a site file with this system around it.
func siteSource(path string, data []byte) (site.Source, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return site.Source{}, fmt.Errorf("find the site file: %w", err)
	}
	this, err := os.Executable()
	if err != nil {
		return site.Source{}, fmt.Errorf("find the own program: %w", err)
	}
	home, _ := os.UserHomeDir() // only needed where ~ is used
	return site.Source{
		Name: path, Path: absolute, Data: data, Read: readSiteFile, List: listFiles, Env: os.LookupEnv, This: this, Home: home,
	}, nil
}

// listFiles returns the files that match a pattern, in order.
func listFiles(pattern string) ([]string, error) {
	found, err := filepath.Glob(pattern)
	slices.Sort(found)
	return found, err
}
