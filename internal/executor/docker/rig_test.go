package docker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/docker"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

// rig is one job of a runner with the settings, and what is needed to look at it from outside.
type rig struct {
	t         *testing.T
	settings  config.Docker
	job       *tranter.Job
	variables []tranter.Variable
	shell     string
	options   docker.Options
	executor  *docker.Executor
	session   tranter.Session
	log       *tail // what the executor says
}

// tail keeps what several goroutines write.
type tail struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

const rigPatience = time.Minute

var errRigImpatient = errors.New("it takes too long")

// newRig makes a job of the image, which may be changed until it is opened.
func newRig(t *testing.T, image string) *rig {
	t.Helper()
	return rigOf(t, settings(t, image))
}

func rigOf(t *testing.T, d config.Docker) *rig {
	t.Helper()
	r := &rig{t: t, settings: d, shell: "bash", log: &tail{}}
	r.options = options(t, r.settings)
	r.options.Runner.SystemID = "s_" + r.options.Runner.Owner // for volumes of its own
	r.job = &tranter.Job{ID: 77, Token: "glcbt-token", Info: tranter.JobInfo{ProjectID: 5, PipelineID: 6}}
	r.variables = []tranter.Variable{{Key: "CI_CONCURRENT_ID", Value: "0", Internal: true}, {Key: "CI_CONCURRENT_PROJECT_ID", Value: "0", Internal: true}}
	return r
}

// next is another job of the same runner, on a manager that has been started again.
func (r *rig) next() *rig {
	n := *r
	job := *r.job
	job.ID++
	n.job, n.executor, n.session, n.log = &job, nil, nil, &tail{}
	n.variables = slices.Clone(r.variables)
	return &n
}

func (r *rig) set(key, value string) {
	r.variables = append(r.variables, tranter.Variable{Key: key, Value: value})
}

// provide sets a variable as the runner itself does.
func (r *rig) provide(key, value string) {
	r.variables = append(r.variables, tranter.Variable{Key: key, Value: value, Internal: true})
}

func (r *rig) dirs() tranter.Dirs {
	const project = "/builds/group/project"
	return tranter.Dirs{Builds: "/builds", Project: project, Temp: project + ".tmp", Cache: "/cache/group/project"}
}

func (r *rig) context() context.Context {
	ctx, stop := context.WithTimeoutCause(context.WithoutCancel(r.t.Context()), rigPatience, errRigImpatient)
	r.t.Cleanup(stop)
	return ctx
}

// try opens the session and returns what comes of it. It is closed at the end of the test.
func (r *rig) try() error {
	r.t.Helper()
	return r.tryWithin(rigPatience)
}

func (r *rig) tryWithin(limit time.Duration) error {
	r.t.Helper()
	ctx, stop := context.WithTimeoutCause(r.context(), limit, errRigImpatient)
	defer stop()
	o := r.options
	o.Settings = r.settings
	if r.executor == nil {
		r.executor = docker.New(o)
	}
	session, err := r.executor.Open(ctx, tranter.SessionSpec{
		Name: fmt.Sprintf("job-%d", r.job.ID), Job: r.job, Dirs: r.dirs(), Log: r.log, Variables: r.variables, Dir: r.t.TempDir(),
	})
	if err == nil {
		r.session = session
		r.t.Cleanup(r.close)
	}
	return err
}

func (r *rig) open() {
	r.t.Helper()
	if err := r.try(); err != nil {
		r.t.Fatalf("open: %v\n%s", err, r.log)
	}
}

func (r *rig) close() {
	r.t.Helper()
	if err := r.session.Close(r.context()); err != nil {
		r.t.Errorf("close: %v", err)
	}
}

// phase makes a phase of one script in one of the job's containers, or with what comes before scripts if there is none.
func (r *rig) phase(id string, place tranter.Place, commands ...string) tranter.Phase {
	steps := []tranter.Step{{Name: "step_script", When: tranter.OnSuccess, Script: &tranter.ScriptStep{Commands: commands, User: true}}}
	if place == tranter.PlaceHelper || r.settings.DisableHelper {
		steps = slices.Insert(steps, 0,
			tranter.Step{Name: "prepare_script", When: tranter.OnSuccess, Prepare: &tranter.PrepareStep{Greeting: "Running on %s..."}},
			tranter.Step{Name: "get_sources", When: tranter.OnSuccess, Sources: &tranter.SourcesStep{Strategy: "none"}})
	}
	return tranter.Phase{
		ID: id, JobID: r.job.ID, Dirs: r.dirs(), Variables: r.variables, Shell: r.shell, Steps: steps, JobToken: r.job.Token,
		KillGrace: time.Second, Container: &tranter.Container{Place: place, Shared: !r.settings.DisableHelper},
	}
}

// perform carries out a phase and returns how it ended, with the log.
func (r *rig) perform(p tranter.Phase) (tranter.PhaseResult, string, error) {
	r.t.Helper()
	if err := r.session.Start(r.context(), p); err != nil {
		return tranter.PhaseResult{}, "", err
	}
	var log bytes.Buffer
	result, err := r.session.Attach(r.context(), p.ID, 0, &log)
	return result, log.String(), err
}

// sources carries out the phase before scripts, with commands in the helper container.
func (r *rig) sources(commands ...string) string {
	r.t.Helper()
	return r.good(r.perform(r.phase("sources", tranter.PlaceHelper, append([]string{"true"}, commands...)...)))
}

// script carries out the script phase, which is to succeed.
func (r *rig) script(commands ...string) string {
	r.t.Helper()
	return r.good(r.perform(r.phase("script", tranter.PlaceBuild, commands...)))
}

func (r *rig) good(result tranter.PhaseResult, log string, err error) string {
	r.t.Helper()
	if err != nil || result.Status != tranter.PhaseSucceeded {
		r.t.Fatalf("%+v, %v\n%s\nand before:\n%s", result, err, log, r.log)
	}
	return log
}

// all opens the session and carries out both phases; it returns the script's log.
func (r *rig) all(commands ...string) string {
	r.t.Helper()
	r.open()
	if !r.settings.DisableHelper {
		r.sources()
	}
	return r.script(commands...)
}

// ref is what the session says about itself.
func (r *rig) ref() (ref struct {
	Containers map[tranter.Place]string
	Services   []string
	Network    string
	Volumes    []string
},
) {
	r.t.Helper()
	if err := json.Unmarshal(r.session.Ref(), &ref); err != nil {
		r.t.Fatal(err)
	}
	return ref
}

func (r *rig) api() *client.Client { return enginetest.Client(r.t, r.settings.Host) }

func (r *rig) inspect(name string) container.InspectResponse {
	r.t.Helper()
	found, err := r.api().ContainerInspect(r.context(), name, client.ContainerInspectOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return found.Container
}

func (r *rig) build() container.InspectResponse {
	r.t.Helper()
	return r.inspect(r.ref().Containers[tranter.PlaceBuild])
}

func (r *rig) helper() container.InspectResponse {
	r.t.Helper()
	return r.inspect(r.ref().Containers[tranter.PlaceHelper])
}

func (r *rig) service(i int) container.InspectResponse {
	r.t.Helper()
	return r.inspect(r.ref().Services[i])
}

// caches returns the names of the manager's volumes that outlive jobs.
func (r *rig) caches() []string {
	r.t.Helper()
	found, err := r.api().VolumeList(r.context(), client.VolumeListOptions{
		Filters: make(client.Filters).Add("label", spec.LabelOwner+"="+r.options.Runner.Owner, spec.StockLabel+"type=cache"),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	var names []string
	for _, v := range found.Items {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	return names
}

// has fails the test unless the text has all of the wanted in it.
func has(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			t.Errorf("there is no %q in:\n%s", w, text)
		}
	}
}

func hasNot(t *testing.T, text string, unwanted ...string) {
	t.Helper()
	for _, w := range unwanted {
		if strings.Contains(text, w) {
			t.Errorf("there is %q in:\n%s", w, text)
		}
	}
}

// volume makes a volume that goes with the test.
func volume(t *testing.T, r *rig, o client.VolumeCreateOptions) string {
	t.Helper()
	if _, err := r.api().VolumeCreate(r.context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := r.api().VolumeRemove(r.context(), o.Name, client.VolumeRemoveOptions{Force: true}); err != nil {
			t.Errorf("remove volume %s: %v", o.Name, err)
		}
	})
	return o.Name
}

// bystander runs a container that is no job's until the test ends.
func bystander(t *testing.T, r *rig, o client.ContainerCreateOptions) string {
	t.Helper()
	made, err := r.api().ContainerCreate(r.context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := r.api().ContainerRemove(r.context(), made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			t.Errorf("remove container %s: %v", path.Base(o.Name), err)
		}
	})
	if _, err := r.api().ContainerStart(r.context(), made.ID, client.ContainerStartOptions{}); err != nil {
		t.Fatal(err)
	}
	return made.ID
}

// front puts something before the engine at host that changes requests for containers, and returns its address.
func front(t *testing.T, host string, change func(asked map[string]any)) string {
	t.Helper()
	at, err := client.ParseHostURL(host)
	if err != nil {
		t.Fatal(err)
	}
	address := at.Host
	if at.Scheme == "unix" {
		address = strings.TrimPrefix(host, "unix://")
	}
	proxy := &httputil.ReverseProxy{
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, at.Scheme, address)
		}},
		FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "engine"
			if p.Out.Method != http.MethodPost || !strings.HasSuffix(p.Out.URL.Path, "/containers/create") {
				return
			}
			var asked map[string]any
			if err := json.NewDecoder(p.Out.Body).Decode(&asked); err != nil {
				t.Errorf("a request for a container: %v", err)
			}
			change(asked)
			body, err := json.Marshal(asked)
			if err != nil {
				t.Error(err)
			}
			p.Out.Body, p.Out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		},
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return "tcp://" + server.Listener.Addr().String()
}
