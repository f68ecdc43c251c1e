//go:build linux

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
)

// upLimit is how long anything may take that these tests wait for.
const upLimit = 20 * time.Second

// output collects what a process says.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// upProcess is a "tranter up" that runs.
type upProcess struct {
	t     *testing.T
	cmd   *exec.Cmd
	said  *output
	ended chan struct{}
}

// upPlace is a state directory with the environment of those that work with it.
type upPlace struct {
	t   *testing.T
	dir string
	env []string

	program    string // empty: this one
	attributes *syscall.SysProcAttr
}

func newUpPlace(t *testing.T, url string, env ...string) *upPlace {
	t.Helper()
	dir := t.TempDir()
	return &upPlace{t: t, dir: dir, env: append([]string{
		"PATH=" + os.Getenv("PATH"), "CI_SERVER_URL=" + url, "CONFIG=shell", "RUNNER_NAME=build host",
		"TRANTER_STATE_DIR=" + filepath.Join(dir, "state"), "CLEANUP_TIMEOUT=15s", "REGISTER_TIMEOUT=10s",
	}, env...)}
}

func (p *upPlace) path(name string) string { return filepath.Join(p.dir, "state", name) }

func (p *upPlace) there(name string) bool {
	_, err := os.Stat(p.path(name))
	return err == nil
}

func (p *upPlace) start(args ...string) *upProcess {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	u := &upProcess{t: p.t, cmd: exec.Command(cmp.Or(p.program, self), append([]string{"up"}, args...)...), said: &output{}, ended: make(chan struct{})}
	u.cmd.Env, u.cmd.Stderr, u.cmd.Stdout, u.cmd.WaitDelay = p.env, u.said, u.said, time.Second
	u.cmd.Dir, u.cmd.SysProcAttr = p.dir, p.attributes
	if err := u.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(u.ended)
		_ = u.cmd.Wait()
	}()
	p.t.Cleanup(func() {
		_ = u.cmd.Process.Kill()
		<-u.ended
	})
	return u
}

// once runs a "tranter up" that ends by itself, and returns its exit code and what it says.
func (p *upPlace) once(args ...string) (int, string) {
	p.t.Helper()
	u := p.start(args...)
	return u.wait(), u.said.String()
}

func (u *upProcess) signal(sig syscall.Signal) {
	u.t.Helper()
	if err := u.cmd.Process.Signal(sig); err != nil {
		u.t.Fatal(err)
	}
}

// wait waits for the end and returns the exit code, -1 after a signal.
func (u *upProcess) wait() int {
	u.t.Helper()
	select {
	case <-u.ended:
		return u.cmd.ProcessState.ExitCode()
	case <-time.After(upLimit):
		u.t.Fatalf("it does not end:\n%s", u.said)
		return 0
	}
}

func (u *upProcess) says(text string) {
	u.t.Helper()
	eventually(u.t, func() bool { return strings.Contains(u.said.String(), text) }, func() string { return fmt.Sprintf("it does not say %q:\n%s", text, u.said) })
}

func eventually(t *testing.T, done func() bool, why func() string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(upLimit)
	for !done() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal(why())
		}
	}
}

func withRegistration(o *coordinator.Options) { o.Registration = registrationToken }

// runners are those that were registered.
func upRunners(g *coordinatortest.GitLab) []coordinator.Runner { return g.Coordinator.Runners()[1:] }

// only is the one runner that is registered.
func onlyRunner(t *testing.T, g *coordinatortest.GitLab) coordinator.Runner {
	t.Helper()
	rs := upRunners(g)
	if len(rs) != 1 {
		t.Fatalf("%d runners are registered, want 1", len(rs))
	}
	return rs[0]
}

func logFiles(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if upLogName().MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// leftNothing checks that neither the server nor the state directory has anything left of it.
func (p *upPlace) leftNothing() {
	p.t.Helper()
	for _, name := range []string{upRecordFile, upConfigFile, "work", "jobs", "cache", "machines", "tranter.db"} {
		if p.there(name) {
			p.t.Errorf("%s is left", name)
		}
	}
}

func TestUpRegistersTakesJobsAndLeavesNothing(t *testing.T) {
	g := coordinatortest.New(t, withRegistration)
	p := newUpPlace(t, g.URL, "REGISTRATION_TOKEN="+registrationToken, "RUNNER_TAG_LIST=linux, x86", "REGISTER_RUN_UNTAGGED=true", "REGISTER_LOCKED=false",
		"REGISTER_MAINTENANCE_NOTE=ask Ada", "REGISTER_ACCESS_LEVEL=not_protected", "REGISTER_MAXIMUM_TIMEOUT=700")
	u := p.start()
	u.says("Tranter takes jobs")
	r := onlyRunner(t, g)
	if s := r.RunnerSpec; s.Description != "build host" || strings.Join(s.Tags, "+") != "linux+x86" || !s.RunUntagged || s.Locked || s.ProtectedOnly || s.MaximumTimeout != 700*time.Second || !strings.HasPrefix(s.MaintenanceNote, "ask Ada\n[tranter up=") {
		t.Errorf("the runner is %+v", s)
	}
	for _, file := range []string{upConfigFile, upRecordFile} {
		info, err := os.Stat(p.path(file))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
		if !strings.Contains(readFile(t, p.path(file)), r.Token.Reveal()) || strings.Contains(readFile(t, p.path(file)), registrationToken) {
			t.Errorf("%s has the registration token, or not the runner's", file)
		}
	}
	if code, said := p.once(); code != 1 || !strings.Contains(said, "another \"tranter up\" works with the state directory") {
		t.Errorf("a second one: %d, %s", code, said)
	}
	job := coordinatortest.Script("echo it works > $CI_PROJECT_DIR/x && cat x && echo $REGISTRATION_TOKEN.")
	job.Token = ""
	g.Wait(g.Enqueue(job), coordinator.Success)
	u.signal(syscall.SIGTERM)
	if code := u.wait(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, u.said)
	}
	if left := upRunners(g); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	p.leftNothing()
	logs := logFiles(t, p.path("log"))
	if len(logs) != 1 {
		t.Fatalf("the logs are %q", logs)
	}
	text := readFile(t, filepath.Join(p.path("log"), logs[0]))
	for line := range strings.Lines(text) {
		if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ `).MatchString(line) {
			t.Errorf("a line of the log has no time: %q", line)
		}
	}
	for _, secret := range []string{registrationToken, r.Token.Reveal()} {
		if strings.Contains(text+u.said.String(), secret) {
			t.Errorf("the log has a token:\n%s", text)
		}
	}
	if !strings.Contains(text, "All that was made is removed") {
		t.Errorf("the log is\n%s", text)
	}
}

func TestUpWithTheTokenOfARunnerRemovesOnlyTheManager(t *testing.T) {
	for _, variable := range []string{"CI_SERVER_TOKEN", "REGISTRATION_TOKEN", "CI_SERVER_TOKEN_FILE"} {
		t.Run(variable, func(t *testing.T) {
			t.Parallel()
			g := coordinatortest.New(t)
			token := g.Token.Reveal()
			p := newUpPlace(t, g.URL)
			if variable == "CI_SERVER_TOKEN_FILE" {
				writeFile(t, filepath.Join(p.dir, "token"), token+"\n")
				token = "token"
			}
			p.env = append(p.env, variable+"="+token)
			u := p.start()
			u.says("Tranter takes jobs")
			id := g.Enqueue(coordinatortest.Script("echo begun", "sleep 1", "echo done"))
			g.Wait(id, coordinator.Running)
			if n := len(g.Coordinator.Runners()[0].Managers); n != 1 {
				t.Errorf("%d managers, want 1", n)
			}
			u.signal(syscall.SIGQUIT) // the job finishes
			if code := u.wait(); code != 0 {
				t.Errorf("exit code %d:\n%s", code, u.said)
			}
			if s := g.Job(id).Status; s != coordinator.Success {
				t.Errorf("the job is %v", s)
			}
			if rs := g.Coordinator.Runners(); len(rs) != 1 || len(rs[0].Managers) != 0 {
				t.Errorf("left: %+v", rs)
			}
			p.leftNothing()
		})
	}
}

// stalled is a GitLab whose answer to a call stays away once the call is carried out.
func stalled(t *testing.T, method, path string) (g *hookedGitLab, came chan struct{}, free func()) {
	t.Helper()
	g = newHookedGitLab(t)
	came = make(chan struct{})
	let := make(chan struct{})
	free = sync.OnceFunc(func() { close(let) })
	t.Cleanup(free)
	tell := sync.OnceFunc(func() { close(came) })
	g.after.set(func(r *http.Request) {
		if r.Method == method && r.URL.Path == "/api/v4/"+path {
			tell()
			<-let
		}
	})
	return g, came, free
}

func waitFor(t *testing.T, c <-chan struct{}, u *upProcess) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(upLimit):
		t.Fatalf("the call does not come:\n%s", u.said)
	}
}

// The answer to a registration can't be had again, and no request finds the runner: a person is told where to look.
func TestUpKilledWhileItRegistersTellsWhatMayBeLeft(t *testing.T) {
	t.Parallel()
	g, came, free := stalled(t, http.MethodPost, "runners")
	p := newUpPlace(t, g.url, "REGISTRATION_TOKEN="+registrationToken)
	u := p.start()
	waitFor(t, came, u)
	u.signal(syscall.SIGKILL)
	u.wait()
	free()
	note := g.Runners()[0].MaintenanceNote
	code, said := p.once("--clean")
	if code != 1 || !strings.Contains(said, "a runner may be left at "+g.url) || !strings.Contains(said, note) || !strings.Contains(note, "[tranter up=") {
		t.Errorf("exit code %d, %q is the note:\n%s", code, note, said)
	}
	if code, said := p.once("--clean", "--forget"); code != 0 || p.there(upRecordFile) {
		t.Errorf("forgotten: exit code %d:\n%s", code, said)
	}
	if code, said := p.once("--clean"); code != 0 || !strings.Contains(said, "There is nothing to remove") {
		t.Errorf("then: exit code %d:\n%s", code, said)
	}
}

func TestUpKilledWhileItVerifiesLeavesNothing(t *testing.T) {
	t.Parallel()
	g, came, free := stalled(t, http.MethodPost, "runners/verify")
	p := newUpPlace(t, g.url, "CI_SERVER_TOKEN="+g.newToken(t, 0).Reveal())
	u := p.start()
	waitFor(t, came, u)
	u.signal(syscall.SIGKILL)
	u.wait()
	free()
	if n := len(g.Runners()[0].Managers); n != 1 {
		t.Fatalf("%d managers, want 1", n)
	}
	if code, said := p.once("--clean"); code != 0 || len(g.Runners()[0].Managers) != 0 {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	p.leftNothing()
}

// The runner is gone already when the next start removes it.
func TestUpKilledWhileItUnregistersLeavesNothing(t *testing.T) {
	t.Parallel()
	g, came, free := stalled(t, http.MethodDelete, "runners")
	p := newUpPlace(t, g.url, "REGISTRATION_TOKEN="+registrationToken)
	u := p.start()
	u.says("Tranter takes jobs")
	u.signal(syscall.SIGINT)
	waitFor(t, came, u)
	u.signal(syscall.SIGKILL)
	u.wait()
	free()
	if code, said := p.once("--clean"); code != 0 || len(g.Runners()) != 0 {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	p.leftNothing()
}

// A start after a kill ends what runs on, removes the old runner, and goes on with a new one.
func TestUpKilledAtWorkIsCleanedUpByTheNextStart(t *testing.T) {
	t.Parallel()
	g := coordinatortest.New(t, withRegistration)
	p := newUpPlace(t, g.URL, "REGISTRATION_TOKEN="+registrationToken)
	u := p.start()
	u.says("Tranter takes jobs")
	alive := filepath.Join(p.dir, "alive")
	id := g.Enqueue(coordinatortest.Script("echo $$ > " + alive + " && sleep 300"))
	eventually(t, func() bool { data, _ := os.ReadFile(alive); return len(data) > 1 }, u.said.String)
	pid := strings.TrimSpace(readFile(t, alive))
	first := onlyRunner(t, g)
	u.signal(syscall.SIGKILL)
	u.wait()
	if _, err := os.Stat("/proc/" + pid); err != nil {
		t.Fatalf("the job did not outlive its manager: %v", err)
	}
	next := p.start()
	next.says("Tranter takes jobs")
	if second := onlyRunner(t, g); second.ID == first.ID {
		t.Error("the old runner is still there")
	}
	if _, err := os.Stat("/proc/" + pid); err == nil {
		t.Error("the old job runs on")
	}
	if s := g.Job(id).Status; s != coordinator.Failed {
		t.Errorf("the job is %v", s)
	}
	next.signal(syscall.SIGTERM)
	if code := next.wait(); code != 0 || len(upRunners(g)) != 0 {
		t.Errorf("exit code %d:\n%s", code, next.said)
	}
	p.leftNothing()
}

func TestUpWaitsForAServerThatIsDown(t *testing.T) {
	t.Parallel()
	g := coordinatortest.New(t, withRegistration)
	g.Refuse()
	p := newUpPlace(t, g.URL, "REGISTRATION_TOKEN="+registrationToken)
	u := p.start()
	u.says("GitLab can't be asked; trying again")
	g.Admit()
	u.says("Tranter takes jobs")
	g.Refuse() // down at the end
	u.signal(syscall.SIGTERM)
	eventually(t, func() bool { return strings.Count(u.said.String(), "GitLab can't be asked; trying again") > 1 }, u.said.String)
	u.signal(syscall.SIGTERM) // no more patience
	if code := u.wait(); code != 1 || !strings.Contains(u.said.String(), `the runner "build host"`) {
		t.Errorf("exit code %d:\n%s", code, u.said)
	}
	if !p.there(upRecordFile) {
		t.Error("there is no record of what is left")
	}
	g.Admit()
	if code, said := p.once("--clean"); code != 0 || len(upRunners(g)) != 0 {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	p.leftNothing()
}

func TestUpGivesUpAServerThatStaysDown(t *testing.T) {
	t.Parallel()
	p := newUpPlace(t, "http://127.0.0.1:1", "REGISTRATION_TOKEN="+registrationToken)
	code, said := p.once("--register-timeout", "1200ms")
	if code != 1 || !strings.Contains(said, "could not be registered within 1.2s") || p.there(upRecordFile) {
		t.Errorf("exit code %d:\n%s", code, said)
	}
}

func TestUpRefusesWhatCanNotWork(t *testing.T) {
	t.Parallel()
	g := coordinatortest.New(t, withRegistration)
	templates := t.TempDir()
	writeFile(t, filepath.Join(templates, "broken.toml"), "[[runners]]\n  executor = \"shell\"\n  limit = {{ NOWHERE }}\n")
	managed := t.TempDir()
	writeFile(t, filepath.Join(managed, "tranter.db"), "")
	for _, c := range []struct {
		name string
		env  []string
		args []string
		want string
	}{
		{"no address", []string{"CI_SERVER_URL=", "CI_SERVER_TOKEN=glrt-x"}, nil, "CI_SERVER_URL is missing"},
		{"no token", nil, nil, "there is no token"},
		{"both tokens", []string{"CI_SERVER_TOKEN=glrt-x", "REGISTRATION_TOKEN=y"}, nil, "are both given"},
		{"a token and a file", []string{"CI_SERVER_TOKEN=glrt-x"}, []string{"--token-file", "/etc/hostname"}, "leave one of them out"},
		{"no such template", []string{"CI_SERVER_TOKEN=glrt-x", "CONFIG=huge"}, nil, "there is no template huge"},
		{"a template that is a path", []string{"CI_SERVER_TOKEN=glrt-x", "CONFIG=../x"}, nil, "is no name of a template"},
		{"an unknown placeholder", []string{"CI_SERVER_TOKEN=glrt-x", "CONFIG=broken", "CONFIG_DIR=" + templates}, nil, "broken.toml:3:11: the placeholder NOWHERE is not known"},
		{"another executor", []string{"CI_SERVER_TOKEN=glrt-x", "RUNNER_EXECUTOR=docker"}, nil, `RUNNER_EXECUTOR is "docker", but the template shell.toml is for "shell"`},
		{"an access level", []string{"REGISTRATION_TOKEN=x", "REGISTER_ACCESS_LEVEL=all"}, nil, `--access-level "all" is not known`},
		{"no time", []string{"REGISTRATION_TOKEN=x"}, []string{"--cleanup-timeout", "0"}, "have to be more than nothing"},
		{"a token that is not valid", []string{"CI_SERVER_TOKEN=glrt-x"}, nil, "GitLab does not accept the token"},
		{"a registration token that is not valid", []string{"REGISTRATION_TOKEN=x"}, nil, "403"},
		{"a state directory of run", []string{"CI_SERVER_TOKEN=glrt-x", "TRANTER_STATE_DIR=" + managed}, nil, "is that of \"tranter run\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newUpPlace(t, g.URL, c.env...)
			if code, said := p.once(c.args...); code != 1 || !strings.Contains(said, c.want) || p.there(upRecordFile) {
				t.Errorf("exit code %d, want 1 and %q:\n%s", code, c.want, said)
			}
		})
	}
	if n := len(upRunners(g)); n != 0 {
		t.Errorf("%d runners are registered", n)
	}
}

func TestUpShowsTheTemplate(t *testing.T) {
	p := newUpPlace(t, "https://gitlab.example.com", "CI_SERVER_TOKEN=glrt-abcdefghijklmnop")
	code, said := p.once("--show")
	if code != 0 || !strings.Contains(said, `name = "build host"`) || !strings.Contains(said, `token = "******"`) || strings.Contains(said, "abcdef") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	if p.there("") {
		t.Error("something was written")
	}
}

// To become another version is no start: the runner and its jobs stay.
func TestUpBecomesAnotherVersionAndGoesOn(t *testing.T) {
	t.Parallel()
	g := coordinatortest.New(t, withRegistration)
	p := newUpPlace(t, g.URL, "REGISTRATION_TOKEN="+registrationToken)
	u := p.start()
	u.says("Tranter takes jobs")
	first := onlyRunner(t, g)
	id := g.Enqueue(coordinatortest.Script("echo begun", "sleep 2"))
	g.Wait(id, coordinator.Running)
	u.signal(syscall.SIGUSR2)
	eventually(t, func() bool { return strings.Count(u.said.String(), "Tranter takes jobs") == 2 }, u.said.String)
	g.Wait(id, coordinator.Success)
	if r := onlyRunner(t, g); r.ID != first.ID {
		t.Error("another runner was registered")
	}
	u.signal(syscall.SIGTERM)
	if code := u.wait(); code != 0 || len(upRunners(g)) != 0 {
		t.Errorf("exit code %d:\n%s", code, u.said)
	}
	p.leftNothing()
}

// machineTemplate is a runner whose machines are files that a program makes.
const machineTemplate = `[[runners]]
  executor = "docker+machine"
  limit = 2
  [runners.docker]
    image = "alpine"
  [runners.machine]
    provider = "command"
    MachineName = "{{ MACHINE_NAME }}"
    IdleCount = 1
    [runners.machine.command]
      create = ["{{ PROGRAM }}", "create"]
      list = ["{{ PROGRAM }}", "list"]
      remove = ["{{ PROGRAM }}", "remove"]
`

// machineProgram keeps machines as files in the directory that it is in.
const machineProgram = `#!/bin/sh
dir=$(dirname "$0")/machines
mkdir -p "$dir"
input=$(cat)
name=$(printf '%s' "$input" | sed -n 's/.*"name": *"\([^"]*\)".*/\1/p')
case $1 in
create) printf '%s' "$input" > "$dir/$name"; printf '{"address": "127.0.0.1", "port": 1}' ;;
list) printf '['; s=; for f in "$dir"/*; do [ -e "$f" ] && printf '%s{"name": "%s"}' "$s" "${f##*/}" && s=,; done; printf ']' ;;
remove) [ ! -e "$(dirname "$0")/stuck" ] && rm -f "$dir/$name" ;;
esac
`

func TestUpRemovesItsMachines(t *testing.T) {
	t.Parallel()
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed %v", kill), func(t *testing.T) {
			t.Parallel()
			g := coordinatortest.New(t, withRegistration)
			p := newUpPlace(t, g.URL, "REGISTRATION_TOKEN="+registrationToken)
			program := filepath.Join(p.dir, "cloud")
			p.env = append(p.env, "CONFIG=own", "CONFIG_DIR="+p.dir, "PROGRAM="+program)
			writeFile(t, filepath.Join(p.dir, "own.toml"), machineTemplate)
			if err := os.WriteFile(program, []byte(machineProgram), 0o700); err != nil {
				t.Fatal(err)
			}
			machines := func() []string {
				found, err := filepath.Glob(filepath.Join(p.dir, "machines", "*"))
				if err != nil {
					t.Fatal(err)
				}
				return found
			}
			u := p.start()
			eventually(t, func() bool { return len(machines()) > 0 }, u.said.String)
			if name := filepath.Base(machines()[0]); !strings.Contains(name, "build-host-") {
				t.Errorf("the machine is called %s", name)
			}
			if kill {
				u.signal(syscall.SIGKILL)
				u.wait()
				writeFile(t, filepath.Join(p.dir, "stuck"), "")
				code, said := p.once("--clean", "--cleanup-timeout", "2s")
				if code != 1 || !strings.Contains(said, "machine "+filepath.Base(machines()[0])+" is left") || len(upRunners(g)) != 0 {
					t.Errorf("exit code %d:\n%s", code, said)
				}
				if err := os.Remove(filepath.Join(p.dir, "stuck")); err != nil {
					t.Fatal(err)
				}
				u = p.start("--clean")
			} else {
				u.signal(syscall.SIGTERM)
			}
			if code := u.wait(); code != 0 {
				t.Errorf("exit code %d:\n%s", code, u.said)
			}
			if left := machines(); len(left) != 0 || len(upRunners(g)) != 0 {
				t.Errorf("left: %q, %v", left, upRunners(g))
			}
			p.leftNothing()
		})
	}
}

func TestTheRecordOfWhatIsMadeIsPrivateAndWhole(t *testing.T) {
	dir := t.TempDir()
	r, err := readUpRecord(dir)
	if err != nil || !r.empty() {
		t.Fatalf("%+v, %v", r, err)
	}
	r.Registrations = append(r.Registrations, upRegistration{Kind: kindExchange, URL: "https://x", Token: tranter.Secret("glrtr-secret"), ID: 5})
	if err := r.write(); err != nil {
		t.Fatal(err)
	}
	again, err := readUpRecord(dir)
	if err != nil || len(again.Registrations) != 1 || again.Registrations[0] != r.Registrations[0] {
		t.Errorf("%+v, %v", again, err)
	}
	info, err := os.Stat(filepath.Join(dir, upRecordFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if !json.Valid([]byte(readFile(t, filepath.Join(dir, upRecordFile)))) {
		t.Error("it is no JSON")
	}
	writeFile(t, filepath.Join(dir, upRecordFile), "{")
	if _, err := readUpRecord(dir); err == nil || !strings.Contains(err.Error(), "nothing of it can be removed") {
		t.Errorf("a broken record: %v", err)
	}
}
