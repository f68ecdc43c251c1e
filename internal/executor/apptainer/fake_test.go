package apptainer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

const fakeName = "apptainer-of-the-tests"

// fakeApptainer behaves as Apptainer does (hpc, section 4.3): variables come in by a prefix only, whatever is wrong with
// a container is exit code 255 and a line that begins with FATAL, and so is a program that is not there. What it does
// not know it refuses.
func fakeApptainer(args []string) int {
	fatal := func(format string, a ...any) int {
		fmt.Fprintf(os.Stderr, "FATAL:   "+format+"\n", a...)
		return 255
	}
	if len(args) == 0 || args[0] != "exec" {
		return fatal("unknown command %q", args)
	}
	c := container{Runtime: bubblewrap, Env: []string{"PATH=" + defaultPath}}
	flags := map[string]bool{}
	rest := args[1:]
	for len(rest) > 0 && strings.HasPrefix(rest[0], "--") {
		flag := rest[0]
		rest = rest[1:]
		flags[flag] = true
		switch flag {
		case "--cleanenv", "--contain", "--pid", "--ipc", "--nv", "--rocm", "--userns":
		case "--writable-tmpfs":
			c.Writable = true
		case "--home", "--bind", "--pwd":
			if len(rest) == 0 {
				return fatal("flag needs an argument: %s", flag)
			}
			fakeFlag(&c, flag, rest[0])
			rest = rest[1:]
		default:
			return fatal("unknown flag: %s", flag)
		}
	}
	if !flags["--cleanenv"] || !flags["--contain"] || len(rest) < 2 {
		return fatal("the tests expect other flags: %q", args)
	}
	if info, err := os.Stat(rest[0]); err != nil || !info.IsDir() {
		return fatal("could not open image %s: %v", rest[0], err)
	}
	for _, kv := range os.Environ() {
		if v, ok := strings.CutPrefix(kv, "APPTAINERENV_"); ok {
			c.Env = append(c.Env, v)
		}
	}
	c.Image, c.Env = rest[0], append(c.Env, "HOME="+c.Home)
	for i, b := range c.Binds {
		c.Binds[i].Target = resolve(c.Image, b.Target)
	}
	return fakeRun(c, rest[1:], fatal)
}

func fakeFlag(c *container, flag, value string) {
	switch flag {
	case "--home":
		c.Home = value
		c.Layer = filepath.Join(filepath.Dir(value), "fake-layer")
	case "--pwd":
		c.Dir = value
	default:
		parts := strings.Split(value, ":")
		c.Binds = append(c.Binds, bind{Source: parts[0], Target: parts[1], ReadOnly: len(parts) > 2})
	}
}

func fakeRun(c container, argv []string, fatal func(string, ...any) int) int {
	tools, err := findTools(bubblewrap, kinds()["bubblewrap"])
	if err != nil {
		return fatal("%v", err)
	}
	c.Tools = tools
	c.Binds = append(c.Binds, bind{Source: c.Home, Target: c.Home}, bind{Source: "/etc/resolv.conf", Target: "/etc/resolv.conf", ReadOnly: true})
	made, err := c.command(0, os.Getenv(marker), argv)
	if err != nil {
		return fatal("container creation failed: %v", err)
	}
	cmd := exec.Command(made.Argv[0], made.Argv[1:]...) //nolint:gosec // a test
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = made.Env, os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return fatal("%v", err)
	}
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode() & 0xff
	}
	if err != nil {
		return fatal("%v", err)
	}
	return 0
}
