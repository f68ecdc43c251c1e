package docker_test

import (
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/diskspace"
	"github.com/tranter-ci/tranter/internal/executor/docker"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/executor/docker/janitor"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
	"github.com/tranter-ci/tranter/internal/executor/executortest"
)

// onPodman are settings of a runner whose jobs get the image on a podman of the test's own.
func onPodman(t *testing.T, p *enginetest.PodmanService, image string) config.Docker {
	t.Helper()
	d := config.DefaultRunner().Docker
	d.Host, d.Image, d.HelperImage = p.Host(), p.Image(t, image), p.Image(t, "helper")
	d.PullPolicy = config.OneOrMany{"if-not-present"}
	return d
}

// rigWith is a rig of which the settings are given whole.
func rigWith(t *testing.T, d config.Docker) *rig {
	t.Helper()
	r := &rig{t: t, settings: d, shell: "sh", log: &tail{}, options: options(t, d)}
	r.job = &tranter.Job{ID: 77, Token: "glcbt-token", Info: tranter.JobInfo{ProjectID: 5, PipelineID: 6}}
	r.provide("CI_CONCURRENT_ID", "0")
	r.provide("CI_CONCURRENT_PROJECT_ID", "0")
	return r
}

// gitServer serves a repository with one commit at an address of this machine. It returns the URL and the commit.
func gitServer(t *testing.T, address string) (url, commit string) {
	t.Helper()
	root := t.TempDir()
	git := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", root, "-c", "user.name=x", "-c", "user.email=x@example.com"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "HOME="+os.DevNull)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main", "work")
	if err := os.WriteFile(filepath.Join(root, "work", "hello.txt"), []byte("hello from the repository\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	git("-C", "work", "add", ".")
	git("-C", "work", "commit", "-q", "-m", "one")
	git("clone", "-q", "--bare", "work", "project.git")
	program, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		req.TransferEncoding = nil
		(&cgi.Handler{Path: program, Args: []string{"http-backend"}, Env: []string{
			"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_PROTOCOL=" + req.Header.Get("Git-Protocol"), "GIT_CONFIG_COUNT=1",
			"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + os.DevNull,
		}}).ServeHTTP(w, req)
	}))
	_ = server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	return server.URL + "/project.git", git("-C", "work", "rev-parse", "HEAD")
}

// fetching is the phase before scripts, with sources.
func (r *rig) fetching(url, commit string) tranter.Phase {
	p := r.phase("sources", tranter.PlaceHelper, "ls -l hello.txt")
	p.Steps[1].Sources = &tranter.SourcesStep{
		Strategy: "fetch", RepoURL: url, Ref: "main", SHA: commit, Depth: 20, ObjectFormat: "sha1", CleanFlags: []string{"-ffdx"},
		Refspecs: []string{"+refs/heads/main:refs/remotes/origin/main"}, SkipLFS: true, SafeDirectory: true,
	}
	return p
}

func TestPodman(t *testing.T) {
	t.Parallel()
	p := enginetest.Podman(t)
	t.Run("jobs", func(t *testing.T) {
		t.Parallel()
		jobsElsewhere(t, onPodman(t, p, "busybox"), p.Image(t, "ports"), p.Gateway)
	})
	t.Run("conformance", func(t *testing.T) {
		t.Parallel()
		d := onPodman(t, p, "busybox")
		d.Volumes = []string{os.TempDir() + ":" + os.TempDir()} // so that the suite sees what jobs write
		d.WaitForServicesTimeout = time.Second
		o := options(t, d)
		executortest.Run(t, executortest.Subject{
			Shell: "sh", New: func(*testing.T) tranter.Executor { return docker.New(o) },
			Spoil: func(s *tranter.SessionSpec) {
				job := *s.Job
				job.Image.Name, s.Job = "no such image", &job
			},
		})
	})
}

func TestPodmanOfAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	p := enginetest.RootlessPodman(t)
	jobsElsewhere(t, onPodman(t, p, "busybox"), p.Image(t, "ports"), p.Gateway)
}

func TestDockerOfAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	e := enginetest.RootlessDocker(t)
	d := config.DefaultRunner().Docker
	d.Host, d.Image, d.HelperImage = e.Host(), enginetest.Load(t, e.Host(), "busybox"), enginetest.Load(t, e.Host(), "helper")
	d.PullPolicy = config.OneOrMany{"if-not-present"}
	jobsElsewhere(t, d, enginetest.Load(t, e.Host(), "ports"), e.Gateway)
}

// jobsElsewhere runs jobs with all that engines do differently, and has what they leave removed. The machine has the
// address gateway for the engine's containers.
func jobsElsewhere(t *testing.T, d config.Docker, service, gateway string) {
	t.Helper()
	url, commit := gitServer(t, gateway)
	d.WaitForServicesTimeout, d.Volumes = 20*time.Second, []string{"/cache"}
	r := rigWith(t, d)
	r.job.Services = []tranter.Image{{Name: service, Alias: "web", Variables: []tranter.Variable{{Key: "GREETING", Value: "you"}}}}
	const script = "cat hello.txt; wget -q -O- http://web:8080/; echo kept >>/cache/file; cat /cache/file; id -u"
	for n, want := range []string{"\nkept\n0\n", "\nkept\nkept\n0\n"} {
		began := time.Now()
		r.open()
		opened := time.Since(began)
		r.good(r.perform(r.fetching(url, commit)))
		log := r.script(script)
		t.Logf("job %d: opened after %v, done after %v", n, opened, time.Since(began))
		has(t, log, "hello from the repository\n", "hello you\n", want)
		hasNot(t, r.log.String(), "WARNING")
		if n == 0 {
			r.close()
			r = r.next()
			r.set("FF_NETWORK_PER_BUILD", "true") // and once more by names of a network instead of hosts entries
		}
	}
	sweptAndPruned(t, r)
}

// sweptAndPruned has the job's things removed as those of a manager that was killed, then its caches.
func sweptAndPruned(t *testing.T, r *rig) {
	t.Helper()
	caches, agent := r.cachesOnly(), agentLabels(t, r)
	if len(caches) == 0 || agent[spec.LabelType] != spec.TypeAgent {
		t.Fatalf("caches %q, the agent's volume %q", caches, agent)
	}
	ref, next := r.ref(), docker.New(r.options)
	if err := next.Sweep(r.context(), func(string) bool { return true }); err != nil {
		t.Error(err)
	}
	if !r.build().State.Running {
		t.Error("a job that goes on was swept")
	}
	if err := next.Sweep(r.context(), func(string) bool { return false }); err != nil {
		t.Error(err)
	}
	for _, name := range ref.Containers {
		if _, err := r.api().ContainerInspect(r.context(), name, client.ContainerInspectOptions{}); !engine.Missing(err) {
			t.Errorf("container %s: %v", name, err)
		}
	}
	enginetest.Clean(t, r.settings.Host, spec.LabelOwner+"="+r.options.Runner.Owner, spec.LabelSession)
	if left := r.cachesOnly(); !slices.Equal(left, caches) {
		t.Errorf("caches %q, before they were swept %q", left, caches)
	}

	r.close() // before that, they count as in use
	e, err := engine.Open(r.context(), engine.Options{Host: r.settings.Host, Log: r.options.Log})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	uses, err := janitor.OpenUses(janitor.UsesPath(r.options.State, e.Facts().ID))
	if err != nil {
		t.Fatal(err)
	}
	pruning := janitor.Pruning{Limits: janitor.Limits{All: true}, Owner: r.options.Runner.Owner, Kinds: []janitor.Kind{janitor.Volume}}
	if pruned, err := pruning.Run(r.context(), e, uses, diskspace.Room{}); err != nil || len(pruned.Removed) != len(caches) || len(r.cachesOnly()) > 0 {
		t.Errorf("pruned %+v, %v; left %q", pruned, err, r.cachesOnly())
	}
}

// cachesOnly looks once more: Podman lists the volumes that have any of the labels.
func (r *rig) cachesOnly() []string {
	r.t.Helper()
	return slices.DeleteFunc(r.caches(), func(name string) bool {
		return !strings.Contains(name, "-cache-") || strings.Contains(name, "-concurrent-")
	})
}

// agentLabels returns those of the volume with the program in it.
func agentLabels(t *testing.T, r *rig) map[string]string {
	t.Helper()
	found, err := r.api().VolumeList(r.context(), client.VolumeListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found.Items {
		if strings.HasPrefix(v.Name, "tranter-agent-") {
			return v.Labels
		}
	}
	t.Fatal("there is no volume with the agent")
	return nil
}
