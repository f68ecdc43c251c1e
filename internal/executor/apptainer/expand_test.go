package apptainer

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
)

// given is what the tests' settings know.
func given() settings {
	return settings{
		job: []tranter.Variable{{Key: "JOB", Value: "7"}, {Key: "EMPTY", Value: ""}, {Key: "EVIL", Value: "/a:/b"}, {Key: "UP", Value: "x/../../y"}},
		env: func(name string) (string, bool) {
			v, ok := map[string]string{"NODE": "n1", "JOB": "of the environment", "EMPTY": "filled"}[name]
			return v, ok
		},
	}
}

func TestVariablesOfSettings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"$JOB-${JOB}": "7-7", "$NODE": "n1", "${NO:-x y}": "x y", "$NO|": "|", "$$JOB": "$JOB", "$EMPTY": "filled", "${JOB:-z}": "7", "$": "$", "${": "${", "a$1": "a$1",
	} {
		if got := given().expand(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestMounts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"/a": "/a:/a", "/a:/b": "/a:/b", "/a:/b:ro": "/a:/b:ro", "/a:/b:rw": "/a:/b", "/a/../c:/d/": "/c:/d", "/s/${JOB:-x}:/t": "/s/7:/t", "/s/${NO:-x}": "/s/x:/s/x",
		"$EVIL": "", "/s/$UP": "", "/s:/t/$UP": "", "a:/b": "", "/a:b": "", "/a:/": "", "/a:/b:no": "", "/a:/b:ro:x": "", "/a:/b,c": "", "": "",
	} {
		got, err := given().mount(text)
		if _, configured := errors.AsType[*tranter.ConfigError](err); (want == "") != configured || want != "" && got.String() != want {
			t.Errorf("%q is %q, %v; want %q", text, got.String(), err, want)
		}
	}
}

func FuzzMount(f *testing.F) {
	for _, text := range []string{"/a:/b:ro", "${JOB:-x}:/b", "$EVIL:/c", "}{:"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := given().mount(text)
		if err == nil && (!filepath.IsAbs(b.Source) || !filepath.IsAbs(b.Target) || b.Target == "/" || strings.ContainsAny(b.Source+b.Target, ":\x00")) {
			t.Errorf("%q became %+v", text, b)
		}
	})
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ configured, permitted, asked, want []string }{
		{nil, nil, nil, []string{"always"}},
		{[]string{"never"}, nil, nil, []string{"never"}},
		{[]string{"always"}, nil, []string{"never"}, nil},
		{[]string{"always"}, []string{"never", "always"}, []string{"never", "never"}, []string{"never"}},
		{nil, nil, []string{"sometimes"}, nil},
	} {
		got, err := policies(c.configured, c.permitted, c.asked)
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

func TestNamesOfServices(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"postgres": "postgres", "postgres:16": "postgres", "r.example:5000/a/b:1": "r.example__a__b r.example-a-b", "a/b@sha256:00": "a__b a-b", "docker://x:1": "x", "@": "service",
	} {
		got := hostNames(name)
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q", name, got)
		}
		for _, n := range got {
			if !hostAlias().MatchString(n) {
				t.Errorf("%q is no name of a host", n)
			}
		}
	}
}

func TestLogins(t *testing.T) {
	t.Parallel()
	l, trouble := loginsOf([]string{`{"auths": {"https://R.example/v1/": {"auth": "dTpwOnc="}, "index.docker.io": {"username": "hub", "password": "x"}}}`, `{`}, t.TempDir(),
		[]tranter.Credential{{Type: "registry", URL: "r.example", Username: "later", Password: "y"}, {Type: "registry", URL: "other:5000", Username: "token", Password: "z"}, {Type: "x", URL: "no", Username: "a"}})
	for registry, want := range map[string]string{"r.example": "u p:w true", "docker.io": "hub x true", "registry-1.docker.io": "hub x true", "other:5000": "token z true", "no": "  false"} {
		user, password, ok := l.find(registry)
		got := user + " " + password + " false"
		if ok {
			got = user + " " + password + " true"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", registry, got, want)
		}
	}
	if len(trouble) != 1 {
		t.Errorf("trouble %q", trouble)
	}
}

// A link in an image leads nowhere but into the image.
func TestLinksOfImages(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]string{"/linked/data": "/real/data", "/../../etc": "/etc", "/none/x": "/none/x", "/linked/../bin": "/bin"} {
		if got := resolve(shared.image, target); got != want {
			t.Errorf("%s is %s, want %s", target, got, want)
		}
	}
}
