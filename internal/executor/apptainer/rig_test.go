package apptainer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/executor/apptainer/image"
	"github.com/tranter-ci/tranter/internal/executor/executortest"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == fakeName {
		os.Exit(fakeApptainer(os.Args[1:]))
	}
	os.Exit(withRig(m))
}

// rig is what all tests share: a static agent, and an image.
type rig struct {
	agent string
	image string
	fake  string
}

var shared rig

// rigVariable is the directory of the rig of a process that tests as another user.
const rigVariable = "APPTAINER_TEST_RIG"

func withRig(m *testing.M) int {
	dir := os.Getenv(rigVariable)
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "apptainer-rig"); err == nil {
			defer os.RemoveAll(dir)
			err = makeRig(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	img := filepath.Join(dir, "image")
	if os.Getenv(rigVariable) != "" { // an image belongs to who has pulled it
		own, err := os.MkdirTemp("", "image")
		if err == nil {
			defer os.RemoveAll(own)
			err = exec.Command("cp", "-a", img+"/.", own).Run()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		img = own
	}
	shared = rig{agent: filepath.Join(dir, "agent"), image: img, fake: filepath.Join(dir, fakeName)}
	return m.Run()
}

// makeRig builds the agent and an image of busybox.
func makeRig(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // for every user
		return err
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "agent"), "./testdata/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the agent: %w\n%s", err, out)
	}
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		return err
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return fmt.Errorf("the package busybox-static is needed: %w", err)
	}
	bin := filepath.Join(dir, "image", "bin")
	for _, d := range []string{bin, filepath.Join(dir, "image", "etc"), filepath.Join(dir, "image", "real")} {
		if err := os.MkdirAll(d, 0o755); err != nil { //nolint:gosec // an image
			return err
		}
	}
	files := map[string][]byte{filepath.Join(dir, fakeName): self, filepath.Join(bin, "busybox"): busybox, filepath.Join(dir, "image", "etc", "from-image"): []byte("image\n")}
	for path, data := range files {
		if err := os.WriteFile(path, data, 0o755); err != nil { //nolint:gosec // programs
			return err
		}
	}
	if err := os.Symlink("/real", filepath.Join(dir, "image", "linked")); err != nil {
		return err
	}
	list, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(list)) {
		if err := os.Symlink("busybox", filepath.Join(bin, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// stock is a store that has one image under many names.
type stock struct {
	mu     sync.Mutex
	config image.Config
	asked  []string
	wants  []image.Want
	fail   error
}

func (s *stock) Get(_ context.Context, ref string, w image.Want) (*image.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.wants = append(s.asked, ref), append(s.wants, w)
	if s.fail != nil {
		return nil, s.fail
	}
	return &image.Image{Ref: ref, Digest: "sha256:" + strings.Repeat("0", 64), Path: shared.image, Form: image.Directory, Config: s.config}, nil
}

// kinds are the runtimes that are tested: those of the distribution, Apptainer as it should behave, and the real one if
// it is there.
func kinds() map[string]config.Apptainer {
	out := map[string]config.Apptainer{
		"bubblewrap":     {Runtime: "bubblewrap"},
		"charliecloud":   {Runtime: "charliecloud"},
		"fake apptainer": {Runtime: "apptainer", Executable: shared.fake},
	}
	if path, err := exec.LookPath("apptainer"); err == nil {
		actual := config.Apptainer{Runtime: "apptainer", Executable: path}
		if os.Geteuid() == 0 {
			actual.Options = []string{"--userns"}
		}
		out["apptainer"] = actual
	}
	for name, s := range out {
		s.Image, s.Writable, s.KillTimeout, s.ServicesLimit, s.WaitForServicesTimeout = "busybox:1", true, time.Second, -1, 20*time.Second
		out[name] = s
	}
	return out
}

// executor makes one with settings.
func executor(t testing.TB, s config.Apptainer, images Images) *Executor {
	t.Helper()
	if images == nil {
		images = &stock{}
	}
	e, err := New(Options{Agent: []string{shared.agent}, Settings: s, Images: images, Secret: []string{"glrt-runner"}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func subject(s config.Apptainer) executortest.Subject {
	return executortest.Subject{Apart: true, New: func(t *testing.T) tranter.Executor {
		t.Helper()
		return executor(t, s, nil)
	}}
}

// job is one session.
type job struct {
	t       *testing.T
	e       *Executor
	spec    tranter.SessionSpec
	log     *strings.Builder
	session tranter.Session
}

// newJob makes what a job needs; change may change it before open.
func newJob(t *testing.T, e *Executor) *job {
	t.Helper()
	root := executortest.OpenDir(t)
	project := filepath.Join(root, "builds", "group", "project")
	j := &job{t: t, e: e, log: &strings.Builder{}}
	j.spec = tranter.SessionSpec{
		Name: "job-" + filepath.Base(root), Dir: filepath.Join(root, "job"), Job: &tranter.Job{ID: 7, Token: "glcbt-token"}, Log: j.log,
		Dirs: tranter.Dirs{Builds: filepath.Join(root, "builds"), Project: project, Temp: project + ".tmp", Cache: filepath.Join(root, "cache")},
	}
	return j
}

func (j *job) open() {
	j.t.Helper()
	s, err := j.e.Open(j.context(), j.spec)
	if err != nil {
		j.t.Fatalf("open: %v\n%s", err, j.log)
	}
	j.session = s
	j.t.Cleanup(func() {
		if err := s.Close(context.WithoutCancel(j.t.Context())); err != nil {
			j.t.Errorf("close: %v", err)
		}
	})
}

func (j *job) context() context.Context {
	ctx, stop := context.WithTimeout(j.t.Context(), time.Minute)
	j.t.Cleanup(stop)
	return ctx
}

func (j *job) phase(id string, commands ...string) tranter.Phase {
	return tranter.Phase{ID: id, JobID: 7, Dirs: j.spec.Dirs, Shell: "bash", JobToken: "glcbt-token", Variables: j.spec.Variables, Steps: []tranter.Step{
		{Name: "get_sources", When: tranter.OnSuccess, Sources: &tranter.SourcesStep{Strategy: "none"}},
		{Name: "step_script", When: tranter.OnSuccess, Script: &tranter.ScriptStep{Commands: commands, User: true}},
	}}
}

// run runs a phase to its end.
func (j *job) run(p tranter.Phase) (tranter.PhaseResult, string) {
	j.t.Helper()
	if err := j.session.Start(j.context(), p); err != nil {
		j.t.Fatalf("start: %v", err)
	}
	var log strings.Builder
	r, err := j.session.Attach(j.context(), p.ID, 0, &log)
	if err != nil {
		j.t.Fatalf("attach: %v\n%s", err, log.String())
	}
	return r, log.String()
}
