package enginetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// place is where a private engine lives: a directory and a network of its own.
type place struct {
	Gateway string // the machine's address, for the engine's containers
	dir     string
	network *namespace
	log     *os.File
}

const privateLimit = 60 * time.Second

// Host returns the engine's address, as DOCKER_HOST has it.
func (e *place) Host() string { return "unix://" + e.path("docker.sock") }

// prepare makes the engine's directory and network, and has them removed.
func (e *place) prepare(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("a private engine needs root: run these tests as root")
	}
	if err := os.MkdirAll(enginesDir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer Only(t, enginesDir+".lock")() // nobody is to take this engine for one that was left, as long as its lock is not held
	sweepEngines()
	var random [3]byte
	_, _ = rand.Read(random[:])
	name := "tre" + hex.EncodeToString(random[:])
	e.dir = filepath.Join(enginesDir, name) // short, for sockets, and on a disk that overlay2 can lie on
	if err := os.MkdirAll(e.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	unlock := Only(t, filepath.Join(e.dir, "lock"))
	t.Cleanup(func() {
		defer unlock()
		if e.log != nil {
			_ = e.log.Close()
		}
		if err := removeEngine(e.dir); err != nil {
			t.Errorf("remove the private engine: %v", err)
		}
	})
	var err error
	if e.network, err = newNamespace(name); err != nil {
		t.Fatalf("the private engine's network: %v", err)
	}
	e.Gateway = e.network.gateway
	if e.log, err = os.Create(e.path("log")); err != nil {
		t.Fatal(err)
	}
}

func (e *place) path(name string) string { return filepath.Join(e.dir, name) }

// command makes a command that runs in the engine's network and writes its log.
func (e *place) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"--net=" + e.network.file(), name}, args...)...) // it outlives the call
	cmd.Stdout, cmd.Stderr = e.log, e.log
	return cmd
}

// Image puts a test image into the engine and returns the same reference as Image does for the machine's engine, from a
// registry that this engine reaches too.
func (e *place) Image(t testing.TB, name string) string {
	t.Helper()
	if err := e.network.forward(t, Registry(t).Address); err != nil {
		t.Fatalf("let the private engine reach the registry: %v", err)
	}
	return pulled(t, e.Host(), name)
}

// Log returns the end of what dockerd and containerd have said.
func (e *place) Log() string {
	const most = 8 << 10
	f, err := os.Open(e.path("log"))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	data, _ := io.ReadAll(io.LimitReader(f, most))
	return string(data)
}

// until returns when a program answers.
func (e *place) until(t testing.TB, ended <-chan struct{}, what string, ask func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), privateLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s has ended (is docker.io installed, and is this root?)\n%s", what, e.Log())
		case <-ctx.Done():
			t.Fatalf("%s does not answer: %v\n%s", what, err, e.Log())
		case <-tick.C:
		}
	}
}

// enginesDir holds a directory for each private engine, named like its network and its control group.
const enginesDir = "/var/tmp/tranter-engines"

// sweepEngines removes what killed test processes have left.
func sweepEngines() {
	found, _ := filepath.Glob(filepath.Join(enginesDir, "tre*"))
	for _, dir := range found {
		f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
		if err != nil {
			continue // it is being made
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = removeEngine(dir)
		}
		_ = f.Close()
	}
}

func removeEngine(dir string) error {
	name := filepath.Base(dir)
	killAll(dir, name)
	_ = exec.Command("ip", "netns", "del", name).Run()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, line := range slices.Backward(strings.Split(string(mounts), "\n")) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			_ = syscall.Unmount(fields[4], syscall.MNT_DETACH)
		}
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	for _, group := range append(groups, "/sys/fs/cgroup/"+name) {
		_ = filepath.WalkDir(group, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && path != group {
				_ = os.Remove(path)
				return filepath.SkipDir
			}
			return nil
		})
		_ = os.Remove(group)
	}
	return os.RemoveAll(dir)
}

// killAll ends the engine's daemons and containers. Daemons' command lines or environments name the directory; containers' processes are
// found by their control group, which is named like it, or by their root. New ones may appear until the daemons are gone.
func killAll(dir, name string) {
	deadline := time.Now().Add(privateLimit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for killOnce(dir, name) > 0 && time.Now().Before(deadline) {
		<-tick.C
	}
}

// killOnce returns how many processes there were.
func killOnce(dir, name string) int {
	n := 0
	found, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range found {
		line, err := os.ReadFile(proc + "/cmdline")
		if err != nil {
			continue
		}
		groups, _ := os.ReadFile(proc + "/cgroup")
		environ, _ := os.ReadFile(proc + "/environ")
		if !bytes.Contains(line, []byte(dir+"/")) && !bytes.Contains(environ, []byte("="+dir+"/")) &&
			!bytes.Contains(groups, []byte("/"+name+"/")) && !rootedIn(proc, dir) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(proc), "%d", &pid); err == nil && pid != os.Getpid() && !zombie(proc) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			n++
		}
	}
	return n
}

func zombie(proc string) bool {
	stat, err := os.ReadFile(proc + "/stat")
	return errors.Is(err, os.ErrNotExist) || bytes.Contains(stat, []byte(") Z "))
}

// rootedIn tells whether a process has a container's root that lies in the directory.
func rootedIn(proc, dir string) bool {
	mounts, err := os.ReadFile(proc + "/mountinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == "/" {
			return strings.Contains(line, dir+"/")
		}
	}
	return false
}
