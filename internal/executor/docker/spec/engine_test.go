package spec

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
)

// rig is an engine with an image, and a container, a network and a volume that settings can refer to.
type rig struct {
	api   *client.Client
	image string
	world world
	owner string // label of all that is made
}

func newRig(t *testing.T) *rig {
	t.Helper()
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		t.Fatal(err)
	}
	name := "tranter-spec-" + hex.EncodeToString(id)
	r := &rig{api: enginetest.Client(t, enginetest.Host(t)), owner: name}
	t.Cleanup(func() { r.clean(t) })
	info, err := r.api.Info(t.Context(), client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.world = world{container: name, volume: name, dir: t.TempDir(), platform: "linux/" + info.Info.Architecture}
	r.image = r.importImage(t, name)
	if _, err := r.api.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: name, Image: r.image, Config: labelled(name)}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.api.NetworkCreate(t.Context(), name, client.NetworkCreateOptions{Driver: "bridge", Labels: labelled(name).Labels}); err != nil {
		t.Fatal(err)
	}
	return r
}

// importImage makes an image with nothing but a directory in it: no container is started.
func (r *rig) importImage(t *testing.T, name string) string {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	answer, err := r.api.ImageImport(t.Context(), client.ImageImportSource{Source: &archive, SourceName: "-"}, name, client.ImageImportOptions{Changes: []string{`CMD ["/none"]`}})
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(answer); err != nil || !strings.Contains(text.String(), "sha256:") {
		t.Fatalf("import an image: %v: %s", err, text.String())
	}
	found, err := r.api.ImageInspect(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return found.ID
}

// clean removes all that carries the rig's label.
func (r *rig) clean(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ours := client.Filters{}.Add("label", LabelOwner+"="+r.owner)
	containers, err := r.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: ours})
	if err != nil {
		t.Error(err)
	}
	for _, c := range containers.Items {
		if _, err := r.api.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
			t.Error(err)
		}
	}
	networks, err := r.api.NetworkList(ctx, client.NetworkListOptions{Filters: ours})
	if err != nil {
		t.Error(err)
	}
	for _, n := range networks.Items {
		if _, err := r.api.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{}); err != nil {
			t.Error(err)
		}
	}
	volumes, err := r.api.VolumeList(ctx, client.VolumeListOptions{Filters: ours})
	if err != nil {
		t.Error(err)
	}
	for _, v := range volumes.Items {
		if _, err := r.api.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{}); err != nil {
			t.Error(err)
		}
	}
	_, _ = r.api.VolumeRemove(ctx, r.world.volume, client.VolumeRemoveOptions{}) // a name in volumes is not ours to label
	_, _ = r.api.VolumeRemove(ctx, r.owner+"-agent", client.VolumeRemoveOptions{})
	if _, err := r.api.ImageRemove(ctx, r.owner, client.ImageRemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
}

// input returns a job's input with names that are this rig's alone.
func (r *rig) input(name string, change func(*Input)) Input {
	in := input()
	change(&in)
	in.API = r.api.ClientVersion()
	in.Expires = time.Now().Add(time.Hour) // what has expired may be removed by another package's sweep of the same engine
	in.Runner.Owner, in.Runner.ShortToken, in.Runner.Token = r.owner, r.owner, tranter.Secret(r.owner+name)
	in.Settings.EnableIPv6 = false // engines before 27 have no addresses for it unless they are told
	in.Agent.Volume = r.owner + "-agent"
	sum := hex.EncodeToString([]byte(name))
	in.Session = (sum + strings.Repeat("0", 16))[:16]
	for i := range in.Settings.SecurityOpt {
		// The engine of a machine without AppArmor refuses to name a profile.
		if _, err := os.Stat("/sys/kernel/security/apparmor"); err != nil && strings.HasPrefix(in.Settings.SecurityOpt[i], "apparmor=") {
			in.Settings.SecurityOpt[i] = "label=disable"
		}
	}
	return in
}

func TestTheEngineTakesEveryRequest(t *testing.T) {
	r := newRig(t)
	for name, change := range cases(r.world) {
		t.Run(name, func(t *testing.T) {
			s := compile(t, r.input(name, change))
			want := all(s)
			if n := want.Network; n != nil {
				if _, err := r.api.NetworkCreate(t.Context(), n.Name, n.Options); err != nil {
					t.Fatal(err)
				}
			}
			requests := append([]client.ContainerCreateOptions{want.Helper, want.Build}, want.Services...)
			for _, request := range requests {
				request.Config.Image = r.image
				made, err := r.api.ContainerCreate(t.Context(), request)
				if err != nil {
					t.Errorf("%s: %v", request.Name, err)
					continue
				}
				found, err := r.api.ContainerInspect(t.Context(), made.ID, client.ContainerInspectOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if len(found.Container.Mounts) < len(request.HostConfig.Mounts)+len(request.HostConfig.Binds) {
					t.Errorf("%s: mounts %+v", request.Name, found.Container.Mounts)
				}
				for k, v := range request.Config.Labels {
					if found.Container.Config.Labels[k] != v {
						t.Errorf("%s: label %s is %q", request.Name, k, found.Container.Config.Labels[k])
					}
				}
				if _, err := r.api.ContainerRemove(t.Context(), made.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestVolumesAreMadeWithTheirLabels(t *testing.T) {
	r := newRig(t)
	s := compile(t, r.input("labels", func(in *Input) {
		in.Settings.Volumes = []string{"/cache", filepath.Join(r.world.dir, "x") + ":/x"}
		in.Job.AllowGitFetch = false
	}))
	request := s.Helper(Image{Use: r.image}, nil)
	made := map[string]client.VolumeCreateOptions{}
	for _, v := range s.Volumes() {
		made[v.Name] = v
	}
	if _, err := r.api.ContainerCreate(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if len(s.Caches) != 1 || len(s.Temporary) != 1 {
		t.Fatalf("caches %q, temporary %q", s.Caches, s.Temporary)
	}
	for name, want := range map[string]string{s.Caches[0]: "", s.Temporary[0]: "1"} {
		v, err := r.api.VolumeInspect(t.Context(), name, client.VolumeInspectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if v.Volume.Labels[LabelTemporary] != want || v.Volume.Labels[LabelOwner] != r.owner || v.Volume.Labels[StockLabel+"destination"] == "" {
			t.Errorf("%s: labels %v", name, v.Volume.Labels)
		}
		if d := cmp.Diff(made[name].Labels, v.Volume.Labels); d != "" || len(made) != 2 {
			t.Errorf("%s: the request of its own differs: %s", name, d)
		}
	}
}

func labelled(owner string) *container.Config {
	return &container.Config{Labels: map[string]string{LabelOwner: owner}}
}
