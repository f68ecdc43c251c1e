package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
)

// customRig is a rig whose runner has a custom executor: its driver runs scripts on this host, under a root of its own,
// after the given code. In it, $1 is the driver's stage, $stage that of the job, and $R the rig's directory.
func customRig(t *testing.T, before string) *rig {
	t.Helper()
	r := newRig(t, "", "")
	bin := r.path("bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(bin, "gitlab-runner")); err != nil {
		t.Fatal(err)
	}
	driver := `#!/bin/bash
R='` + r.dir + `'; stage=$3
echo "$1 $stage" >>"$R/calls"
PATH="$R/bin:$PATH"
` + before + `
case $1 in
config) echo "{\"hostname\": \"the-machine\", \"builds_dir\": \"$R/root/builds\", \"cache_dir\": \"$R/root/cache\"}" ;;
prepare) echo "works in $CUSTOM_ENV_CI_PROJECT_DIR" ;;
run) bash "$2" || { echo $? >"$BUILD_EXIT_CODE_FILE"; exit "$BUILD_FAILURE_EXIT_CODE"; } ;;
cleanup) echo "cleaned up" >&2 ;;
esac
`
	if err := os.WriteFile(r.path("driver"), []byte(driver), 0o755); err != nil {
		t.Fatal(err)
	}
	r.configureCustom(true)
	return r
}

// configureCustom writes the configuration, with the runner in it or without.
func (r *rig) configureCustom(with bool) {
	r.t.Helper()
	text := "concurrent = 4\ncheck_interval = 1\nshutdown_timeout = 20\n"
	if with {
		text += fmt.Sprintf("[[runners]]\nname = \"conformance\"\nurl = %q\ntoken = %q\nexecutor = \"custom\"\n[runners.custom]\n", r.URL, r.Token.Reveal())
		for _, stage := range []string{"config", "prepare", "run", "cleanup"} {
			text += fmt.Sprintf("%[1]s_exec = %[2]q\n%[1]s_args = [%[1]q]\n", stage, r.path("driver"))
		}
	}
	if err := os.WriteFile(r.path("config.toml"), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) calls() string {
	r.t.Helper()
	data, err := os.ReadFile(r.path("calls"))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

// driverRuns says whether a process of the driver is there.
func (r *rig) driverRuns() bool {
	r.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		data, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(data), r.path("driver")+"\x00")
	})
}

// A job with all that a job has: sources, cache, artifacts, file variables, after_script.
func TestCustomExecutor(t *testing.T) {
	t.Parallel()
	r := customRig(t, "")
	r.start()
	job := after(r.Serve(repository(t, map[string]string{"file": "the source\n"}), script(
		"cat file", `cat "$SECRET_FILE"`, "test ! -e vendor/dep || echo from cache", "mkdir -p vendor bin", "echo dep >vendor/dep", "echo built >bin/out", `echo "FROM_JOB=yes" >>"$GITLAB_ENV"`, "pwd",
	)), `echo "after $CI_JOB_STATUS $FROM_JOB"`)
	job.Variables = append(job.Variables, tranter.Variable{Key: "SECRET_FILE", Value: "in the file", File: true})
	job.Cache = []tranter.Cache{{Key: "deps", Paths: []string{"vendor/"}, Policy: "pull-push", When: "on_success"}}
	job.Artifacts = []tranter.Artifact{{Name: "out", Paths: []string{"bin/"}, When: "on_success", Type: "archive", Format: "zip"}}
	for _, round := range []string{"first", "second"} {
		id := r.Enqueue(job)
		v := r.Wait(id)
		log := plain(r.Log(id))
		want := []string{
			"Preparing the \"custom\" executor", "Using Custom executor...", "works in " + r.dir + "/root/builds/", "Running on the-machine via conformance...",
			"Created fresh repository.", "\nthe source\n", "\nin the file", "\nafter success yes\n", "Checking cache for deps...", "Creating cache deps...", "Created cache",
			"bin/: found 2 matching artifact files and directories", "201 Created", "Job succeeded",
		}
		if round == "second" {
			want = append(want, "Successfully extracted cache", "\nfrom cache\n")
			want[4] = "Fetching changes"
		}
		for _, w := range want {
			if !strings.Contains(log, w) {
				t.Errorf("%s job: no %q", round, w)
			}
		}
		if v.Status != coordinator.Success || v.LogDamaged || t.Failed() {
			t.Fatalf("%s job: %s %s\n%s", round, v.Status, v.Reason, log)
		}
		if data := r.Artifact(id, "archive"); len(data) == 0 {
			t.Error("no artifacts")
		}
	}
	const calls = `config 
prepare 
run prepare_script
run get_sources
run restore_cache
run build_script
run after_script
run archive_cache
run upload_artifacts_on_success
run cleanup_file_variables
cleanup 
`
	if got := r.calls(); got != calls+calls {
		t.Errorf("the driver was called:\n%s", got)
	}
	// The token of a job that is over is not valid any more: what depends on it can't be downloaded.
	job.Dependencies = []tranter.Dependency{{
		ID: 1, Token: tranter.Secret(r.Calls(coordinatortest.Upload)[0].Header.Get("JOB-TOKEN")), Name: "build", File: &tranter.DependencyFile{Filename: "out.zip", Size: 1},
	}}
	id := r.Enqueue(job)
	if v := r.Wait(id); v.Status != coordinator.Failed || v.Reason != tranter.ScriptFailure || !strings.Contains(plain(r.Log(id)), "Downloading artifacts from coordinator... forbidden") {
		t.Errorf("%s %s\n%s", v.Status, v.Reason, plain(r.Log(id)))
	}
	r.eventually("cleanup's output is in the manager's log", func() bool { return strings.Contains(r.output.String(), "cleaned up") })
	if left, err := filepath.Glob(r.dir + "/root/builds/*/*.tmp"); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

func TestEveryEndOfACustomExecutor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before   string
		script   string
		reason   tranter.FailureReason
		code     int
		has      string
		prepares int
	}{
		"the script fails":         {script: "exit 7", reason: tranter.ScriptFailure, code: 7, has: "Job failed: exit status 7", prepares: 1},
		"build failure in prepare": {before: `[ $1 != prepare ] || { echo 9 >"$BUILD_EXIT_CODE_FILE"; exit 1; }`, reason: tranter.ScriptFailure, code: 9, has: "exit status 9", prepares: 1},
		"system failure":           {before: `[ "$1" != prepare ] || exit 2`, reason: tranter.RunnerSystemFailure, has: "Preparation failed", prepares: 3},
		"no directories":           {before: `[ $1 != config ] || exit 0`, reason: tranter.RunnerConfigurationError, has: "builds_dir", prepares: 0},
		"another exit code":        {before: `[ "$stage" != build_script ] || exit 77`, reason: tranter.RunnerSystemFailure, has: "exit code 77", prepares: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := customRig(t, c.before)
			r.start()
			job := script("echo begin", c.script)
			job.Features.FailureReasons = known
			id := r.Enqueue(job)
			v := r.Wait(id)
			log := plain(r.Log(id))
			if v.Status != coordinator.Failed || v.Reason != c.reason || v.ExitCode != c.code || !strings.Contains(log, c.has) {
				t.Errorf("%s %s %d\n%s", v.Status, v.Reason, v.ExitCode, log)
			}
			calls := r.calls()
			if n := strings.Count(calls, "prepare \n"); n != c.prepares {
				t.Errorf("prepared %d times, want %d", n, c.prepares)
			}
			if n := strings.Count(calls, "cleanup \n"); n != max(1, c.prepares) {
				t.Errorf("cleaned up %d times:\n%s", n, calls)
			}
		})
	}
}

// The manager is killed while the driver is in any of its stages: the job ends as if nothing had happened.
func TestKilledManagerOfACustomExecutor(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"config ", "prepare ", "run prepare_script", "run get_sources", "run build_script", "run after_script", "run cleanup_file_variables", "cleanup "} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			r := customRig(t, `if [ "$1 $stage" = "`+where+`" ] && mkdir "$R/reached" 2>/dev/null; then while [ ! -e "$R/go" ]; do sleep 0.05; done; fi`)
			r.start()
			id := r.Enqueue(after(script("echo one", "exit 5"), "echo status $CI_JOB_STATUS"))
			r.file(r.path("reached"))
			r.pause(200 * time.Millisecond) // for the manager to know of the program that has come so far
			r.kill()
			r.start()
			r.pause(300 * time.Millisecond)
			if where != "cleanup " { // which the next manager has to end: nothing else does
				touch(t, r.path("go"))
			}
			v := r.Wait(id)
			log := plain(r.Log(id))
			if v.Status != coordinator.Failed || v.ExitCode != 5 || v.LogDamaged || strings.Count(log, "\none\n") != 1 || strings.Count(log, "\nstatus failed\n") != 1 {
				t.Errorf("%s %d\n%s", v.Status, v.ExitCode, log)
			}
			calls := r.calls()
			if strings.Count(calls, "build_script") != 1 {
				t.Errorf("the driver was called:\n%s", calls)
			}
			r.eventually("the last thing is cleanup", func() bool { return strings.HasSuffix(r.calls(), "cleanup \n") })
			r.eventually("no program of the driver is left", func() bool { return !r.driverRuns() })
		})
	}
}

// The runner was removed from the configuration while its job ran: the job is brought to its end by its own driver.
func TestCustomExecutorOfARunnerThatIsGone(t *testing.T) {
	t.Parallel()
	r := customRig(t, "")
	r.start()
	id := r.Enqueue(script("touch "+r.path("running"), "while [ ! -e "+r.path("go")+" ]; do sleep 0.05; done"))
	r.file(r.path("running"))
	r.kill()
	r.configureCustom(false)
	r.start()
	touch(t, r.path("go"))
	if v := r.Wait(id); v.Status != coordinator.Success {
		t.Errorf("%s\n%s", v.Status, r.Log(id))
	}
	r.eventually("it is cleaned up", func() bool { return strings.HasSuffix(r.calls(), "cleanup \n") })
}

// The driver of the examples does what it says.
func TestExampleDriver(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "")
	example, err := filepath.Abs("../../examples/custom-driver")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(example, "config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer(
		"https://gitlab.example.com", r.URL, "$RUNNER_TOKEN", r.Token.Reveal(), "/opt/custom-driver", example, "/var/lib/custom-driver", r.path("jobs root"),
	).Replace(string(text))
	if err := os.WriteFile(r.path("config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	job := r.Serve(repository(t, map[string]string{"file": "the source\n"}), script("cat file", "echo home=$HOME", "echo left=${CUSTOM_ENV_CI_JOB_ID-nothing}", "sleep 300 & exit 6"))
	id := r.Enqueue(with(job, "CI_JOB_ID", "7"))
	v := r.Wait(id)
	log := plain(r.Log(id))
	work := r.path("jobs root/jobs/7")
	for _, want := range []string{"Using Custom executor with driver directories 1...", "Working in " + work, "\nthe source\n", "\nhome=" + work + "/home\n", "\nleft=nothing\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in the log", want)
		}
	}
	if v.Status != coordinator.Failed || v.Reason != tranter.ScriptFailure || v.ExitCode != 6 || t.Failed() {
		t.Errorf("%s %s %d\n%s", v.Status, v.Reason, v.ExitCode, log)
	}
	r.eventually("the job's directory is gone", func() bool { return !fileExists(work) })
}
