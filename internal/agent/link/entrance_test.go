package link_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/link"
)

func TestEntrypoints(t *testing.T) {
	for _, tt := range []struct {
		name       string
		entrypoint []string
		said       string
		log        string
	}{
		{"a shell", []string{"sh", "-c"}, "", ""},
		{"one that execs", []string{"/bin/sh", "-c", `echo "hello $JOB"; exec "$@"`, "x"}, "hello 17", "job 17"},
		{"one that exports", []string{"/bin/sh", "-c", `export ADDED=yes; echo warning >&2; exec "$@"`, "x"}, "warning", "added yes"},
		{"one that waits", []string{"/bin/sh", "-c", `"$@"; exit $?`, "x"}, "", "job 17"},
		{"one that takes variables away", []string{"env", "-u", "HOME"}, "", "home none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			p := serve(t, tt.entrypoint...)
			if err := p.client.Start(soon(t), p.phase("early")); err == nil {
				t.Error("a phase began before the entrypoint")
			}
			h := p.enter(t, "JOB=17")
			if !strings.Contains(h.Said, tt.said) {
				t.Errorf("said %q", h.Said)
			}
			r, log := p.play(t, "script", `echo "job $JOB"`, `echo "added $ADDED"`, `echo "home ${HOME:-none}"`, "env | grep ^TRANTER || :")
			if r.Status != tranter.PhaseSucceeded || !strings.Contains(log, tt.log) || strings.Contains(log, "TRANTER_WORK=") {
				t.Errorf("%+v\n%s", r, log)
			}
			if r, log := p.play(t, "next", "exit 4"); r.ExitCode != 4 {
				t.Errorf("%+v\n%s", r, log)
			}
		})
	}
}

func TestWhatAnEntrypointHasStartedSurvivesScripts(t *testing.T) {
	noLeaks(t)
	p := serve(t, "/bin/sh", "-c", `(while :; do date +%s%N >`+"$HEART"+`; sleep 0.02; done) & exec "$@"`, "x")
	heart := p.dir + "/heart"
	p.enter(t, "HEART="+heart)
	eventually(t, "the daemon runs", exists(heart))
	began := time.Now()
	r, log := p.play(t, "script", "sleep 1000 & echo $! >left", "echo done")
	if r.Status != tranter.PhaseSucceeded || !strings.Contains(log, "left behind: 1") {
		t.Errorf("%+v\n%s", r, log)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the daemon was waited for: %v", d)
	}
	before, _ := os.ReadFile(heart)
	eventually(t, "the daemon runs on", func() bool {
		now, _ := os.ReadFile(heart)
		return len(now) > 0 && string(now) != string(before)
	})
}

func TestWhatAnEntrypointPrintsLaterIsInTheLog(t *testing.T) {
	noLeaks(t)
	p := serve(t, "/bin/sh", "-c", `(while ! test -e "$GO"; do sleep 0.01; done; echo "later words"; touch "$GO".done) & exec "$@"`, "x")
	p.enter(t, "GO="+p.dir+"/go")
	_, log := p.play(t, "script", "touch ../../go; while ! test -e ../../go.done; do sleep 0.01; done; sleep 0.3")
	if !strings.Contains(log, "later words") {
		t.Error(log)
	}
}

func TestEntrypointsThatDoNotExec(t *testing.T) {
	for _, tt := range []struct {
		name       string
		entrypoint []string
		exit       int
		said       string
	}{
		{"it fails", []string{"/bin/sh", "-c", "echo no licence; exit 3"}, 3, "no licence"},
		{"it ends", []string{"/bin/true"}, 0, ""},
		{"it is killed", []string{"/bin/sh", "-c", "kill -9 $$"}, 137, ""},
		{"it is not there", []string{"no-such-program"}, -1, "no-such-program is not in the PATH"},
		{"it is no program", []string{"/etc/passwd"}, -1, "permission denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			p := serve(t, tt.entrypoint...)
			for range 2 {
				_, err := p.client.Enter(soon(t), nil)
				e, ok := errors.AsType[*link.EntrypointError](err)
				if !ok || e.Exit != tt.exit || !strings.Contains(e.Said, tt.said) {
					t.Errorf("%v (%+v)", err, e)
				}
			}
		})
	}
}

func TestAnEntrypointThatNeverExecsIsTheCallersToGiveUp(t *testing.T) {
	noLeaks(t)
	p := serve(t, "/bin/sh", "-c", "echo waiting; sleep 1000")
	why := errors.New("it takes too long to exec")
	ctx, stop := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, why)
	defer stop()
	if _, err := p.client.Enter(ctx, nil); !errors.Is(err, why) {
		t.Error(err)
	}
}

func TestAnEntrypointThatChangesTheUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test has to run as root")
	}
	noLeaks(t)
	p := serve(t, "setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups")
	if h := p.enter(t); h.UID != 1000 || h.GID != 1000 {
		t.Errorf("%+v", h)
	}
	r, log := p.play(t, "script", "id -u", "touch mine", "cat /proc/1/environ >/dev/null && echo leak || :")
	if r.Status != tranter.PhaseSucceeded || !strings.Contains(log, "\n1000\n") || strings.Contains(log, "\nleak") {
		t.Errorf("%+v\n%s", r, log)
	}
	if info, err := os.Stat(p.file("mine")); err != nil || info.Sys().(*syscall.Stat_t).Uid != 1000 {
		t.Error(err)
	}
}

func TestAWorkerThatDiesLosesItsPhase(t *testing.T) {
	noLeaks(t)
	p := serve(t, "/bin/sh", "-c", `echo $$ >`+"$PIDFILE"+`; exec "$@"`, "x")
	p.enter(t, "PIDFILE="+p.dir+"/pid")
	p.begin(t, "script", "touch begun; kill -9 $(cat ../../pid); sleep 1000")
	eventually(t, "the script has begun", exists(p.file("begun")))
	if _, err := p.client.Attach(soon(t), "script", 0, &gate{}); !errors.Is(err, tranter.ErrAgentLost) {
		t.Error(err)
	}
}

// The helper container works as root, the job's image as another user, on the same volume, in either order.
func TestRootAndAnotherUserShareTheJobsFiles(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test has to run as root")
	}
	for name, rootFirst := range map[string]bool{"root first": true, "the other user first": false} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			root, other := serve(t), serve(t, "setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups")
			other.enter(t)
			first, second := root, other
			if !rootFirst {
				first, second = other, root
			}
			second.dir = first.dir // the volume
			for i, p := range []*place{first, second, first, second} {
				ph := p.phase("p"+string(rune('0'+i)), `test "$(cat "$FILE")" = content`, `echo "V$(id -u)=yes" >>"$GITLAB_ENV"`)
				ph.Variables = []tranter.Variable{{Key: "FILE", Value: "content", File: true}}
				if i == 2 { // what an earlier job has left goes
					ph.Variables[0].Key = "OTHER"
					ph.Steps[0].Script.Commands = []string{`test ! -e ../project.tmp/FILE`}
				}
				if i%2 == 0 {
					ph.Steps = append([]tranter.Step{{Name: "prepare_script", When: tranter.OnSuccess, Prepare: &tranter.PrepareStep{Greeting: "%s"}}}, ph.Steps...)
				}
				if i == 3 {
					ph.Steps = []tranter.Step{{Name: "cleanup_file_variables", When: tranter.Always, Cleanup: &tranter.CleanupStep{Strategy: "none"}}}
				}
				if i == 0 {
					p.begin(t, "dirs", "true")
					p.follow(t, "dirs")
				}
				if err := p.client.Start(soon(t), ph); err != nil {
					t.Fatal(err)
				}
				if r, log := p.follow(t, ph.ID); r.Status != tranter.PhaseSucceeded || strings.Contains(log, "WARNING") {
					t.Errorf("phase %d: %+v\n%s", i, r, log)
				}
			}
			left, _ := os.ReadDir(first.dir + "/builds/project.tmp")
			for _, f := range left {
				if f.Name() != "OTHER" { // the last phase did not know of it
					t.Errorf("left: %s", f.Name())
				}
			}
		})
	}
}
