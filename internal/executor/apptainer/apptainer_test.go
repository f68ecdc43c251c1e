package apptainer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/apptainer/image"
	"github.com/tranter-ci/tranter/internal/executor/executortest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, s := range kinds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			executortest.Run(t, subject(s))
		})
	}
}

// Clusters have no root for jobs: the same must work for anybody.
func TestAsAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 { // then all tests are that
		return
	}
	dir := executortest.OpenDir(t)
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // for somebody else
		t.Fatal(err)
	}
	self := filepath.Dir(shared.fake)
	cmd := exec.CommandContext(t.Context(), filepath.Join(self, "ordinary"), "-test.run=^TestJobsInContainers$|^TestServices$", "-test.v")
	if err := os.Link(shared.fake, cmd.Path); err != nil {
		t.Fatal(err)
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "HOME=" + dir, rigVariable + "=" + self}
	cmd.Dir = dir
	asNobody(cmd)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestServices") || !strings.Contains(string(out), "--- PASS: TestJobsInContainers") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestJobsInContainers(t *testing.T) {
	t.Parallel()
	for name, s := range kinds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := executortest.OpenDir(t)
			if err := os.WriteFile(filepath.Join(host, "data"), []byte("of the host\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			s.Mounts = []string{"$DATA/data:/linked/data:ro", host + ":" + host}
			s.Environment = []string{"GIVEN=by $WHO"}
			s.Description = "batch job ${BATCH_ID:-?} of $WHO"
			images := &stock{config: image.Config{Env: []string{"FROM_IMAGE=a b", "LD_PRELOAD=/nowhere.so"}, User: "postgres", Entrypoint: []string{"/never"}}}
			j := newJob(t, executor(t, s, images))
			j.spec.Job.Image = tranter.Image{Name: "app:$TAG"}
			j.spec.Variables = []tranter.Variable{{Key: "TAG", Value: "3"}, {Key: "WHO", Value: "me"}, {Key: "DATA", Value: host}, {Key: "FILE", Value: "content", File: true}}
			j.open()
			r, log := j.run(j.phase("1",
				`echo "user=$(id -u) $FROM_IMAGE $GIVEN"`, `cat /etc/from-image /real/data "$FILE"`, `(echo x >/real/data) 2>/dev/null || echo "read only"`,
				`echo mine >/etc/from-image && cat /etc/from-image`, `echo t >/tmp/t`, `echo h >"$HOME/h" && ls "$HOME"`, `echo p >made`, `ls /etc/hostname 2>/dev/null || echo "not the host"`,
				`test -e /proc/1/root`, `touch `+host+`/seen`, `pwd`))
			for _, want := range []string{fmt.Sprintf("\nuser=%d a b by me\n", os.Geteuid()), "\nimage\nof the host\ncontent", "\nread only\n", "\nmine\n", "\nh\n", "\nnot the host\n"} {
				if !strings.Contains(log, want) {
					t.Errorf("no %q in the log", want)
				}
			}
			if r.Status != tranter.PhaseSucceeded || t.Failed() {
				t.Errorf("result %+v\n%s", r, log)
			}
			if data, _ := os.ReadFile(filepath.Join(shared.image, "etc", "from-image")); string(data) != "image\n" {
				t.Error("a job has changed the image")
			}
			if _, err := os.Stat("/tmp/t"); err == nil {
				t.Error("the job's /tmp is the host's")
			}
			for _, path := range []string{filepath.Join(j.spec.Dirs.Project, "made"), filepath.Join(host, "seen")} {
				if _, err := os.Stat(path); err != nil {
					t.Error(err)
				}
			}
			for _, want := range []string{"executor with image app:3 ...\nbatch job ? of me\n", "Using image sha256:000", "user that the image"} {
				if !strings.Contains(j.log.String(), want) {
					t.Errorf("no %q in %s", want, j.log)
				}
			}
			sources := j.phase("2", `cat /etc/from-image 2>/dev/null || echo outside`)
			sources.Container = &tranter.Container{Place: tranter.PlaceHelper, Shared: true}
			if _, log := j.run(sources); !strings.Contains(log, "\noutside") {
				t.Errorf("sources are fetched in the container:\n%s", log)
			}
			if err := j.session.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if left, _ := os.ReadDir(j.spec.Dir); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestServices(t *testing.T) {
	t.Parallel()
	for name, s := range kinds() {
		for _, network := range []string{"host", "job"} {
			t.Run(name+" "+network, func(t *testing.T) {
				t.Parallel()
				s.Network = network
				j := newJob(t, executor(t, s, nil))
				port := freePort(t)
				j.spec.Job.Services = []tranter.Image{
					{
						Name: "registry.example:5000/group/web:1", Alias: "www", Command: []string{"sh", "-c", `mkdir -p /srv/www && echo "hello $NAME" >/srv/www/index.html && exec httpd -f -p 127.0.0.1:` + port + ` -h /srv/www`},
						Variables: []tranter.Variable{{Key: "HEALTHCHECK_TCP_PORT", Value: port}, {Key: "NAME", Value: "you"}},
					},
					{Name: "broken", Command: []string{"sh", "-c", "echo its last words; exit 3"}},
				}
				j.open()
				r, log := j.run(j.phase("1", "for h in www group-web registry.example__group__web; do wget -q -O - http://$h:"+port+"/ || echo no $h; done", "cat /etc/hosts"))
				if r.Status != tranter.PhaseSucceeded || strings.Count(log, "hello you") != 2 || !strings.Contains(log, "no group-web") {
					t.Errorf("result %+v\n%s\n%s", r, log, j.log)
				}
				for _, want := range []string{"Starting service broken ...", "Service broken probably didn't start", "its last words", "exit status 3"} {
					if !strings.Contains(j.log.String(), want) {
						t.Errorf("no %q in %s", want, j.log)
					}
				}
				if strings.Contains(j.log.String(), "Service registry.example") {
					t.Errorf("warned of a service that runs: %s", j.log)
				}
				if err := j.session.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				j.nothingRuns()
			})
		}
	}
}

// nothingRuns checks that no process is left that belongs to the session.
func (j *job) nothingRuns() {
	j.t.Helper()
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range environs {
		if data, err := os.ReadFile(name); err == nil && strings.Contains(string(data), marker+"="+j.spec.Dir) {
			line, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
			j.t.Errorf("%s is left: %q", name, line)
		}
	}
}

// What a job has started is gone with the phase, also what hides.
func TestNothingOutlivesItsPhase(t *testing.T) {
	t.Parallel()
	for name, s := range kinds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJob(t, executor(t, s, nil))
			j.open()
			hidden := "12345." + freePort(t)
			ends := j.phase("1", "env -i setsid sleep "+hidden+" >/dev/null 2>&1 &", "sleep 0.05; echo ready")
			if r, log := j.run(ends); r.Status != tranter.PhaseSucceeded {
				t.Errorf("result %+v\n%s", r, log)
			}
			hangs := j.phase("2", "env -i setsid sleep "+hidden+" >/dev/null 2>&1 &", "trap '' TERM; sleep 1000")
			hangs.KillGrace = 100 * time.Millisecond
			if err := j.session.Start(j.context(), hangs); err != nil {
				t.Fatal(err)
			}
			if err := j.session.Cancel(j.context(), "2", true, 0); err != nil {
				t.Fatal(err)
			}
			var log strings.Builder
			r, err := j.session.Attach(j.context(), "2", 0, &log)
			if err != nil || r.Status != tranter.PhaseAborted {
				t.Errorf("result %+v, %v\n%s", r, err, log.String())
			}
			if err := j.session.Close(j.context()); err != nil {
				t.Fatal(err)
			}
			j.nothingRuns()
			lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, name := range lines {
				if line, _ := os.ReadFile(name); strings.Contains(string(line), "sleep\x00"+hidden) {
					t.Errorf("%s is left: %q", name, line)
				}
			}
		})
	}
}

func TestWithoutImage(t *testing.T) {
	t.Parallel()
	s := kinds()["bubblewrap"]
	s.Image = ""
	j := newJob(t, executor(t, s, &stock{fail: errors.New("not to be asked")}))
	j.open()
	r, log := j.run(j.phase("1", "ls -d /etc/hostname"))
	if r.Status != tranter.PhaseSucceeded || !strings.Contains(log, "/etc/hostname") || !strings.Contains(j.log.String(), "without a container") {
		t.Errorf("result %+v\n%s\n%s", r, log, j.log)
	}
}

// What a runtime says of a container that it can't run is a fault of the runner's, whatever its exit code.
func TestAContainerThatCannotStart(t *testing.T) {
	t.Parallel()
	for name, s := range kinds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.Options = []string{"--no-such-option"}
			j := newJob(t, executor(t, s, nil))
			j.open()
			err := j.session.Start(j.context(), j.phase("1", "true"))
			if err == nil || !strings.Contains(err.Error(), "no-such-option") {
				t.Errorf("error %v", err)
			}
			if _, configured := errors.AsType[*tranter.ConfigError](err); configured {
				t.Error("it is said to be the user's fault")
			}
		})
	}
}

func TestEntrypoints(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		entrypoint []string
		fixed      bool
		want       string
	}{
		"none":          {nil, false, "begin-\n"},
		"empty":         {[]string{""}, false, "begin-\n"},
		"a shell":       {[]string{"/bin/sh", "-c"}, false, "begin-\n"},
		"one of env":    {[]string{"env", "BY=entrypoint"}, false, "begin-entrypoint\n"},
		"not permitted": {[]string{"env", "BY=entrypoint"}, true, "begin-\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := kinds()["bubblewrap"]
			s.DisableEntrypointOverwrite = c.fixed
			j := newJob(t, executor(t, s, nil))
			j.spec.Job.Image = tranter.Image{Name: "x", Entrypoint: c.entrypoint}
			j.open()
			if r, log := j.run(j.phase("1", "echo begin-$BY")); !strings.Contains(log, "\n"+c.want) {
				t.Errorf("result %+v\n%s", r, log)
			}
		})
	}
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	base := kinds()["bubblewrap"]
	for name, c := range map[string]struct {
		change func(*job)
		want   string
	}{
		"an image":             {func(j *job) { j.e.options.Settings.AllowedImages = []string{"ok/**"} }, "allowed_images"},
		"a service":            {func(j *job) { j.e.options.Settings.AllowedServices = []string{"ok/**"} }, "allowed_services"},
		"too many services":    {func(j *job) { j.e.options.Settings.ServicesLimit = 0 }, "services_limit"},
		"a policy":             {func(j *job) { j.spec.Job.Image.PullPolicy = []string{"never"} }, "allowed_pull_policies"},
		"a GPU":                {func(j *job) { j.e.options.Settings.GPUNvidia = "$GPU" }, "gpu_nvidia"},
		"no truth":             {func(j *job) { j.e.options.Settings.GPUAMD = "maybe" }, "neither true nor false"},
		"a mount":              {func(j *job) { j.e.options.Settings.Mounts = []string{"/nowhere/at/all"} }, "/nowhere/at/all"},
		"a relative mount":     {func(j *job) { j.e.options.Settings.Mounts = []string{"$GPU:/x"} }, "absolute"},
		"a mount over it all":  {func(j *job) { j.e.options.Settings.Mounts = []string{"/tmp:/"} }, "whole image"},
		"a service no command": {func(*job) {}, "no command"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := newJob(t, executor(t, base, nil))
			j.spec.Variables = []tranter.Variable{{Key: "GPU", Value: "true"}}
			j.spec.Job.Image.Name, j.spec.Job.Services = "mine", []tranter.Image{{Name: "db"}}
			c.change(j)
			_, err := j.e.Open(j.context(), j.spec)
			if _, configured := errors.AsType[*tranter.ConfigError](err); !configured || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v", err)
			}
			if _, err := os.Stat(filepath.Join(j.spec.Dir, boxDir)); err == nil {
				t.Error("the job's directories are left")
			}
		})
	}
}

// A manager that was killed leaves sessions; the next one removes those that it does not know.
func TestSweep(t *testing.T) {
	t.Parallel()
	s := kinds()["bubblewrap"]
	e := executor(t, s, nil)
	e.options.State = filepath.Join(t.TempDir(), "state")
	j := newJob(t, e)
	j.spec.Job.Services = []tranter.Image{{Name: "db", Command: []string{"sleep", "1000"}}}
	j.open()
	if err := j.session.Start(j.context(), j.phase("1", "sleep 1000")); err != nil {
		t.Fatal(err)
	}
	next := executor(t, s, nil)
	next.options.State = e.options.State
	if err := next.Sweep(t.Context(), func(name string) bool { return name == j.spec.Name }); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(j.spec.Dir, boxDir)); err != nil {
		t.Errorf("a live session was swept: %v", err)
	}
	if err := next.Sweep(t.Context(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	j.nothingRuns()
	if left, _ := filepath.Glob(filepath.Join(e.options.State, "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if left, _ := os.ReadDir(j.spec.Dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestCommandLines(t *testing.T) {
	t.Parallel()
	c := container{
		Runtime: apptainer, Tools: tools{Runtime: "/usr/bin/apptainer", Enter: "/usr/bin/nsenter"}, Image: "/images/x", Home: "/job/home",
		Env: []string{"HOME=/job/home", "SECRET=s3cret", "LD_PRELOAD=/x.so"}, Binds: []bind{{Source: "/a", Target: "/b", ReadOnly: true}, {Source: "/c", Target: "/c"}},
		Nvidia: true, AMD: true, Writable: true, Options: []string{"--no-mount", "bind-paths"}, Before: []string{"/entry"},
	}
	got, err := c.command(0, "/job/phase-1", []string{"/.tranter/tranter"})
	if err != nil {
		t.Fatal(err)
	}
	want := "/usr/bin/apptainer exec --cleanenv --contain --pid --ipc --home /job/home --writable-tmpfs --nv --rocm --bind /a:/b:ro --bind /c:/c --no-mount bind-paths /images/x /entry /.tranter/tranter"
	if line := strings.Join(got.Argv, " "); line != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
	for _, want := range []string{"APPTAINERENV_SECRET=s3cret", "APPTAINERENV_LD_PRELOAD=/x.so", "APPTAINERENV_" + marker + "=/job/phase-1", marker + "=/job/phase-1"} {
		if !slices.Contains(got.Env, want) {
			t.Errorf("no %s", want)
		}
	}
	if slices.Contains(got.Env, "LD_PRELOAD=/x.so") {
		t.Error("a variable of the image is one of the host's programs")
	}
	c.Runtime, c.Writable, c.Nvidia, c.AMD, c.Options, c.Binds, c.Before, c.Dir = singularity, false, false, false, nil, nil, nil, "/data"
	if got, err = c.command(12, "m", []string{"sh"}); err != nil {
		t.Fatal(err)
	}
	if line := strings.Join(got.Argv, " "); !strings.HasPrefix(line, "/usr/bin/nsenter --target 12 --net ") || !strings.HasSuffix(line, " --home /job/home --pwd /data /images/x sh") {
		t.Errorf("got %s", line)
	}
	if !slices.Contains(got.Env, "SINGULARITYENV_SECRET=s3cret") {
		t.Errorf("environment %q", got.Env)
	}
}
