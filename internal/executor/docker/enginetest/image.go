package enginetest

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
)

// built is an image that is ready to be sent.
type built struct {
	name   string
	config []byte
	layers []*layer
}

// tag is a short name of the content.
func (b *built) tag() string { return strings.TrimPrefix(digestOf(b.config), "sha256:")[:12] }

// Image makes the test image called name (see recipes), puts it into the open registry, has the machine's engine pull it
// and returns its reference.
func Image(t testing.TB, name string) string {
	t.Helper()
	host := Host(t)
	sweepOnce(t, host)
	return pulled(t, host, name)
}

// Load puts the test image into the engine at host without a registry and returns its name there, "tranter-test/NAME:HASH".
func Load(t testing.TB, host, name string) string {
	t.Helper()
	return loadInto(t, Client(t, host), name)
}

func loadInto(t testing.TB, api *client.Client, name string) string {
	t.Helper()
	b := image(t, name)
	reference := anchor(b)
	ctx, cancel := context.WithTimeout(t.Context(), pullLimit)
	defer cancel()
	if _, err := api.ImageInspect(ctx, reference); err == nil {
		return reference
	}
	from, to := io.Pipe()
	go func() { to.CloseWithError(b.save(to, reference)) }() // it ends when the reader does
	defer func() { _ = from.Close() }()
	loaded, err := api.ImageLoad(ctx, from, client.ImageLoadWithQuiet(true))
	if err != nil {
		t.Fatalf("load the image %q: %v", name, err)
	}
	defer loaded.Close()
	said, err := io.ReadAll(io.LimitReader(loaded, 1<<20))
	if err != nil || strings.Contains(string(said), `"error"`) {
		t.Fatalf("load the image %q: %v %s", name, err, said)
	}
	return reference
}

// anchor is the name that keeps an image's layers on the engine when the registry of this process is gone.
func anchor(b *built) string { return "tranter-test/" + b.name + ":" + b.tag() }

// pulled has the engine at host pull an image from the open registry.
func pulled(t testing.TB, host, name string) string {
	t.Helper()
	reference := Registry(t).Push(t, name, "tranter-test/"+name, image(t, name).tag())
	api := Client(t, host)
	ctx, cancel := context.WithTimeout(t.Context(), pullLimit)
	defer cancel()
	if _, err := api.ImageInspect(ctx, reference); err == nil {
		return reference
	}
	stream, err := api.ImagePull(ctx, reference, client.ImagePullOptions{})
	if err == nil {
		err = stream.Wait(ctx)
	}
	if err == nil {
		_, err = api.ImageTag(ctx, client.ImageTagOptions{Source: reference, Target: anchor(image(t, name))})
	}
	if err != nil {
		t.Fatalf("pull the test image %q: %v", name, err)
	}
	return reference
}

// sweepOnce removes the references of registries that have ended with their test processes. The layers stay, by anchors.
func sweepOnce(t testing.TB, host string) {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.swept {
		return
	}
	shared.swept = true
	api := Client(t, host)
	images, err := api.ImageList(t.Context(), client.ImageListOptions{})
	if err != nil {
		t.Fatalf("list the engine's images: %v", err)
	}
	for _, summary := range images.Items {
		for _, reference := range summary.RepoTags {
			address, _, ours := strings.Cut(reference, "/tranter-test/")
			if ours && !answers(address) {
				_, _ = api.ImageRemove(t.Context(), reference, client.ImageRemoveOptions{})
			}
		}
	}
}

func answers(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

// image makes the test image called name, once per process.
func image(t testing.TB, name string) *built {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if b := shared.images[name]; b != nil {
		return b
	}
	r, ok := recipes()[name]
	if !ok {
		t.Fatalf("there is no test image %q", name)
	}
	b, err := r.build(t, name)
	if err != nil {
		t.Fatalf("make the test image %q: %v", name, err)
	}
	shared.images[name] = b
	return b
}

func (r *recipe) build(t testing.TB, name string) (*built, error) {
	t.Helper()
	b := &built{name: name}
	add := func(files []entry) error {
		l, err := packed(files)
		b.layers = append(b.layers, l)
		return err
	}
	var err error
	switch {
	case r.base == "packages":
		b.layers = append(b.layers, r.from.layer(t))
	case r.base == "busybox":
		err = add(busyboxFiles(t))
	case !r.foreign:
		err = add(noshellFiles(t))
	}
	if err == nil && len(r.files) > 0 {
		err = add(r.files)
	}
	if err != nil {
		return nil, err
	}
	b.config, err = r.configuration(b.layers)
	return b, err
}

// configuration writes the file that describes an image.
func (r *recipe) configuration(layers []*layer) ([]byte, error) {
	type rootfs struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	type step struct {
		Created   string `json:"created"`
		CreatedBy string `json:"created_by"`
	}
	const created = "2026-01-01T00:00:00Z"
	arch := runtime.GOARCH
	if r.foreign {
		arch = "arm64"
	}
	fs, history := rootfs{Type: "layers"}, []step{}
	for _, l := range layers {
		fs.DiffIDs = append(fs.DiffIDs, l.DiffID)
		history = append(history, step{created, "enginetest"})
	}
	run := r.run
	run.Env = append([]string{path}, run.Env...)
	return json.Marshal(map[string]any{
		"architecture": arch, "os": "linux", "created": created, "config": run, "rootfs": fs, "history": history,
	})
}

// save writes the image as the file that `docker load` takes.
func (b *built) save(to io.Writer, reference string) error {
	w := tar.NewWriter(to)
	put := func(name string, size int64, from io.Reader) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err := io.Copy(w, from)
		return err
	}
	var names []string
	for i, l := range b.layers {
		data, err := l.open()
		if err != nil {
			return err
		}
		names = append(names, fmt.Sprintf("layer%d.tar", i))
		err = put(names[i], l.Size, data)
		_ = data.Close()
		if err != nil {
			return err
		}
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{reference}, "Layers": names}})
	if err != nil {
		return err
	}
	if err := put("config.json", int64(len(b.config)), strings.NewReader(string(b.config))); err != nil {
		return err
	}
	if err := put("manifest.json", int64(len(manifest)), strings.NewReader(string(manifest))); err != nil {
		return err
	}
	return w.Close()
}
