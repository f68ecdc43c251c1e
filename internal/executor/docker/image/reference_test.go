package image

import (
	"errors"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
)

func TestNamesOfImages(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	for _, c := range []struct{ name, want, full string }{
		{"ruby", "ruby:latest", "docker.io/library/ruby:latest"},
		{" ruby ", "ruby:latest", "docker.io/library/ruby:latest"},
		{"ruby:2.7", "ruby:2.7", "docker.io/library/ruby:2.7"},
		{"r.example/a/b", "r.example/a/b:latest", "r.example/a/b:latest"},
		{"host:5000/img", "host:5000/img", "host:5000/img:latest"}, // the port counts as a tag
		{"host:5000/img:1", "host:5000/img:1", "host:5000/img:1"},
		{"[::1]:5000/img:1", "[::1]:5000/img:1", "[::1]:5000/img:1"},
		{"ruby@sha256:" + hex, "ruby@sha256:" + hex, "docker.io/library/ruby@sha256:" + hex},
		{"ruby:1@sha256:" + hex, "ruby:1@sha256:" + hex, "docker.io/library/ruby:1@sha256:" + hex},
		{"sha256:" + hex, "sha256:" + hex, "sha256:" + hex},
		{hex, "sha256:" + hex, "sha256:" + hex},
	} {
		got, err := Reference(c.name)
		if err != nil || got != c.want {
			t.Errorf("Reference(%q) = %q, %v; want %q", c.name, got, err, c.want)
		}
		if n, err := parse(c.name); err != nil || n.full() != c.want && n.full() != c.full {
			t.Errorf("full name of %q: %v %v, want %q", c.name, n, err, c.full)
		}
	}
}

func TestNamesThatAreNone(t *testing.T) {
	for name, says := range map[string]string{
		"":                                      "no image is named",
		"  ":                                    "no image is named",
		"ruby:$VERSION":                         "the variable $VERSION in it has no value",
		"${CI_REGISTRY}/x":                      "the variable ${CI_REGISTRY} in it has no value",
		"https://r.example/x":                   "a name has no scheme",
		"ruby 2":                                "there is a blank in it",
		"ruby:":                                 "its tag is empty",
		"ruby:-1":                               "its tag is malformed",
		"ruby:" + strings.Repeat("a", 129):      "its tag is malformed",
		"ruby@":                                 "is no digest",
		"ruby@sha256:abc":                       "is no digest",
		"ruby@latest":                           "is no digest",
		"/ruby":                                 "a part of its path is empty",
		"r.example//ruby":                       "a part of its path is empty",
		"r.example/Group/Ruby:1":                `capital letters: write "group/ruby"`,
		"r.example/" + strings.Repeat("a", 256): "longer than 255",
		"ruby..x":                               "lower-case letters and digits",
		"-ruby":                                 "lower-case letters and digits",
		"r\x1b[31muby":                          "is not the name of an image",
	} {
		_, err := Reference(name)
		var c *tranter.ConfigError
		if !errors.As(err, &c) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("Reference(%q): %v, want a ConfigError with %q", name, err, says)
		}
	}
}

func FuzzReference(f *testing.F) {
	for _, name := range []string{"ruby", "host:5000/img", "a@sha256:b", "[::1]:5/x:1", "A/b", "a:b@c"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := Reference(name)
		if err != nil {
			var c *tranter.ConfigError
			if !errors.As(err, &c) || len(err.Error()) > 2000 {
				t.Fatalf("Reference(%q): %v", name, err)
			}
			return
		}
		again, err := Reference(got)
		if err != nil || again != got {
			t.Errorf("Reference(%q) = %q, of which it makes %q, %v", name, got, again, err)
		}
		n, _ := parse(got)
		if m := mirrorOf(Mirror{Address: "mirror", Remote: n.registry()}); m.copies(n) {
			if p := m.parsed(n); p.registry() != "mirror:443" {
				t.Errorf("the mirror's copy of %q is %q", got, m.name(n))
			}
		}
	})
}

func TestPlatforms(t *testing.T) {
	for _, c := range []struct {
		asked string
		has   platform
		want  bool
	}{
		{"", platform{"windows", "arm", "v7"}, true},
		{"linux", platform{"linux", "s390x", ""}, true},
		{"linux/amd64", platform{"linux", "amd64", ""}, true},
		{"LINUX/x86_64", platform{"linux", "amd64", ""}, true},
		{"amd64", platform{"linux", "amd64", ""}, true},
		{"linux/arm64/v8", platform{"linux", "arm64", ""}, true},
		{"linux/arm64", platform{"linux", "arm64", "v8"}, true},
		{"aarch64", platform{"linux", "arm64", "v8"}, true},
		{"linux/arm/v7", platform{"linux", "arm", "v6"}, false},
		{"linux/arm/v7", platform{"linux", "arm", ""}, true},
		{"armhf", platform{"linux", "arm", "v7"}, true},
		{"linux/amd64", platform{"linux", "arm64", ""}, false},
		{"windows/amd64", platform{"linux", "amd64", ""}, false},
	} {
		p, err := parsePlatform(c.asked)
		if err != nil || p.satisfied(c.has) != c.want {
			t.Errorf("%q satisfied by %v: want %v; %v %v", c.asked, c.has, c.want, p, err)
		}
	}
	for _, text := range []string{"a/b/c/d", "linux/", "/", "linux amd64", "linux/amd64\n/x", strings.Repeat("a", 50)} {
		if p, err := parsePlatform(text); err == nil {
			t.Errorf("%q is read as %v", text, p)
		}
	}
}

func TestExposedPorts(t *testing.T) {
	got := tcpPorts(func(yield func(string) bool) {
		for _, p := range []string{"80/tcp", "53/udp", "443", "80", "8000-8002/tcp", "x/tcp", "70000/tcp", "0/tcp", "1-65535/tcp", "9-x/tcp", "-1/tcp"} {
			if !yield(p) {
				return
			}
		}
	})
	if len(got) != 104 || got[0] != 1 || got[103] != 8002 {
		t.Errorf("%d ports: %v", len(got), got)
	}
}

func TestMirrorAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"":                         "",
		"127.0.0.1:5000":           "127.0.0.1:5000/library/ruby:latest",
		"http://127.0.0.1:5000/":   "127.0.0.1:5000/library/ruby:latest",
		"https://mirror.example":   "mirror.example/library/ruby:latest",
		"http://mirror":            "mirror:80/library/ruby:latest",
		"mirror":                   "mirror:443/library/ruby:latest",
		"mirror.example/proxy/hub": "mirror.example/proxy/hub/library/ruby:latest",
	} {
		n, err := parse("ruby")
		if err != nil {
			t.Fatal(err)
		}
		m := mirrorOf(Mirror{Address: address})
		got := ""
		if m.copies(n) {
			got = m.name(n)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", address, got, want)
		}
	}
}
