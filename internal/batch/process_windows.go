package batch

import (
	"fmt"
	"os/exec"

	"github.com/tranter-ci/tranter"
)

func ownGroup(_ *exec.Cmd, as *tranter.Account) error {
	if as != nil {
		return fmt.Errorf("run as user %s: not possible on Windows", as.Name)
	}
	return nil
}

// killGroup ends the program alone: there is no group.
func killGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }
