package main

import (
	"context"
	"time"

	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/gitlab"
)

// configSource is where the configuration of a manager comes from.
type configSource interface {
	// name is the path of the file, for messages.
	name() string
	read() (config.Config, []config.Problem, error)
	// state changes when the configuration is to be read anew.
	state() string
	// rotate replaces the token of a runner, and keeps the new one.
	rotate(ctx context.Context, r config.Runner, client *gitlab.Client, now time.Time) error
}

// configFile is a config.toml.
type configFile string

func (f configFile) name() string { return string(f) }

func (f configFile) read() (config.Config, []config.Problem, error) {
	return parseConfig(string(f), true)
}

func (f configFile) state() string { return fileState(string(f)).String() }

func (f configFile) rotate(ctx context.Context, r config.Runner, client *gitlab.Client, now time.Time) error {
	return rotateToken(ctx, string(f), r, client, now)
}
