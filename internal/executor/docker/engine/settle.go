package engine

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// settings is what Options and the environment come to.
type settings struct {
	host     string
	certPath string
	verify   bool
	pinned   string // the API version asked for, without a v
}

// lookup reads the environment; tests give one of their own.
type lookup func(name string) string

// settle fills in what the configuration leaves open (contract 9.5): without a host there the environment says host and
// TLS both, otherwise it says neither. DOCKER_API_VERSION holds always.
func settle(ctx context.Context, o Options, env lookup) settings {
	s := settings{host: o.Host, certPath: o.CertPath, verify: o.Verify, pinned: env("DOCKER_API_VERSION")}
	if s.host != "" {
		return s
	}
	s.host = env("DOCKER_HOST")
	if s.certPath == "" {
		s.certPath = env("DOCKER_CERT_PATH")
	}
	s.verify = s.verify || env("DOCKER_TLS_VERIFY") != ""
	if s.host == "" {
		s.host = usual(ctx, candidates(env))
	}
	return s
}

// candidates returns the sockets where an engine is looked for when nothing says where it is, in order: Docker's, Docker's
// of this user alone (rootless), Podman's of this user, Podman's of the machine.
func candidates(env lookup) []string {
	if runtime.GOOS == "windows" {
		return nil
	}
	sockets := []string{"/var/run/docker.sock"}
	if dir := env("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		sockets = append(sockets, filepath.Join(dir, "docker.sock"), filepath.Join(dir, "podman", "podman.sock"))
	}
	return append(sockets, "/run/podman/podman.sock")
}

// usual returns the address of the first socket that takes a connection; if none does, of the first that exists, so that
// the error says what is wrong with it; else of Docker's.
func usual(ctx context.Context, sockets []string) string {
	if len(sockets) == 0 {
		return "npipe:////./pipe/docker_engine"
	}
	found := ""
	for _, socket := range sockets {
		info, err := os.Stat(socket)
		if err != nil || info.Mode()&os.ModeSocket == 0 {
			continue
		}
		if found == "" {
			found = socket
		}
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", socket)
		if err == nil {
			_ = conn.Close()
			return "unix://" + socket
		}
	}
	if found == "" {
		found = sockets[0]
	}
	return "unix://" + found
}
