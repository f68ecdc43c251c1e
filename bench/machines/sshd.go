//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter/bench/measure"
)

// sshd is an SSH server of this machine's, for the time of the measurement: by it this machine is all machines at once.
type sshd struct {
	port int
	key  string // file of the private key that is let in
	cmd  *exec.Cmd
}

// startSSH starts the server. It sees a directory of its own in place of that in which provisioning keeps what belongs to a
// machine, and may not write the engine's configuration.
func startSSH(ctx context.Context, dir string) (*sshd, error) {
	const server, state = "/usr/sbin/sshd", "/run/tranter"
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("an SSH server with directories of its own can be started by root only (use -parts to leave burst out)")
	}
	s := &sshd{key: filepath.Join(dir, "client")}
	if err := makeKeys(ctx, s.key, filepath.Join(dir, "server")); err != nil {
		return nil, err
	}
	var config net.ListenConfig
	free, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.port = free.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // of TCP
	_ = free.Close()
	text := fmt.Sprintf("ListenAddress 127.0.0.1\nPort %d\nHostKey %s\nPidFile none\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"+
		"PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\nMaxSessions 1000\nPrintMotd no\n", s.port, filepath.Join(dir, "server"), s.key+".pub")
	file := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	for _, needed := range []string{"/run/sshd", state, "/etc/docker"} {
		if err := os.MkdirAll(needed, 0o755); err != nil { //nolint:gosec // as they are elsewhere
			return nil, err
		}
	}
	private := "mount -t tmpfs none " + state + " && mount --bind /etc/docker /etc/docker && mount -o remount,ro,bind /etc/docker && exec " + server + " -D -e -f " + file
	s.cmd = exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", private)
	var said bytes.Buffer
	s.cmd.Stderr = &said
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for range 200 {
		var d net.Dialer
		if c, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", s.port)); err == nil {
			return s, c.Close()
		}
		if err := measure.Pause(ctx, 20*time.Millisecond); err != nil {
			break
		}
	}
	s.stop()
	return nil, fmt.Errorf("the SSH server does not start: %s", said.String())
}

// makeKeys makes a pair of keys for each file, in place of those of a server before this one.
func makeKeys(ctx context.Context, files ...string) error {
	for _, key := range files {
		for _, old := range []string{key, key + ".pub"} {
			if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
			return fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	return nil
}

// stop ends the server and its connections.
func (s *sshd) stop() {
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGTERM)
	_ = s.cmd.Wait()
}
