//go:build !linux

package slurmtest

import (
	"errors"
	"os/exec"
)

func bound(*exec.Cmd) (<-chan struct{}, error) {
	return nil, errors.New("clusters for tests are started on Linux only")
}

func apart(*exec.Cmd) {}
