package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// flattened unpacks layers into DIR/rootfs, and returns what is there: names, types and contents, sorted.
func flattened(t testing.TB, dir string, most int64, layers ...[]byte) ([]string, error) {
	t.Helper()
	root := filepath.Join(dir, "rootfs")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := newFlattener(root, most, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	for _, l := range layers {
		if err := f.layer(context.Background(), bytes.NewReader(l)); err != nil {
			return nil, err
		}
	}
	return tree(t, root), nil
}

func tree(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, _ := filepath.Rel(root, path)
		switch {
		case d.IsDir():
			name += "/"
		case d.Type()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(path)
			name += " -> " + to
		default:
			name += " " + read(t, path)
		}
		out = append(out, name)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	slices.Sort(out)
	return out
}

func TestLayersLieOnTopOfEachOther(t *testing.T) {
	for what, c := range map[string]struct {
		layers [][]entry
		want   string
	}{
		"a whiteout removes what is below": {[][]entry{{{name: "a/x", text: "1"}, {name: "a/y", text: "2"}}, {{name: "a/.wh.x"}}}, "a/|a/y 2"},
		"a whiteout removes a directory":   {[][]entry{{{name: "a/x/y", text: "1"}}, {{name: "a/.wh.x"}}}, "a/"},
		"a whiteout spares its own layer":  {[][]entry{{{name: "x", text: "1"}}, {{name: "x", text: "2"}, {name: ".wh.x"}}}, "x 2"},
		"an opaque directory":              {[][]entry{{{name: "a/x", text: "1"}, {name: "a/d/z", text: "1"}, {name: "b", text: "b"}}, {{name: "a/d/new", text: "2"}, {name: "a/.wh..wh..opq"}, {name: "a/y", text: "2"}}}, "a/|a/d/|a/d/new 2|a/y 2|b b"},
		"whiteouts of nothing":             {[][]entry{{{name: ".wh."}, {name: ".wh..."}, {name: ".wh.no"}, {name: "a/.wh..wh..opq"}}}, "a/"},
		"a file for a directory":           {[][]entry{{{name: "a/x", text: "1"}}, {{name: "a", text: "2"}}}, "a 2"},
		"a directory for a file":           {[][]entry{{{name: "a", text: "1"}}, {{name: "a/", kind: '5'}, {name: "a/x", text: "2"}}}, "a/|a/x 2"},
		"a directory for a link":           {[][]entry{{{name: "d/", kind: '5'}, {name: "a", link: "d", kind: '2'}}, {{name: "a/", kind: '5'}, {name: "a/x", text: "2"}}}, "a/|a/x 2|d/"},
		"a parent that is a file":          {[][]entry{{{name: "a", text: "1"}}, {{name: "a/b", text: "2"}}}, "a/|a/b 2"},
		"a way through a link":             {[][]entry{{{name: "run/", kind: '5'}, {name: "var/run", link: "/run", kind: '2'}}, {{name: "var/run/x", text: "1"}}}, "run/|run/x 1|var/|var/run -> /run"},
		"a hard link":                      {[][]entry{{{name: "a", text: "1"}}, {{name: "b", link: "/a", kind: '1'}}, {{name: "a", text: "2"}}}, "a 2|b 1"},
		"a hard link to a link":            {[][]entry{{{name: "a", link: "/etc/passwd", kind: '2'}, {name: "b", link: "a", kind: '1'}}}, "a -> /etc/passwd|b -> /etc/passwd"},
		"devices are left out":             {[][]entry{{{name: "dev/null", kind: '3'}, {name: "dev/sda", kind: '4'}, {name: "p", kind: '6'}}}, "dev/"},
		"names of the root":                {[][]entry{{{name: "./", kind: '5'}, {name: "/", kind: '5'}, {name: "./a", text: "1"}, {name: "/b", text: "2"}}}, "a 1|b 2"},
		"links within links":               {[][]entry{{{name: "l1", link: "l2", kind: '2'}, {name: "l2", link: "/x/y", kind: '2'}, {name: "l1/f", text: "1"}}}, "l1 -> l2|l2 -> /x/y|x/|x/y/|x/y/f 1"},
		"a file over a link to a file":     {[][]entry{{{name: "a", text: "1"}, {name: "l", link: "a", kind: '2'}}, {{name: "l", text: "2"}}}, "a 1|l 2"},
		"a link for a full directory":      {[][]entry{{{name: "lib/a", text: "1"}}, {{name: "usr/lib/", kind: '5'}, {name: "lib", link: "usr/lib", kind: '2'}, {name: "lib/b", text: "2"}}}, "lib -> usr/lib|usr/|usr/lib/|usr/lib/b 2"},
	} {
		var layers [][]byte
		for _, l := range c.layers {
			layers = append(layers, layerOf(t, l...))
		}
		got, err := flattened(t, t.TempDir(), 1<<20, layers...)
		if err != nil || strings.Join(got, "|") != c.want {
			t.Errorf("%s: %s, %v", what, strings.Join(got, "|"), err)
		}
	}
}

func TestNothingOutsideIsTouched(t *testing.T) {
	for what, entries := range map[string][]entry{
		"dots":                  {{name: "../x", text: "bad"}, {name: "a/../../x", text: "bad"}, {name: "/../../x", text: "bad"}},
		"an absolute link":      {{name: "l", link: "@", kind: '2'}, {name: "l/x", text: "bad"}},
		"a relative link":       {{name: "l", link: "..", kind: '2'}, {name: "l/x", text: "bad"}},
		"a link over a link":    {{name: "l", link: "@", kind: '2'}, {name: "m", link: "l", kind: '2'}, {name: "m/x", text: "bad"}, {name: "m/.wh.x"}},
		"a link to the file":    {{name: "l", link: "@/x", kind: '2'}, {name: "l", text: "bad"}},
		"a hard link":           {{name: "h", link: "@/x", kind: '1'}, {name: "h", text: "bad"}},
		"a hard link with dots": {{name: "h", link: "../x", kind: '1'}, {name: "h", text: "bad"}},
		"a hard link by a link": {{name: "l", link: "@", kind: '2'}, {name: "h", link: "l/x", kind: '1'}},
		"a whiteout":            {{name: "l", link: "@", kind: '2'}, {name: "l/.wh.x"}, {name: "../.wh.x"}, {name: ".wh.../x"}},
		"an opaque directory":   {{name: "l", link: "@", kind: '2'}, {name: "l/.wh..wh..opq"}, {name: "../.wh..wh..opq"}},
		"a mode":                {{name: "l", link: "@/x", kind: '2'}, {name: "l/", kind: '5', mode: 0o777}},
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "x"), "good")
		for i := range entries {
			entries[i].link = strings.Replace(entries[i].link, "@", dir, 1)
		}
		_, err := flattened(t, dir, 1<<20, layerOf(t, entries...))
		if bad := (*badLayer)(nil); err != nil && !errors.As(err, &bad) {
			t.Errorf("%s: %v", what, err)
		}
		names, _ := os.ReadDir(dir)
		info, err := os.Stat(filepath.Join(dir, "x"))
		if read(t, dir, "x") != "good" || len(names) != 2 || err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %s, %v, %v", what, read(t, dir, "x"), names, info.Mode())
		}
	}
}

func TestLayersThatCantBeAreRefused(t *testing.T) {
	for what, layer := range map[string][]byte{
		"no archive":            []byte(strings.Repeat("x", 1024)),
		"half of one":           layerOf(t, entry{name: "a", text: strings.Repeat("x", 3000)})[:1024],
		"broken gzip":           {0x1f, 0x8b, 8, 0, 1, 2, 3},
		"broken zstd":           {0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff},
		"a circle":              layerOf(t, entry{name: "a", link: "b", kind: '2'}, entry{name: "b", link: "a", kind: '2'}, entry{name: "a/x", text: "1"}),
		"many levels":           layerOf(t, entry{name: strings.Repeat("d/", 3000) + "x"}),
		"a hard link to a hole": layerOf(t, entry{name: "a", link: "b", kind: '1'}),
		"a hard link to a tree": layerOf(t, entry{name: "b/", kind: '5'}, entry{name: "a", link: "b", kind: '1'}),
	} {
		_, err := flattened(t, t.TempDir(), 1<<20, layer)
		if bad := (*badLayer)(nil); !errors.As(err, &bad) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestBombsAreBounded(t *testing.T) {
	var many []entry
	for i := range 2200 {
		many = append(many, entry{name: fmt.Sprint(i)})
	}
	for what, layer := range map[string][]byte{
		"a large file": packed(t, layerOf(t, entry{name: "a", text: strings.Repeat("\x00", 4<<20)})),
		"many files":   layerOf(t, many...),
		"a device with content": packed(t, func() []byte {
			return append(layerOf(t, entry{name: "a", text: strings.Repeat("\x00", 2<<20)}), layerOf(t, entry{name: "b"})...)
		}()),
	} {
		if _, err := flattened(t, t.TempDir(), 1<<20, layer); !errors.Is(err, errTooLarge) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func packed(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(data)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestModesAndPackings(t *testing.T) {
	layer := layerOf(t, entry{name: "d/", kind: '5', mode: 0o555}, entry{name: "d/f", text: "1", mode: 0o4000}, entry{name: "tmp/", kind: '5', mode: 0o1777}, entry{name: "p", text: "2", mode: 0o2750}, entry{name: "closed/", kind: '5', mode: 0o1}, entry{name: "closed/x", text: "3"})
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"plain": layer, "gzip": packed(t, layer), "zstd": z.EncodeAll(layer, nil)} {
		dir := t.TempDir()
		got, err := flattened(t, dir, 1<<20, data)
		if err != nil || strings.Join(got, "|") != "closed/|closed/x 3|d/|d/f 1|p 2|tmp/" {
			t.Errorf("%s: %v %v", name, got, err)
		}
		for path, mode := range map[string]fs.FileMode{"d": 0o755 | fs.ModeDir, "d/f": 0o400, "tmp": 0o777 | fs.ModeDir | fs.ModeSticky, "p": 0o750, "closed": 0o701 | fs.ModeDir} {
			if path == "d" {
				mode = 0o755 | fs.ModeDir
			}
			if info, err := os.Stat(filepath.Join(dir, "rootfs", path)); err != nil || info.Mode() != mode {
				t.Errorf("%s is %v, %v", path, info.Mode(), err)
			}
		}
	}
	f := flattener{share: true}
	for mode, want := range map[fs.FileMode]fs.FileMode{0o600: 0o644, 0o700: 0o755, 0o640: 0o644, 0o755: 0o755, 0o500: 0o555} {
		if got := f.mode(mode); got != want {
			t.Errorf("%o becomes %o", mode, got)
		}
	}
}

// FuzzFlatten: whatever a layer says, nothing beside the directory changes, and the work is bounded.
func FuzzFlatten(f *testing.F) {
	f.Add(layerOf(f, entry{name: "a/b", text: "1"}, entry{name: "l", link: "..", kind: '2'}, entry{name: "l/x", text: "2"}), []byte{})
	f.Add(layerOf(f, entry{name: "h", link: "../x", kind: '1'}), layerOf(f, entry{name: ".wh..wh..opq"}, entry{name: "../.wh.x"}))
	f.Add(layerOf(f, entry{name: "l", link: "/", kind: '2'}, entry{name: "l/l/l/../x", text: "2"}), layerOf(f, entry{name: "l/", kind: '5'}))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "x"), "good")
		_, _ = flattened(t, dir, 1<<20, one, two)
		names, _ := os.ReadDir(dir)
		if read(t, dir, "x") != "good" || len(names) != 2 {
			t.Fatal("something outside has changed")
		}
	})
}

// FuzzReference: no name panics, and what is understood has one meaning.
func FuzzReference(f *testing.F) {
	for _, s := range []string{"debian", "debian:12", "docker://quay.io/a/b@sha256:" + strings.Repeat("0", 64), "oci:/x:tag", "oci-archive:x", "library://a/b", "localhost:5000/a", "/x.sif", "oci:1", "docker:dind"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parse(text, []string{"localhost:5000"})
		if err != nil {
			if kindOf(err) != "config" {
				t.Fatal(err)
			}
			return
		}
		if r.kind == registry {
			if again, err := parse(r.full(), nil); err != nil || again.full() != r.full() {
				t.Fatalf("%q is %q, which is %q, %v", text, r.full(), again.full(), err)
			}
		}
	})
}

func TestNamesOfImages(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for text, want := range map[string]string{
		"debian":                        "index.docker.io/library/debian:latest",
		"debian:12":                     "index.docker.io/library/debian:12",
		"group/app":                     "index.docker.io/group/app:latest",
		"docker.io/library/debian":      "index.docker.io/library/debian:latest",
		"docker://debian:12":            "index.docker.io/library/debian:12",
		"docker:dind":                   "index.docker.io/library/docker:dind",
		"oci:1":                         "index.docker.io/library/oci:1",
		"localhost:5000/a":              "localhost:5000/a:latest",
		"quay.io/a/b/c@" + digest:       "quay.io/a/b/c@" + digest,
		"quay.io/a/b/c:1@" + digest:     "quay.io/a/b/c@" + digest,
		"REGISTRY.example.com:443/a:B1": "REGISTRY.example.com:443/a:B1",
	} {
		if r, err := parse(text, nil); err != nil || r.full() != want {
			t.Errorf("%s is %v, %v", text, r.name, err)
		}
	}
	if r, err := parse("debian", nil); err != nil || r.server() != "docker.io" {
		t.Error(r.server(), err)
	}
}
