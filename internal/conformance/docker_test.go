package conformance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/coordinator/coordinatortest"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/executor/docker/spec"
)

// maker makes a GitLab and a runner with some executor; global and section are lines to add to its configuration.
type maker func(t *testing.T, global, section string) *rig

// onEach runs the cases of a test over each executor that has all that they are about.
func onEach(t *testing.T, test func(t *testing.T, newRig maker)) {
	t.Helper()
	t.Parallel()
	for name, newRig := range makers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newRig)
		})
	}
}

func makers() map[string]maker { return map[string]maker{"shell": newRig, "docker": dockerRig} }

// dockerRig is a rig whose jobs run in containers of the machine's engine, with an image that has bash and git. The rig's
// directory is there too, and that of the builds is in it. They share the machine's network, so that they reach GitLab.
func dockerRig(t *testing.T, global, section string) *rig {
	t.Helper()
	return dockerRigWith(t, global, section, "")
}

// dockerRigWith is dockerRig with lines for [runners.docker].
func dockerRigWith(t *testing.T, global, section, docker string) *rig {
	t.Helper()
	site := engineSite{host: enginetest.Host(t), address: "127.0.0.1", image: enginetest.Image}
	return containerRig(t, site, global, section, "network_mode = \"host\"\n"+docker)
}

// engineSite is an engine and how its containers reach this machine.
type engineSite struct {
	host    string
	address string
	image   func(t testing.TB, name string) string
}

// containerRig makes a rig on an engine. Nothing may be left there by the end of the test.
func containerRig(t *testing.T, site engineSite, global, section, docker string) *rig {
	t.Helper()
	r := &rig{GitLab: coordinatortest.NewAt(t, site.address, quick), t: t, dir: t.TempDir(), program: program, output: &output{}}
	r.engine = site.host
	r.jobs = fmt.Sprintf("[runners.docker]\nhost = %q\nhelper_image = %q\npull_policy = \"if-not-present\"\n%s\n", site.host, site.image(t, "helper"), docker)
	if !strings.Contains(docker, "image = ") {
		r.jobs += fmt.Sprintf("image = %q\n", site.image(t, "debian"))
	}
	if !strings.Contains(docker, "volumes = ") {
		r.jobs += fmt.Sprintf("volumes = [%q, %q, %q]\n", r.dir+":"+r.dir, r.path("builds")+":/builds", r.path("cache")+":/cache")
	}
	if err := os.MkdirAll(r.path("builds"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.configure(global, section)
	t.Cleanup(func() { r.removeAll() }) // when the manager has ended
	r.cleanUp()
	t.Cleanup(func() { r.nothingLeft() })
	return r
}

// ours names what the rig's jobs have on the engine; caches too if all.
func (r *rig) ours(all bool) (containers, networks, volumes []string) {
	r.t.Helper()
	ctx, api := context.WithoutCancel(r.t.Context()), enginetest.Client(r.t, r.engine)
	filters := make(client.Filters).Add("label", spec.LabelRunner+"="+r.Token.Short())
	cs, err := api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, c := range cs.Items {
		containers = append(containers, strings.TrimPrefix(c.Names[0], "/"))
	}
	ns, err := api.NetworkList(ctx, client.NetworkListOptions{Filters: filters})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, n := range ns.Items {
		networks = append(networks, n.Name)
	}
	vs, err := api.VolumeList(ctx, client.VolumeListOptions{Filters: filters})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, v := range vs.Items {
		if all || v.Labels[spec.StockLabel+"type"] != "cache" {
			volumes = append(volumes, v.Name)
		}
	}
	return containers, networks, volumes
}

// nothingLeft waits until nothing of the rig's jobs is on the engine, while its manager runs.
func (r *rig) nothingLeft() {
	r.t.Helper()
	if r.cmd == nil || r.t.Failed() {
		return
	}
	r.eventually("nothing of the jobs is left on the engine", func() bool {
		c, n, v := r.ours(false)
		return len(c)+len(n)+len(v) == 0
	})
}

// removeAll removes what is still there, caches above all.
func (r *rig) removeAll() {
	r.t.Helper()
	ctx, api := context.WithoutCancel(r.t.Context()), enginetest.Client(r.t, r.engine)
	containers, networks, volumes := r.ours(true)
	var all sync.WaitGroup
	for _, name := range containers {
		all.Go(func() {
			_, _ = api.ContainerRemove(ctx, name, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		})
	}
	all.Wait()
	for _, name := range networks {
		_, _ = api.NetworkRemove(ctx, name, client.NetworkRemoveOptions{})
	}
	for _, name := range volumes {
		_, _ = api.VolumeRemove(ctx, name, client.VolumeRemoveOptions{Force: true})
	}
}

// removeAgent removes the volume with a program from the machine's engine.
func removeAgent(path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		return
	}
	api, err := client.New(client.FromEnv)
	if err != nil {
		return
	}
	defer func() { _ = api.Close() }()
	sum := sha256.Sum256(data)
	_, _ = api.VolumeRemove(context.Background(), "tranter-agent-"+hex.EncodeToString(sum[:])[:16], client.VolumeRemoveOptions{})
}
