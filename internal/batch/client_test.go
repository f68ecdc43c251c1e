package batch_test

import (
	"context"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/batch"
)

func sh(script string, args ...string) batch.Call {
	return batch.Call{Name: "sh", Args: append([]string{"-c", script}, args...)}
}

func TestACommandGetsItsInputAndDirectory(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	call := sh(`cat; pwd; echo "$1"; echo aside >&2`, "sh", "$x y")
	call.Stdin, call.Dir = "in\n", dir
	out, err := batch.Client{}.Run(t.Context(), call)
	if err != nil || out != "in\n"+dir+"\n$x y\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestAFailedCommandSaysWhatItSaid(t *testing.T) {
	t.Parallel()
	out, err := batch.Client{}.Run(t.Context(), sh(`echo part; printf 'not\n\tso\033\n' >&2; exit 3`))
	failed, ok := errors.AsType[*batch.CommandError](err)
	if !ok || failed.ExitCode != 3 || failed.Said != "not so part" || out != "part\n" || err.Error() != "sh: exit code 3: not so part" {
		t.Errorf("%q, %v", out, err)
	}
	_, err = batch.Client{}.Run(t.Context(), batch.Call{Name: "no-such-command"})
	if failed, ok := errors.AsType[*batch.CommandError](err); !ok || failed.ExitCode != -1 || !strings.Contains(err.Error(), "no-such-command") {
		t.Errorf("a command that is not there: %v", err)
	}
	_, err = batch.Client{}.Run(t.Context(), sh(`kill -9 $$`))
	if failed, ok := errors.AsType[*batch.CommandError](err); !ok || failed.ExitCode != -1 || !strings.Contains(err.Error(), "killed") {
		t.Errorf("a command that was killed: %v", err)
	}
	_, err = batch.Client{}.Run(t.Context(), sh(`head -c 100000 /dev/zero | tr '\0' x >&2; exit 1`))
	if n := len(err.Error()); n > 1000 {
		t.Errorf("an error of %d bytes", n)
	}
}

func TestACommandThatHangsIsEndedWithItsChildren(t *testing.T) {
	t.Parallel()
	pid := filepath.Join(t.TempDir(), "pid")
	began := time.Now()
	_, err := batch.Client{Timeout: 200 * time.Millisecond}.Run(t.Context(), sh(`sleep 600 & echo $! > "$1"; wait`, "sh", pid))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "200ms") || time.Since(began) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		status, err := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/status")
		if err != nil || strings.Contains(string(status), "State:\tZ") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("its child goes on")
		}
	}
	ctx, stop := context.WithCancelCause(t.Context())
	stop(errors.New("enough"))
	if _, err := (batch.Client{}).Run(ctx, sh(`sleep 600`)); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("a call that was given up: %v", err)
	}
}

func TestWhatACommandLeavesBehindIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	out, err := batch.Client{}.Run(t.Context(), sh(`setsid sleep 30 & echo $!`))
	if err != nil || strings.TrimSpace(out) == "" {
		t.Fatalf("%q, %v", out, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
	}
}

func TestPrefixAndDirectoryComeBeforeACommand(t *testing.T) {
	t.Parallel()
	out, err := batch.Client{Bin: "/bin", Prefix: []string{"env", "A=b c"}}.Run(t.Context(), sh(`echo "$A"`))
	if err != nil || out != "b c\n" {
		t.Errorf("%q, %v", out, err)
	}
	// An ssh hands its words to a shell, joined.
	dir := t.TempDir()
	ssh := filepath.Join(dir, "ssh")
	if err := os.WriteFile(ssh, []byte("#!/bin/sh\nshift\nexec env -i PATH=\"$PATH\" sh -c \"$*\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	c := batch.Client{Prefix: []string{ssh, "login1"}, Environment: []string{"FORMAT=%s|x y"}}
	out, err = c.Run(t.Context(), sh(`printf '%s;' "$FORMAT" "$1" "$2"`, "sh", "it's | $HOME", ""))
	if err != nil || out != "%s|x y;it's | $HOME;;" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestACommandDoesNotSeeWhatIsOurs(t *testing.T) {
	t.Setenv("CI_JOB_TOKEN", "s3cr3t")
	t.Setenv("TRANTER_X", "s3cr3t")
	t.Setenv("MY_PASSWORD", "s3cr3t")
	t.Setenv("SBATCH_PARTITION", "s3cr3t")
	t.Setenv("PLAIN", "kept")
	t.Setenv("SLURM_CONF", "/ours")
	c := batch.Client{Environment: []string{"GIVEN=1"}}
	out, err := c.Run(t.Context(), sh("env"))
	if err != nil || strings.Contains(out, "s3cr3t") || !strings.Contains(out, "PLAIN=kept") || !strings.Contains(out, "GIVEN=1") {
		t.Errorf("%v: %s", err, out)
	}
	call := sh("env")
	call.Clean = true
	out, err = c.Run(t.Context(), call)
	if err != nil || strings.Contains(out, "PLAIN") || !strings.Contains(out, "SLURM_CONF=/ours") || !strings.Contains(out, "GIVEN=1") || !strings.Contains(out, "PATH=") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestACommandRunsAsAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		_, err := batch.Client{}.Run(t.Context(), batch.Call{Name: "id", As: &tranter.Account{Name: "x", UID: uint32(os.Geteuid() + 1)}})
		if err == nil || !strings.Contains(err.Error(), "only root") {
			t.Errorf("%v", err)
		}
		return
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(nobody.Uid, 10, 32)
	gid, _ := strconv.ParseUint(nobody.Gid, 10, 32)
	as := &tranter.Account{Name: "nobody", Home: "/nowhere", UID: uint32(uid), GID: uint32(gid)}
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/0")
	call := sh(`echo $(id -u) $(id -g) $(id -G) $HOME $USER $LOGNAME $XDG_RUNTIME_DIR`)
	call.As, call.Dir = as, "/"
	out, err := batch.Client{}.Run(t.Context(), call)
	if want := nobody.Uid + " " + nobody.Gid + " " + nobody.Gid + " /nowhere nobody nobody\n"; err != nil || out != want {
		t.Errorf("%q, want %q (%v)", out, want, err)
	}
}
