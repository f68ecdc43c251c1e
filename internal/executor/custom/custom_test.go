package custom_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/custom"
)

// stage is a driver of a test: a text for each of its stages, in bash. RECORD is a directory of the test.
type stage struct{ config, prepare, run, cleanup string }

const runScript = `"$2" || { code=$?; echo $code >"$BUILD_EXIT_CODE_FILE"; exit "$BUILD_FAILURE_EXIT_CODE"; }`

// place is where a job with a driver of a test runs.
type place struct {
	t       *testing.T
	record  string
	options custom.Options
	spec    tranter.SessionSpec
	log     *bytes.Buffer // what the executor says to the job
	manager *bytes.Buffer // the manager's log
	opened  tranter.Session
}

func newPlace(t *testing.T, s stage) *place {
	t.Helper()
	root := t.TempDir()
	p := &place{t: t, record: filepath.Join(root, "record"), log: &bytes.Buffer{}, manager: &bytes.Buffer{}}
	if err := os.Mkdir(p.record, 0o755); err != nil {
		t.Fatal(err)
	}
	if s.run == "" {
		s.run = runScript
	}
	p.options = options(program(t, `#!/bin/bash
RECORD='`+p.record+`'
echo "$1${3:+ $3}" >>"$RECORD/calls"
case $1 in
config) :; `+s.config+`
;;
prepare) :; `+s.prepare+`
;;
run) `+s.run+`
;;
cleanup) :; `+s.cleanup+`
;;
esac
`))
	p.options.Log = slog.New(slog.NewTextHandler(p.manager, &slog.HandlerOptions{Level: slog.LevelDebug}))
	project := filepath.Join(root, "builds", "project")
	p.spec = tranter.SessionSpec{
		Name: "1", Dir: filepath.Join(root, "job"), Log: p.log, Job: &tranter.Job{ID: 7, Token: "glcbt-token", Image: tranter.Image{Name: "ruby:$V"}},
		Dirs:      tranter.Dirs{Builds: filepath.Join(root, "builds"), Project: project, Temp: project + ".tmp", Cache: filepath.Join(root, "cache")},
		Variables: []tranter.Variable{{Key: "V", Value: "3"}, {Key: "FILE", Value: "the\ncontent", File: true}},
	}
	return p
}

func (p *place) open() (tranter.Session, error) {
	s, err := custom.New(p.options).Open(p.t.Context(), p.spec)
	p.opened = s
	return s, err
}

func (p *place) must() tranter.Session {
	p.t.Helper()
	s, err := p.open()
	if err != nil {
		p.t.Fatalf("open: %v\n%s", err, p.log)
	}
	p.t.Cleanup(func() {
		if err := s.Close(context.WithoutCancel(p.t.Context())); err != nil {
			p.t.Error(err)
		}
	})
	return s
}

func (p *place) calls() []string {
	p.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.record, "calls"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	return strings.Fields(strings.ReplaceAll(strings.TrimSpace(string(data)), " ", ":"))
}

func (p *place) read(name string) string {
	p.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.record, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(data)
}

// gone checks that nothing is left of the job's environment.
func (p *place) gone(temp string) {
	p.t.Helper()
	if _, err := os.Stat(temp); temp == "" || !errors.Is(err, os.ErrNotExist) {
		p.t.Errorf("the driver's temporary directory %q is left: %v", temp, err)
	}
	_ = filepath.WalkDir(p.spec.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte("content")) {
			p.t.Errorf("a secret is left in %s", path)
		}
		return nil
	})
}

func (p *place) phase(commands ...string) tranter.Phase {
	return tranter.Phase{ID: "1", JobID: 7, Dirs: p.spec.Dirs, Shell: "sh", JobToken: "glcbt-token", Variables: p.spec.Variables, Steps: []tranter.Step{
		{Name: "prepare_script", When: tranter.OnSuccess, Prepare: &tranter.PrepareStep{Greeting: "Running on %s via me..."}},
		{Name: "get_sources", When: tranter.OnSuccess, Sources: &tranter.SourcesStep{Strategy: "none"}},
		{Name: "step_script", When: tranter.OnSuccess, Script: &tranter.ScriptStep{Commands: commands, User: true}},
		{Name: "after_script", When: tranter.AfterScript, Script: &tranter.ScriptStep{Commands: []string{"echo after $CI_JOB_STATUS"}, User: true, After: true, IgnoreErrors: true}},
		{Name: "cleanup_file_variables", When: tranter.Always, Cleanup: &tranter.CleanupStep{}},
	}}
}

// run runs a job and returns its result and log.
func (p *place) run(s tranter.Session, phase tranter.Phase) (tranter.PhaseResult, string) {
	p.t.Helper()
	ctx, stop := context.WithTimeout(p.t.Context(), time.Minute)
	defer stop()
	if err := s.Start(ctx, phase); err != nil {
		p.t.Fatal(err)
	}
	var log bytes.Buffer
	r, err := s.Attach(ctx, phase.ID, 0, &log)
	if err != nil {
		p.t.Fatalf("%v\n%s", err, log.String())
	}
	return r, log.String()
}

func TestStagesInTheirOrder(t *testing.T) {
	t.Parallel()
	p := newPlace(t, stage{})
	s := p.must()
	if _, log := p.run(s, p.phase("echo hello")); !strings.Contains(log, "\nhello\n") || !strings.Contains(log, "\nafter success\n") {
		t.Error(log)
	}
	for range 2 {
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"config", "prepare", "run:prepare_script", "run:get_sources", "run:build_script", "run:after_script", "run:cleanup_file_variables", "cleanup"}
	if d := cmp.Diff(want, p.calls()); d != "" {
		t.Error(d)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("OF_THE_MANAGER", "seen")
	t.Setenv("CUSTOM_ENV_V", "weaker")
	const dump = `env -0 >"$RECORD/env-$1${3:-}"; pwd >"$RECORD/pwd-$1"; stat -c %a "$JOB_RESPONSE_FILE" >"$RECORD/mode"; cp "$JOB_RESPONSE_FILE" "$RECORD/response"`
	p := newPlace(t, stage{
		config:  dump + `; echo '{"job_env": {"OF_DRIVER": "yes", "BUILD_FAILURE_EXIT_CODE": "9", "CUSTOM_ENV_V": "weaker"}}'`,
		prepare: dump, cleanup: dump,
		run: dump + `; stat -c %a "$2" >"$RECORD/mode-script"; basename "$2" >"$RECORD/name-script"; dirname "$(dirname "$2")" >"$RECORD/dir-script"; ` + runScript,
	})
	p.spec.Job.Services = []tranter.Image{{
		Name: "postgres:$V", Alias: "db, other", Command: []string{"x"},
		Variables: []tranter.Variable{{Key: "A", Value: "$V-$B"}, {Key: "B", Value: "b"}, {Key: "RAW", Value: "$V", Raw: true}},
	}}
	s := p.must()
	p.run(s, p.phase("true"))
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, which := range []string{"config", "prepare", "runbuild_script", "cleanup"} {
		env := map[string]string{}
		for kv := range strings.SplitSeq(p.read("env-"+which), "\x00") {
			k, v, _ := strings.Cut(kv, "=")
			env[k] = v
		}
		temp := env["TMPDIR"]
		want := map[string]string{
			"OF_THE_MANAGER": "seen", "BUILD_FAILURE_EXIT_CODE": "9", "SYSTEM_FAILURE_EXIT_CODE": "2", "OF_DRIVER": "yes",
			"BUILD_EXIT_CODE_FILE": temp + "/build_exit_code", "JOB_RESPONSE_FILE": temp + "/response.json",
			"CUSTOM_ENV_V": "3", "CUSTOM_ENV_FILE": "the\ncontent",
			"CUSTOM_ENV_CI_JOB_SERVICES": `[{"name":"postgres:3","alias":"db","entrypoint":null,"command":["x"],"variables":{"A":"3-b","B":"b","RAW":"$V"}}]`,
		}
		if which == "config" { // before it, there is no job_env
			want["OF_DRIVER"], want["BUILD_FAILURE_EXIT_CODE"] = "", "1"
		}
		for k, v := range want {
			if env[k] != v {
				t.Errorf("%s: %s is %q, want %q", which, k, env[k], v)
			}
		}
		if !strings.HasPrefix(filepath.Base(temp), "custom-executor") {
			t.Errorf("TMPDIR=%s", temp)
		}
		if p.read("pwd-config") != temp+"\n" || p.read("dir-script") != temp+"\n" || p.read("name-script") != "script\n" || p.read("mode-script") != "700\n" || p.read("mode") != "600\n" {
			t.Error("directory, name or mode of a file")
		}
		p.gone(temp)
	}
	var response map[string]any
	if err := json.Unmarshal([]byte(p.read("response")), &response); err != nil {
		t.Fatal(err)
	}
	image, _ := response["image"].(map[string]any)
	if response["id"] != 7.0 || response["token"] != "glcbt-token" || image["name"] != "ruby:3" {
		t.Errorf("response %v", response)
	}
}

func TestNoServices(t *testing.T) {
	t.Parallel()
	p := newPlace(t, stage{prepare: `echo "[${CUSTOM_ENV_CI_JOB_SERVICES-unset}]"`})
	p.must()
	if !strings.Contains(p.log.String(), "[]\n") {
		t.Error(p.log)
	}
}

func TestWhatConfigSays(t *testing.T) {
	t.Parallel()
	p := newPlace(t, stage{
		config: `echo to the log >&2; echo '{"driver": {"name": "mine", "version": "v1"}, "hostname": "the-vm", "builds_dir": "/b", "cache_dir": "/c", "builds_dir_is_shared": false, "shell": "sh", "new": 1}'`,
	})
	var got tranter.Surroundings
	p.spec.Settle = func(s tranter.Surroundings) (tranter.Dirs, []tranter.Variable, error) {
		got = s
		return p.spec.Dirs, append(slices.Clone(p.spec.Variables), tranter.Variable{Key: "CI_BUILDS_DIR", Value: s.Builds}), nil
	}
	s := p.must()
	no := false
	if d := cmp.Diff(tranter.Surroundings{Builds: "/b", Cache: "/c", Shell: "sh", SharedBuilds: &no}, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff("to the log\nUsing Custom executor with driver mine v1...\n", p.log.String()); d != "" {
		t.Error(d)
	}
	again, err := custom.New(custom.Options{Agent: p.options.Agent}).Reopen(t.Context(), s.Ref()) // with a configuration that has changed
	if err != nil {
		t.Fatal(err)
	}
	if _, log := p.run(again, p.phase("true")); !strings.Contains(log, "Running on the-vm via me...") {
		t.Error(log)
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stage  stage
		change func(*place)
		want   string
		code   int // of a BuildError; -1: none, -2: a ConfigError
	}{
		"config: no JSON":          {stage: stage{config: "echo '{'"}, want: "config_exec has printed what is not the JSON", code: -1},
		"config: system failure":   {stage: stage{config: `exit "$SYSTEM_FAILURE_EXIT_CODE"`}, want: "system failure", code: -1},
		"config: build failure":    {stage: stage{config: `exit "$BUILD_FAILURE_EXIT_CODE"`}, want: "config_exec: exit status 1", code: 1},
		"config: a shell for none": {stage: stage{config: `echo '{"shell": "pwsh"}'`}, want: "use bash or sh", code: -2},
		"config: endless":          {stage: stage{config: `yes`}, want: "too long", code: -1},
		"prepare: build failure":   {stage: stage{prepare: `echo 42 >"$BUILD_EXIT_CODE_FILE"; exit "$BUILD_FAILURE_EXIT_CODE"`}, want: "prepare_exec: exit status 42", code: 42},
		"prepare: no number":       {stage: stage{prepare: `echo x >"$BUILD_EXIT_CODE_FILE"; exit "$BUILD_FAILURE_EXIT_CODE"`}, want: "expected a whole number", code: -1},
		"prepare: unknown code":    {stage: stage{prepare: `exit 7`}, want: "unknown Custom executor executable exit code 7", code: -1},
		"prepare: killed":          {stage: stage{prepare: `kill -9 $$`}, want: "was killed", code: -1},
		"prepare: hangs": {stage: stage{prepare: `echo begun; trap '' TERM; while :; do sleep 0.05; done`}, change: func(p *place) {
			p.options.Prepare.Timeout = 300 * time.Millisecond
		}, want: "longer than prepare_exec_timeout allows: 300ms", code: -1},
		"prepare: not there": {change: func(p *place) { p.options.Prepare.Exec = "/nowhere/prepare" }, want: "/nowhere/prepare", code: -1},
		"no builds_dir":      {change: func(p *place) { p.spec.Dirs.Builds = "" }, want: "needs a builds_dir", code: -2},
		"no cache_dir":       {change: func(p *place) { p.spec.Dirs.Cache = "group/project" }, want: "needs a cache_dir", code: -2},
		"settle": {change: func(p *place) {
			p.spec.Settle = func(tranter.Surroundings) (tranter.Dirs, []tranter.Variable, error) {
				return tranter.Dirs{}, nil, &tranter.ConfigError{Err: errors.New("not so")}
			}
		}, want: "not so", code: -2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.stage.cleanup = `echo "$TMPDIR" >"$RECORD/temp"`
			p := newPlace(t, c.stage)
			if c.change != nil {
				c.change(p)
			}
			s, err := p.open()
			if err == nil || s != nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("session %v, error %v", s, err)
			}
			build, isBuild := errors.AsType[*tranter.BuildError](err)
			_, isConfig := errors.AsType[*tranter.ConfigError](err)
			if isBuild != (c.code >= 0) || isConfig != (c.code == -2) || isBuild && build.ExitCode != c.code {
				t.Errorf("%#v", err)
			}
			if calls := p.calls(); calls[len(calls)-1] != "cleanup" || strings.Count(strings.Join(calls, " "), "cleanup") != 1 {
				t.Errorf("calls %q", calls)
			}
			p.gone(strings.TrimSpace(p.read("temp")))
		})
	}
}

// The job is called off while the environment is made: the driver's program ends, and cleans up.
func TestOpenIsCalledOff(t *testing.T) {
	t.Parallel()
	p := newPlace(t, stage{prepare: `echo $BASHPID >"$RECORD/pid"; sleep 1000`, cleanup: "sleep 0.1; echo done"})
	ctx, cancel := context.WithCancelCause(t.Context())
	off := errors.New("called off")
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if data, err := os.ReadFile(filepath.Join(p.record, "pid")); err == nil && len(data) > 0 {
				cancel(off)
				return
			}
		}
	}()
	if _, err := custom.New(p.options).Open(ctx, p.spec); !errors.Is(err, off) {
		t.Errorf("error %v", err)
	}
	if !strings.Contains(p.manager.String(), "output=done") {
		t.Errorf("no cleanup: %s", p.manager)
	}
}

func TestExitCodesOfStages(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		run    string
		reason tranter.FailureReason
		code   int
		text   string
	}{
		"no file":        {`[ $3 != build_script ] || exit 1; "$2"`, tranter.ScriptFailure, 1, "exit status 1"},
		"a file":         {`[ $3 != build_script ] || { printf '17\nmore' >"$BUILD_EXIT_CODE_FILE"; exit 1; }; "$2"`, tranter.ScriptFailure, 17, "exit status 17"},
		"an old file":    {`echo 5 >"$RECORD/x"; if [ $3 = get_sources ]; then echo 5 >"$BUILD_EXIT_CODE_FILE"; fi; [ $3 != build_script ] || exit 1; "$2"`, tranter.ScriptFailure, 1, "exit status 1"},
		"no number":      {`[ $3 != build_script ] || { echo many >"$BUILD_EXIT_CODE_FILE"; exit 1; }; "$2"`, tranter.RunnerSystemFailure, 0, "expected a whole number"},
		"system failure": {`[ $3 != build_script ] || exit 2; "$2"`, tranter.RunnerSystemFailure, 0, "system failure"},
		"unknown":        {`[ $3 != build_script ] || exit 3; "$2"`, tranter.RunnerSystemFailure, 0, "unknown Custom executor executable exit code 3"},
		"killed":         {`[ $3 != build_script ] || kill -9 $$; "$2"`, tranter.RunnerSystemFailure, 0, "was killed"},
		"the first":      {`exit 1`, tranter.ScriptFailure, 1, "exit status 1"},
		"the sources":    {`[ $3 != get_sources ] || exit 2; "$2"`, tranter.RunnerSystemFailure, 0, "get_sources"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, stage{run: c.run})
			r, log := p.run(p.must(), p.phase("echo hello"))
			if r.Status != tranter.PhaseFailed || r.Reason != c.reason || r.ExitCode != c.code || !strings.Contains(r.Message, c.text) {
				t.Errorf("result %+v\n%s", r, log)
			}
			if calls := p.calls(); calls[len(calls)-1] != "run:cleanup_file_variables" {
				t.Errorf("calls %q", calls)
			}
		})
	}
}

// Between two attempts to get the sources, the tree is cleared.
func TestAttempts(t *testing.T) {
	t.Parallel()
	p := newPlace(t, stage{run: `[ $3 != get_sources ] || { echo x >>"$RECORD/tries"; [ $(wc -l <"$RECORD/tries") = 2 ] || exit 1; }; "$2"`})
	phase := p.phase("true")
	phase.FlatBackoff = true
	phase.Steps[1].Attempts = 3
	if r, log := p.run(p.must(), phase); r.Status != tranter.PhaseSucceeded {
		t.Errorf("result %+v\n%s", r, log)
	}
	want := []string{"config", "prepare", "run:prepare_script", "run:get_sources", "run:clear_worktree", "run:get_sources", "run:build_script", "run:after_script", "run:cleanup_file_variables"}
	if d := cmp.Diff(want, p.calls()); d != "" {
		t.Error(d)
	}
}

// A driver that minds no signal is killed when its time is over, and the job ends.
func TestStageThatHangs(t *testing.T) {
	t.Parallel()
	p := newPlace(t, stage{run: `[ $3 != build_script ] || { trap '' TERM; echo ready; while :; do sleep 0.05; done; }; "$2"`})
	s := p.must()
	phase := p.phase("true")
	phase.ScriptTimeout = 300 * time.Millisecond
	began := time.Now()
	r, log := p.run(s, phase)
	if r.Status != tranter.PhaseTimedOut || !strings.Contains(log, "\nafter timedout\n") || time.Since(began) > 10*time.Second {
		t.Errorf("after %v: result %+v\n%s", time.Since(began), r, log)
	}
}

// What a driver leaves running, such as a connection that it shares between stages, is its own.
func TestConnectionThatIsKeptOpen(t *testing.T) {
	t.Parallel()
	p := newPlace(t, stage{
		run:     `[ -e "$RECORD/pid" ] || { setsid sleep 1000 >/dev/null 2>&1 & echo $! >"$RECORD/pid"; }; kill -0 $(cat "$RECORD/pid") || exit 2; ` + runScript,
		cleanup: `kill -0 $(cat "$RECORD/pid") && echo "still open"; kill $(cat "$RECORD/pid")`,
	})
	s := p.must()
	if r, log := p.run(s, p.phase("true")); r.Status != tranter.PhaseSucceeded {
		t.Errorf("result %+v\n%s", r, log)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(p.manager.String(), "still open") {
		t.Errorf("it was ended before cleanup: %s", p.manager)
	}
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"output":   {`echo out; echo err >&2`, []string{"level=DEBUG", "output=out", "level=WARN", "output=err"}},
		"failure":  {`exit 1`, []string{"level=WARN", "cleanup has failed", "exit status 1"}},
		"too long": {`trap '' TERM; while :; do sleep 0.05; done`, []string{"cleanup has failed", "cleanup_exec_timeout"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, stage{cleanup: `echo "$TMPDIR" >"$RECORD/temp"; ` + c.text})
			p.options.Cleanup.Timeout = 5 * time.Second
			if name == "too long" {
				p.options.Cleanup.Timeout = 200 * time.Millisecond
			}
			s := p.must()
			p.run(s, p.phase("true"))
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !strings.Contains(p.manager.String(), want) {
					t.Errorf("no %q in %s", want, p.manager)
				}
			}
			if strings.Contains(p.log.String(), "out") {
				t.Errorf("the job's log has it: %s", p.log)
			}
			p.gone(strings.TrimSpace(p.read("temp")))
		})
	}
}

// A manager that was killed while it made the environment: the next one removes what there is and begins anew.
func TestOpenAfterAManagerThatWasKilled(t *testing.T) {
	t.Parallel()
	p := newPlace(t, stage{})
	if _, err := p.open(); err != nil {
		t.Fatal(err)
	}
	p.must()
	if d := cmp.Diff([]string{"config", "prepare", "cleanup", "config", "prepare"}, p.calls()); d != "" {
		t.Error(d)
	}
}

func TestOnlyRun(t *testing.T) {
	t.Parallel()
	p := newPlace(t, stage{})
	p.options.Config, p.options.Prepare, p.options.Cleanup = custom.Command{}, custom.Command{}, custom.Command{}
	s := p.must()
	if r, log := p.run(s, p.phase("echo hello")); r.Status != tranter.PhaseSucceeded || !strings.Contains(log, "\nhello\n") {
		t.Errorf("result %+v\n%s", r, log)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := custom.New(p.options).Reopen(t.Context(), s.Ref()); err == nil {
		t.Error("reopened what is closed")
	}
}

func TestShellWithoutScripts(t *testing.T) {
	t.Parallel()
	p := newPlace(t, stage{})
	phase := p.phase("true")
	phase.Shell = "pwsh"
	if err := p.must().Start(t.Context(), phase); err == nil || !strings.Contains(err.Error(), "bash or sh") {
		t.Errorf("error %v", err)
	}
}

// The output of prepare is in the job's log as it comes, also a last line without an end.
func TestOutputOfPrepare(t *testing.T) {
	t.Parallel()
	p := newPlace(t, stage{prepare: `printf 'a\r\nb'; printf 'c\n' >&2; head -c 100000 /dev/zero | tr '\0' x; printf end`})
	p.must()
	if got := p.log.String(); !strings.HasPrefix(got, "Using Custom executor...\na\nbc\nxxx") || !strings.HasSuffix(got, "xend\n") || strings.Count(got, "x") < 100000 {
		t.Errorf("%.100q", got)
	}
}
