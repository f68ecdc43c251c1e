//go:build unix

package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// shellCode is a program's exit code as a shell tells it: 128 and the signal if one has ended it.
func shellCode(e *exec.ExitError) int {
	if status, ok := e.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return e.ExitCode()
}

func terminateGroup(cmd *exec.Cmd) { _ = unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }

func killGroup(cmd *exec.Cmd) { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }

// detach lets cmd live on when this process and its terminal are gone, as another user if one is given.
func detach(cmd *exec.Cmd, as *Identity) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if as == nil {
		return nil
	}
	if os.Geteuid() != 0 && int(as.UID) != os.Geteuid() {
		return fmt.Errorf("run jobs as user %s: only root can", as.Name)
	}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: as.UID, Gid: as.GID, Groups: as.Groups}
	}
	return nil
}

// stdinFile returns a file with text to read from, which has no name any more.
func stdinFile(dir, text string) (*os.File, error) {
	f, err := unnamed(dir)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteString(text); err != nil {
		_ = f.Close()
		return nil, err
	}
	if _, err := f.Seek(0, 0); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// unlinked returns a new file in dir without a name.
func unlinked(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "stdin.*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// noTricks are flags for opening a file that somebody else may have put something else in the place of.
const noTricks = unix.O_NOFOLLOW | unix.O_NONBLOCK

// ownLike gives a file that root has made to the owner of dir.
func ownLike(f *os.File, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return err
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

// reap waits for the agent in d, which has been ended, if it is a child of this process: one that this process has started as another version
// of the program.
func (d directory) reap() {
	f, err := d.open(lockFile, os.O_RDONLY)
	if err != nil {
		return
	}
	defer f.Close()
	data, _ := io.ReadAll(io.LimitReader(f, 20))
	pid, err := strconv.Atoi(string(data))
	if err != nil || pid <= 1 {
		return
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(2 * time.Second) // the number may be a lie: a job's user can write to the file
	defer limit.Stop()
	for {
		got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		if got != 0 && !errors.Is(err, unix.EINTR) {
			return
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return
		}
	}
}
