package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tranter-ci/tranter/internal/fleet"
	"github.com/tranter-ci/tranter/internal/view"
)

// certified is a machineHost whose engine wants certificates.
type certified interface {
	// Certificates returns the engine's authority, our certificate and its key in PEM form; empty: none are needed.
	Certificates() (authority, certificate, key string)
}

// machineEnvironment is what a client of a machine's engine needs.
type machineEnvironment struct {
	Variables []string          `json:"environment"`     // NAME=VALUE
	Files     map[string]string `json:"files,omitempty"` // for the directory that DOCKER_CERT_PATH is to name; they are secret
	Identity  string            `json:"identity,omitempty"`
}

func (f *machineFleet) environment(r *http.Request) (machineEnvironment, error) {
	var e machineEnvironment
	name := r.PathValue("name")
	host, err := f.host(r.Context(), name)
	if err != nil {
		return e, err
	}
	e.Variables = host.Environment()
	if c, ok := host.(certified); ok {
		if authority, certificate, key := c.Certificates(); key != "" {
			e.Files = map[string]string{"ca.pem": authority, "cert.pem": certificate, "key.pem": key}
		}
	}
	return e, f.with(r.Context(), name, func(_ machinePool, m fleet.Machine) error {
		e.Identity = m.Seen.Login.Identity
		return nil
	})
}

// envFlags are those of machine env.
type envFlags struct {
	shell, dir *string
	unset      *bool
}

// Names that clients of container engines know.
const (
	certPath    = "DOCKER_CERT_PATH"
	machineName = "DOCKER_MACHINE_NAME"
)

func newMachineEnv(s streams, open machineOpener) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "env NAME",
		Short: "Print what makes the docker client of a shell use a machine's container engine",
		Long: `Print the lines with which a shell sets DOCKER_HOST and what else the docker client needs,
so that it talks to the container engine of a machine. Through SSH the client's own ssh logs
in: it needs the machine's key (ssh-add) and has to accept the host. Where the engine is
reached with TLS, the certificates are written to the directory that --dir names, which only
you should be able to read: who has them is root on the machine.`,
		Example: `  eval "$(tranter machine env runner-t1-auto-1790000000-1a2b3c4d)"
  tranter machine env 1a2b3c4d --shell fish | source
  tranter machine env 1a2b3c4d --dir ~/.docker/runner
  eval "$(tranter machine env --unset)"`,
		Args: cobra.MaximumNArgs(1),
	}
	reach := addMachineFlags(cmd, s, open)
	completing(cmd, reach, 1)
	f := envFlags{
		shell: cmd.Flags().String("shell", "sh", "shell that is to read the lines: sh, fish or powershell"),
		dir:   cmd.Flags().String("dir", "", "directory for the certificates of an engine that is reached with TLS; it is made if it is not there"),
		unset: cmd.Flags().Bool("unset", false, "print what undoes it, for any machine"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		sh, ok := shellSyntaxes()[*f.shell]
		if !ok {
			return fmt.Errorf("--shell: %q is not known: use sh, fish or powershell", *f.shell)
		}
		if *f.unset {
			for _, name := range []string{"DOCKER_HOST", "DOCKER_TLS_VERIFY", certPath, machineName} {
				fmt.Fprintln(s.out, sh.unset(name))
			}
			return nil
		}
		if len(args) == 0 {
			return errors.New("which machine? Name one of \"tranter machine ls\"")
		}
		return reach(cmd.Context(), inPlace, func(c *machineClient) error { return f.print(cmd.Context(), s.out, c, args[0], sh) })
	}
	return cmd
}

// print writes the lines for a machine.
func (f envFlags) print(ctx context.Context, w io.Writer, c *machineClient, name string, sh shellSyntax) error {
	m, err := c.find(ctx, name)
	if err != nil {
		return err
	}
	e, err := c.environment(ctx, m.Name)
	if err != nil {
		return err
	}
	e.Variables = slices.DeleteFunc(e.Variables, func(v string) bool {
		return strings.HasPrefix(v, certPath+"=") || strings.HasPrefix(v, machineName+"=")
	})
	if len(e.Files) > 0 {
		dir, err := writeCertificates(*f.dir, e.Files)
		if err != nil {
			return err
		}
		e.Variables = append(e.Variables, certPath+"="+dir)
	}
	for _, v := range append(e.Variables, machineName+"="+m.Name) {
		name, value, _ := strings.Cut(v, "=")
		fmt.Fprintln(w, sh.set(name, value))
	}
	if e.Identity != "" && len(e.Files) == 0 {
		fmt.Fprintf(w, "# The key of the machine: ssh-add %s\n", view.Printable(shellWord(e.Identity)))
	}
	fmt.Fprintf(w, "# To use it: %s\n", fmt.Sprintf(sh.use, "tranter machine env "+m.Name))
	return nil
}

// writeCertificates writes files that only their owner may read.
func writeCertificates(dir string, files map[string]string) (string, error) {
	if dir == "" {
		return "", errors.New("the engine of this machine is reached with TLS: name a directory for its certificates with --dir")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("--dir: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("--dir: %w", err)
	}
	for name, data := range files {
		if err := writePrivate(filepath.Join(dir, name), data); err != nil {
			return "", fmt.Errorf("write the certificates: %w", err)
		}
	}
	return dir, nil
}

// writePrivate replaces a file by one that only its owner may read, whoever may read what was there.
func writePrivate(path string, data string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tranter-*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// shellSyntax is how a shell sets variables.
type shellSyntax struct {
	set   func(name, value string) string
	unset func(name string) string
	use   string // what runs the lines that a command prints
}

func shellSyntaxes() map[string]shellSyntax {
	return map[string]shellSyntax{
		"sh": {
			set:   func(name, value string) string { return "export " + name + "=" + shellWord(value) },
			unset: func(name string) string { return "unset " + name },
			use:   `eval "$(%s)"`,
		},
		"fish": {
			set: func(name, value string) string {
				return "set -gx " + name + " '" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "';"
			},
			unset: func(name string) string { return "set -e " + name + ";" },
			use:   "%s --shell fish | source",
		},
		"powershell": {
			set: func(name, value string) string {
				return "$Env:" + name + " = '" + strings.ReplaceAll(value, "'", "''") + "'"
			},
			unset: func(name string) string { return "Remove-Item Env:\\" + name + " -ErrorAction SilentlyContinue" },
			use:   "& %s --shell powershell | Invoke-Expression",
		},
	}
}
