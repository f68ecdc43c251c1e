package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/apptainer"
)

func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// customEnv is in front of the names of the job's variables.
const customEnv = "CUSTOM_ENV_"

// jobVariables returns the job's variables, which GitLab Runner has put into our environment.
func jobVariables(environ []string) []tranter.Variable {
	var out []tranter.Variable
	for _, kv := range environ {
		if name, ok := strings.CutPrefix(kv, customEnv); ok {
			key, value, _ := strings.Cut(name, "=")
			out = append(out, tranter.Variable{Key: key, Value: value, Raw: true})
		}
	}
	return out
}

// prepare makes the container: the image is pulled, services are started.
func (j *executorJob) prepare(ctx context.Context) error {
	job, err := j.job()
	if err != nil {
		return err
	}
	vars := jobVariables(os.Environ())
	public := map[string]bool{}
	for _, v := range job.Variables {
		public[v.Key] = v.Public
	}
	for i, v := range vars {
		shown, given := public[v.Key]
		vars[i].Public = shown || !given && strings.HasPrefix(v.Key, "CI_") && !strings.Contains(v.Key, "TOKEN") && !strings.Contains(v.Key, "PASSWORD")
	}
	if err := j.executor.Remove(ctx, j.session()); err != nil { // of a try before
		return err
	}
	_, err = j.executor.Open(ctx, tranter.SessionSpec{
		Name: "job-" + j.id, Dir: j.session(), Job: job, Dirs: tranter.Dirs{Builds: j.builds, Project: j.builds}, Log: j.out, Variables: vars,
	})
	return err
}

// maxResponse bounds the job's payload.
const maxResponse = 64 << 20

// job reads the job's payload, or makes up what variables say of it.
func (j *executorJob) job() (*tranter.Job, error) {
	job := &tranter.Job{}
	if path := os.Getenv("JOB_RESPONSE_FILE"); path != "" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read the job's payload: %w", err)
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, maxResponse))
		if err == nil {
			err = json.Unmarshal(data, job)
		}
		if err != nil {
			return nil, fmt.Errorf("read the job's payload in $JOB_RESPONSE_FILE: %w", err)
		}
	} else if text := os.Getenv(customEnv + "CI_JOB_SERVICES"); text != "" {
		if err := json.Unmarshal([]byte(text), &job.Services); err != nil {
			job.Services = nil
			_, _ = fmt.Fprintln(j.out, "WARNING: the job's services are not started: this GitLab Runner does not tell of them as expected.")
		}
	}
	job.ID, _ = strconv.ParseInt(j.id, 10, 64)
	if image := os.Getenv(customEnv + "CI_JOB_IMAGE"); job.Image.Name == "" {
		job.Image.Name = image
	}
	registry := os.Getenv(customEnv + "CI_REGISTRY")
	for _, login := range []struct{ user, password string }{
		{os.Getenv(customEnv + "CI_REGISTRY_USER"), os.Getenv(customEnv + "CI_REGISTRY_PASSWORD")},
		{"gitlab-ci-token", os.Getenv(customEnv + "CI_JOB_TOKEN")},
	} {
		if registry != "" && login.user != "" && login.password != "" {
			job.Credentials = append(job.Credentials, tranter.Credential{Type: "registry", URL: registry, Username: login.user, Password: tranter.Secret(login.password)})
		}
	}
	return job, nil
}

// users says whether a stage is one of the user's scripts, which run in the image. The others run beside it, with this
// program as gitlab-runner.
func usersStage(stage string) bool {
	return stage == "build_script" || stage == "after_script" || strings.HasPrefix(stage, "step_")
}

// inImage runs a script by bash, or by sh where there is no bash, and leaves its exit code in a file: without it the
// container has failed, and not the script.
// What tells the script to end waits here until it has.
const inImage = `trap : TERM INT
shell=sh
if command -v bash >/dev/null 2>&1; then shell=bash; fi
cd "$3" 2>/dev/null
"$shell" "$1"
code=$?
echo "$code" >"$2"
exit "$code"
`

// run runs the script of one stage.
func (j *executorJob) run(ctx context.Context, script, stage string) error {
	if !usersStage(stage) {
		return j.runBeside(ctx, script)
	}
	dir := filepath.Join(j.session(), "stage")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the stage's directory: %w", err)
	}
	copied, code := filepath.Join(dir, "script"), filepath.Join(dir, "code")
	if err := copyScript(script, copied); err != nil {
		return err
	}
	if err := os.Remove(code); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	cmd, _, err := j.executor.Command(ctx, apptainer.Reference(j.session()), []string{"sh", "-c", inImage, "sh", copied, code, j.builds})
	if err != nil {
		return err
	}
	failed := j.finish(cmd)
	if failed == nil || ctx.Err() != nil {
		return failed
	}
	data, err := os.ReadFile(code)
	if err != nil {
		return fmt.Errorf("the container has failed, not the script: %w", failed)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("the container has left no exit code of the script: %w", failed)
	}
	return &tranter.BuildError{ExitCode: n, Err: fmt.Errorf("exit status %d", n)}
}

func copyScript(from, to string) error {
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o700) //nolint:gosec // a script
	}
	if err != nil {
		return fmt.Errorf("take over the stage's script: %w", err)
	}
	return nil
}

// graceful is how long a stage that is told to end may take before GitLab Runner kills us anyway.
const graceful = 10 * time.Minute

// finish runs a command to its end.
func (j *executorJob) finish(cmd *exec.Cmd) error {
	runtime.LockOSThread() // the command is tied to it
	defer runtime.UnlockOSThread()
	cmd.Stdout, cmd.Stderr = j.out, j.err
	cmd.WaitDelay = graceful
	return cmd.Run()
}

// runBeside runs the script of a stage on the host.
func (j *executorJob) runBeside(ctx context.Context, script string) error {
	bin := filepath.Join(j.session(), "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		return fmt.Errorf("make the stage's directory: %w", err)
	}
	if err := os.Symlink(j.self, filepath.Join(bin, "gitlab-runner")); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make this program gitlab-runner: %w", err)
	}
	shell, err := exec.LookPath("bash")
	if err != nil {
		if shell, err = exec.LookPath("sh"); err != nil {
			return fmt.Errorf("sources are fetched on this host, by bash or sh: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, shell, script)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Dir = j.temp
	cmd.Env = append(slices.DeleteFunc(j.executor.Outside(), func(kv string) bool { return strings.HasPrefix(kv, customEnv) }),
		"PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	failed := j.finish(cmd)
	if exit, ok := errors.AsType[*exec.ExitError](failed); ok && exit.Exited() {
		return &tranter.BuildError{ExitCode: exit.ExitCode(), Err: failed}
	}
	return failed
}
