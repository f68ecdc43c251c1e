//go:build unix

package link

import (
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// noLink keeps a link from being followed where a directory is opened.
const noLink = unix.O_NOFOLLOW | unix.O_DIRECTORY

func setUmask(mask int) { unix.Umask(mask) }

func isOurs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// watchChildren calls on when a child has ended, until stop, which waits for it.
func watchChildren(on func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGCHLD)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range signals {
			on()
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-ended
	}
}

// waitAll takes the exit states of all children that have ended, and says whether the one with the id pid was among them.
// Its exit code is as a shell tells it.
func waitAll(pid int) (code int, ended bool) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || got <= 0:
			return code, ended
		case got == pid && status.Signaled():
			code, ended = 128+int(status.Signal()), true
		case got == pid:
			code, ended = status.ExitStatus(), true
		}
	}
}
