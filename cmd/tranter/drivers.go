package main

import (
	"net/http"
	"runtime"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/apptainer"
	"github.com/tranter-ci/tranter/internal/executor/custom"
	"github.com/tranter-ci/tranter/internal/executor/docker"
	"github.com/tranter-ci/tranter/internal/executor/shell"
	"github.com/tranter-ci/tranter/internal/vault"
)

// driver is one kind of executor: what it can do, and how it is made from a section of the configuration.
type driver struct {
	features tranter.Features
	login    bool // scripts run in a login shell
	host     bool // jobs work on this host's disks
	apart    bool // jobs have directories where this host's paths mean nothing, and need not share them
	boxed    bool // each job has containers of its own
	inside   bool // scripts run in containers, on this host's disks, and all else beside them
	shell    func() string
	open     func(surroundings, config.Config, config.Runner) (tranter.Executor, error)
}

// executors is the table of all kinds, by their names in the configuration.
func executors() map[string]driver {
	return map[string]driver{
		"shell":          {features: shell.Features(), login: true, host: true, shell: hostShell, open: openShell},
		"docker":         {features: docker.Features(), boxed: true, shell: func() string { return "bash" }, open: openDocker},
		"docker+machine": {features: docker.Features(), boxed: true, shell: func() string { return "bash" }, open: openMachine},
		"apptainer":      {features: apptainer.Features(), host: true, inside: true, shell: func() string { return "bash" }, open: openApptainer},
		"custom":         {features: custom.Features(), apart: true, shell: func() string { return "bash" }, open: openCustom},
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

func openCustom(s surroundings, _ config.Config, r config.Runner) (tranter.Executor, error) {
	if err := custom.CheckShell(r.Shell); err != nil {
		return nil, err
	}
	c := r.Custom
	return custom.New(custom.Options{
		Agent:   []string{s.self},
		Config:  custom.Command{Exec: c.ConfigExec, Args: c.ConfigArgs, Timeout: c.ConfigExecTimeout},
		Prepare: custom.Command{Exec: c.PrepareExec, Args: c.PrepareArgs, Timeout: c.PrepareExecTimeout},
		Run:     custom.Command{Exec: c.RunExec, Args: c.RunArgs},
		Cleanup: custom.Command{Exec: c.CleanupExec, Args: c.CleanupArgs, Timeout: c.CleanupExecTimeout},
		Grace:   c.GracefulKillTimeout, Force: c.ForceKillTimeout, Log: s.log,
	}), nil
}

// externalSecrets returns where jobs' secrets come from.
func externalSecrets() func() tranter.SecretReader { return vault.New(http.DefaultTransport).Open }
