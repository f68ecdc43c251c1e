package archive_test

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/tranter-ci/tranter/internal/agent/archive"
)

// bigTree makes 256 MB in 1024 files that compress to about half.
func bigTree(b *testing.B) (string, int64) {
	b.Helper()
	dir := b.TempDir()
	random := rand.New(rand.NewSource(1))
	const size = 256 << 10
	for i := range 1024 {
		data := make([]byte, size)
		for j := 0; j < size; j += 64 {
			random.Read(data[j : j+32])
			copy(data[j+32:j+64], "the same words again and again, ")
		}
		sub := filepath.Join(dir, fmt.Sprint(i%32))
		must(b, os.MkdirAll(sub, 0o755))
		must(b, os.WriteFile(filepath.Join(sub, fmt.Sprint(i)), data, 0o644))
	}
	return dir, 1024 * size
}

func BenchmarkCreate(b *testing.B) {
	dir, size := bigTree(b)
	for _, o := range []archive.Options{{Format: archive.Zip, Level: archive.Fastest}, {Format: archive.Zip, Level: archive.Fast}, {Format: archive.Zip}, {Format: archive.ZipZstd}, {Format: archive.TarZstd}} {
		b.Run(string(o.Format)+"-"+string(o.Level), func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				create(b, dir, o)
			}
		})
	}
}

func BenchmarkExtract(b *testing.B) {
	dir, size := bigTree(b)
	for _, o := range []archive.Options{{Format: archive.Zip, Level: archive.Fastest}, {Format: archive.Zip}, {Format: archive.ZipZstd}, {Format: archive.TarZstd}} {
		f := create(b, dir, o)
		b.Run(string(o.Format)+"-"+string(o.Level), func(b *testing.B) {
			b.SetBytes(size)
			into := b.TempDir()
			for b.Loop() {
				must(b, archive.Extract(b.Context(), f, into, &messages{}))
			}
		})
	}
}
