package archive_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter/internal/agent/archive"
)

// messages keeps what the user would read.
type messages struct{ lines []string }

func (m *messages) Plain(format string, args ...any) {
	m.lines = append(m.lines, fmt.Sprintf(format, args...))
}

func (m *messages) Warning(format string, args ...any) {
	m.lines = append(m.lines, "WARNING: "+fmt.Sprintf(format, args...))
}

func (m *messages) text() string { return strings.Join(m.lines, "\n") }

// tree makes files below a new directory: names ending in / are directories, contents beginning with "-> " are links.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	fill(t, dir, files)
	return dir
}

func fill(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		switch target, link := strings.CutPrefix(content, "-> "); {
		case strings.HasSuffix(name, "/"):
			must(t, os.MkdirAll(path, 0o755))
		case link:
			must(t, os.Symlink(target, path))
		default:
			must(t, os.WriteFile(path, []byte(content), 0o644))
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listing tells of every file below dir its path and mode, and its content, target or nothing.
func listing(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil || rel == "." {
			return err
		}
		what := ""
		switch {
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			out[rel] = "-> " + target
			return err
		case d.Type().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what = fmt.Sprintf(" %x", b)
			if len(b) < 100 {
				what = " " + string(b)
			}
		}
		out[rel] = fmt.Sprintf("%v %s%s", info.Mode(), info.ModTime().UTC().Format(time.DateTime), what)
		return nil
	}))
	return out
}

func collect(t testing.TB, dir string, sel archive.Selection) (archive.Files, *messages) {
	t.Helper()
	log := &messages{}
	files, err := archive.Collect(t.Context(), dir, sel, log)
	must(t, err)
	return files, log
}

func names(files archive.Files) string {
	var out []string
	for _, f := range files.List {
		out = append(out, f.Path)
	}
	return strings.Join(out, " ")
}

func TestCollect(t *testing.T) {
	dir := tree(t, map[string]string{
		"a.txt": "a", ".hidden": "h", "build/out.bin": "o", "build/deep/er/x.log": "x", "build/deep/y.log": "y", "empty/": "",
		"link": "-> build", "dangling": "-> nowhere", "out": "-> /etc", "brackets[1].txt": "b", "src/main.go": "g", "src/main_test.go": "t",
	})
	abs := filepath.ToSlash(dir)
	tests := []struct {
		name           string
		paths, exclude []string
		want, log      string
	}{
		{"file", []string{"a.txt"}, nil, "a.txt", "a.txt: found 1 matching artifact files and directories"},
		{"directory", []string{"build"}, nil, "build build/deep build/deep/er build/deep/er/x.log build/deep/y.log build/out.bin", "build: found 6 matching"},
		{"directory with slash", []string{"./build/"}, nil, "build build/deep build/deep/er build/deep/er/x.log build/deep/y.log build/out.bin", "./build/: found 6 matching"},
		{"star", []string{"src/*.go"}, nil, "src/main.go src/main_test.go", "found 2"},
		{"doublestar", []string{"**/*.log"}, nil, "build/deep/er/x.log build/deep/y.log", "found 2"},
		{"doublestar counts each once", []string{"build/**"}, nil, "build build/deep build/deep/er build/deep/er/x.log build/deep/y.log build/out.bin", "build/**: found 6 matching"},
		{"braces", []string{"{a.txt,src/main.go}"}, nil, "a.txt src/main.go", "found 2"},
		{"hidden", []string{".h*"}, nil, ".hidden", "found 1"},
		{"empty directory", []string{"empty"}, nil, "empty", "found 1"},
		{"absolute", []string{abs + "/src/*_test.go"}, nil, "src/main_test.go", "found 1"},
		{"escaped", []string{`brackets\[1\].txt`}, nil, "brackets[1].txt", "found 1"},
		{"link is kept", []string{"link"}, nil, "link", "found 1"},
		{"dangling link", []string{"dangling"}, nil, "dangling", "found 1"},
		{"not through links", []string{"**/out.bin"}, nil, "build/out.bin", "found 1"},
		{"link out is kept", []string{"out"}, nil, "out", "found 1"},
		{"never through a link out", []string{"out/passwd", "out/*"}, nil, "", "WARNING: out/passwd: no matching files"},
		{"outside", []string{"../x", "/etc/passwd"}, nil, "", "WARNING: ../x: not inside the project directory"},
		{"nothing", []string{"missing/*.xml"}, nil, "", "WARNING: missing/*.xml: no matching files. Ensure that the artifact path is relative to the working directory (" + dir + ")"},
		{"malformed", []string{"[a"}, nil, "", "WARNING: [a: malformed pattern"},
		{"brace out", []string{"{../x,a.txt}"}, nil, "a.txt", "found 1"},
		{"exclude", []string{"build", "src"}, []string{"**/*.log", "src/*_test.go"}, "build build/deep build/deep/er build/out.bin src src/main.go", "**/*.log: excluded 2 files"},
		{"exclude is not recursive", []string{"src"}, []string{"src"}, "src/main.go src/main_test.go", "src: excluded 1 files"},
		{"exclude all", []string{"src"}, []string{"src/**"}, "", "WARNING: src: no matching files"},
		{"overlap", []string{"a.txt", "*.txt"}, nil, "a.txt brackets[1].txt", "*.txt: found 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files, log := collect(t, dir, archive.Selection{Paths: tt.paths, Exclude: tt.exclude})
			if got := names(files); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if !strings.Contains(log.text(), tt.log) {
				t.Errorf("log %q lacks %q", log.text(), tt.log)
			}
		})
	}
}

func TestCollectUntracked(t *testing.T) {
	dir := tree(t, map[string]string{"tracked": "1", "new.txt": "2", "sub/ignored.o": "3", ".gitignore": "*.o\n", "sub/line\nbreak": "4"})
	git := func(args ...string) *exec.Cmd {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		return cmd
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "tracked", ".gitignore"}} {
		if out, err := git(args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	list := func(_ context.Context, w io.Writer) error {
		cmd := git("ls-files", "-o", "-z")
		cmd.Stdout = w
		return cmd.Run()
	}
	files, log := collect(t, dir, archive.Selection{Untracked: list})
	if got, want := names(files), "new.txt sub/ignored.o sub/line\nbreak"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !strings.Contains(log.text(), "untracked: found 3 files") {
		t.Error(log.text())
	}
	broken := func(context.Context, io.Writer) error { return errors.New("no repository") }
	if _, log := collect(t, dir, archive.Selection{Untracked: broken}); !strings.Contains(log.text(), "WARNING: untracked: no repository") {
		t.Error(log.text())
	}
}

var packed = []archive.Format{archive.Zip, archive.ZipZstd, archive.TarZstd}

// create packs all of dir into a file, which it returns.
func create(t testing.TB, dir string, o archive.Options, paths ...string) *os.File {
	t.Helper()
	if len(paths) == 0 {
		paths = []string{"."}
	}
	files, _ := collect(t, dir, archive.Selection{Paths: paths})
	f, err := os.Create(filepath.Join(t.TempDir(), "a"))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, archive.Create(t.Context(), f, files, o, &messages{}))
	return f
}

func TestRoundTrip(t *testing.T) {
	dir := tree(t, map[string]string{
		"a.txt": "hello", "bin/tool": strings.Repeat("x", 300_000), "d/e/f/g": "", "empty/": "", "ro/file": "r",
		"link": "-> a.txt", "d/up": "-> ../a.txt", "abs": "-> /usr/bin/env", "dangling": "-> nowhere", "ünïcode/日本": "u", "with space": "s",
	})
	must(t, os.Chmod(filepath.Join(dir, "bin/tool"), 0o755))
	must(t, os.Chmod(filepath.Join(dir, "a.txt"), 0o600))
	old := time.Date(2001, 2, 3, 4, 5, 7, 0, time.UTC)
	for _, p := range []string{"a.txt", "ro/file", "ro", "d/e/f", "d/e", "d", "empty"} {
		must(t, os.Chtimes(filepath.Join(dir, p), old, old))
	}
	must(t, os.Chmod(filepath.Join(dir, "ro"), 0o555))
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "ro"), 0o755) })
	want := listing(t, dir)
	for _, format := range packed {
		for _, level := range []archive.Level{"", archive.Fastest, archive.Fast, archive.Slow, archive.Slowest} {
			t.Run(string(format)+"-"+string(level), func(t *testing.T) {
				f := create(t, dir, archive.Options{Format: format, Level: level})
				again := create(t, dir, archive.Options{Format: format, Level: level})
				a, _ := os.ReadFile(f.Name())
				b, _ := os.ReadFile(again.Name())
				if !bytes.Equal(a, b) {
					t.Error("the same files give different archives")
				}
				into := t.TempDir()
				t.Cleanup(func() { os.Chmod(filepath.Join(into, "ro"), 0o755) })
				for range 2 { // the second time over what is there
					log := &messages{}
					must(t, archive.Extract(t.Context(), f, into, log))
					if diff := cmp.Diff(want, listing(t, into)); diff != "" || log.text() != "" {
						t.Errorf("%s\n%s", diff, log.text())
					}
				}
			})
		}
	}
}

// Any tree comes back as it was.
func TestRoundTripAnyTree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		files := map[string]string{}
		name := rapid.StringMatching(`[a-cA-C._ é]{1,3}`).Filter(func(s string) bool { return s != "." && s != ".." })
		for range rapid.IntRange(0, 8).Draw(rt, "files") {
			parts := rapid.SliceOfN(name, 1, 3).Draw(rt, "path")
			for i := range parts[:len(parts)-1] {
				parts[i] = "d" + parts[i] // so that no directory has the name of a file
			}
			files["x/"+strings.Join(parts, "/")] = rapid.String().Filter(func(s string) bool { return !strings.HasPrefix(s, "-> ") }).Draw(rt, "content")
		}
		files["x/y"] = "-> " + name.Draw(rt, "target")
		dir := tree(t, files)
		for _, format := range packed {
			into := t.TempDir()
			must(t, archive.Extract(t.Context(), create(t, dir, archive.Options{Format: format}), into, &messages{}))
			if diff := cmp.Diff(listing(t, dir), listing(t, into)); diff != "" {
				rt.Fatalf("%s: %s", format, diff)
			}
		}
	})
}

// Other programs read our archives, and we read theirs.
func TestOtherPrograms(t *testing.T) {
	dir := tree(t, map[string]string{"a/b": strings.Repeat("text ", 1000), "a/link": "-> b", "c": "c"})
	run := func(dir, script string, args ...string) {
		t.Helper()
		cmd := exec.Command("sh", append([]string{"-ec", script, "sh"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	want := listing(t, dir)
	for name, script := range map[archive.Format]string{archive.Zip: `unzip -q "$1"`, archive.TarZstd: `zstd -dcq "$1" | tar x`} {
		into := t.TempDir()
		run(into, script, create(t, dir, archive.Options{Format: name}).Name())
		if diff := cmp.Diff(want, listing(t, into)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for _, script := range []string{`zip -qry "$1" .`, `tar c . | zstd -q -o "$1"`} {
		path := filepath.Join(t.TempDir(), "theirs.zip")
		run(dir, script, path)
		f, err := os.Open(path)
		must(t, err)
		into := t.TempDir()
		must(t, archive.Extract(t.Context(), f, into, &messages{}))
		f.Close()
		if diff := cmp.Diff(want, listing(t, into)); diff != "" {
			t.Errorf("%s: %s", script, diff)
		}
	}
}

func TestGzipAndRaw(t *testing.T) {
	dir := tree(t, map[string]string{"r/one.xml": "<one/>", "r/zwö.xml": "<two/>", "link": "-> r/one.xml"})
	pack := func(format archive.Format, paths ...string) (string, error) {
		files, _ := collect(t, dir, archive.Selection{Paths: paths})
		var out bytes.Buffer
		err := archive.Create(t.Context(), &out, files, archive.Options{Format: format}, &messages{})
		return out.String(), err
	}
	out, err := pack(archive.Gzip, "r/*.xml")
	must(t, err)
	zr, err := gzip.NewReader(strings.NewReader(out))
	must(t, err)
	if zr.Name != "one.xml" || zr.Comment != "r/one.xml" {
		t.Errorf("name %q, comment %q", zr.Name, zr.Comment)
	}
	if all, err := io.ReadAll(zr); err != nil || string(all) != "<one/><two/>" {
		t.Errorf("%q, %v", all, err)
	}
	if !strings.Contains(out, "e:zw%C3%B6.xml\x00e:r%2Fzw%C3%B6.xml\x00") {
		t.Errorf("the name that is not ASCII is missing in %q", out)
	}
	if out, err := pack(archive.Raw, "r/one.xml"); err != nil || out != "<one/>" {
		t.Errorf("%q, %v", out, err)
	}
	for _, tt := range []struct {
		format archive.Format
		path   string
		want   string
	}{
		{archive.Gzip, "r", "archive r: not a regular file"},
		{archive.Gzip, "link", "archive link: not a regular file"},
		{archive.Raw, "r/*.xml", "one file, not 2"},
		{archive.Raw, "link", "not a regular file"},
	} {
		if _, err := pack(tt.format, tt.path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s of %s: %v", tt.format, tt.path, err)
		}
	}
}

func TestCreateVanishedFile(t *testing.T) {
	dir := tree(t, map[string]string{"a": "a", "b": "b"})
	files, _ := collect(t, dir, archive.Selection{Paths: []string{"*"}})
	must(t, os.Remove(filepath.Join(dir, "a")))
	log := &messages{}
	must(t, archive.Create(t.Context(), io.Discard, files, archive.Options{}, log))
	if log.text() != "WARNING: a: has vanished, not archived" {
		t.Error(log.text())
	}
}

func TestContextEnds(t *testing.T) {
	dir := tree(t, map[string]string{"a": strings.Repeat("a", 1<<20)})
	files, _ := collect(t, dir, archive.Selection{Paths: []string{"a"}})
	f := create(t, dir, archive.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := archive.Collect(ctx, dir, archive.Selection{Paths: []string{"**"}}, &messages{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := archive.Create(ctx, io.Discard, files, archive.Options{}, &messages{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := archive.Extract(ctx, f, t.TempDir(), &messages{}); !errors.Is(err, context.Canceled) || errors.Is(err, archive.ErrDamaged) {
		t.Error(err)
	}
	// In the middle of a file, too.
	ctx, cancel = context.WithCancel(t.Context())
	w := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	if err := archive.Create(ctx, w, files, archive.Options{Level: archive.Fastest}, &messages{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestNames(t *testing.T) {
	if f, ok := archive.ParseFormat("TarZstd"); f != archive.TarZstd || !ok {
		t.Error(f, ok)
	}
	if f, ok := archive.ParseFormat("rar"); f != archive.Zip || ok {
		t.Error(f, ok)
	}
	if l, ok := archive.ParseLevel("SLOW"); l != archive.Slow || !ok {
		t.Error(l, ok)
	}
	if l, ok := archive.ParseLevel("11"); l != archive.Default || ok {
		t.Error(l, ok)
	}
	for f, want := range map[archive.Format]string{archive.Zip: ".zip", archive.ZipZstd: ".zip", archive.Gzip: ".gz", archive.TarZstd: ".tar.zst", archive.Raw: ""} {
		if got := f.Extension(); got != want {
			t.Errorf("%s: %s", f, got)
		}
	}
}

// member is an entry of a hostile archive.
type member struct {
	name string
	mode fs.FileMode
	body string
	hard bool
}

func zipOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	zw := zip.NewWriter(&out)
	for _, m := range members {
		h := &zip.FileHeader{Name: m.name, Method: zip.Deflate, Modified: time.Unix(1_000_000_000, 0)}
		h.SetMode(m.mode)
		w, err := zw.CreateHeader(h)
		must(t, err)
		if m.mode.IsDir() {
			continue
		}
		_, err = io.WriteString(w, m.body)
		must(t, err)
	}
	must(t, zw.Close())
	return out.Bytes()
}

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	zw, err := zstd.NewWriter(&out)
	must(t, err)
	tw := tar.NewWriter(zw)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Mode: int64(m.mode.Perm()), ModTime: time.Unix(1_000_000_000, 0), Typeflag: tar.TypeReg, Size: int64(len(m.body))}
		if m.mode&fs.ModeSetuid != 0 {
			h.Mode |= 0o4000
		}
		switch {
		case m.hard:
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, m.body, 0
		case m.mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, m.body, 0
		case m.mode.IsDir():
			h.Typeflag = tar.TypeDir
		case m.mode&fs.ModeNamedPipe != 0:
			h.Typeflag = tar.TypeFifo
		case m.mode&fs.ModeDevice != 0:
			h.Typeflag = tar.TypeBlock
		}
		must(t, tw.WriteHeader(h))
		if h.Size > 0 {
			_, err := io.WriteString(tw, m.body)
			must(t, err)
		}
	}
	must(t, tw.Close())
	must(t, zw.Close())
	return out.Bytes()
}

// unpack extracts data into base/project, and checks that the rest of base stays as it is.
func unpack(t testing.TB, data []byte, before map[string]string) (map[string]string, *messages, error) {
	t.Helper()
	base := tree(t, map[string]string{"outside/secret": "untouched", "project/": ""})
	project := filepath.Join(base, "project")
	fill(t, project, before)
	outside := listing(t, filepath.Join(base, "outside"))
	path := filepath.Join(t.TempDir(), "archive")
	must(t, os.WriteFile(path, data, 0o600))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	log := &messages{}
	err = archive.ExtractWith(t.Context(), f, project, archive.ExtractOptions{Room: 1 << 26}, log)
	if diff := cmp.Diff(outside, listing(t, filepath.Join(base, "outside"))); diff != "" {
		t.Errorf("written outside: %s", diff)
	}
	entries, _ := os.ReadDir(base)
	if len(entries) != 2 {
		t.Errorf("written outside: %v", entries)
	}
	return listing(t, project), log, err
}

func TestExtractHostile(t *testing.T) {
	const link = fs.ModeSymlink | 0o777
	tests := []struct {
		name    string
		before  map[string]string
		members []member
		want    []string // files that are there, besides "good"
		log     string
	}{
		{"absolute", nil, []member{{name: "/tmp/tranter-evil", mode: 0o644}}, nil, `"/tmp/tranter-evil": not extracted: it leads out`},
		{"parent", nil, []member{{name: "../outside/secret", mode: 0o644}}, nil, "it leads out"},
		{"parent inside", nil, []member{{name: "a/../../outside/secret", mode: 0o644}}, nil, "it leads out"},
		{"parent as directory", nil, []member{{name: "../outside/", mode: fs.ModeDir | 0o700}}, nil, "it leads out"},
		{"zero byte", nil, []member{{name: "a\x00b", mode: 0o644}}, nil, ""},
		{"link then file through it", nil, []member{{name: "l", mode: link, body: "../outside"}, {name: "l/secret", mode: 0o644, body: "evil"}}, []string{"l", "l/secret"}, `"l": not extracted: a directory with files`},
		{"link then same name", nil, []member{{name: "l", mode: link, body: "../outside/secret"}, {name: "l", mode: 0o644, body: "evil"}}, []string{"l"}, ""},
		{"existing link out", map[string]string{"l": "-> ../outside"}, []member{{name: "l/secret", mode: 0o644, body: "evil"}}, []string{"l"}, `"l/secret": not extracted: it leads through a symbolic link out`},
		{"existing deep link out", map[string]string{"d/l": "-> ../../outside"}, []member{{name: "d/l/x/y", mode: 0o644, body: "evil"}}, []string{"d", "d/l"}, "through a symbolic link out"},
		{"existing link out, directory", map[string]string{"l": "-> ../outside"}, []member{{name: "l/", mode: fs.ModeDir | 0o777}, {name: "l/new/", mode: fs.ModeDir | 0o777}}, []string{"l"}, "through a symbolic link out"},
		{"existing link to file out", map[string]string{"l": "-> ../outside/secret"}, []member{{name: "l", mode: 0o644, body: "good"}}, []string{"l"}, ""},
		{"existing dangling link", map[string]string{"l": "-> ../outside/new"}, []member{{name: "l/x", mode: 0o644}, {name: "l", mode: 0o644}}, []string{"l"}, "to nowhere"},
		{"existing link inside is followed", map[string]string{"real/": "", "l": "-> real"}, []member{{name: "l/", mode: fs.ModeDir | 0o700}, {name: "l/x", mode: 0o644}}, []string{"l", "real", "real/x"}, ""},
		{"link in place of directory", map[string]string{"d/keep": "k"}, []member{{name: "d", mode: link, body: "/etc"}}, []string{"d", "d/keep"}, "a directory with files is in the place"},
		{"links to links", nil, []member{{name: "a", mode: link, body: "b"}, {name: "b", mode: link, body: "../outside"}, {name: "a/c", mode: link, body: "x"}}, []string{"a", "b"}, ""},
		{"empty link", nil, []member{{name: "l", mode: link}}, nil, "a link without a usable target"},
		{"long link", nil, []member{{name: "l", mode: link, body: strings.Repeat("x", 5000)}}, nil, "a link without a usable target"},
		{"device", nil, []member{{name: "dev", mode: fs.ModeDevice | 0o666}}, nil, "neither a file"},
		{"fifo", nil, []member{{name: "fifo", mode: fs.ModeNamedPipe | 0o666}}, nil, "neither a file"},
		{"setuid", nil, []member{{name: "su", mode: fs.ModeSetuid | 0o755}}, []string{"su"}, "without its setuid"},
		{"no mode", nil, []member{{name: "f", mode: 0}}, []string{"f"}, ""},
		{"directory becomes link", nil, []member{{name: "d/", mode: fs.ModeDir | 0o700}, {name: "d", mode: link, body: "../outside"}}, []string{"d"}, ""},
		{"project itself", nil, []member{{name: "./", mode: fs.ModeDir}, {name: "./f", mode: 0o600}}, []string{"f"}, ""},
	}
	good := member{name: "good", mode: 0o640, body: "good"}
	for _, tt := range tests {
		members := append(append([]member{}, tt.members...), good)
		builds := map[string]func(testing.TB, ...member) []byte{"zip": zipOf, "tarzstd": tarOf}
		if tt.name == "zero byte" || tt.name == "empty link" {
			delete(builds, "tarzstd") // tar cannot even say it
		}
		for format, build := range builds {
			t.Run(tt.name+"/"+format, func(t *testing.T) {
				got, log, err := unpack(t, build(t, members...), tt.before)
				must(t, err)
				if got["good"] != "-rw-r----- 2001-09-09 01:46:40 good" {
					t.Errorf("the good file: %q", got["good"])
				}
				delete(got, "good")
				want := map[string]bool{}
				for _, n := range tt.want {
					want[n] = true
				}
				for n, what := range got {
					if !want[n] || strings.HasPrefix(what, "u") || strings.Contains(what, "evil") && n != "l/secret" && n != "l" {
						t.Errorf("%s: %s", n, what)
					}
					delete(want, n)
				}
				if len(want) > 0 {
					t.Errorf("missing: %v", want)
				}
				if !strings.Contains(log.text(), tt.log) || tt.log == "" && tt.name != "zero byte" && strings.Count(tt.name, "link") == 0 && log.text() != "" {
					t.Errorf("log %q, want %q", log.text(), tt.log)
				}
			})
		}
	}
}

func TestExtractHardLinks(t *testing.T) {
	got, log, err := unpack(t, tarOf(t, member{name: "b", body: "a", hard: true}, member{name: "a", mode: 0o600, body: "data"},
		member{name: "c", body: "../outside/secret", hard: true}, member{name: "d", body: "l", hard: true}, member{name: "l", mode: fs.ModeSymlink, body: "../outside/secret"},
		member{name: "e", body: "a", hard: true}), map[string]string{"e": "old"})
	must(t, err)
	if !strings.HasSuffix(got["b"], "data") || !strings.HasSuffix(got["e"], "data") || len(got) != 4 {
		t.Errorf("%v\n%s", got, log.text())
	}
}

// An archive that was made on Windows tells no permissions.
func TestExtractWithoutPermissions(t *testing.T) {
	var out bytes.Buffer
	zw := zip.NewWriter(&out)
	for _, name := range []string{"d/", "d/f"} {
		_, err := zw.CreateHeader(&zip.FileHeader{Name: name})
		must(t, err)
	}
	must(t, zw.Close())
	got, _, err := unpack(t, out.Bytes(), nil)
	must(t, err)
	if !strings.HasPrefix(got["d"], "drwxr-xr-x 20") || !strings.HasPrefix(got["d/f"], "-rw-r--r-- 20") { // modes and times of now
		t.Errorf("%v", got)
	}
}

func TestExtractManyRefusals(t *testing.T) {
	var members []member
	for i := range 25 {
		members = append(members, member{name: fmt.Sprintf("../%d", i), mode: 0o600})
	}
	_, log, err := unpack(t, zipOf(t, members...), nil)
	must(t, err)
	if len(log.lines) != 11 || !strings.Contains(log.text(), "15 more entries") {
		t.Error(log.text())
	}
}

func TestExtractDamaged(t *testing.T) {
	noise := make([]byte, 200_000)
	rand.New(rand.NewSource(1)).Read(noise)
	ms := []member{
		{name: "first", mode: 0o644, body: "fine"},
		{name: "deep/er/first", mode: 0o644, body: "fine"},
		{name: "empty/", mode: fs.ModeDir | 0o755},
		{name: "link", mode: fs.ModeSymlink | 0o777, body: "first"},
		{name: "second", mode: 0o644, body: string(noise)},
	}
	good := map[string][]byte{"zip": zipOf(t, ms...), "tarzstd": tarOf(t, ms...)}
	for name, data := range good {
		flipped := bytes.Clone(data)
		flipped[len(flipped)/2] ^= 1
		for how, bad := range map[string][]byte{"cut": data[:len(data)*2/3], "flipped": flipped, "head only": data[:4]} {
			got, _, err := unpack(t, bad, nil)
			if !errors.Is(err, archive.ErrDamaged) {
				t.Errorf("%s, %s: %v", name, how, err)
			}
			if len(got) > 0 {
				t.Errorf("%s, %s: part of a damaged archive is left: %v", name, how, got)
			}
		}
	}
	for _, junk := range []string{"", "x", "PK\x05\x06", "<html>not found</html>", "\x1f\x8b\x08\x00", "\x28\xb5\x2f\xfd\xff\xff"} {
		if _, _, err := unpack(t, []byte(junk), nil); !errors.Is(err, archive.ErrDamaged) {
			t.Errorf("%q: %v", junk, err)
		}
	}
}

// What was there before a damaged archive stays, but for the files that it had replaced.
func TestExtractDamagedLeavesTheRest(t *testing.T) {
	noise := make([]byte, 200_000)
	rand.New(rand.NewSource(1)).Read(noise)
	data := tarOf(t, member{name: "d/new", mode: 0o644, body: "n"}, member{name: "d/sub/new", mode: 0o644, body: "n"}, member{name: "d/replaced", mode: 0o644, body: "n"},
		member{name: "last", mode: 0o644, body: string(noise)})
	got, _, err := unpack(t, data[:len(data)*3/4], map[string]string{"d/old": "o", "d/replaced": "o", "other/": ""})
	if !errors.Is(err, archive.ErrDamaged) {
		t.Fatal(err)
	}
	if _, ok := got["d/old"]; !ok || len(got) != 3 {
		t.Errorf("%v", got)
	}
}

// A fault of the disk is an error, but no damage of the archive.
func TestExtractOverFile(t *testing.T) {
	_, _, err := unpack(t, zipOf(t, member{name: "d/x", mode: 0o644}), map[string]string{"d": "a file"})
	if err == nil || errors.Is(err, archive.ErrDamaged) {
		t.Error(err)
	}
	_, _, err = unpack(t, zipOf(t, member{name: "d", mode: 0o644}), map[string]string{"d/full": "x"})
	if err == nil || errors.Is(err, archive.ErrDamaged) {
		t.Error(err)
	}
}

// Packing and unpacking need memory for names and buffers, not for contents.
func TestMemoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "big"))
	must(t, err)
	must(t, f.Truncate(48<<20))
	must(t, f.Close())
	for _, format := range packed {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		packed := create(t, dir, archive.Options{Format: format, Level: archive.Fast})
		must(t, archive.Extract(t.Context(), packed, t.TempDir(), &messages{}))
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 24<<20 {
			t.Errorf("%s: %d MB allocated for a file of 48 MB", format, grown>>20)
		}
	}
}
