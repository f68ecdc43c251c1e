package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// order is what is made for whom.
type order struct {
	ref    reference
	want   Want
	digest v1.Hash
}

// fetch returns where the file of a layer is.
type fetch func(ctx context.Context, layer v1.Descriptor) (path string, err error)

// noName stands for the registry in messages about what has none.
func noName() name.Reference {
	r, _ := name.ParseReference("localhost/image")
	return r
}

// make makes an image of its layers and moves it to its place.
func (s *Store) make(ctx context.Context, o order, img v1.Image, get fetch) error {
	m, raw, err := manifest(img, o, s.o.MaxSize)
	if err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	run, err := runConfig(config, o)
	if err != nil {
		return err
	}
	layers, err := s.fetchAll(ctx, m.Layers, get)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(s.place(o.want.Form), "make-")
	if err != nil {
		return err
	}
	defer removeAll(work) //nolint:errcheck // Collect removes what stays
	n := note{Ref: o.ref.asked, Digest: o.digest.String(), Form: o.want.Form, Config: run}
	if o.want.Form == Directory {
		n.Size, err = s.flatten(ctx, o, m.Layers, layers, work)
	} else {
		n.Size, err = s.layout(o, m, map[string][]byte{o.digest.Hex: raw, m.Config.Digest.Hex: config}, layers, work)
	}
	if err != nil {
		return err
	}
	if o.want.Form != File {
		return s.install(work, n)
	}
	return s.build(ctx, o, work, run)
}

// build makes a file of the layout below work.
func (s *Store) build(ctx context.Context, o order, work string, run Config) error {
	target := filepath.Join(work, "image.sif")
	if err := o.want.Build(ctx, "oci:"+filepath.Join(work, content(OCI)), target); err != nil {
		return built(ctx, err, o.ref)
	}
	return s.adopt(ctx, o, o.digest.String(), target, run)
}

// place is where an image is made: as a rule what is moved to its place as a whole has to be on its file system.
func (s *ground) place(f Form) string {
	if f == File {
		return s.tmp
	}
	return s.stage
}

// manifest checks what an image says it is made of.
func manifest(img v1.Image, o order, most int64) (*v1.Manifest, []byte, error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, nil, err
	}
	raw, err := img.RawManifest()
	if err != nil {
		return nil, nil, err
	}
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != o.digest.Hex {
		return nil, nil, fmt.Errorf("the manifest is not what its digest %s says", o.digest)
	}
	if m.Config.Size > mostConfig || len(m.Layers) > mostLayers {
		return nil, nil, configError("image %s can't be used: its configuration or the number of its layers is out of all proportion", o.ref.asked)
	}
	var total int64
	for _, l := range m.Layers {
		if total += l.Size; l.Size < 0 || total > most {
			return nil, nil, errTooLarge
		}
		if !l.MediaType.IsLayer() {
			return nil, nil, configError("image %s can't be used: it has a part of type %s, which is no layer of a container image. Name what is no such image with oras://", o.ref.asked, shorten(string(l.MediaType), 100))
		}
	}
	return m, raw, nil
}

// runConfig reads how an image is run.
func runConfig(raw []byte, o order) (Config, error) {
	var c struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Config       struct {
			Entrypoint, Cmd, Env []string
			User, WorkingDir     string
			ExposedPorts         map[string]struct{}
		} `json:"config"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return Config{}, configError("image %s can't be used: its configuration is malformed (%s)", o.ref.asked, shorten(err.Error(), 200))
	}
	want, err := parsePlatform(o.want.Platform)
	if err != nil {
		return Config{}, err
	}
	if c.Architecture != "" && (c.Architecture != want.Architecture || c.OS != want.OS) {
		if o.want.Platform != "" || c.OS != "linux" {
			return Config{}, configError("image %s is for %s/%s, not for %s: name one that is built for it", o.ref.asked, shorten(c.OS, 50), shorten(c.Architecture, 50), want)
		}
		fmt.Fprintf(o.want.Log, "\x1b[0;33mWARNING: the image %s is for %s/%s, this machine is %s\x1b[0;m\n", o.ref.asked, shorten(c.OS, 50), shorten(c.Architecture, 50), want)
	}
	x := c.Config
	return Config{Entrypoint: x.Entrypoint, Cmd: x.Cmd, Env: x.Env, User: x.User, WorkingDir: x.WorkingDir, Ports: exposed(x.ExposedPorts)}, nil
}

// fetchAll gets all layers, several at the same time.
func (s *Store) fetchAll(ctx context.Context, layers []v1.Descriptor, get fetch) ([]string, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	paths := make([]string, len(layers))
	once := map[string]int{}
	var all sync.WaitGroup
	for i, l := range layers {
		if _, again := once[l.Digest.Hex]; again {
			continue
		}
		once[l.Digest.Hex] = i
		all.Go(func() {
			path, err := get(ctx, l)
			if err != nil {
				stop(err)
			}
			paths[i] = path
		})
	}
	all.Wait()
	for i, l := range layers {
		paths[i] = paths[once[l.Digest.Hex]]
	}
	return paths, context.Cause(ctx)
}

// flatten writes all layers into one directory, and returns its size.
func (s *Store) flatten(ctx context.Context, o order, layers []v1.Descriptor, paths []string, work string) (int64, error) {
	dir := filepath.Join(work, content(Directory))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 0, err
	}
	f, err := newFlattener(dir, s.o.MaxSize, s.o.Shared || s.o.Readable)
	if err != nil {
		return 0, err
	}
	defer f.close()
	for i, l := range layers {
		if err := s.flattenOne(ctx, f, l, paths[i]); err != nil {
			return 0, err
		}
	}
	if f.skipped > 0 {
		fmt.Fprintf(o.want.Log, "%d devices and pipes of the image %s are left out\n", f.skipped, o.ref.asked)
	}
	return s.o.MaxSize - f.left, os.Chmod(dir, 0o755) //nolint:gosec // what is above it says who may come here
}

// flattenOne checks while it reads that a layer is what its digest says.
func (s *Store) flattenOne(ctx context.Context, f *flattener, l v1.Descriptor, path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	sum := sha256.New()
	read := io.TeeReader(in, sum)
	if err := f.layer(ctx, read); err != nil {
		if whole(read, sum, l) == nil {
			return err
		}
		_ = os.Remove(path) // of another user it can't be
		return fmt.Errorf("the layer %s in the cache was damaged, and is removed: %w", l.Digest, err)
	}
	if err := whole(read, sum, l); err != nil {
		_ = os.Remove(path) // of another user it can't be
		return err
	}
	return nil
}

// whole reads what is left, and compares the digest.
func whole(rest io.Reader, sum hash.Hash, l v1.Descriptor) error {
	if _, err := io.Copy(io.Discard, rest); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != l.Digest.Hex {
		return fmt.Errorf("the layer %s in the cache was damaged, and is removed", l.Digest)
	}
	return nil
}

// layout makes an OCI layout with one image, and returns its size. Layers are linked where that can be.
func (s *Store) layout(o order, m *v1.Manifest, texts map[string][]byte, layers []string, work string) (int64, error) {
	dir := filepath.Join(work, content(OCI))
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil { //nolint:gosec // what is above it says who may come here
		return 0, err
	}
	var total int64
	for digest, text := range texts {
		total += int64(len(text))
		if err := writeFile(filepath.Join(blobs, digest), text, 0o644, true); err != nil && !errors.Is(err, fs.ErrExist) {
			return 0, err
		}
	}
	for i, l := range m.Layers {
		total += l.Size
		to := filepath.Join(blobs, l.Digest.Hex)
		err := os.Link(layers[i], to)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			err = copyFile(layers[i], to)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return 0, err
		}
	}
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.index.v1+json", Manifests: []v1.Descriptor{{
		MediaType: m.MediaType, Size: int64(len(texts[o.digest.Hex])), Digest: o.digest,
	}}})
	if err != nil {
		return 0, err
	}
	return total, errors.Join(
		writeFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644, true),
		writeFile(filepath.Join(dir, "index.json"), bytes.TrimSpace(index), 0o644, true))
}

// adopt takes a file that was built as an image.
func (s *Store) adopt(ctx context.Context, o order, digest, file string, config Config) error {
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return built(ctx, errors.New("the runtime says that it has made the image, and there is none"), o.ref)
	}
	work, err := os.MkdirTemp(s.stage, "adopt-")
	if err != nil {
		return err
	}
	defer removeAll(work) //nolint:errcheck // Collect removes what stays
	to := filepath.Join(work, content(File))
	if err := move(file, to); err != nil {
		return err
	}
	if err := os.Chmod(to, s.fileMode()&^0o022|0o100); err != nil { //nolint:gosec // it is a program, too
		return err
	}
	return s.install(work, note{Ref: o.ref.asked, Digest: digest, Form: File, Size: info.Size(), Config: config})
}

// install moves an image to its place, whole or not at all.
func (s *Store) install(work string, n note) error {
	if err := settle(work); err != nil {
		return err
	}
	if err := writeNote(filepath.Join(work, noteFile), n, s.fileMode(), true); err != nil {
		return err
	}
	if err := os.Chmod(work, s.dirMode()); err != nil {
		return err
	}
	to := s.path(imagesDir, identity(n.Digest, n.Form))
	err := os.Rename(work, to)
	if err != nil && s.has(n.Digest, n.Form) {
		return nil // somebody else has made it
	}
	if err != nil && strings.Contains(err.Error(), "not empty") || errors.Is(err, fs.ErrExist) { // damaged: without its note
		if err = removeAll(to); err == nil {
			err = os.Rename(work, to)
		}
	}
	return err
}
