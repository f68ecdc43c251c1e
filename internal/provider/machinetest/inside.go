package machinetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// Exec runs a command of sh on the machine, without SSH, and returns what it printed. It fails the test when that fails.
func (m *Machine) Exec(command string) string {
	m.t.Helper()
	out, code, err := m.exec(command)
	if err != nil || code != 0 {
		m.t.Fatalf("run %q on the machine %s: error %v, exit code %d: %s", command, m.Name, err, code, out)
	}
	return out
}

func (m *Machine) exec(command string) (string, int, error) {
	ctx, cancel := m.context()
	defer cancel()
	made, err := m.api.ExecCreate(ctx, m.ID, client.ExecCreateOptions{Cmd: []string{"sh", "-c", command}, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return "", 0, err
	}
	stream, err := m.api.ExecAttach(ctx, made.ID, client.ExecAttachOptions{})
	if err != nil {
		return "", 0, err
	}
	defer stream.Close()
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &out, stream.Reader); err != nil {
		return out.String(), 0, err
	}
	done, err := m.api.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
	return out.String(), done.ExitCode, err
}

// Log returns what the machine's init, SSH server and engine said.
func (m *Machine) Log() string {
	ctx, cancel := m.context()
	defer cancel()
	var out bytes.Buffer
	logs, err := m.api.ContainerLogs(ctx, m.ID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true})
	if err == nil {
		_, err = stdcopy.StdCopy(&out, &out, logs)
		_ = logs.Close()
	}
	for _, path := range []string{"/var/log/docker.log", "/var/log/user-data.log"} {
		if text, read := m.read(ctx, path); read == nil {
			fmt.Fprintf(&out, "%s:\n%s", path, text)
		}
	}
	if err != nil {
		fmt.Fprintf(&out, "(the log cannot be read: %v)\n", err)
	}
	return out.String()
}

// read returns the content of a file on the machine, which need not run.
func (m *Machine) read(ctx context.Context, path string) (string, error) {
	const limit = 1 << 20
	copied, err := m.api.CopyFromContainer(ctx, m.ID, client.CopyFromContainerOptions{SourcePath: path})
	if err != nil {
		return "", err
	}
	defer copied.Content.Close()
	r := tar.NewReader(copied.Content)
	if _, err := r.Next(); err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(r, limit))
	return string(data), err
}

// Wait returns when a port of the machine takes connections.
func (m *Machine) Wait(port int) {
	m.t.Helper()
	address := net.JoinHostPort(m.Address, strconv.Itoa(port))
	m.until("a connection to "+address, func() error {
		conn, err := net.DialTimeout("tcp", address, callLimit)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

// WaitEngine returns when the machine's own engine answers.
func (m *Machine) WaitEngine() {
	m.t.Helper()
	m.until("the machine's engine", func() error {
		return m.check("docker version")
	})
}

// check says whether a command of sh succeeds on the machine.
func (m *Machine) check(command string) error {
	out, code, err := m.exec(command)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s: exit code %d: %s", command, code, out)
	}
	return err
}

// WaitOff returns when the machine has switched itself off.
func (m *Machine) WaitOff() {
	m.t.Helper()
	m.until("the machine to be off", func() error {
		if m.Running() {
			return errors.New("it runs")
		}
		return nil
	})
}

// until tries something again until it works.
func (m *Machine) until(what string, try func() error) {
	m.t.Helper()
	ctx, cancel := m.context()
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			m.t.Fatalf("waited for %s in vain: %v", what, err)
		case <-tick.C:
		}
	}
}
