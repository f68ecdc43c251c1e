package docker

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/link"
	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
	"github.com/tranter-ci/tranter/internal/executor/docker/image"
	"github.com/tranter-ci/tranter/internal/executor/docker/janitor"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
	"github.com/tranter-ci/tranter/internal/variables"
)

// opening is the making of one session.
type opening struct {
	*Executor
	host    *host
	given   tranter.SessionSpec
	log     *lines
	logins  image.Logins
	id      string // of the session
	spec    *spec.Spec
	session *session

	seen    *image.Seen
	started []started
	helped  chan struct{} // closed once the helper container has started
	hosts   []spec.Host   // of the services, once they run
}

// expiry is how long after its job's timeout what belongs to a session may be removed by any manager.
const expiry = 2 * time.Hour

// Open implements tranter.Executor: images are had, services started and asked whether they answer, the helper container
// is started, the build container made. Its start goes on while the sources are fetched.
func (e *Executor) Open(ctx context.Context, given tranter.SessionSpec) (tranter.Session, error) {
	h, err := e.connectInTime(ctx)
	if err != nil {
		return nil, err
	}
	o := &opening{Executor: e, host: h, given: given, log: &lines{w: given.Log}, seen: &image.Seen{}}
	if err := o.compile(); err != nil {
		return nil, err
	}
	err = o.open(ctx)
	o.log.end()
	if err == nil {
		return o.session, nil
	}
	closing, stop := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer stop()
	if left := o.session.Close(closing); left != nil {
		h.log.Warn("What was made for a job that could not start is not removed yet", "job", given.Job.ID, "error", left)
	}
	if engine.Gone(err) {
		h.await(ctx) // the next attempt is to find it
	}
	return nil, withLoss(err)
}

// restartTime is how long an engine that has gone away while a job was prepared is waited for: as long as a restart takes.
const restartTime = 30 * time.Second

// connectInTime is connect with patience for an engine that is being restarted.
func (e *Executor) connectInTime(ctx context.Context) (*host, error) {
	h, err := e.connect(ctx)
	limit := min(restartTime, e.options.Settings.ReconnectTimeout)
	if !engine.Gone(err) || limit <= 0 {
		return h, err
	}
	// The job's log says it when the attempt has failed: a successor that repeats it could not tell.
	e.options.Log.Warn("A job waits for its container engine", "at_most", limit, "error", err)
	waiting, stop := context.WithTimeout(ctx, limit)
	defer stop()
	for engine.Gone(err) && pause(waiting, lastWait/2) {
		h, err = e.connect(ctx)
	}
	return h, err
}

// await waits for an engine that has gone away.
func (h *host) await(ctx context.Context) {
	ctx, stop := context.WithTimeout(ctx, min(restartTime, h.patience))
	defer stop()
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		_, err := h.engine.API().Ping(ctx, client.PingOptions{})
		if !engine.Gone(err) || !pause(ctx, wait) {
			return
		}
	}
}

// compile turns settings and job into what to ask of the engine.
func (o *opening) compile() error {
	volume, err := o.host.agent.volume()
	if err != nil {
		return err
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	o.id = hex.EncodeToString(id)
	list := variables.List(o.given.Variables)
	facts, slots, runner := o.host.engine.Facts(), slotsOf(list), o.options.Runner
	runner.LocalID = slots.Runner
	o.spec, err = spec.Compile(spec.Input{
		Settings: o.options.Settings, Job: o.given.Job, Variables: list, Dirs: o.given.Dirs, Runner: runner,
		Slots: slots, Session: o.id, Name: o.given.Name, Flags: flagsOf(list),
		Expires: time.Now().Add(o.given.Job.Timeout() + expiry), Agent: spec.AgentVolume{Volume: volume, Room: o.options.Room},
		API: facts.APIVersion, Podman: facts.Podman, Mirror: o.host.mirror, ReadFile: os.ReadFile,
	})
	if err != nil {
		return err
	}
	o.logins = image.LoginsOf(list.Get("DOCKER_AUTH_CONFIG"), environmentValue(o.options.Environment, "DOCKER_AUTH_CONFIG"), o.options.Home, o.given.Job.Credentials)
	if on, _ := list.Bool("FF_LOG_IMAGES_CONFIGURED_FOR_JOB"); on {
		o.logImages()
	}
	return nil
}

// logImages has the manager's log say which images the job uses.
func (o *opening) logImages() {
	services := make([]string, 0, len(o.spec.Services))
	for _, v := range o.spec.Services {
		services = append(services, v.Image)
	}
	o.host.log.Info("Images of the job", "job", o.given.Job.ID, "image", o.spec.Image, "services", services)
}

// flagsOf returns the feature flags, which the job's variables hold resolved.
func flagsOf(list variables.List) map[string]bool {
	flags := map[string]bool{}
	for _, v := range list {
		if strings.HasPrefix(v.Key, "FF_") {
			flags[v.Key], _ = list.Bool(v.Key)
		}
	}
	return flags
}

// slotsOf returns the job's places, which its variables tell. A job can have variables of the same names; they do not
// count, or it would choose whose volumes it gets.
func slotsOf(list variables.List) variables.Slots {
	number := func(key string) int {
		for _, v := range slices.Backward(list) {
			if v.Key == key && v.Internal {
				n, _ := strconv.Atoi(v.Value) // the runner's own
				return n
			}
		}
		return 0
	}
	return variables.Slots{Runner: number("CI_CONCURRENT_ID"), Project: number("CI_CONCURRENT_PROJECT_ID")}
}

// environmentValue returns the value of a variable among KEY=VALUE; the last one counts.
func environmentValue(environ []string, key string) string {
	value := ""
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			value = v
		}
	}
	return value
}

func (o *opening) open(ctx context.Context) error {
	o.session = newSession(ctx, o.host, o.reference())
	if err := o.intend(ctx); err != nil {
		return err
	}
	for _, name := range o.spec.Caches {
		o.session.hold(o.host, janitor.Volume, name)
	}
	o.log.printf("Using Docker executor with image %s ...", o.spec.Image)
	for _, w := range o.spec.Warnings {
		o.log.printf("WARNING: %s", w)
	}
	if err := o.network(ctx); err != nil {
		return err
	}
	if err := o.volumes(ctx); err != nil {
		return err
	}
	for _, v := range o.spec.Services {
		o.log.order("service " + v.Name)
	}
	o.log.order("helper", "build")
	work, working := errgroup.WithContext(ctx)
	ready := make(chan struct{}) // closed once the build container can be told of the services
	work.Go(func() error {
		defer close(ready)
		return o.startServices(working)
	})
	if o.helped = make(chan struct{}); o.spec.Helperless {
		o.log.done("helper")
		close(o.helped)
	} else {
		work.Go(func() error { return o.makeHelper(working) })
	}
	work.Go(func() error { return o.makeBuild(working, ready) })
	if err := work.Wait(); err != nil {
		return err
	}
	if err := o.nameServices(ctx); err != nil {
		return err
	}
	o.noteServices()
	return o.awaitServices(ctx)
}

// nameServices tells the helper container of the services, which were started beside it. It knows their names then for
// what hooks do there.
func (o *opening) nameServices(ctx context.Context) error {
	lines := o.spec.HostLines(o.hosts)
	helper := o.session.box(tranter.PlaceHelper)
	if len(lines) == 0 || helper == nil {
		return nil
	}
	c, err := helper.client(ctx)
	if err != nil {
		return err
	}
	if err := helper.told(c, c.Hosts(ctx, lines)); err != nil {
		o.log.printf("WARNING: services can't be reached by their names from the helper container: %v", err)
	}
	return context.Cause(ctx)
}

// reference names all that will be made, before it is.
func (o *opening) reference() reference {
	r := reference{
		Docker: o.host.address, Session: o.id, Dirs: o.given.Dirs, Volumes: o.spec.Temporary, KeepVolumes: o.spec.KeepVolumes,
		HandOver:   flagsOf(o.given.Variables)["FF_DISABLE_UMASK_FOR_DOCKER_EXECUTOR"],
		Containers: map[tranter.Place]string{tranter.PlaceBuild: o.spec.Prefix + "-build"}, Images: map[tranter.Place]string{},
	}
	if !o.spec.Helperless {
		r.Containers[tranter.PlaceHelper] = o.spec.Prefix + "-predefined"
	}
	for _, v := range o.spec.Services {
		r.Services = append(r.Services, v.Container)
	}
	if n := o.spec.Network(); n != nil {
		r.Network = n.Name
	}
	return r
}

// intentFile is where, in the job's directory, that is kept until the manager knows the session.
const intentFile = "docker-session.json"

// intend keeps the names of what is about to be made, after it has removed what an earlier try has made that was killed on
// the way.
func (o *opening) intend(ctx context.Context) error {
	file := filepath.Join(o.given.Dir, intentFile)
	var before reference
	if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &before) == nil && before.Docker == o.host.address {
		if err := newSession(ctx, o.host, before).Close(ctx); err != nil {
			return fmt.Errorf("remove what an earlier try has left: %w", err)
		}
	}
	if err := os.WriteFile(file, o.session.Ref(), 0o600); err != nil {
		return fmt.Errorf("keep what the job will have on the engine: %w", err)
	}
	return nil
}

// network makes the job's own network, if it gets one (runner contract, section 9.10).
func (o *opening) network(ctx context.Context) error {
	wanted := o.spec.Network()
	if wanted == nil {
		return nil
	}
	creating, created := finishing(ctx)
	defer created()
	if _, err := o.host.engine.API().NetworkCreate(creating, wanted.Name, wanted.Options); err != nil {
		return fmt.Errorf("make the job's network: %w", engine.Explain(err))
	}
	return nil
}

// volumes makes the job's volumes for an engine that does not label those that it makes along with containers, so that
// they would not be found again.
func (o *opening) volumes(ctx context.Context) error {
	if !o.host.engine.Facts().Podman {
		return nil
	}
	for _, v := range o.spec.Volumes() {
		if _, err := o.host.engine.API().VolumeCreate(ctx, v); err != nil && !engine.Conflict(err) {
			return fmt.Errorf("make the volume %s: %w", v.Name, engine.Explain(err))
		}
	}
	return nil
}

// noteServices keeps the services whose output goes into the job's log.
func (o *opening) noteServices() {
	if on, _ := variables.List(o.given.Variables).Bool("CI_DEBUG_SERVICES"); !on || o.options.DebugDisabled {
		return
	}
	for _, s := range o.started {
		o.session.ref.Follow = append(o.session.ref.Follow, followed{Container: s.Container, Name: strings.Join(s.Aliases, "-")})
	}
	o.session.followAll(time.Time{})
}

// makeHelper gets the helper image and starts its container.
func (o *opening) makeHelper(ctx context.Context) error {
	end := sync.OnceFunc(func() { close(o.helped) })
	defer end()
	spare := o.host.engine.Spare(ctx)
	defer spare.Close()
	facts, err := o.helperImage(ctx)
	if err != nil {
		return err
	}
	b, err := o.make(ctx, tranter.PlaceHelper, facts, o.spec.Helper(spec.Image{Use: facts.Use}, nil))
	if err != nil {
		return err
	}
	b.spare = spare
	if err := b.start(ctx); err != nil {
		return err
	}
	end()
	hello, err := o.enter(ctx, b)
	if o.host.guard != nil {
		o.host.guard.Saw(hello.Room)
	}
	return err
}

// makeBuild gets the job's image and makes its container.
func (o *opening) makeBuild(ctx context.Context, ready <-chan struct{}) error {
	d := o.options.Settings
	if !image.Allowed(d.AllowedImages, []string{o.spec.DefaultImage()}, o.spec.Image) {
		return image.Refused("allowed_images", d.AllowedImages, o.spec.Image)
	}
	facts, err := o.image(ctx, image.Wanted{Name: o.spec.Image, Platform: o.spec.Platform, What: "build"}, o.spec.PullPolicy)
	if err != nil {
		return err
	}
	var hosts []spec.Host
	if o.spec.Linked && len(o.spec.Services) > 0 {
		if err := waitFor(ctx, ready); err != nil {
			return err
		}
		hosts = o.hosts
	}
	used := spec.Image{Use: facts.Use, Entrypoint: facts.Entrypoint}
	b, err := o.make(ctx, tranter.PlaceBuild, facts, o.spec.Build(used, hosts))
	if err != nil {
		return err
	}
	if len(o.spec.Entrypoint(used)) > 0 {
		b.entrypoint = d.EntrypointTimeout
	}
	if !o.spec.Helperless {
		o.session.begin(b, o.helped)
		return nil
	}
	if err := b.start(ctx); err != nil {
		return err
	}
	_, err = o.enter(ctx, b)
	return err
}

// make makes the container of an agent.
func (o *opening) make(ctx context.Context, place tranter.Place, facts image.Facts, wanted client.ContainerCreateOptions) (*box, error) {
	if err := o.host.agent.ensure(ctx, o.host.engine, facts.Use); err != nil {
		return nil, err
	}
	b := o.session.addBox(place, wanted.Name, facts.Name)
	b.use = facts.Use
	creating, created := finishing(ctx)
	defer created()
	made, err := o.host.engine.API().ContainerCreate(creating, wanted)
	if err != nil {
		return nil, creationError(string(place)+" (image "+facts.Name+")", err)
	}
	for _, w := range made.Warnings {
		o.log.printf("WARNING: %s", w)
	}
	return b, nil
}

// enter waits until the agent of a container that was started can work.
func (o *opening) enter(ctx context.Context, b *box) (link.Hello, error) {
	var hello link.Hello
	err := o.session.patiently(ctx, func() (err error) {
		hello, err = b.enter(ctx, environ(o.given.Variables, o.given.Dirs), func(line string) { o.log.printf("%s", line) })
		return err
	})
	for _, t := range hello.Trouble {
		o.log.printf("WARNING: %s", t)
	}
	return hello, err
}

// Helper images that serve where the configuration names none: one that was made here, else the stock runner's.
const (
	OwnHelper   = "tranter-helper:latest"
	StockHelper = "registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper"
	// stockVersion is the stock runner's whose helper image is used: any will do that has git.
	stockVersion = "v19.4.0"
)

// helperImage gets the helper image: the configured one, one of ours that the engine has, or the stock runner's, whose
// git serves as well (runner contract, section 9.6).
func (o *opening) helperImage(ctx context.Context) (image.Facts, error) {
	if o.spec.HelperImage != "" {
		return o.image(ctx, image.Wanted{Name: o.spec.HelperImage, What: "helper"}, nil)
	}
	defer o.log.done("helper")
	var own bytes.Buffer
	facts, err := o.host.images.Get(ctx, image.Wanted{Name: OwnHelper, Policies: []string{image.Never}, What: "helper"}, &own)
	if err == nil {
		o.session.hold(o.host, janitor.Image, facts.ID)
		return facts, nil
	}
	if engine.Gone(err) || ctx.Err() != nil {
		return facts, err
	}
	facts, err = o.host.images.Get(ctx, image.Wanted{Name: stockHelperImage(o.spec.HelperFlavor, o.host.engine.Facts().Arch), Policies: []string{image.IfNotPresent}, What: "helper", Logins: o.logins}, o.log.of("helper"))
	if err != nil {
		return facts, fmt.Errorf("get a helper image (make one with \"make helper-image\", or set helper_image in [runners.docker]): %w", err)
	}
	o.session.hold(o.host, janitor.Image, facts.ID)
	return facts, nil
}

// stockHelperImage returns the stock runner's helper image of a flavour for an architecture as Go calls it.
func stockHelperImage(flavor, arch string) string {
	if flavor == "alpine" {
		flavor = ""
	}
	if flavor != "" {
		flavor += "-"
	}
	if arch == "amd64" {
		arch = "x86_64"
	}
	return StockHelper + ":" + flavor + arch + "-" + stockVersion
}

func waitFor(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return context.Cause(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// environ returns the job's variables as the image's entrypoint gets them: file variables as paths.
func environ(list []tranter.Variable, dirs tranter.Dirs) []string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		value := v.Value
		if v.File {
			value = path.Join(dirs.Temp, v.Key)
		}
		if v.Key != "" && !strings.ContainsRune(v.Key+value, 0) && !strings.Contains(v.Key, "=") {
			out = append(out, v.Key+"="+value)
		}
	}
	return out
}
