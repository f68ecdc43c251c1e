package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// What is wrong with images and services reaches GitLab with its reason, and the log says what to do.
func TestWhatIsWrongWithImages(t *testing.T) {
	t.Parallel()
	registry, private := enginetest.Registry(t), enginetest.PrivateRegistry(t)
	closed := private.Push(t, "busybox", "conformance/closed", "1")
	r := dockerRigWith(t, "", "", fmt.Sprintf("allowed_images = [\"127.0.0.1:*/**\", \"NO SUCH\"]\nentrypoint_timeout = 2\nwait_for_services_timeout = 5\nallowed_services = [\"127.0.0.1:*/**\"]\nimage = %q\n", enginetest.Image(t, "debian")))
	image := func(name string) tranter.Job {
		job := script("echo never")
		job.Image.Name = name
		return job
	}
	served := func(name string) tranter.Job {
		job := script("echo works")
		job.Services = []tranter.Image{{Name: name}}
		return job
	}
	failed := func(job tranter.Job, reason tranter.FailureReason, has ...string) outcome {
		return outcome{job: job, status: coordinator.Failed, reason: reason, has: has, lacks: []string{"\nnever\n", "\nworks\n"}}
	}
	cases := map[string]outcome{
		"no such image":         failed(image(registry.Address+"/no/such:1"), tranter.RunnerConfigurationError, registry.Address+"/no/such:1"),
		"no login":              failed(image(closed), tranter.RunnerConfigurationError, "DOCKER_AUTH_CONFIG"),
		"no such registry":      failed(image("127.0.0.1:9/no/such:1"), tranter.ExternalDependencyFailure, "127.0.0.1:9"),
		"malformed reference":   failed(image("NO SUCH"), tranter.RunnerConfigurationError, "NO SUCH"),
		"not allowed":           failed(image("elsewhere.example.com/image"), tranter.RunnerConfigurationError, "allowed_images"),
		"service not allowed":   failed(served("elsewhere.example.com/image"), tranter.RunnerConfigurationError, "allowed_services"),
		"no such service":       failed(served(registry.Address+"/no/service:1"), tranter.RunnerConfigurationError, "no/service"),
		"no shell":              failed(image(enginetest.Image(t, "noshell")), tranter.RunnerConfigurationError, "shell"),
		"another processor":     failed(image(enginetest.Image(t, "arm64")), tranter.RunnerConfigurationError, "arm64"),
		"entrypoint that ends":  failed(image(enginetest.Image(t, "entrypoint-exit")), tranter.RunnerConfigurationError, "no licence", "entrypoint"),
		"entrypoint that stays": failed(image(enginetest.Image(t, "entrypoint-stuck")), tranter.RunnerConfigurationError, "entrypoint"),
		"service that ends": {
			job: served(enginetest.Image(t, "service-broken")), status: coordinator.Success, has: []string{"probably didn't start properly", "the database is corrupt", "\nworks\n"},
		},
	}
	r.start()
	r.expect(cases)
}

// Nobody who may look at containers, at the engine or at the machine's processes sees a secret of a job that runs.
func TestNothingOfASecretIsOnTheEngine(t *testing.T) {
	t.Parallel()
	r := dockerRig(t, "log_level = \"debug\"", "environment = [\"RUNNER_SIDE=s3cret-of-the-runner\"]")
	r.start()
	marker := "s3cret-" + fmt.Sprint(time.Now().UnixNano())
	job := r.Serve(repository(t, map[string]string{"a": "b"}), script(
		"touch "+r.path("running"), `test "$(cat "$FILE")" = "$NEEDLE" || exit 9`, "while [ ! -e "+r.path("go")+" ]; do sleep 0.1; done",
		`if tr '\0' '\n' </proc/1/environ | grep -F s3cret-; then exit 8; fi`,
	))
	job.Image.Name = enginetest.Image(t, "debian")
	job.Services = []tranter.Image{{Name: enginetest.Image(t, "ports"), Alias: "web", Variables: []tranter.Variable{{Key: "PORT", Value: "18080"}}}}
	job.Variables = append(job.Variables,
		tranter.Variable{Key: "NEEDLE", Value: marker, Masked: true}, tranter.Variable{Key: "FILE", Value: marker, Masked: true, File: true})
	id := r.Enqueue(job)
	r.eventuallyIn(time.Minute, "the job runs", func() bool { return fileExists(r.path("running")) })
	secrets := map[string]string{"a variable": marker, "the runner's token": r.Token.Reveal(), "the job's token": "glcbt-"}
	places := map[string][]byte{"the list of processes": processes(t)}
	api := enginetest.Client(t, r.engine)
	containers, _, _ := r.ours(true)
	if len(containers) != 3 {
		t.Errorf("containers: %v", containers)
	}
	for _, name := range containers {
		found, err := api.ContainerInspect(t.Context(), name, client.ContainerInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if places["the configuration of "+name], err = json.Marshal(found.Container); err != nil {
			t.Fatal(err)
		}
		top, err := api.ContainerTop(t.Context(), name, client.ContainerTopOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if places["the processes of "+name], err = json.Marshal(top); err != nil {
			t.Fatal(err)
		}
		places["the environment in "+name], err = os.ReadFile(fmt.Sprintf("/proc/%d/environ", found.Container.State.Pid))
		if err != nil {
			t.Fatal(err)
		}
		places["the mounts of "+name], err = os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", found.Container.State.Pid))
		if err != nil {
			t.Fatal(err)
		}
	}
	for place, text := range places {
		for what, secret := range secrets {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s is in %s", what, place)
			}
		}
	}
	touch(t, r.path("go"))
	if v := r.Wait(id); v.Status != coordinator.Success {
		t.Errorf("%s\n%s", v.Status, plain(r.Log(id)))
	}
	r.signal(syscall.SIGQUIT)
	r.wait(20 * time.Second)
	for what, secret := range secrets {
		if strings.Contains(r.output.String(), secret) {
			t.Errorf("%s is in the manager's log", what)
		}
	}
	assertNoSecretLeft(t, r.dir, marker)
}

// processes are the command lines of all processes of the machine.
func processes(t *testing.T) []byte {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil {
			all = append(append(all, data...), '\n')
		}
	}
	return all
}

// pipelineRepository has a pipeline whose jobs run in containers.
func pipelineRepository(t *testing.T, jobs string) string {
	t.Helper()
	return repository(t, map[string]string{".gitlab-ci.yml": jobs, "data.txt": "the data\n"})
}

// withHelper makes sure that the machine's engine has a helper image where local pipelines look for one.
func withHelper(t *testing.T) {
	t.Helper()
	api := enginetest.Client(t, enginetest.Host(t))
	const name = "tranter-helper:latest"
	if _, err := api.ImageInspect(t.Context(), name); err == nil {
		return
	}
	if _, err := api.ImageTag(t.Context(), client.ImageTagOptions{Source: enginetest.Image(t, "helper"), Target: name}); err != nil {
		t.Fatal(err)
	}
}

// local runs a command of the program in a directory, and returns its output while it runs.
func local(t *testing.T, dir string, args ...string) (*exec.Cmd, *output) {
	t.Helper()
	cmd := exec.Command(program, args...)
	home := t.TempDir()
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+home, "XDG_CACHE_HOME="+home, "GIT_CONFIG_NOSYSTEM=1")
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // of a test that has given up
	return cmd, out
}

// sleeps says whether a script that sleeps runs in one of the containers.
func sleeps(t *testing.T, containers []string) bool {
	t.Helper()
	api := enginetest.Client(t, enginetest.Host(t))
	return slices.ContainsFunc(containers, func(name string) bool {
		top, err := api.ContainerTop(t.Context(), name, client.ContainerTopOptions{})
		return err == nil && strings.Contains(fmt.Sprint(top.Processes), "sleep 0.1")
	})
}

// leftOf names what is on the machine's engine of jobs of a branch.
func leftOf(t *testing.T, branch string) []string {
	t.Helper()
	api := enginetest.Client(t, enginetest.Host(t))
	filters := make(client.Filters).Add("label", "com.gitlab.gitlab-runner.job.ref="+branch)
	var names []string
	containers, err := api.ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range containers.Items {
		names = append(names, strings.TrimPrefix(c.Names[0], "/"))
	}
	networks, err := api.NetworkList(t.Context(), client.NetworkListOptions{Filters: filters})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range networks.Items {
		names = append(names, n.Name)
	}
	return names
}

func TestPipelineRunInContainers(t *testing.T) {
	t.Parallel()
	withHelper(t)
	dir := pipelineRepository(t, `
build:
  stage: build
  script:
    - test -x /bin/busybox
    - tr a-z A-Z < data.txt > out.txt
  artifacts: {paths: [out.txt]}
check:
  stage: test
  image: `+enginetest.Image(t, "debian")+`
  script: [grep "THE DATA" out.txt, test ! -x /bin/busybox]
bad:
  stage: test
  script: [exit 7]
`)
	cmd, out := local(t, dir, "pipeline", "run", "--executor", "docker", "--image", enginetest.Image(t, "busybox"), "--state-dir", t.TempDir())
	_ = cmd.Wait()
	for _, want := range []string{"✓ build", "✓ check", "✗ bad", "exit code 7", "2 passed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q", want)
		}
	}
	if code := cmd.ProcessState.ExitCode(); code != 1 || t.Failed() {
		t.Fatalf("exit code %d\n%s", code, out)
	}
}

// Ctrl-C ends a pipeline's jobs, a second one at once; either way nothing stays on the engine.
func TestInterruptedPipelineInContainers(t *testing.T) {
	t.Parallel()
	withHelper(t)
	for name, signals := range map[string]int{"once": 1, "twice": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := pipelineRepository(t, "job:\n  script: [\"trap '' TERM INT; for i in $(seq 1 600); do sleep 0.1; done\"]\n")
			branch := "interrupted-" + name + "-" + fmt.Sprint(time.Now().UnixNano())
			if out, err := exec.Command("git", "-C", dir, "branch", "-m", branch).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			cmd, out := local(t, dir, "pipeline", "run", "--executor", "docker", "--image", enginetest.Image(t, "busybox"), "--state-dir", t.TempDir())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = cmd.Wait()
			}()
			until(t, out, "the job runs", func() bool { return sleeps(t, leftOf(t, branch)) })
			if len(leftOf(t, branch)) != 2 {
				t.Errorf("while it runs: %v", leftOf(t, branch))
			}
			for range signals {
				_ = cmd.Process.Signal(syscall.SIGINT)
				select {
				case <-ended:
				case <-time.After(time.Second): // as a person does
				}
			}
			select {
			case <-ended:
			case <-time.After(40 * time.Second):
				_ = cmd.Process.Kill()
				t.Fatalf("it does not end:\n%s", out)
			}
			if left := leftOf(t, branch); len(left) > 0 {
				t.Errorf("left: %v\n%s", left, out)
			}
		})
	}
}

// until waits for what a program's output shows.
func until(t *testing.T, out *output, what string, holds func() bool) {
	t.Helper()
	limit := time.After(60 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-limit:
			t.Fatalf("not within a minute: %s\n%s", what, out)
		case <-tick.C:
		}
	}
}

func TestDemoInContainers(t *testing.T) {
	t.Parallel()
	withHelper(t)
	cmd, out := local(t, t.TempDir(), "demo", "--executor", "docker", "--image", enginetest.Image(t, "debian"))
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.Contains(out.String(), "Pipeline succeeded") {
		t.Errorf("the output:\n%s", out)
	}
}
