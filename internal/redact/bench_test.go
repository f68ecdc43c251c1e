package redact_test

import (
	"fmt"
	"io"
	"math/rand"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter/internal/redact"
)

// secrets makes random ones of 16 to 48 characters, as tokens are.
func secrets(n int) []string {
	random := rand.New(rand.NewSource(1))
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/_-"
	out := make([]string, n)
	for i := range out {
		b := make([]byte, 16+random.Intn(32))
		for j := range b {
			b[j] = letters[random.Intn(len(letters))]
		}
		out[i] = string(b)
	}
	return out
}

// BenchmarkMask masks 64 MiB of a build's output, written in pieces of 32 KiB. The time must not grow with the number of
// phrases times the number of bytes.
func BenchmarkMask(b *testing.B) {
	const total, piece = 64 << 20, 32 << 10
	line := "[ 42%] Building CXX object src/module/file.cpp.o and a few words more\n"
	text := []byte(strings.Repeat(line, piece/len(line)+1)[:piece])
	for _, n := range []int{0, 1, 10, 1000} {
		b.Run(fmt.Sprint("phrases=", n), func(b *testing.B) {
			m := redact.Compile(redact.Rules{Phrases: secrets(n)})
			b.SetBytes(total)
			b.ReportAllocs()
			for b.Loop() {
				w := m.NewWriter(io.Discard)
				for range total / piece {
					_, _ = w.Write(text)
				}
				_ = w.Flush()
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{10, 1000} {
		phrases := secrets(n)
		b.Run(fmt.Sprint("phrases=", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				redact.Compile(redact.Rules{Phrases: phrases})
			}
		})
	}
}
