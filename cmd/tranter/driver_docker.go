package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"sync"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/diskspace"
	"github.com/tranter-ci/tranter/internal/executor/docker"
	"github.com/tranter-ci/tranter/internal/executor/docker/janitor"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

// containerCacheDir is where jobs in containers keep archives of caches, unless the configuration says otherwise.
const containerCacheDir = "/cache"

func openDocker(s surroundings, c config.Config, r config.Runner) (tranter.Executor, error) {
	o, err := dockerOptions(s, c, r)
	if err != nil {
		return nil, err
	}
	return docker.New(o), nil
}

func dockerOptions(s surroundings, c config.Config, r config.Runner) (docker.Options, error) {
	home, err := s.home()
	if err != nil {
		return docker.Options{}, err
	}
	owner := engineOwner(s.systemID, s.state)
	g := c.DiskGuard
	return docker.Options{
		Settings: r.Docker, Environment: r.Environment, Program: s.self, Programs: s.programs, Home: home, State: s.state, Uses: s.uses.open, Log: s.log,
		Runner: spec.Runner{ShortToken: r.Token.Short(), Token: r.Token, SystemID: s.systemID, Owner: owner},
		Room:   phaseRoom(r.OutputLimit), DebugDisabled: r.DebugTraceDisabled,
		Guard: janitor.GuardOptions{
			Owner: owner, Keep: helperImages(r.Docker), Log: s.log,
			Floor: diskspace.Room{Bytes: uint64(g.MinFreeMiB) << 20, Inodes: uint64(g.MinFreeInodes)}, //nolint:gosec // checked to be 0 or more
			Prune: janitor.NewLimits(uint64(g.PruneFreeMiB)<<20, uint64(g.PruneFreeInodes)),           //nolint:gosec // the same
		},
	}, nil
}

// helperImages are those that making room does not remove.
func helperImages(d config.Docker) []string {
	keep := []string{docker.OwnHelper, docker.StockHelper + ":*"}
	if d.HelperImage != "" {
		keep = append(keep, d.HelperImage)
	}
	return keep
}

// phaseRoom is how many bytes a job's phases take in memory besides its log: variables, and results.
func phaseRoom(logKiB int) int64 {
	const around = 64 << 20
	if logKiB <= 0 {
		return 0
	}
	return int64(logKiB)<<10 + around
}

// engineOwner is the manager's id on container engines: that of its machine and its state directory, since several
// managers may run on one.
func engineOwner(systemID, state string) string {
	if abs, err := filepath.Abs(state); err == nil && state != "" {
		state = abs
	}
	sum := sha256.Sum256([]byte(systemID + "\x00" + state))
	return hex.EncodeToString(sum[:8])
}

// home is the directory of the user whose logins to registries serve jobs: the one that jobs run as, else ours.
func (s surroundings) home() (string, error) {
	if s.user == "" {
		return os.UserHomeDir()
	}
	u, err := user.Lookup(s.user)
	if err != nil {
		return "", &tranter.ConfigError{Err: fmt.Errorf("find the user %s: %w", s.user, err)}
	}
	return u.HomeDir, nil
}

// engineUses are the logs of what jobs have used on container engines. All runners of an engine share one.
type engineUses struct {
	mu   sync.Mutex
	logs map[string]*janitor.Uses
}

// open returns the log at path.
func (e *engineUses) open(path string) (*janitor.Uses, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if known := e.logs[path]; known != nil {
		return known, nil
	}
	opened, err := janitor.OpenUses(path)
	if err != nil {
		return nil, err
	}
	if e.logs == nil {
		e.logs = map[string]*janitor.Uses{}
	}
	e.logs[path] = opened
	return opened, nil
}
