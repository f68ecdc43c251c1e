package archive_test

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter/internal/agent/archive"
)

// Whatever the bytes, nothing outside the directory changes, nothing panics, and of an archive that is damaged nothing is
// left.
func FuzzExtract(f *testing.F) {
	const link = fs.ModeSymlink | 0o777
	sets := [][]member{
		{},
		{{name: "a", mode: 0o644, body: "text"}, {name: "d/", mode: fs.ModeDir | 0o755}, {name: "d/b", mode: 0o755, body: "more"}},
		{{name: "l", mode: link, body: "../outside"}, {name: "l/secret", mode: 0o644, body: "evil"}},
		{{name: "../outside/secret", mode: 0o644, body: "evil"}, {name: "/abs", mode: 0o644}},
		{{name: "existing/secret", mode: 0o644, body: "evil"}, {name: "existing", mode: 0o644}},
		{{name: "same", mode: 0o644, body: "1"}, {name: "Same", mode: 0o644, body: "2"}, {name: "same", mode: 0o644, body: "3"}},
		{{name: "d", mode: 0o644, body: "file"}, {name: "d/x", mode: 0o644, body: "below"}},
		{{name: "l", mode: link, body: "here"}, {name: "l/f", mode: 0o644, body: "through"}, {name: "l", mode: 0o644, body: "over"}},
		{{name: "hard", body: "l", hard: true}, {name: "l", mode: link, body: "../outside/secret"}, {name: "pipe", mode: fs.ModeNamedPipe | 0o600}},
		{{name: "line\nbreak", mode: 0o644}, {name: "\xff\xfe", mode: 0o4755, body: "s"}, {name: strings.Repeat("n", 300), mode: 0o644}},
		{{name: "zeros", mode: 0o644, body: strings.Repeat("0", 100_000)}},
	}
	for _, members := range sets {
		f.Add(zipOf(f, members...))
		f.Add(tarOf(f, members...))
	}
	dir := tree(f, map[string]string{"a": "a", "l": "-> a"})
	for _, format := range []archive.Format{archive.Zip, archive.ZipZstd, archive.TarZstd} {
		files, _ := collect(f, dir, archive.Selection{Paths: []string{"."}})
		var out bytes.Buffer
		must(f, archive.Create(f.Context(), &out, files, archive.Options{Format: format}, &messages{}))
		f.Add(out.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := map[string]string{"existing": "-> ../outside", "here": "-> .", "file": "f"}
		after, _, err := unpack(t, data, before)
		for name, what := range after {
			if _, ok := before[name]; err != nil && !ok {
				t.Errorf("%s (%s) is left after: %v", name, what, err)
			}
		}
	})
}
