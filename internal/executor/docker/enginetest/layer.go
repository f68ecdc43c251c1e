package enginetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// layer is one layer of an image, compressed: in memory, or in a file when it is large.
type layer struct {
	Digest string // of what is sent, "sha256:" and hex digits
	DiffID string // of the tarball in it
	Size   int64  // of what is sent, in bytes
	path   string
	data   []byte
}

func (l *layer) open() (io.ReadCloser, error) {
	if l.path != "" {
		return os.Open(l.path)
	}
	return io.NopCloser(bytes.NewReader(l.data)), nil
}

// entry is a file of a layer. A name that ends in a slash is a directory.
type entry struct {
	name  string
	mode  int64
	owner int    // user and group
	link  string // a symbolic link to this
	data  string
}

// packed makes a layer of entries. The same entries always make the same layer.
func packed(entries []entry) (*layer, error) {
	var tarball bytes.Buffer
	w := tar.NewWriter(&tarball)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Uid: e.owner, Gid: e.owner, Size: int64(len(e.data)), Format: tar.FormatPAX, Typeflag: tar.TypeReg}
		switch {
		case e.link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
		case e.name[len(e.name)-1] == '/':
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	l, err := compress(&out, &tarball)
	if err != nil {
		return nil, err
	}
	l.data = out.Bytes()
	return l, nil
}

// compress copies a tarball and describes the layer that it has become.
func compress(to io.Writer, tarball io.Reader) (*layer, error) {
	inner, outer, n := sha256.New(), sha256.New(), &counter{}
	z, err := gzip.NewWriterLevel(io.MultiWriter(to, outer, n), gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(z, io.TeeReader(tarball, inner)); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return &layer{Digest: digest(outer), DiffID: digest(inner), Size: n.n}, nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func digest(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

func digestOf(data []byte) string {
	h := sha256.New()
	_, _ = h.Write(data)
	return digest(h)
}

// packages is a root file system that a script of tools makes from Debian's packages.
type packages struct {
	name string
	args []string // the script and what follows it; FILE stands for the tarball to write
	skip string
}

// debian is the content of the "helper" and "debian" images: the script that makes the helper image for users.
func debian() packages {
	return packages{name: "helper", args: []string{"tools/helper-image", "--tar", "FILE"}}
}

// dockerEngine is the content of the "dind" and "dockercli" images.
func dockerEngine() packages {
	return packages{
		name: "engine",
		args: []string{"tools/rootfs", "FILE", "docker.io", "containerd", "runc", "tini", "iptables", "iproute2", "openssl", "busybox-static"},
		skip: "adduser debconf passwd dpkg perl perl-base libpam-modules lsb-base init-system-helpers debianutils",
	}
}

func dockerRegistry() packages {
	return packages{
		name: "registry", args: []string{"tools/rootfs", "FILE", "docker-registry", "busybox-static"},
		skip: "adduser debconf passwd dpkg perl perl-base libpam-modules lsb-base init-system-helpers apache2-utils",
	}
}

// layer makes the file system once per machine and Debian release, and again when the scripts change.
func (p packages) layer(t testing.TB) *layer {
	t.Helper()
	top := moduleRoot(t)
	key := sha256.New()
	for _, file := range []string{"/etc/os-release", filepath.Join(top, "tools", "rootfs"), filepath.Join(top, p.args[0])} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = key.Write(data)
	}
	fmt.Fprintln(key, p.args, p.skip)
	stem := filepath.Join(cacheDir(t), p.name+"-"+hex.EncodeToString(key.Sum(nil))[:12])
	defer Only(t, filepath.Join(cacheDir(t), p.name+".lock"))()
	l, err := p.cached(stem)
	if errors.Is(err, os.ErrNotExist) {
		old, _ := filepath.Glob(filepath.Join(cacheDir(t), p.name+"-*"))
		for _, path := range old {
			_ = os.Remove(path)
		}
		l, err = p.make(t, top, stem)
	}
	if err != nil {
		t.Fatalf("make the image of packages %q: %v", p.name, err)
	}
	return l
}

// cached reads what make has written.
func (p packages) cached(stem string) (*layer, error) {
	data, err := os.ReadFile(stem + ".json")
	if err != nil {
		return nil, err
	}
	l := &layer{path: stem + ".tar.gz"}
	if err := json.Unmarshal(data, l); err != nil {
		return nil, err
	}
	_, err = os.Stat(l.path)
	return l, err
}

func (p packages) make(t testing.TB, top, stem string) (*layer, error) {
	t.Helper()
	args := append([]string{}, p.args...)
	for i := range args {
		if args[i] == "FILE" {
			args[i] = stem + ".tar"
		}
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(top, args[0]), args[1:]...)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "SKIP="+p.skip)
	defer func() { _ = os.Remove(stem + ".tar") }()
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", args[0], err, out)
	}
	tarball, err := os.Open(stem + ".tar")
	if err != nil {
		return nil, err
	}
	defer tarball.Close()
	out, err := os.Create(stem + ".tar.gz")
	if err != nil {
		return nil, err
	}
	l, err := compress(out, tarball)
	if err := errors.Join(err, out.Close()); err != nil {
		return nil, err
	}
	l.path = out.Name()
	data, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	return l, os.WriteFile(stem+".json", data, 0o644) // last: it says that all is there
}
