package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tranter-ci/tranter/internal/remote"
)

func newMachineSSH(s streams, open machineOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ssh NAME [COMMAND...]",
		Short: "Open a shell on a machine, or run one command there",
		Long: `Open a shell on a machine, or run one command there, through the connection that the
manager has: no key and no address is needed. Standard input and output may be pipes, and
the exit code is the command's, or 255 if a signal has ended it. In a window Ctrl-] leaves,
as closing the window does. NAME may be a part of the name that no other machine has.

A machine that a job uses stays the job's: what you change there, the job sees.`,
		Example: `  tranter machine ssh runner-t1-auto-1790000000-1a2b3c4d
  tranter machine ssh 1a2b3c4d df -h /var/lib/docker
  tranter machine ssh 1a2b3c4d 'docker ps -q | wc -l'
  tranter machine ssh 1a2b3c4d cat /var/log/cloud-init.log > boot.log`,
		Args: cobra.MinimumNArgs(1),
	}
	reach := addMachineFlags(cmd, s, open)
	completing(cmd, reach, 1)
	tty := cmd.Flags().BoolP("tty", "t", false, "give a command a terminal too, as programs that fill the window need")
	cmd.Flags().SetInterspersed(false) // what follows the name is the command's
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return reach(cmd.Context(), inPlace, func(c *machineClient) error {
			m, err := c.find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			there := remoteCommand{machine: m.Name, line: wordsOf(args[1:]), window: *tty || len(args) == 1}
			return there.run(cmd.Context(), c, s)
		})
	}
	return cmd
}

// remoteCommand is a command on a machine.
type remoteCommand struct {
	machine, line string // an empty line is the login's shell
	window        bool   // it is for a window, if there is one
}

// run connects the streams to the command until that has ended.
func (r remoteCommand) run(ctx context.Context, c *machineClient, s streams) error {
	local := newLocalTerminal(s)
	local.exact, local.lost = true, "the connection to machine "+r.machine+", or the manager, has ended"
	var pty *remote.PTY
	if r.window && local.fd >= 0 {
		pty = &remote.PTY{Term: os.Getenv("TERM"), Size: remote.Size{Columns: 80, Rows: 24}}
		if columns, rows, err := term.GetSize(local.fd); err == nil {
			pty.Size = remote.Size{Columns: columns, Rows: rows}
		}
	} else {
		local.fd = -1 // what is typed is passed on in lines, as it is
	}
	t, err := c.shell(ctx, r.machine, r.line, pty)
	if err != nil {
		return err
	}
	defer t.Close() //nolint:errcheck // it has ended
	t.Errors(s.err)
	code, err := local.use(ctx, t)
	switch {
	case errors.Is(err, errDetached):
		return nil
	case err != nil:
		return err
	case code != 0:
		return &exitError{code: code}
	}
	return nil
}
