package spec

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/config"
	"github.com/tranter-ci/tranter/internal/variables"
)

// The vectors of the runner contract, section 14.3.
func TestNamesAreTheStockRunners(t *testing.T) {
	r := input().Runner
	base := "runner-19dc3a6b8df948cc67cadd3b3ddcb773"
	in := input()
	in.Settings.Volumes = []string{"/cache"}
	protected := input()
	yes := true
	protected.Job.Git.Protected = &yes
	for got, want := range map[string]string{
		UniqueName("XyZ_12345", 42, 0):                 "runner-xyz12345-project-42-concurrent-0",
		VolumeBase(r, 42, 0):                           base,
		compile(t, in).Caches[0]:                       base + "-cache-3c3f060a0374fc8bc39395164f415a70",
		compile(t, in).Caches[1]:                       base + "-cache-c33bcaa1fd2c77edfc3893b41966cea8",
		compile(t, protected).Caches[0]:                base + "-cache-c33bcaa1fd2c77edfc3893b41966cea8-protected",
		variables.NetworkName("abcdefghi", 42, 1, 777): "runner-abcdefghi-42-1-777",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// Of an old server's jobs the first variable counts: users add theirs after it.
func TestNobodySetsThatARefIsProtected(t *testing.T) {
	for values, want := range map[string]bool{"false true": false, "true false": true, "true": true, "": false} {
		in := input()
		for value := range strings.FieldsSeq(values) {
			in.Job.Variables = append(in.Job.Variables, tranter.Variable{Key: "CI_COMMIT_REF_PROTECTED", Value: value})
		}
		in.Variables = append(in.Variables, in.Job.Variables...)
		if got := strings.HasSuffix(compile(t, in).Caches[0], "-protected"); got != want {
			t.Errorf("%q: protected: %v", values, got)
		}
	}
}

func TestAnyTokenGivesAHostName(t *testing.T) {
	host := regexp.MustCompile(`^[a-z0-9-]{1,63}$`)
	rapid.Check(t, func(t *rapid.T) {
		name := UniqueName(rapid.String().Draw(t, "token"), rapid.Int64().Draw(t, "project"), rapid.Int().Draw(t, "slot"))
		if !host.MatchString(name) {
			t.Fatalf("%q is no host name", name)
		}
	})
}

func TestServiceNames(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for name, want := range map[string]slug{
		"postgres":                           {"postgres:latest", "postgres", "latest", []string{"postgres"}},
		"postgres:17":                        {"postgres:17", "postgres", "17", []string{"postgres"}},
		"ns/pg":                              {"ns/pg:latest", "ns/pg", "latest", []string{"ns__pg", "ns-pg"}},
		"registry.example.com:5000/ns/pg:14": {"registry.example.com:5000/ns/pg:14", "registry.example.com/ns/pg", "14", []string{"registry.example.com__ns__pg", "registry.example.com-ns-pg"}},
		"registry.example.com:5000/pg":       {"registry.example.com:5000/pg:latest", "registry.example.com/pg", "latest", []string{"registry.example.com__pg", "registry.example.com-pg"}},
		"localhost:5000/pg@" + digest:        {"localhost:5000/pg@" + digest, "localhost/pg", digest, []string{"localhost__pg", "localhost-pg"}},
		"pg:14@" + digest:                    {"pg:14@" + digest, "pg", "14", []string{"pg"}},
		"no such:image:name":                 {"no such:image:name", "no such:image:name", "latest", []string{"no-such-image-name"}},
		"://":                                {"://", "://", "latest", []string{"service"}},
	} {
		got := parseService(name)
		if got.image != want.image || got.service != want.service || got.version != want.version || !slices.Equal(got.aliases, want.aliases) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

func FuzzServiceNames(f *testing.F) {
	for _, s := range []string{"postgres", "a:5000/b/c:d@sha256:00", "[::1]:5/x", "://", "ä/$x"} {
		f.Add(s)
	}
	container := regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)
	f.Fuzz(func(t *testing.T, name string) {
		s := parseService(name)
		if s.image == "" && name != "" || len(s.aliases) == 0 {
			t.Fatalf("%q gives %+v", name, s)
		}
		for _, a := range s.aliases {
			if !container.MatchString("x-" + a) {
				t.Errorf("%q gives the alias %q", name, a)
			}
		}
	})
}

func TestAliasesOfServices(t *testing.T) {
	in := input()
	in.Settings.Services = []config.Service{{Name: "postgres:17", Alias: "db"}}
	in.Job.Services = []tranter.Image{
		{Name: "postgres:16", Alias: "db, other"}, {Name: "postgres:15", Alias: "db"}, {Name: "redis", Alias: "a b,c"}, {Name: "mysql", Alias: "x:y"},
	}
	s := compile(t, in)
	var got []string
	for _, v := range s.Services {
		got = append(got, v.Image+"="+strings.Join(v.Aliases, "+")+" "+strings.TrimPrefix(v.Container, s.Prefix))
	}
	want := []string{"postgres:17=postgres+db -postgres-0", "postgres:16=other -postgres-1", "redis:latest=redis+a+b+c -redis-3", "mysql:latest=mysql -mysql-4"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	text := strings.Join(s.Warnings, "\n")
	for _, part := range []string{"postgres:16: the alias postgres is taken by service postgres:17", "Service postgres:15 is not started", `mysql: "x:y" can't be its alias`} {
		if !strings.Contains(text, part) {
			t.Errorf("no warning %q in:\n%s", part, text)
		}
	}
}

func TestPortsOfServices(t *testing.T) {
	many := make([]int, 0, 30)
	for p := 30; p > 0; p-- {
		many = append(many, p, p)
	}
	for port, want := range map[string][]int{
		"":   {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20},
		"80": {80}, "0": nil, "x": nil, "70000": nil,
	} {
		if want == nil {
			want = []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}
		}
		v := Service{env: []tranter.Variable{{Key: "HEALTHCHECK_TCP_PORT", Value: port}}}
		if got := v.Ports(many); !slices.Equal(got, want) {
			t.Errorf("%q: got %v", port, got)
		}
	}
	if got := (Service{}).Ports(nil); len(got) != 0 {
		t.Errorf("without ports: %v", got)
	}
}

func TestEnginesAmongTheServicesGetTheMirror(t *testing.T) {
	for _, c := range []struct {
		image   string
		command []string
		want    []string
	}{
		{"docker:dind", nil, []string{"--registry-mirror=http://m"}},
		{"docker:27.1-dind-rootless", []string{"--tls=false"}, []string{"--tls=false", "--registry-mirror=http://m"}},
		{"registry.example.com:5000/ci/docker:dind", []string{"/usr/bin/dockerd", "-D"}, []string{"/usr/bin/dockerd", "-D", "--registry-mirror=http://m"}},
		{"example.com/my-dind:1", nil, []string{"--registry-mirror=http://m"}},
		{"docker:dind", []string{"sh", "-c", "dockerd"}, []string{"sh", "-c", "dockerd"}},
		{"docker:27", nil, nil},
		{"dind/postgres:17", nil, nil},
		{"notdocker:x-dind", nil, nil},
	} {
		in := input()
		in.Mirror = "http://m"
		in.Job.Services = []tranter.Image{{Name: c.image, Command: c.command}}
		if got := compile(t, in).Service(0, Image{}, nil).Config.Cmd; !slices.Equal(got, c.want) {
			t.Errorf("%s %q: got %q, want %q", c.image, c.command, got, c.want)
		}
		in.Mirror = ""
		if got := compile(t, in).Service(0, Image{}, nil).Config.Cmd; !slices.Equal(got, c.command) {
			t.Errorf("%s without a mirror: %q", c.image, got)
		}
	}
}

func TestWhatIsNoVariableOfAProcessIsLeftOut(t *testing.T) {
	in := input()
	in.Variables = nil
	in.Job.Services = []tranter.Image{{Name: "redis", Variables: []tranter.Variable{
		{Key: "", Value: "x"}, {Key: "A=B", Value: "x"}, {Key: "A\x00", Value: "x"}, {Key: "NUL", Value: "a\x00b"}, {Key: "OK", Value: "a\nb"},
	}}}
	if got := compile(t, in).Service(0, Image{}, nil).Config.Env; !slices.Equal(got, []string{"OK=a\nb"}) {
		t.Errorf("got %q", got)
	}
}
