package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/provider/machinetest"
	"github.com/tranter-ci/tranter/internal/store"
)

// sight is what the web page is to show: a GitLab and a manager with two runners, one on this host and one with machines, that work for
// it, a past, and a browser.
type sight struct {
	*rig    // its token is that of the runner with machines
	browser *browser
	gallery gallery
	url     string
	host    tranter.Secret // token of the runner on this host
	slow    int64          // job that prints as long as it is let
	failed  int64
	far     []int64 // jobs on machines
}

const (
	webToken  = "token-for-actions-in-tests"
	readToken = "token-for-reading-in-tests"
)

// webConfig is the configuration; there is room in it for URL and tokens.
const webConfig = `concurrent = 10
check_interval = 1
shutdown_timeout = 20

[web]
  address = "127.0.0.1:0"
  token = %q

[cost]
  currency = "EUR"
  [[cost.price]]
    set = "small"
    per_hour = 0.096
    minimum = "1m"
  [[cost.price]]
    set = "large"
    per_hour = 0.384
    minimum = "1m"

[[runners]]
  name = "build-host"
  url = %q
  token = %q
  executor = "shell"
  limit = 4

[[runners]]
  name = "cloud"
  url = %q
  token = %q
  executor = "docker+machine"
  limit = 3
  [runners.docker]
    image = %q
    pull_policy = "if-not-present"
    disable_helper = true
    network_mode = "none"
  [runners.machine]
    provider = "container"
    MachineName = "ci-%%s"
    IdleTime = 600
    MaxGrowthRate = 2
    [[runners.machine.option_sets]]
      name = "small"
    [runners.machine.container]
      image = %q
      network = %q
    [runners.machine.engine]
      preload_images = [%q]
`

// newSight sets the scene: the manager runs.
func newSight(t *testing.T) *sight {
	t.Helper()
	s := &sight{
		rig:     &rig{GitLab: coordinatortest.New(t, quick), t: t, dir: homeOf(t), program: program, output: &output{}, kind: "docker+machine", engine: enginetest.Host(t)},
		gallery: newGallery(t),
	}
	s.host = s.Token
	cloud, err := s.Coordinator.CreateRunner(coordinator.RunnerSpec{Tags: []string{"machine"}, Description: "machines of the test"})
	if err != nil {
		t.Fatal(err)
	}
	s.Token = cloud.Token
	image := enginetest.Image(t, "busybox")
	s.write(fmt.Sprintf(webConfig, webToken, s.URL, s.host.Reveal(), s.URL, s.Token.Reveal(), image, machinetest.Image(t), machinetest.Network(t), image))
	t.Cleanup(func() { s.removeMachines() })
	s.cleanUp()
	days := 1
	if s.gallery.wanted {
		days = 29
	}
	makeUp(t, s.path("state"), days, store.Pool{Token: s.Token.Short(), Name: "cloud", Rate: rateOf}, s.host.Short())
	s.browser = newBrowser(t)
	s.start()
	s.url = s.address()
	s.fill()
	return s
}

// homeOf is the directory of the manager. Pictures for people show its path.
func homeOf(t *testing.T) string {
	t.Helper()
	if os.Getenv("TRANTER_TOUR") == "" {
		return t.TempDir()
	}
	dir := filepath.Join(os.TempDir(), "tranter-tour")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// address waits until the manager says where its page is.
func (r *rig) address() string {
	r.t.Helper()
	said := regexp.MustCompile(`web page.*(http://127\.0\.0\.1:\d+)`)
	var url string
	r.eventually("the web page is served", func() bool {
		if m := said.FindStringSubmatch(r.output.String()); m != nil {
			url = m[1]
		}
		return url != ""
	})
	return url
}

// job is a payload with the names of a job.
func (s *sight) job(id int64, name, stage, project, ref, user string, lines ...string) tranter.Job {
	j := with(script(lines...), "GITLAB_USER_LOGIN", user, "CI_PROJECT_VISIBILITY", "private")
	j.Info = tranter.JobInfo{Name: name, Stage: stage, ProjectID: id, ProjectName: project, ProjectFullPath: project, PipelineID: 9100 + id, TimeInQueueSeconds: 3.2, QueueSize: 2, QueueDepth: 1}
	j.Git.Ref = ref
	return j
}

func (s *sight) offer(j tranter.Job, tags ...string) int64 {
	s.t.Helper()
	id, err := s.Coordinator.Enqueue(j, tags...)
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// hostileText is what a job prints, and is called, that wants to be markup.
const (
	hostileText = `</pre></script><script>window.pwned=1;alert(1)</script><img src=x onerror="window.pwned=1;alert(2)"><svg onload=alert(3)>`
	hostileName = `<img src=x onerror=alert(4)>`
	hostileRef  = `"><script>window.pwned=1</script>`
)

// fill gives the runners something to do.
func (s *sight) fill() {
	s.t.Helper()
	far := func(n int) int64 {
		j := s.job(int64(10+n), fmt.Sprintf("e2e: [%s]", []string{"chromium", "firefox", "webkit"}[n]), "test", "web/shop", "feature/search", "grace",
			`printf '\033[36mbrowser %s starts\033[0m\n' `+fmt.Sprint(n), "i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo scenario $i passed; sleep 1; done")
		return s.offer(with(j, "CI_RUNNER_TAGS", `["machine"]`), "machine")
	}
	s.far = []int64{far(0), far(1)}
	section := func(name, title string, lines string) string {
		return fmt.Sprintf(`printf 'section_start:%%s:%s\r\033[0K\033[36;1m%s\033[0m\n' $(date +%%s); %s; printf 'section_end:%%s:%s\r\033[0K\n' $(date +%%s)`, name, title, lines, name)
	}
	s.slow = s.offer(after(s.job(11, "integration: [postgres]", "test", "platform/billing", "main", "ada",
		section("install", "Install what the tests need", `for p in postgresql libpq-dev ruby; do printf '  \033[32minstalled\033[0m %s\n' $p; done`),
		`printf 'section_start:%s:tests\r\033[0K\033[36;1mRun the tests\033[0m\n' $(date +%s)`,
		`i=0; while [ -e `+s.path("config.toml")+` ]; do i=$((i+1)); head -c 3000000 /dev/urandom | sha256sum > sum; if [ $((i%7)) = 0 ]; then printf '\033[33mSLOW\033[0m  billing/invoice_%03d  \033[2m(1.%02ds)\033[0m\n' $i $i; else printf '\033[32mPASS\033[0m  billing/invoice_%03d\n' $i; fi; sleep 0.3; done`,
	), "echo cleaned up"))
	s.offer(s.job(12, "build", "build", "web/shop", "main", "grace", "echo compiled"))
	rounds := 3
	if s.gallery.wanted {
		rounds = 14
	}
	s.failed = s.offer(s.job(12, "unit", "test", "web/shop", "fix/login", "linus",
		section("lint", "Lint", `printf '\033[32m0 problems\033[0m\n'`),
		section("unit", "Unit tests", fmt.Sprintf("for i in $(seq %d); do head -c $((i%%5*20000000)) /dev/urandom | sort -z | sha256sum > sum; printf '\\033[32mok\\033[0m   cart/checkout_%%s\\n' $i; sleep 0.9; done; ", rounds)+`printf '\033[31;1mFAIL\033[0m login/session: expected \033[32m200\033[0m, got \033[31m500\033[0m\n'`), "exit 3"))
}

// ask asks the page as a program does, and returns the status and the answer.
func (s *sight) ask(method, path string, form url.Values, token string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		s.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// read gets JSON.
func read[T any](s *sight, path string) (out T) {
	s.t.Helper()
	code, text := s.ask(http.MethodGet, path, nil, "")
	if code != http.StatusOK {
		s.t.Fatalf("%s: %d %s", path, code, text)
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		s.t.Fatalf("%s: %v", path, err)
	}
	return out
}

// kept returns what the manager tells of a job, once it has taken it.
func (s *sight) kept(id int64) (job tranter.JobHistory) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("the manager knows job %d", id), func() bool {
		all := read[struct{ Running, Ended []tranter.JobHistory }](s, "/api/jobs?limit=200")
		for _, j := range append(all.Running, all.Ended...) {
			if j.Job.ID == id {
				job = j
			}
		}
		return job.Key != ""
	})
	return job
}

// placed waits until jobs have their machines, and returns these.
func (s *sight) placed(ids ...int64) (machines []string) {
	s.t.Helper()
	for _, id := range ids {
		s.eventually(fmt.Sprintf("job %d has its machine", id), func() bool {
			if m := s.kept(id).Place.Machine; m != "" && strings.Contains(s.Log(id), "scenario 1 ") {
				machines = append(machines, m)
				return true
			}
			return false
		})
	}
	return machines
}

// showing is a run of a sample pipeline with its page.
type showing struct {
	cmd *exec.Cmd
	out *output
	t   *testing.T
}

// newShowing starts the demo.
func newShowing(t *testing.T) *showing {
	t.Helper()
	d := &showing{cmd: exec.Command(program, "demo", "--web", "127.0.0.1:0", "--state-dir", t.TempDir()), out: &output{}, t: t}
	d.cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "GIT_CONFIG_NOSYSTEM=1")
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.cmd.Process.Signal(syscall.SIGINT)
		timer := time.AfterFunc(20*time.Second, func() { _ = d.cmd.Process.Kill() })
		defer timer.Stop()
		_ = d.cmd.Wait()
		if t.Failed() {
			t.Logf("the demo said:\n%s", d.out)
		}
	})
	return d
}

// picture of the terminal, as text.
func (s *sight) terminal() {
	s.t.Helper()
	out, code := s.tool("top", "--once", "--state-dir", s.path("state"))
	if code != 0 || !strings.Contains(out, "build-host") {
		s.t.Errorf("top: code %d, %s", code, out)
	}
	s.gallery.write(s.t, "top.txt", bytes.TrimSpace([]byte(out)))
}
