package agent

import (
	"os"
	"os/exec"

	"github.com/tranter-ci/tranter"
)

func interruptible(f *os.File) (*os.File, error) { return f, nil }

func startTerminal(*exec.Cmd) (tranter.Terminal, error) { return nil, tranter.ErrNoTerminal }
