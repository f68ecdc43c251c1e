// Package enginetest gives tests a real container engine, a real registry and small images made on the machine, so that no
// test needs anything from outside but Debian's packages. Only tests call it.
//
// What is slow to make (images of Debian packages) is kept in the user's cache directory. Processes end with the tests.
package enginetest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/filelock"
)

// process is what is made once for a test process and lasts as long.
type process struct {
	mu     sync.Mutex
	agent  string
	swept  bool
	open   *Server
	closed *Server
	images map[string]*built
}

var shared = &process{images: map[string]*built{}} //nolint:gochecknoglobals // started once for all tests of a process

const (
	answerLimit = 10 * time.Second
	pullLimit   = 3 * time.Minute
)

// SideBySide has so many tests of the package run at the same time, or as many as there are processors if these are more: for
// tests that wait most of the time, for jobs that sleep, polls and engines. The command line may say otherwise. TestMain
// calls it.
func SideBySide(tests int) {
	if err := flag.Set("test.parallel", strconv.Itoa(max(tests, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err) // it is no test binary
	}
}

// Host returns the address of the machine's engine, as DOCKER_HOST has it. It fails the test when none answers.
func Host(t testing.TB) string {
	t.Helper()
	host := cmp.Or(os.Getenv("DOCKER_HOST"), client.DefaultDockerHost)
	ctx, cancel := context.WithTimeout(t.Context(), answerLimit)
	defer cancel()
	if _, err := Client(t, host).Ping(ctx, client.PingOptions{}); err != nil {
		t.Fatalf("no container engine answers at %s (run tools/setup test): %v", host, err)
	}
	return host
}

// Client returns a client of the engine at host until the test ends.
func Client(t testing.TB, host string) *client.Client {
	t.Helper()
	api, err := client.New(client.WithHost(host))
	if err != nil {
		t.Fatalf("a client of the engine at %s: %v", host, err)
	}
	t.Cleanup(func() { _ = api.Close() })
	return api
}

// Agent returns the path of a static program built from this tree, for the tests' containers.
func Agent(t testing.TB) string {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.agent == "" {
		shared.agent = buildAgent(t)
	}
	return shared.agent
}

// buildAgent builds the program and gives it a name of its own for its content: another test process may build a newer one.
func buildAgent(t testing.TB) string {
	t.Helper()
	top := moduleRoot(t)
	dir := filepath.Join(top, "bin", "enginetest")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer Only(t, filepath.Join(dir, "lock"))()
	program := filepath.Join(dir, "tranter")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", program, "./cmd/tranter")
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the program for containers: %v\n%s", err, out)
	}
	named := program + "-" + fileHash(t, program)[:12]
	if _, err := os.Stat(named); err == nil {
		return named
	}
	removeOld(t, program+"-*")
	if err := copyFile(named, program); err != nil {
		t.Fatal(err)
	}
	return named
}

// removeOld removes earlier builds that no running test can need.
func removeOld(t testing.TB, pattern string) {
	t.Helper()
	const age = time.Hour
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > age {
			_ = os.Remove(path)
		}
	}
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close()); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}

func fileHash(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func moduleRoot(t testing.TB) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/tranter-ci/tranter").Output()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// cacheDir returns where images of packages stay from one run of the tests to the next.
func cacheDir(t testing.TB) string {
	t.Helper()
	base, err := os.UserCacheDir()
	if err != nil {
		base = "/var/tmp"
	}
	dir := filepath.Join(base, "tranter-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Only waits for a lock on a file and returns what gives it back: tests of several packages run at the same time.
func Only(t testing.TB, path string) func() {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
		if err == nil {
			err = filelock.Try(f)
		}
		switch {
		case err == nil:
			return func() { _ = f.Close() }
		case !errors.Is(err, filelock.ErrLocked):
			t.Fatal(err)
		}
		_ = f.Close()
		select {
		case <-t.Context().Done():
			t.Fatalf("the test ended while it waited for %s", path)
		case <-tick.C:
		}
	}
}
