package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

func inContainer(p *play, shared bool) {
	p.phase.Container = &tranter.Container{Place: tranter.PlaceBuild, Shared: shared}
}

// tools makes a directory with links to the named programs and returns it.
func tools(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.Symlink("/bin/"+name, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// In a container bash means sh as well (runner contract, section 9.3), and exit codes are told in the docker executor's
// words (3.10).
func TestContainersHaveOtherShellsAndWords(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		path, shell string
		commands    []string
		status      tranter.PhaseStatus
		code        int
		message     string
	}{
		"sh in place of bash":       {tools(t, "sh"), "bash", []string{`exit 7`}, tranter.PhaseFailed, 7, "exit code 7"},
		"beyond the PATH":           {"/nowhere", "bash", []string{`exit 8`}, tranter.PhaseFailed, 8, "exit code 8"},
		"a script that is killed":   {"/bin", "sh", []string{`kill -9 $$`}, tranter.PhaseFailed, 137, "exit code 137"},
		"a shell that is not there": {"/nowhere", "pwsh", []string{`exit 8`}, tranter.PhaseFailed, 0, "the shell pwsh is not in the image"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlay(t, userScript(tt.commands...))
			inContainer(p, false)
			p.phase.Shell = tt.shell
			p.launch.Env = []string{"PATH=" + tt.path}
			r := p.run(t)
			if r.Status != tt.status || r.ExitCode != tt.code || !strings.Contains(r.Message, tt.message) {
				t.Errorf("%+v\n%s", r, p.log)
			}
			if tt.code == 0 && r.Reason != tranter.RunnerConfigurationError {
				t.Errorf("reason %s", r.Reason)
			}
		})
	}
}

func TestAShellForAnotherProcessorIsExplained(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bash"), []byte("\x7fELF no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := newPlay(t, userScript("true"))
	inContainer(p, false)
	p.launch.Env = []string{"PATH=" + dir}
	r := p.run(t)
	if r.Reason != tranter.RunnerConfigurationError || !strings.Contains(r.Message, "image:docker:platform") {
		t.Errorf("%+v", r)
	}
}

// Two users in two containers use the same temporary directory, in either order.
func TestSharedDirectoriesAreForEveryUser(t *testing.T) {
	t.Parallel()
	p := newPlay(t,
		tranter.Step{Name: "prepare_script", When: tranter.OnSuccess, Prepare: &tranter.PrepareStep{Greeting: "on %s"}},
		userScript(`stat -c %a "$FILE" "$GITLAB_ENV" "$(dirname "$FILE")" "$(dirname "$FILE")/tranter-file-variables"`, `echo NEXT=one >>"$GITLAB_ENV"`))
	inContainer(p, true)
	p.phase.Variables = []tranter.Variable{{Key: "FILE", Value: "content", File: true}}
	r := p.run(t)
	if r.Status != tranter.PhaseSucceeded || !strings.Contains(p.log.String(), "666\n666\n777\n666\n") {
		t.Errorf("%+v\n%s", r, p.log)
	}
}

// A phase that follows one that was ended carries out what always runs, at once, and keeps what is known.
func TestAPhaseAfterOneThatWasEnded(t *testing.T) {
	t.Parallel()
	for _, status := range []tranter.PhaseStatus{tranter.PhaseTimedOut, tranter.PhaseAborted, tranter.PhaseCanceled, tranter.PhaseFailed} {
		t.Run(string(status), func(t *testing.T) {
			t.Parallel()
			p := newPlay(t, userScript("touch ran"), onFailure(), cleanup())
			p.phase.Deadline = time.Now().Add(time.Hour)
			if status == tranter.PhaseTimedOut {
				p.phase.Deadline = time.Now().Add(-time.Second)
			}
			p.phase.Prior = tranter.PhaseResult{
				Status: status, Reason: tranter.ScriptFailure, ExitCode: 3, Message: "because", Step: "before", ScriptReached: true,
				Over:  status == tranter.PhaseTimedOut || status == tranter.PhaseAborted,
				Steps: []tranter.StepRecord{{Name: "before", Status: tranter.PhaseFailed}},
			}
			began := time.Now()
			r := p.run(t)
			if time.Since(began) > 5*time.Second {
				t.Error("time was wasted")
			}
			if r.Status != status || r.Message != "because" || r.Step != "before" || !r.ScriptReached {
				t.Errorf("%+v", r)
			}
			if _, err := os.Stat(p.file("ran")); err == nil {
				t.Error("the script has run")
			}
			var names []string
			for _, s := range r.Steps {
				names = append(names, s.Name)
			}
			want := "before archive_cache_on_failure cleanup_file_variables"
			if status == tranter.PhaseTimedOut || status == tranter.PhaseAborted {
				want = "before cleanup_file_variables"
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("steps: %s, want %s", got, want)
			}
		})
	}
}
