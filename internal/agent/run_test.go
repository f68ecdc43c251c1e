package agent_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tranter-ci/tranter"
)

func TestOutcomeOfScripts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		commands []string
		code     int
		message  string
		shell    string
	}{
		{[]string{"true", "echo fine"}, 0, "", "bash"},
		{[]string{"exit 7", "echo unreachable"}, 7, "exit status 7", "bash"},
		{[]string{"false", "echo unreachable"}, 1, "exit status 1", "bash"},
		{[]string{"false | true", "echo unreachable"}, 1, "exit status 1", "bash"},
		{[]string{"no-such-command-here", "echo unreachable"}, 127, "exit status 127", "bash"},
		{[]string{"if; then"}, 2, "exit status 2", "bash"},
		{[]string{"(exit 200)"}, 200, "exit status 200", "sh"},
		{[]string{"bash -c 'kill -KILL $$'", "echo unreachable"}, 137, "exit status 137", "bash"},
		{[]string{"! true", "f() { return 3; }", "f", "echo unreachable"}, 3, "exit status 3", "sh"},
		{[]string{"cat", "test ! -t 0"}, 0, "", "bash"}, // there is no standard input to wait for
	} {
		t.Run(strings.Join(tt.commands, ";"), func(t *testing.T) {
			t.Parallel()
			p := newPlay(t, userScript(tt.commands...))
			p.phase.Shell = tt.shell
			r := p.run(t)
			want := tranter.PhaseResult{Status: tranter.PhaseSucceeded}
			if tt.code != 0 {
				want = tranter.PhaseResult{Status: tranter.PhaseFailed, Reason: tranter.ScriptFailure, Step: "step_script"}
			}
			if r.Status != want.Status || r.Reason != want.Reason || r.Step != want.Step || r.ExitCode != tt.code || r.Message != tt.message || !r.ScriptReached {
				t.Errorf("result %+v, log:\n%s", r, p.log)
			}
			without(t, p.log.String(), "\nunreachable")
		})
	}
}

func TestOrderOfOutput(t *testing.T) {
	t.Parallel()
	p := newPlay(t,
		tranter.Step{Name: "prepare_script", Title: "Preparing environment", When: tranter.OnSuccess, Prepare: &tranter.PrepareStep{Greeting: "Running on %s via me..."}},
		userScript("echo one", "echo two >&2; echo three", "for i in $(seq 200); do echo line $i; done"), afterScript("echo after"), onFailure(), cleanup())
	p.phase.Log.Sections = true
	r := p.run(t)
	if r.Status != tranter.PhaseSucceeded || len(r.Steps) != 4 {
		t.Errorf("result %+v", r)
	}
	log := p.log.String()
	inOrder(t, log, "section_start:", ":prepare_script", "Preparing environment", "Running on ", " via me...", "section_end:", ":prepare_script",
		":step_script", `Executing "step_script"`, "$ echo one", "one\n", "$ echo two", "three\n", "line 1\n", "line 100\n", "line 200\n", "section_end:",
		":after_script", "$ echo after", "after\n", ":cleanup_file_variables")
	without(t, log, "On failure")
}

func TestSecretsAreMasked(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript(
		`printf 'a-hush'; sleep 0.1; printf -- '-hush-b\n'`,
		`printf 'c-hush' >&2; sleep 0.1; printf -- '-hush-d\n' >&2; sleep 0.1`,
		`echo "$HIDDEN"; echo 'glpat-abcdefghij0123456789'`,
		`head -c 65530 /dev/zero | tr '\0' x; echo hush-hush`,
		`echo hush-hush`,
	))
	p.phase.Variables = []tranter.Variable{{Key: "HIDDEN", Value: "hush-hush"}}
	p.phase.Log.Phrases, p.phase.Log.TokenPrefixes = []tranter.Secret{"hush-hush"}, []string{"glpat-"}
	if r := p.run(t); r.Status != tranter.PhaseSucceeded {
		t.Errorf("result %+v", r)
	}
	without(t, p.log.String(), "hush-hush", "abcdefghij")
	for _, want := range []string{"[MASKED]-b\n", "[MASKED]-d\n"} { // two streams may meet within a line
		inOrder(t, p.log.String(), want)
	}
	inOrder(t, p.log.String(), "\n[MASKED]\n", "glpat-[MASKED]", "xxx[MASKED]")
}

func TestStatusIsToldToAfterScript(t *testing.T) {
	t.Parallel()
	for command, status := range map[string]string{"true": "success", "false": "failed"} {
		p := newPlay(t, userScript(`echo "during=$CI_JOB_STATUS"`, command), afterScript(`echo "status=$CI_JOB_STATUS"`), onFailure())
		p.phase.Variables = []tranter.Variable{{Key: "CI_JOB_STATUS", Value: "running"}}
		p.run(t)
		inOrder(t, p.log.String(), "during=running", "status="+status)
		if strings.Contains(p.log.String(), "On failure") != (status == "failed") {
			t.Errorf("%s: steps for failed jobs:\n%s", command, p.log)
		}
	}
}

func TestAfterScriptThatFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		script string
		ignore bool
		code   int
		step   string
	}{
		{"true", true, 0, ""},
		{"true", false, 5, "after_script"},
		{"exit 3", false, 3, "step_script"},
	} {
		after := afterScript("exit 5")
		after.Script.IgnoreErrors = tt.ignore
		r := newPlay(t, userScript(tt.script), after).run(t)
		if r.ExitCode != tt.code || r.Step != tt.step || (r.Status == tranter.PhaseSucceeded) != (tt.code == 0) {
			t.Errorf("%+v: result %+v", tt, r)
		}
	}
}

func TestAfterScriptTimeout(t *testing.T) {
	t.Parallel()
	after := afterScript("echo began", "sleep 100", "echo not reached")
	after.Timeout = 300 * time.Millisecond
	p := newPlay(t, userScript("true"), after, cleanup())
	r := p.run(t)
	if r.Status != tranter.PhaseSucceeded || len(r.Steps) != 3 {
		t.Errorf("result %+v", r)
	}
	inOrder(t, p.log.String(), "began", "longer than 300ms", "Cleaning up")

	after.Script.IgnoreErrors = false // then it is the job that took too long, not the runner that failed
	p = newPlay(t, userScript("true"), after, onFailure(), cleanup())
	if r := p.run(t); r.Status != tranter.PhaseTimedOut || r.Reason != tranter.JobExecutionTimeout || r.Step != "after_script" {
		t.Errorf("an after_script that counts: result %+v", r)
	}
	inOrder(t, p.log.String(), "after_script could not run to completion because the timeout was exceeded", "On failure", "Cleaning up")
}

// Only who has set the timeout is told that it can't be kept: the default is nobody's mistake.
func TestAfterScriptTimeoutBeyondTheJobs(t *testing.T) {
	t.Parallel()
	for value, warned := range map[string]bool{"": false, "3m": true, "soon": false} {
		after := afterScript("true")
		after.Timeout = 3 * time.Minute
		p := newPlay(t, userScript("true"), after)
		p.phase.Deadline, p.phase.Timeout = time.Now().Add(time.Minute), time.Minute
		p.phase.Variables = []tranter.Variable{{Key: "RUNNER_AFTER_SCRIPT_TIMEOUT", Value: value}}
		p.run(t)
		if got := strings.Contains(p.log.String(), "RUNNER_AFTER_SCRIPT_TIMEOUT of 3m0s is longer"); got != warned {
			t.Errorf("value %q: warned %v\n%s", value, got, p.log)
		}
	}
}

func TestGitlabEnv(t *testing.T) {
	t.Parallel()
	p := newPlay(t,
		userScript(`echo "ONE=first" >>"$GITLAB_ENV"`, `printf 'TWO=a b=$c "d"\r\n\nnonsense\nONE=second\n3X=bad\n' >>"$GITLAB_ENV"`, `echo "now [$ONE]"`),
		userScript(`echo "later [$ONE] [$TWO]"`), afterScript(`echo "after [$ONE]"`))
	p.phase.Variables = []tranter.Variable{{Key: "ONE", Value: "job"}}
	p.run(t)
	inOrder(t, p.log.String(), "now [job]", "WARNING: ignored a line of $GITLAB_ENV", `later [second] [a b=$c "d"]`, "after [second]")
}

func TestFileVariables(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript(`cat "$CONFIG"`, `stat -c 'mode %a' "$CONFIG"`, `echo "at $CONFIG"`, `rm "$CONFIG"`), afterScript(`cat "$CONFIG"`), cleanup())
	p.phase.Variables = []tranter.Variable{{Key: "CONFIG", Value: "first line\nsecond $line\n", File: true}, {Key: "PLAIN", Value: "'quoted'\n$x"}}
	r := p.run(t)
	if r.Status != tranter.PhaseSucceeded {
		t.Errorf("result %+v", r)
	}
	path := filepath.Join(p.phase.Dirs.Temp, "CONFIG")
	inOrder(t, p.log.String(), "first line\nsecond $line\n", "mode 600", "at "+path, "first line\nsecond $line\n")
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is still there after the job")
	}

	p = newPlay(t, userScript("true"), cleanup())
	p.phase.Variables = []tranter.Variable{{Key: "CONFIG", Value: "x", File: true}, {Key: "../escape", Value: "x", File: true}}
	if r := p.run(t); r.Reason != tranter.RunnerConfigurationError || !strings.Contains(r.Message, "../escape") {
		t.Errorf("result %+v", r)
	}
	if _, err := os.Stat(filepath.Join(p.phase.Dirs.Temp, "CONFIG")); err == nil {
		t.Error("a file is still there after a job that could not have the next one")
	}
}

func TestVariablesArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	value := "a 'b' \"c\" $d `e` \\f \xff\né%G"
	p := newPlay(t, userScript(`printf %s "$V" >v`, `env | grep -a '^WITH-DASH=' >dash`))
	p.phase.Variables = []tranter.Variable{{Key: "V", Value: "earlier"}, {Key: "V", Value: value}, {Key: "WITH-DASH", Value: "x"}, {Key: "", Value: "x"}}
	if r := p.run(t); r.Status != tranter.PhaseSucceeded {
		t.Errorf("result %+v\n%s", r, p.log)
	}
	got, err := os.ReadFile(p.file("v"))
	if err != nil || string(got) != strings.ReplaceAll(value, "\xff", "\ufffd") { // phases are JSON
		t.Errorf("value %q, %v", got, err)
	}
	if dash, err := os.ReadFile(p.file("dash")); err != nil || string(dash) != "WITH-DASH=x\n" {
		t.Errorf("a name that no shell can export: %q, %v", dash, err)
	}
}

func TestBinaryOutput(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript(`printf 'a\000b\n'`, `printf '\303'; sleep 0.05; printf '\251\n'`, `printf 'lone \303\n'`, `head -c 20000 /dev/urandom`, `echo`, `echo end`))
	p.run(t)
	log := p.log.String()
	if !utf8.ValidString(log) {
		t.Error("the log is not UTF-8")
	}
	inOrder(t, log, "a\x00b\n", "é\n", "lone \ufffd\n", "end\n")
}

func TestLogLimit(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("head -c 200000000 /dev/zero | tr '\\0' x", "seq 1000000", "grep VmHWM /proc/$PPID/status >memory || echo 0 >memory", "exit 4"), afterScript("touch after"))
	p.phase.Log.LimitBytes = 100_000
	r := p.run(t)
	if r.ExitCode != 4 {
		t.Errorf("result %+v", r)
	}
	if n := len(p.log.String()); n < 100_000 || n > 101_000 || !strings.Contains(p.log.String(), "limit of 100000 bytes") {
		t.Errorf("the log has %d bytes, and ends with %q", n, p.log.String()[n-200:])
	}
	memory, err := os.ReadFile(p.file("memory"))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(memory) + " 0 0")
	if kb, err := strconv.Atoi(fields[1]); err != nil || kb > 128<<10 {
		t.Errorf("the agent took %q", memory)
	}
	if _, err := os.Stat(p.file("after")); err != nil {
		t.Error("after_script did not run")
	}
}

func TestPriorPhase(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("touch again"), afterScript(`echo "status=$CI_JOB_STATUS"`), onFailure(), cleanup())
	p.phase.Prior = tranter.PhaseResult{Status: tranter.PhaseFailed, Reason: tranter.ScriptFailure, ExitCode: 9, Step: "step_script", ScriptReached: true}
	r := p.run(t)
	if r.ExitCode != 9 || r.Step != "step_script" || r.Reason != tranter.ScriptFailure {
		t.Errorf("result %+v", r)
	}
	inOrder(t, p.log.String(), "status=failed", "On failure", "Cleaning up")
	if _, err := os.Stat(p.file("again")); err == nil {
		t.Error("the script ran although an earlier phase had failed")
	}
}

// A job that was over before the phase is only cleaned up after, and stays what it was, also past its timeout.
func TestAPhaseOfAJobThatIsOver(t *testing.T) {
	t.Parallel()
	for _, deadline := range []time.Time{{}, time.Now().Add(-time.Minute)} {
		p := newPlay(t, userScript("touch again"), afterScript("touch again"), onFailure(), cleanup())
		p.phase.Deadline = deadline
		p.phase.Prior = tranter.PhaseResult{Status: tranter.PhaseCanceled, Reason: tranter.JobCanceled, Message: "canceled", ScriptReached: true, Over: true}
		r := p.run(t)
		if r.Status != tranter.PhaseCanceled || r.Message != "canceled" || !r.Over || len(r.Steps) != 1 || r.Steps[0].Status != tranter.PhaseSucceeded {
			t.Errorf("result %+v", r)
		}
		if log := p.log.String(); !strings.Contains(log, "Cleaning up") || strings.Contains(log, "On failure") {
			t.Errorf("log:\n%s", log)
		}
		if _, err := os.Stat(p.file("again")); err == nil {
			t.Error("a script ran although the job was over")
		}
	}
}

func TestUnknownShell(t *testing.T) {
	t.Parallel()
	p := newPlay(t, userScript("true"))
	p.phase.Shell = "fish"
	if r := p.run(t); r.Reason != tranter.RunnerConfigurationError || !strings.Contains(r.Message, "fish") {
		t.Errorf("result %+v", r)
	}
}

func TestServerOutOfReach(t *testing.T) {
	t.Parallel()
	p := newPlay(t, tranter.Step{Name: "download_artifacts", Title: "Downloading artifacts", When: tranter.OnSuccess, Download: &tranter.DownloadStep{}}, userScript("echo not reached"))
	if r := p.run(t); r.Reason != tranter.RunnerSystemFailure || r.Step != "download_artifacts" || !strings.Contains(r.Message, "no server") || len(r.Steps) != 1 {
		t.Errorf("result %+v", r)
	}
}

func TestPrepareThatFailsEndsTheJob(t *testing.T) {
	t.Parallel()
	p := newPlay(t, tranter.Step{Name: "prepare_script", Title: "Preparing", When: tranter.OnSuccess, Prepare: &tranter.PrepareStep{Greeting: "on %s"}}, userScript("true"), onFailure())
	p.phase.Dirs.Project = "/dev/null/group/project"
	r := p.run(t)
	if r.Status != tranter.PhaseFailed || r.Reason != tranter.RunnerSystemFailure || !strings.Contains(r.Message, "/dev/null") || len(r.Steps) != 1 {
		t.Errorf("result %+v", r)
	}
}

func TestAttempts(t *testing.T) {
	t.Parallel()
	fetch := tranter.Step{Name: "get_sources", Title: "Getting source from Git repository", When: tranter.OnSuccess, Attempts: 2, Sources: &tranter.SourcesStep{
		Strategy: "fetch", RepoURL: "file:///nowhere/p.git", SHA: "1234567890", Ref: "main", Refspecs: []string{"+refs/heads/*:refs/remotes/origin/*"},
		PreScripts: []string{`echo x >>"$TRIES"; if test $(wc -l <"$TRIES") -ge $WORKS; then git init -q project; fi`},
	}}
	p := newPlay(t, fetch, userScript("echo not reached"), onFailure())
	p.phase.Variables = []tranter.Variable{{Key: "TRIES", Value: filepath.Join(p.phase.Dirs.Builds, "tries")}, {Key: "WORKS", Value: "9"}}
	r := p.run(t)
	if r.Status != tranter.PhaseFailed || r.Reason != tranter.RunnerSystemFailure || r.Step != "get_sources" || r.Steps[0].Attempts != 2 || r.ScriptReached {
		t.Errorf("result %+v", r)
	}
	if !strings.Contains(r.Message, "file:///nowhere/p.git") || !strings.Contains(r.Message, "does not appear to be a git repository") {
		t.Errorf("message %q does not say what could not be fetched, and why", r.Message)
	}
	inOrder(t, p.log.String(), "Fetching changes", "Retrying get_sources in 1s (attempt 2 of 2)", "Deleting all tracked and untracked files due to source fetch failure", "Fetching changes", "On failure")
	without(t, p.log.String(), "not reached")

	// The second try succeeds: the job goes on as if nothing had been.
	p = newPlay(t, tranter.Step{Name: "get_sources", When: tranter.OnSuccess, Attempts: 3, Sources: &tranter.SourcesStep{
		Strategy: "fetch", RepoURL: "file:///nowhere/p.git",
		PreScripts: []string{`echo x >>"$TRIES"; test $(wc -l <"$TRIES") -lt 2`}, SHA: "1234567890",
	}}, userScript("echo not reached"))
	p.phase.Variables = []tranter.Variable{{Key: "TRIES", Value: filepath.Join(p.phase.Dirs.Builds, "tries")}}
	if r := p.run(t); r.Reason != tranter.ScriptFailure || r.Steps[0].Attempts != 3 || !strings.Contains(p.log.String(), "pre_get_sources_script") {
		t.Errorf("a hook that fails: result %+v", r)
	}
}
