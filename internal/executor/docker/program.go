package docker

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/image"
	"github.com/tranter-ci/tranter/internal/executor/docker/janitor"
)

// programFor returns the program that can run on an engine: this one, or for another system or architecture one that was
// built for that and lies beside it.
func programFor(self, system, arch string) (string, error) {
	if system != "linux" {
		return "", &tranter.ConfigError{Err: fmt.Errorf("the engine runs %s containers; only Linux containers are supported", system)}
	}
	if system == runtime.GOOS && arch == runtime.GOARCH {
		return self, static(self)
	}
	name := "tranter-" + system + "-" + arch
	other := filepath.Join(filepath.Dir(self), name)
	if info, err := os.Stat(other); err != nil || !info.Mode().IsRegular() {
		return "", &tranter.ConfigError{Err: fmt.Errorf("the engine is %s/%s and this program is %s/%s: put the program for the engine beside this one, as %s", system, arch, runtime.GOOS, runtime.GOARCH, other)}
	}
	return other, static(other)
}

// static returns an error for a program that needs a loader of its system: it would not run in most images.
func static(program string) error {
	f, err := elf.Open(program)
	if err != nil {
		return fmt.Errorf("look at the program for containers: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return &tranter.ConfigError{Err: fmt.Errorf("%s needs libraries, which images do not have: build it with \"make build\", that is, with CGO_ENABLED=0", program)}
		}
	}
	return nil
}

// findMirror returns the registry mirror that images are pulled through; it is started if the configuration says so.
func (e *Executor) findMirror(ctx context.Context, h *host) (image.Mirror, error) {
	d := e.options.Settings
	switch d.RegistryMirror {
	case "":
		return image.Mirror{}, nil
	case "start":
		m, err := janitor.EnsureMirror(ctx, h.engine, janitor.MirrorOptions{
			Image: d.RegistryMirrorImage, Remote: d.RegistryMirrorRemote, Owner: e.options.Runner.Owner,
		})
		if err != nil {
			return image.Mirror{}, err
		}
		h.mirror = m.ServiceURL
		return image.Mirror{Address: m.EngineAddress, Remote: remoteHost(d.RegistryMirrorRemote)}, nil
	default:
		h.mirror = d.RegistryMirror
		return image.Mirror{Address: d.RegistryMirror, Remote: remoteHost(d.RegistryMirrorRemote)}, nil
	}
}

// remoteHost returns the registry that a mirror stands for, as names of images have it.
func remoteHost(url string) string {
	_, host, ok := strings.Cut(url, "://")
	if !ok {
		host = url
	}
	host, _, _ = strings.Cut(host, "/")
	if host == "registry-1.docker.io" || host == "index.docker.io" {
		return ""
	}
	return host
}
