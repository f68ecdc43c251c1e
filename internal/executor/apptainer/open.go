package apptainer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/apptainer/image"
	"github.com/tranter-ci/tranter/internal/variables"
)

// opening is the making of one session.
type opening struct {
	*Executor
	given    tranter.SessionSpec
	job      variables.List
	settings settings
	logins   logins
	session  *session
	services []*service
}

// Open implements tranter.Executor: images are had, services started and waited for. The job's container starts with the
// phase that needs it.
func (e *Executor) Open(ctx context.Context, given tranter.SessionSpec) (tranter.Session, error) {
	o := &opening{Executor: e, given: given, job: variables.List(given.Variables), session: &session{executor: e, dir: given.Dir}}
	o.settings = settings{job: o.job, env: os.LookupEnv}
	if err := o.begin(ctx); err != nil {
		return nil, err
	}
	if err := o.open(ctx); err != nil {
		closing, stop := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
		defer stop()
		if left := o.session.Close(closing); left != nil {
			e.options.Log.Warn("What was made for a job that could not start is not removed yet", "job", given.Job.ID, "error", left)
		}
		return nil, err
	}
	return o.session, nil
}

// removeTime is how long it may take to remove what was made for a job that could not start.
const removeTime = 30 * time.Second

// begin makes the job's directory, after what an earlier try has left there that was killed on the way is removed.
func (o *opening) begin(ctx context.Context) error {
	if err := os.MkdirAll(o.given.Dir, 0o700); err != nil {
		return fmt.Errorf("make the job's directory: %w", err)
	}
	if _, err := os.Lstat(o.session.box()); err == nil {
		before := &session{executor: o.Executor, dir: o.given.Dir}
		_ = before.load() // what it has is known by its place, too
		if err := before.Close(ctx); err != nil {
			return fmt.Errorf("remove what an earlier try has left: %w", err)
		}
	}
	path, err := o.keep(note{Name: o.given.Name, Dir: o.given.Dir})
	if err != nil {
		return err
	}
	o.session.note = path
	o.session.state = state{Dirs: o.given.Dirs, Note: path}
	if err := os.Mkdir(o.session.box(), 0o700); err != nil {
		return fmt.Errorf("make the job's directory: %w", err)
	}
	return o.session.save()
}

func (o *opening) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(o.given.Log, format+"\n", args...)
}

func (o *opening) open(ctx context.Context) error {
	s := o.options.Settings
	name := o.job.ExpandString(o.given.Job.Image.Name, o.given.Dirs.Temp)
	if name == "" {
		name = o.settings.expand(s.Image)
	}
	o.printf("Using %s executor %s...", o.runtime.title(), withImage(name))
	if text := o.settings.expand(s.Description); text != "" {
		o.printf("%s", cut(strings.Map(printable, text)))
	}
	var trouble []string
	o.logins, trouble = loginsOf([]string{o.job.Get("DOCKER_AUTH_CONFIG"), valueOf(o.options.Environment, "DOCKER_AUTH_CONFIG")}, o.options.Home, o.given.Job.Credentials)
	for _, what := range trouble {
		o.printf("WARNING: %s is not used for logins to registries: it is not what Docker's config.json is.", what)
	}
	if err := o.planServices(); err != nil {
		return err
	}
	if name == "" {
		o.printf("The job names no image, and the runner has no default one: it runs on the host, without a container.")
		if len(o.services) > 0 {
			o.printf("WARNING: services are reached at 127.0.0.1 there, not by their names.")
		}
	} else if err := o.buildContainer(ctx, name); err != nil {
		return err
	}
	if err := o.startServices(ctx); err != nil {
		return err
	}
	return o.session.save()
}

func withImage(name string) string {
	if name == "" {
		return "without image "
	}
	return "with image " + cut(name) + " "
}

func printable(r rune) rune {
	if r < ' ' {
		return ' '
	}
	return r
}

// buildContainer gets the job's image and says how its container is run.
func (o *opening) buildContainer(ctx context.Context, name string) error {
	s, job := o.options.Settings, o.given.Job.Image
	if !allowed(s.AllowedImages, []string{o.settings.expand(s.Image)}, name) {
		return refused("allowed_images", s.AllowedImages, name)
	}
	img, err := o.image(ctx, name, job.PullPolicy)
	if err != nil {
		return err
	}
	if img.Digest != "" {
		o.printf("Using image %s for %s ...", img.Digest, cut(name))
	}
	if u := img.Config.User; u != "" && u != "root" && u != "0" || len(job.ExecutorOpts) > 0 && bytes.Contains(job.ExecutorOpts, []byte(`"user"`)) {
		o.printf("The user that the image or the job asks for is not used: containers run as the user who runs the runner.")
	}
	c, err := o.container(img, o.session.box())
	if err != nil {
		return err
	}
	switch {
	case !overwritten(job.Entrypoint):
	case s.DisableEntrypointOverwrite:
		o.printf("WARNING: the job's entrypoint is not used: disable_entrypoint_overwrite is set in the runner's configuration.")
	default:
		c.Before = before(job.Entrypoint)
	}
	o.session.state.Container, o.session.state.Ref = c, stableRef(img)
	return nil
}

// stableRef names an image by its digest, where it has one.
func stableRef(img *image.Image) string {
	if img.Digest == "" {
		return img.Ref
	}
	name, _, _ := strings.Cut(img.Ref, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name + "@" + img.Digest
}

// image gets an image by the policies that are asked for, as far as they are allowed.
func (o *opening) image(ctx context.Context, name string, asked []string) (*image.Image, error) {
	s := o.options.Settings
	effective, err := policies(s.PullPolicy, s.AllowedPullPolicies, asked)
	if err != nil {
		return nil, err
	}
	if o.options.Images == nil {
		return nil, errors.New("apptainer: no store of images is given")
	}
	w := image.Want{Policies: effective, Form: o.runtime.form(s.ImageForm), Login: o.logins.find, Log: o.given.Log}
	if o.runtime.sif() {
		w.Build = o.build
	}
	img, err := o.options.Images.Get(ctx, name, w)
	if err != nil {
		return nil, err
	}
	o.session.hold(img)
	if info, err := os.Stat(img.Path); err != nil || !info.IsDir() && !o.runtime.sif() {
		return nil, configError("the image %s is not a directory, which is what %s can run (%w)", cut(name), o.runtime, err)
	}
	return img, nil
}

// build makes a file of an image with the runtime. For what only the runtime can get, source is the reference.
func (o *opening) build(ctx context.Context, source, target string) error {
	words := []string{"build", "--force", target, source}
	if !strings.HasPrefix(source, "oci:") {
		words = []string{"pull", "--force", target, source}
	}
	cmd := exec.CommandContext(ctx, o.tools.Runtime, words...)
	cmd.Env = environment(os.Environ(), o.options.Secret)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = o.options.Settings.KillTimeout + time.Second
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", o.runtime, words[0], err, said.String())
	}
	return nil
}

// container says how containers of an image are run, with box as the directory of what is theirs.
func (o *opening) container(img *image.Image, box string) (*container, error) {
	s := o.options.Settings
	c := &container{
		Runtime: o.runtime, Tools: o.tools, Image: img.Path, Layer: filepath.Join(box, "layer"), Home: filepath.Join(box, "home"), Tmp: filepath.Join(box, "tmp"),
		Writable: s.Writable,
	}
	var err error
	if c.Nvidia, err = o.settings.truth("gpu_nvidia", s.GPUNvidia); err != nil {
		return nil, err
	}
	if c.AMD, err = o.settings.truth("gpu_amd", s.GPUAMD); err != nil {
		return nil, err
	}
	if (c.Nvidia || c.AMD) && !o.runtime.sif() {
		return nil, configError("gpu_nvidia and gpu_amd in [runners.apptainer] need the runtime apptainer or singularity; with %s, give the devices by mounts", o.runtime)
	}
	for _, word := range s.Options {
		c.Options = append(c.Options, o.settings.expand(word))
	}
	for _, dir := range []string{c.Home, c.Tmp, c.Tmp + "/var"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the container's directories: %w", err)
		}
	}
	c.Env = o.environ(img.Config.Env, c.Home)
	if c.Binds, err = o.binds(c); err != nil {
		return nil, err
	}
	for i, b := range c.Binds {
		if !o.runtime.sif() { // Apptainer follows the links itself
			c.Binds[i].Target = resolve(img.Path, b.Target)
		}
	}
	return c, nil
}

// environ is what is in the container's environment besides the variables of the job: what the image says, what the
// configuration says, and where the job's own directories are.
func (o *opening) environ(img []string, home string) []string {
	env := append([]string{"PATH=" + defaultPath}, img...)
	for _, kv := range o.options.Settings.Environment {
		if k, v, ok := strings.Cut(kv, "="); ok && k != "" {
			env = append(env, k+"="+o.settings.expand(v))
		}
	}
	env = append(env, "HOME="+home, "TMPDIR=/tmp")
	last := map[string]int{}
	for i, kv := range env {
		k, _, _ := strings.Cut(kv, "=")
		last[k] = i
	}
	var out []string
	for i, kv := range env {
		k, _, ok := strings.Cut(kv, "=")
		if ok && k != "" && last[k] == i && !strings.ContainsRune(kv, 0) {
			out = append(out, kv)
		}
	}
	return out
}

// binds are what the container has of the host, in the order in which it is mounted: what is ours comes last, so that
// no mount of the configuration hides it.
func (o *opening) binds(c *container) ([]bind, error) {
	var out []bind
	switch {
	case o.options.Settings.ShareTmp:
		c.Tmp = "/tmp"
		out = append(out, bind{Source: "/tmp", Target: "/tmp"}, bind{Source: "/var/tmp", Target: "/var/tmp"})
	default:
		out = append(out, bind{Source: c.Tmp, Target: "/tmp"}, bind{Source: c.Tmp + "/var", Target: "/var/tmp"})
	}
	if !c.Runtime.sif() {
		out = append(out, bind{Source: "/etc/resolv.conf", Target: "/etc/resolv.conf", ReadOnly: true})
	}
	if path, err := o.hosts(); err != nil {
		return nil, err
	} else if path != "" {
		out = append(out, bind{Source: path, Target: "/etc/hosts", ReadOnly: true})
	}
	for _, text := range o.options.Settings.Mounts {
		b, err := o.settings.mount(text)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(b.Source); err != nil {
			return nil, configError("mounts in [runners.apptainer]: %w", err)
		}
		out = append(out, b)
	}
	if err := makeDirs(o.given.Dirs); err != nil {
		return nil, err
	}
	for _, dir := range []string{o.given.Dir, o.given.Dirs.Project, o.given.Dirs.Temp} {
		if dir != "" {
			out = append(out, bind{Source: dir, Target: dir})
		}
	}
	return append(out, bind{Source: o.options.Agent[0], Target: agentPath, ReadOnly: true}), nil
}

// valueOf returns the value of a variable among KEY=VALUE; the last one counts.
func valueOf(environ []string, key string) string {
	value := ""
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			value = v
		}
	}
	return value
}

// tail keeps the last part of what is written to it.
type tail struct{ data []byte }

const mostTail = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if over := len(t.data) - mostTail; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	return strings.TrimSpace(strings.Map(printable, strings.ToValidUTF8(string(t.data), "")))
}

// lastLines returns the last part of a file.
func lastLines(path string, most int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	data, _ := io.ReadAll(io.LimitReader(f, most))
	return strings.ToValidUTF8(string(data), "")
}
