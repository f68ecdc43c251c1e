package image

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/tranter-ci/tranter"
)

// kind is where an image comes from.
type kind int

const (
	registry kind = iota
	layoutDir
	layoutArchive
	dockerArchive
	onHost  // a file or directory that the runtime takes as it is
	foreign // only the runtime can get it
)

// reference is the name of an image.
type reference struct {
	asked string
	kind  kind
	path  string // of what is on the host
	tag   string // in a layout or archive
	name  name.Reference
}

// parse understands a name. Its errors are *tranter.ConfigError.
func parse(text string, insecure []string) (reference, error) {
	asked := strings.TrimSpace(text)
	r := reference{asked: asked}
	switch {
	case asked == "":
		return r, configError("no image is named: set image in the job or in [runners.apptainer]")
	case strings.ContainsAny(asked, "\x00\r\n\t ") || len(asked) > 4096:
		return r, configError("%q is not the name of an image: there is a blank in it, or it is too long", shorten(asked, 300))
	}
	return r.understand(insecure)
}

func (r reference) understand(insecure []string) (reference, error) {
	asked := r.asked
	scheme, rest, _ := strings.Cut(asked, ":")
	switch scheme {
	case "oci", "oci-archive", "docker-archive":
		if strings.HasPrefix(rest, "/") {
			return r.local(scheme, rest)
		}
		if scheme != "oci" || strings.HasPrefix(rest, ".") { // oci:tag is an image of a registry, too
			return r, configError("image %s: %s needs an absolute path: %s:/images/app", shorten(asked, 300), scheme, scheme)
		}
	case "docker":
		if plain, ok := strings.CutPrefix(asked, "docker://"); ok {
			return r.inRegistry(plain, insecure)
		}
	case "library", "oras", "shub", "http", "https":
		if strings.HasPrefix(rest, "//") {
			r.kind = foreign
			return r, nil
		}
	}
	if filepath.IsAbs(asked) {
		return r.onHost()
	}
	return r.inRegistry(asked, insecure)
}

func (r reference) onHost() (reference, error) {
	if _, err := os.Stat(r.asked); err != nil {
		return r, configError("image %s: it is a path, and there is nothing that can be read (%s): name an image of a registry, or an existing file", shorten(r.asked, 300), shorten(err.Error(), 300))
	}
	r.kind, r.path = onHost, r.asked
	return r, nil
}

// local understands what follows the scheme of a layout or archive: PATH or PATH:TAG.
func (r reference) local(scheme, rest string) (reference, error) {
	r.kind = map[string]kind{"oci": layoutDir, "oci-archive": layoutArchive, "docker-archive": dockerArchive}[scheme]
	r.path = rest
	if i := strings.IndexByte(rest, ':'); i > 0 {
		r.path, r.tag = rest[:i], rest[i+1:]
	}
	if _, err := os.Stat(r.path); err != nil {
		return r, configError("image %s: it can't be read (%s)", shorten(r.asked, 300), shorten(err.Error(), 300))
	}
	return r, nil
}

func (r reference) inRegistry(text string, insecure []string) (reference, error) {
	parsed, err := name.ParseReference(text, name.WeakValidation)
	if err == nil && contains(insecure, parsed.Context().RegistryStr()) {
		parsed, err = name.ParseReference(text, name.WeakValidation, name.Insecure)
	}
	if err != nil {
		return r, configError("%q is not the name of an image: %s. A name is REGISTRY/PATH:TAG in lower case; a variable in it that has no value leaves a gap", shorten(r.asked, 300), shorten(err.Error(), 300))
	}
	r.name = parsed
	return r, nil
}

// full is the same for all names of the same image.
func (r reference) full() string {
	if r.kind == registry {
		return r.name.Name()
	}
	return r.asked
}

// server is the registry as people write it.
func (r reference) server() string { return serverName(r.name.Context().RegistryStr()) }

func serverName(host string) string {
	if host == name.DefaultRegistry {
		return "docker.io"
	}
	return host
}

// digest is the digest in the name, if there is one.
func (r reference) digest() string {
	if d, ok := r.name.(name.Digest); ok {
		return d.DigestStr()
	}
	return ""
}

func contains(list []string, one string) bool {
	for _, x := range list {
		if strings.EqualFold(x, one) {
			return true
		}
	}
	return false
}

// shorten makes one printable line of at most limit bytes of text from elsewhere.
func shorten(text string, limit int) string {
	clean := strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 || c == '\u2028' || c == '\u2029' {
			return ' '
		}
		return c
	}, text)
	clean = strings.ToValidUTF8(strings.TrimSpace(clean), "?")
	if len(clean) <= limit {
		return clean
	}
	return strings.ToValidUTF8(clean[:limit], "") + "..."
}

func configError(format string, args ...any) error {
	return &tranter.ConfigError{Err: fmt.Errorf(format, args...)}
}
