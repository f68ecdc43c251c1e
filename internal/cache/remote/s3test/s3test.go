// Package s3test runs a real S3 server on the loopback interface, for tests of what speaks to one. Only tests call it.
package s3test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/filelock"
)

// Gateway is a server that keeps one bucket in a temporary directory.
type Gateway struct {
	Address              string // host and port
	AccessKey, SecretKey string
	Bucket               string
	Dir                  string // of the bucket
}

const (
	startLimit = 20 * time.Second
	startTries = 3
)

// Start builds the server from the sources that tools/s3gateway pins, once, and runs it until the test ends.
func Start(t testing.TB) *Gateway {
	t.Helper()
	program := build(t)
	root := t.TempDir()
	g := &Gateway{AccessKey: "test-access", SecretKey: "test-secret", Bucket: "ci-cache", Dir: filepath.Join(root, "data", "ci-cache")}
	for _, dir := range []string{g.Dir, filepath.Join(root, "meta")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for try := 1; ; try++ { // the port may be taken before the server has it
		err := g.run(t, program, root)
		if err == nil {
			return g
		}
		if try == startTries {
			t.Fatal(err)
		}
	}
}

// Unfinished returns how many uploads in parts were begun and are neither completed nor undone.
func (g *Gateway) Unfinished(t testing.TB) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(g.Dir, ".sgwtmp", "multipart", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// build returns the path of the server's program.
func build(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tranter-ci/tranter").Output()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	top := strings.TrimSpace(string(out))
	program := filepath.Join(top, "bin", "versitygw")
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		t.Fatal(err)
	}
	defer only(t, program+".lock")() // tests of several packages run at the same time
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "github.com/versity/versitygw/cmd/versitygw")
	cmd.Dir = filepath.Join(top, "tools", "s3gateway")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the S3 server: %v\n%s", err, out)
	}
	return program
}

// only waits for a lock and returns what gives it back.
func only(t testing.TB, path string) func() {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
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
			t.Fatal("the test ended while it waited for the S3 server to be built")
		case <-tick.C:
		}
	}
}

// run starts the server and waits until it answers.
func (g *Gateway) run(t testing.TB, program, root string) error {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	g.Address = listener.Addr().String()
	if err := listener.Close(); err != nil {
		return fmt.Errorf("find a free port: %w", err)
	}
	cmd := exec.Command(program, "--port", g.Address, "--quiet", "posix", "--sidecar", filepath.Join(root, "meta"), filepath.Join(root, "data"))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+g.AccessKey, "ROOT_SECRET_ACCESS_KEY="+g.SecretKey)
	cmd.Stdout, cmd.Stderr = io.Discard, os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the S3 server: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	ctx, stop := context.WithTimeout(t.Context(), startLimit)
	defer stop()
	if err := g.answers(ctx, ended); err != nil {
		_ = cmd.Process.Kill()
		<-ended
		return err
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	return nil
}

// answers waits until the server takes connections.
func (g *Gateway) answers(ctx context.Context, ended <-chan struct{}) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", g.Address)
		if err == nil {
			select {
			case <-ended: // it was somebody else's server
			default:
				return conn.Close()
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the S3 server does not answer: %w", err)
		case <-ended:
			return errors.New("the S3 server has ended")
		case <-tick.C:
		}
	}
}
