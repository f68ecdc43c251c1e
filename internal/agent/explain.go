package agent

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"

	"github.com/tranter-ci/tranter"
)

// ExplainStart returns the error of a program of an image that can't be started, with what to do where that is known.
func ExplainStart(err error) error {
	if !errors.Is(err, syscall.ENOEXEC) {
		return err
	}
	return &tranter.ConfigError{Err: fmt.Errorf("%w: the image seems to be for another processor than this machine's (%s); "+
		"use an image for %s, set image:docker:platform, or install binfmt and QEMU on the engine's host", err, runtime.GOARCH, runtime.GOARCH)}
}
