package janitor

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

const (
	// DefaultMirrorImage is the distribution registry, which is a pull-through cache when it is told of a remote.
	DefaultMirrorImage = "registry:2"
	// DefaultMirrorRemote is the registry that images without a host come from.
	DefaultMirrorRemote = "https://registry-1.docker.io"

	mirrorName  = "tranter-registry-mirror-"
	mirrorData  = "/var/lib/registry" // where the image keeps its blobs
	mirrorPort  = "5000/tcp"
	firstPort   = 28500 // below the range from which Linux takes ports for clients
	portRange   = 1000
	portTries   = 8
	mirrorTime  = time.Minute            // to come up
	mirrorLook  = 100 * time.Millisecond // between two looks
	mirrorQuiet = 2 * time.Second        // to run without an end, where it can't be asked
	lastWords   = 2 << 10
)

// MirrorOptions say what a registry mirror is made from.
type MirrorOptions struct {
	Image  string // empty: DefaultMirrorImage
	Remote string // address of the registry whose images are kept; empty: DefaultMirrorRemote
	Owner  string // id of the manager
	Name   string // of container and volume; empty: made from the owner
	// Pull gets the image onto the engine if it is not there; nil: it is pulled without a login.
	Pull func(ctx context.Context, image string) error `json:"-"`
}

// Mirror is where a mirror answers.
type Mirror struct {
	EngineAddress string // host and port as the engine reaches it, on its loopback, where no TLS is needed
	ServiceURL    string // as containers reach it; empty if the engine has no bridge with an address of its own
}

// name is that of the mirror's container and volume.
func (o MirrorOptions) name() string {
	sum := sha256.Sum256([]byte(o.Owner))
	return cmp.Or(o.Name, mirrorName+hex.EncodeToString(sum[:4]))
}

// hash tells options from others.
func (o MirrorOptions) hash(gateway netip.Addr) string {
	text, _ := json.Marshal([]any{"1", o.Image, o.Remote, o.Owner, gateway.String()}) // strings always can be
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// EnsureMirror has a registry run on the engine that keeps what it fetches from Remote, and returns where. One that runs
// already with the same options is used; one with others is replaced, and keeps its data. It is started again with the
// engine, and listens on the engine's loopback and on the gateway of the engine's default bridge only. Its port stays the
// same as long as it is not replaced.
func EnsureMirror(ctx context.Context, e *engine.Engine, o MirrorOptions) (Mirror, error) {
	o.Image, o.Remote = cmp.Or(o.Image, DefaultMirrorImage), cmp.Or(o.Remote, DefaultMirrorRemote)
	m, err := ensureMirror(ctx, e, o)
	if err != nil {
		return Mirror{}, fmt.Errorf("start the registry mirror %s: %w", o.name(), engine.Explain(err))
	}
	return m, nil
}

func ensureMirror(ctx context.Context, e *engine.Engine, o MirrorOptions) (Mirror, error) {
	gateway, err := bridgeGateway(ctx, e)
	if err != nil {
		return Mirror{}, err
	}
	id, port, err := o.existing(ctx, e.API(), gateway)
	if err != nil {
		return Mirror{}, err
	}
	if id == "" {
		if err := errors.Join(o.image(ctx, e.API()), o.volume(ctx, e)); err != nil {
			return Mirror{}, err
		}
		if id, port, err = o.start(ctx, e.API(), gateway); err != nil {
			return Mirror{}, err
		}
	}
	m := Mirror{EngineAddress: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	if gateway.IsValid() {
		m.ServiceURL = "http://" + net.JoinHostPort(gateway.String(), strconv.Itoa(port))
	}
	return m, awaitMirror(ctx, e, id, m.EngineAddress)
}

// bridgeGateway is the engine's own address on its default bridge; none if there is no such bridge.
func bridgeGateway(ctx context.Context, e *engine.Engine) (netip.Addr, error) {
	if e.Facts().Rootless { // its bridge is in a network namespace from which ports are forwarded to the loopback only
		return netip.Addr{}, nil
	}
	name := "bridge"
	if e.Facts().Podman {
		name = "podman"
	}
	found, err := e.API().NetworkInspect(ctx, name, client.NetworkInspectOptions{})
	if engine.Missing(err) {
		return netip.Addr{}, nil
	}
	if err != nil {
		return netip.Addr{}, err
	}
	for _, c := range found.Network.IPAM.Config {
		if c.Gateway.Is4() {
			return c.Gateway, nil
		}
		if c.Subnet.Addr().Is4() { // it is not told unless the engine was: the first address is the engine's
			return c.Subnet.Masked().Addr().Next(), nil
		}
	}
	return netip.Addr{}, nil
}

// existing returns the mirror that is there and the port that it has. One with other options is removed.
func (o MirrorOptions) existing(ctx context.Context, api *client.Client, gateway netip.Addr) (id string, port int, err error) {
	found, err := api.ContainerInspect(ctx, o.name(), client.ContainerInspectOptions{})
	if engine.Missing(err) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	c := found.Container
	if c.Config == nil || c.HostConfig == nil || c.Config.Labels[labelType] != typeMirror {
		return "", 0, errors.New("another container has that name: remove or rename it")
	}
	if port = publishedPort(c.HostConfig.PortBindings); port != 0 && c.Config.Labels[labelOptions] == o.hash(gateway) {
		if c.State == nil || !c.State.Running {
			if _, err := api.ContainerStart(ctx, c.ID, client.ContainerStartOptions{}); err != nil {
				return "", 0, err
			}
		}
		return c.ID, port, nil
	}
	return "", 0, removeContainer(ctx, api, c.ID)
}

func publishedPort(ports network.PortMap) int {
	for _, bound := range ports {
		for _, b := range bound {
			if n, err := strconv.Atoi(b.HostPort); err == nil && n > 0 {
				return n
			}
		}
	}
	return 0
}

// image gets the mirror's image.
func (o MirrorOptions) image(ctx context.Context, api *client.Client) error {
	_, err := api.ImageInspect(ctx, o.Image)
	if err == nil || !engine.Missing(err) {
		return err
	}
	if o.Pull != nil {
		return o.Pull(ctx, o.Image)
	}
	pulling, err := api.ImagePull(ctx, o.Image, client.ImagePullOptions{})
	if err == nil {
		err = pulling.Wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("pull its image %s (registry_mirror_image): %w", o.Image, err)
	}
	return nil
}

// volume makes the volume for an engine that does not label those that it makes along with containers, so that RemoveMirror
// would not find it.
func (o MirrorOptions) volume(ctx context.Context, e *engine.Engine) error {
	if !e.Facts().Podman {
		return nil
	}
	_, err := e.API().VolumeCreate(ctx, client.VolumeCreateOptions{Name: o.name(), Labels: o.labels()})
	if engine.Conflict(err) { // an earlier mirror's
		return nil
	}
	return err
}

func (o MirrorOptions) labels() map[string]string {
	return map[string]string{labelType: typeMirror, labelOwner: o.Owner}
}

// start makes and starts the container on the first port of a few that nobody has.
func (o MirrorOptions) start(ctx context.Context, api *client.Client, gateway netip.Addr) (id string, port int, err error) {
	sum := sha256.Sum256([]byte(o.name()))
	base := int(sum[0])<<8 | int(sum[1])
	for try := range portTries {
		port = firstPort + (base+try)%portRange
		made, created := api.ContainerCreate(ctx, o.request(gateway, port))
		if created != nil {
			return "", 0, created
		}
		if _, err = api.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err == nil {
			return made.ID, port, nil
		}
		if removed := removeContainer(context.WithoutCancel(ctx), api, made.ID); removed != nil || ctx.Err() != nil {
			return "", 0, errors.Join(err, removed)
		}
	}
	return "", 0, err
}

// request is the container that is asked for.
func (o MirrorOptions) request(gateway netip.Addr, port int) client.ContainerCreateOptions {
	inside := network.MustParsePort(mirrorPort)
	bound := []network.PortBinding{{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1}), HostPort: strconv.Itoa(port)}}
	if gateway.IsValid() {
		bound = append(bound, network.PortBinding{HostIP: gateway, HostPort: strconv.Itoa(port)})
	}
	config := map[string]string{labelOptions: o.hash(gateway), labelType: typeMirror, labelOwner: o.Owner}
	return client.ContainerCreateOptions{
		Name: o.name(),
		Config: &container.Config{
			Image: o.Image, Labels: config, ExposedPorts: network.PortSet{inside: {}},
			Env: []string{"REGISTRY_PROXY_REMOTEURL=" + o.Remote, "OTEL_TRACES_EXPORTER=none"},
		},
		HostConfig: &container.HostConfig{
			RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyAlways},
			PortBindings:  network.PortMap{inside: bound},
			LogConfig:     container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m"}},
			Mounts: []mount.Mount{{
				Type: mount.TypeVolume, Source: o.name(), Target: mirrorData, VolumeOptions: &mount.VolumeOptions{Labels: o.labels()},
			}},
		},
	}
}

// awaitMirror waits until the mirror answers, or, where it can't be asked from here, until it has run for a moment.
func awaitMirror(ctx context.Context, e *engine.Engine, id, address string) error {
	ctx, stop := context.WithTimeout(ctx, mirrorTime)
	defer stop()
	begin := time.Now()
	again := time.NewTicker(mirrorLook)
	defer again.Stop()
	var last error
	for {
		state, err := mirrorState(ctx, e.API(), id)
		switch {
		case err != nil && ctx.Err() == nil:
			return err
		case err != nil: // the time is over: why it did not answer says more
		case e.Facts().Local:
			if last = answers(ctx, address); last == nil {
				return nil
			}
		case state.Running && time.Since(begin) >= mirrorQuiet:
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("it does not answer: %w", cmp.Or(last, context.Cause(ctx))), said(context.WithoutCancel(ctx), e.API(), id))
		case <-again.C:
		}
	}
}

// mirrorState is the state of a mirror that may still come up. One that has ended once will not.
func mirrorState(ctx context.Context, api *client.Client, id string) (*container.State, error) {
	found, err := api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return nil, err
	}
	state := found.Container.State
	if state == nil {
		state = &container.State{}
	}
	if state.Restarting || state.Status == container.StateExited || state.Status == container.StateDead {
		return nil, errors.Join(fmt.Errorf("it has ended with exit code %d", state.ExitCode), said(ctx, api, id))
	}
	return state, nil
}

// said is what the mirror has written last, as an error; nil if it was nothing.
func said(ctx context.Context, api *client.Client, id string) error {
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	logs, err := api.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "5"})
	if err != nil {
		return nil // it would only have explained the error that there is
	}
	defer logs.Close()
	var text bytes.Buffer
	_ = engine.CopyLogs(&text, io.LimitReader(logs, lastWords)) // what there is
	words := strings.TrimSpace(strings.ToValidUTF8(text.String(), "?"))
	if words == "" {
		return nil
	}
	return fmt.Errorf("it said: %s", words)
}

// answers asks a registry whether it is one.
func answers(ctx context.Context, address string) error {
	ctx, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v2/", http.NoBody)
	if err != nil {
		return err
	}
	direct := &http.Transport{DisableKeepAlives: true} // never by a proxy
	response, err := direct.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("http://%s/v2/ answers %s", address, response.Status)
	}
	return nil
}

// RemoveMirror removes the mirrors of owner with their data; empty: all of this runner's on the engine. None is no error.
func RemoveMirror(ctx context.Context, e *engine.Engine, owner string) (Swept, error) {
	doomed, err := mirrors(ctx, e, owner)
	if err != nil {
		return Swept{}, err
	}
	return doomed.remove(ctx, e.API())
}

// Mirrors names what RemoveMirror would remove.
func Mirrors(ctx context.Context, e *engine.Engine, owner string) (Swept, error) {
	doomed, err := mirrors(ctx, e, owner)
	return doomed.names(), err
}

func mirrors(ctx context.Context, e *engine.Engine, owner string) (stock, error) {
	found, err := list(ctx, e.API())
	if err != nil {
		return stock{}, fmt.Errorf("look for the registry mirror: %w", engine.Explain(err))
	}
	is := func(labels map[string]string) bool {
		return isMirror(labels) && (owner == "" || labels[labelOwner] == owner)
	}
	var out stock
	for _, c := range found.containers {
		if is(c.Labels) {
			out.containers = append(out.containers, c)
		}
	}
	for _, v := range found.volumes {
		if is(v.Labels) {
			out.volumes = append(out.volumes, v)
		}
	}
	return out, nil
}
