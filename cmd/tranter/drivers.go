package main

import (
	"runtime"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/shell"
)

// driver is one kind of executor: what it can do, and how it is made from a section of the configuration.
type driver struct {
	features tranter.Features
	login    bool // scripts run in a login shell
	shell    func() string
	open     func(surroundings, config.Config, config.Runner) (tranter.Executor, error)
}

// executors is the table of all kinds, by their names in the configuration.
func executors() map[string]driver {
	return map[string]driver{
		"shell": {features: shell.Features(), login: true, shell: hostShell, open: openShell},
	}
}

// hostShell is the shell of a host's own scripts (contract 9.4).
func hostShell() string {
	if runtime.GOOS == "windows" {
		return "pwsh"
	}
	return "bash"
}

func openShell(s surroundings, c config.Config, r config.Runner) (tranter.Executor, error) {
	secrets := []string{r.Token.Reveal()}
	for _, other := range c.Runners {
		secrets = append(secrets, other.Token.Reveal())
	}
	return shell.New(shell.Options{Agent: []string{s.self}, User: s.user, Secret: secrets})
}
