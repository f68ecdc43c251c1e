// Package batch runs the commands of batch systems: as which user, in what environment, how long, and what they have said.
// The packages below it are the batch systems, each a tranter.Scheduler.
package batch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// Client says how the commands of a batch system are run. The zero value runs those in PATH, as ours.
type Client struct {
	Prefix      []string         // program and arguments before each command; after ssh, the command is quoted for the shell there
	Bin         string           // directory of the commands; empty: PATH
	Timeout     time.Duration    // of each; 0: a minute
	Environment []string         // NAME=VALUE, besides ours; no secrets
	As          *tranter.Account // as whom they run unless the call says so; nil: ours
}

// Call is one command.
type Call struct {
	Name  string
	Args  []string
	Stdin string
	Dir   string           // empty: ours
	Clean bool             // its environment is for jobs: what everybody has, and nothing of how we were started
	As    *tranter.Account // nil: the client's
}

const (
	defaultTimeout = time.Minute
	// mostOutput is what a command may write: a list of a hundred thousand jobs fits.
	mostOutput = 64 << 20
	mostError  = 64 << 10
	// drain is how long output is waited for that a program's own children may still write, such as an ssh that stays for
	// later connections.
	drain = 2 * time.Second
)

// CommandError is a command that has failed, or could not be run.
type CommandError struct {
	Name     string
	ExitCode int    // -1: it did not start, was killed, or took too long
	Said     string // on both streams, one line, bounded
	Err      error  // why there is no exit code
}

func (e *CommandError) Error() string {
	var b strings.Builder
	b.WriteString(e.Name)
	switch {
	case e.Err != nil:
		b.WriteString(": " + e.Err.Error())
	default:
		fmt.Fprintf(&b, ": exit code %d", e.ExitCode)
	}
	if e.Said != "" {
		b.WriteString(": " + e.Said)
	}
	return b.String()
}

// Unwrap returns why there is no exit code.
func (e *CommandError) Unwrap() error { return e.Err }

// Run runs a command and returns what it has written to standard output, also besides an error. The command has a process
// group of its own, which is killed as a whole when the time is over or ctx ends. Errors are *CommandError; more output than
// is plausible is one too.
func (c Client) Run(ctx context.Context, call Call) (string, error) {
	limit := cmp.Or(c.Timeout, defaultTimeout)
	bounded, stop := context.WithTimeout(ctx, limit)
	defer stop()
	argv := c.argv(call)
	cmd := exec.CommandContext(bounded, argv[0], argv[1:]...)
	as := cmp.Or(call.As, c.As)
	if err := ownGroup(cmd, as); err != nil {
		return "", &CommandError{Name: call.Name, ExitCode: -1, Err: err}
	}
	out, said := &limited{most: mostOutput}, &limited{most: mostError}
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = call.Dir, strings.NewReader(call.Stdin), out, said
	cmd.Env = c.environment(as, call.Clean)
	cmd.Cancel = func() error { killGroup(cmd); return nil }
	cmd.WaitDelay = drain
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it has ended well, and what it left behind holds the streams
	}
	stdout := out.buf.String()
	if err == nil && !out.over {
		return stdout, nil
	}
	failed := &CommandError{Name: call.Name, ExitCode: -1, Said: brief(said.buf.String() + "\n" + stdout)}
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case ctx.Err() != nil:
		failed.Err = context.Cause(ctx)
	case bounded.Err() != nil:
		failed.Err = fmt.Errorf("no answer within %v: %w", limit, context.DeadlineExceeded)
	case err == nil:
		failed.Err = fmt.Errorf("more than %d bytes of output", mostOutput)
	case ended && exit.Exited():
		failed.ExitCode = exit.ExitCode()
	default:
		failed.Err = err
	}
	return stdout, failed
}

// argv is the command with all that comes before it.
func (c Client) argv(call Call) []string {
	name := call.Name
	if c.Bin != "" {
		name = filepath.Join(c.Bin, name)
	}
	command := append([]string{name}, call.Args...)
	if len(c.Prefix) == 0 {
		return command
	}
	if filepath.Base(c.Prefix[0]) == "ssh" { // it hands one line to a shell, and no environment
		if len(c.Environment) > 0 {
			command = slices.Concat([]string{"env"}, c.Environment, command)
		}
		for i, word := range command {
			command[i] = quote(word)
		}
	}
	return slices.Concat(c.Prefix, command)
}

// environment is ours without what is about CI jobs, what may be secret, and the variables that are options of the
// commands: we give those that we mean.
func (c Client) environment(as *tranter.Account, clean bool) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return private(name) || as != nil && personal(name) || clean && !everybodys(name) && len(c.Prefix) == 0
	})
	if as != nil {
		env = append(env, "HOME="+as.Home, "USER="+as.Name, "LOGNAME="+as.Name)
	}
	return append(env, c.Environment...)
}

func private(name string) bool {
	for _, beginning := range []string{"TRANTER_", "CI_", "GITLAB_", "SBATCH_", "SQUEUE_", "SCANCEL_", "SACCT_", "AWS_"} {
		if strings.HasPrefix(name, beginning) {
			return true
		}
	}
	for _, part := range []string{"TOKEN", "PASSW", "SECRET", "CREDENTIAL", "PRIVATE", "API_KEY"} {
		if strings.Contains(strings.ToUpper(name), part) {
			return true
		}
	}
	return false
}

// personal says whether a variable is about the user whom we are.
func personal(name string) bool {
	switch name {
	case "HOME", "USER", "LOGNAME", "MAIL", "SHELL", "SSH_AUTH_SOCK", "KRB5CCNAME":
		return true
	default:
		return strings.HasPrefix(name, "XDG_")
	}
}

// everybodys says whether a variable is one that every login has, or leads to a batch system.
func everybodys(name string) bool {
	switch name {
	case "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "SLURM_CONF", "PBS_DEFAULT", "PBS_SERVER", "LSF_ENVDIR", "LSF_SERVERDIR", "FLUX_URI":
		return true
	default:
		return strings.HasPrefix(name, "LC_")
	}
}

// quote makes a word of text for a POSIX shell.
func quote(text string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./,:=+@", r)
	}
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !safe(r) }) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// limited keeps the beginning of what is written to it.
type limited struct {
	buf  bytes.Buffer
	most int
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	room := l.most - l.buf.Len()
	if len(p) > room {
		l.over = true
	}
	l.buf.Write(p[:min(len(p), room)])
	return len(p), nil
}

// mostSaid bounds what errors repeat of a command's words.
const mostSaid = 600

// brief makes one line of what a command has said.
func brief(text string) string {
	if len(text) > 4*mostSaid {
		text = text[:4*mostSaid]
	}
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r == 0x7f || r == '\uFFFD':
			return -1
		default:
			return r
		}
	}, strings.ToValidUTF8(text, ""))
	clean = strings.Join(strings.Fields(clean), " ")
	if len(clean) > mostSaid {
		clean = strings.ToValidUTF8(clean[:mostSaid], "") + "..."
	}
	return clean
}
