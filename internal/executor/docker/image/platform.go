package image

import (
	"fmt"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tranter-ci/tranter/internal/lazy"
)

var platformPattern = lazy.Regexp(`^[A-Za-z0-9_.-]{1,40}(?:/[A-Za-z0-9_.-]{1,40}){0,2}$`)

// platform is what an image was built for; the zero value is the engine's own.
type platform struct{ os, arch, variant string }

// parsePlatform reads OS/ARCH[/VARIANT], OS, or ARCH (of Linux).
func parsePlatform(text string) (platform, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return platform{}, nil
	}
	if !matches(platformPattern, text) {
		return platform{}, configError("%q is not a platform: write it as OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, such as linux/amd64 or linux/arm/v7", shorten(text, 100))
	}
	parts := strings.Split(strings.ToLower(text), "/")
	if len(parts) == 1 {
		if slices.Contains([]string{"linux", "windows", "freebsd", "darwin"}, parts[0]) {
			return platform{os: parts[0]}, nil
		}
		parts = []string{"linux", parts[0]}
	}
	p := platform{os: parts[0], arch: parts[1]}
	if len(parts) == 3 {
		p.variant = parts[2]
	}
	return p.normal(), nil
}

// normal uses one word for what goes by several.
func (p platform) normal() platform {
	switch p.arch {
	case "x86_64", "x86-64":
		p.arch = "amd64"
	case "i386", "i686":
		p.arch = "386"
	case "aarch64":
		p.arch = "arm64"
	case "armhf":
		p.arch, p.variant = "arm", "v7"
	case "armel":
		p.arch, p.variant = "arm", "v6"
	}
	if (p.arch == "arm64" && (p.variant == "v8" || p.variant == "8")) || (p.arch == "amd64" && p.variant == "v1") {
		p.variant = ""
	}
	return p
}

func (p platform) String() string {
	var parts []string
	for _, part := range []string{p.os, p.arch, p.variant} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/")
}

// suffix is " for PLATFORM" where one was asked for.
func (p platform) suffix() string {
	if p == (platform{}) {
		return ""
	}
	return " for " + p.String()
}

// satisfied reports whether an image built for q will do. An image says nothing of a variant as often as not.
func (p platform) satisfied(q platform) bool {
	q = q.normal()
	same := func(want, has string) bool { return want == "" || want == has }
	return same(p.os, q.os) && same(p.arch, q.arch) && (q.variant == "" || same(p.variant, q.variant))
}

func (p platform) oci() ocispec.Platform {
	return ocispec.Platform{OS: p.os, Architecture: p.arch, Variant: p.variant}
}

// otherPlatform is the error for an image that is there, but not for the platform that was asked for.
type otherPlatform struct{ has, want platform }

func (e *otherPlatform) Error() string { return fmt.Sprintf("it is for %s, not for %s", e.has, e.want) }
