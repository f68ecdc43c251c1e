package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
)

func orderFor(t testing.TB, image string) order {
	n, err := parse(image)
	if err != nil {
		t.Fatal(err)
	}
	return order{Wanted: Wanted{Name: n.asked}, name: n}
}

func typeOf(err error) string {
	var c *tranter.ConfigError
	var d *tranter.DependencyError
	var p *tranter.PullError
	switch {
	case errors.As(err, &c):
		return "config"
	case errors.As(err, &d):
		return "dependency"
	case errors.As(err, &p):
		return "pull"
	default:
		return "system"
	}
}

// What engines say: dockerd 20.10 to 28, containerd's image store, Podman 4.
func TestWhatEnginesSay(t *testing.T) {
	for said, want := range map[string]string{
		"failed to register layer: Error processing tar file(exit status 1): write /x: no space left on device":                                         "pull: the disk of the engine is full",
		"write /var/lib/docker/tmp/GetImageBlob1: disk quota exceeded":                                                                                  "pull: the disk of the engine is full",
		"toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating: https://www.docker.com/increase":         "dependency: too many requests",
		"received unexpected HTTP status: 429 Too Many Requests":                                                                                        "dependency: too many requests",
		"unexpected status from HEAD request to https://r/v2/x/manifests/1: 429 Too Many Requests":                                                      "dependency: too many requests",
		"no matching manifest for linux/arm64/v8 in the manifest list entries":                                                                          "config: platform",
		"choosing an image from manifest list docker://x: no image found in manifest list for architecture arm64":                                       "config: platform",
		"no match for platform in manifest: not found":                                                                                                  "config: platform",
		`image operating system "windows" cannot be used on this platform`:                                                                              "config: platform",
		`Get "https://r.example/v2/": http: server gave HTTP response to HTTPS client`:                                                                  "config: plain HTTP",
		`Get "https://r.example/v2/": x509: certificate signed by unknown authority`:                                                                    "config: TLS certificate",
		`Get "https://r.example/v2/": tls: failed to verify certificate: x509: certificate is valid for a, not r.example`:                               "config: TLS certificate",
		`Get "https://r.example/v2/": net/http: TLS handshake timeout`:                                                                                  "dependency: does not answer in time",
		`Get "https://r.example/v2/": dial tcp: lookup r.example on 127.0.0.53:53: no such host`:                                                        "dependency: does not resolve",
		`Get "https://r.example/v2/": dial tcp: lookup r.example: Temporary failure in name resolution`:                                                 "dependency: does not resolve",
		`Get "https://r.example/v2/": dial tcp 10.0.0.1:443: connect: connection refused`:                                                               "dependency: refuses connections",
		`Get "https://r.example/v2/": dial tcp 10.0.0.1:443: i/o timeout`:                                                                               "dependency: does not answer in time",
		`Get "https://r.example/v2/": context deadline exceeded`:                                                                                        "dependency: does not answer in time",
		`net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)`:                                      "dependency: does not answer in time",
		`Get "https://r.example/v2/": proxyconnect tcp: dial tcp 10.0.0.1:3128: connect: connection refused`:                                            "dependency: the proxy",
		`read tcp 10.0.0.2:1->10.0.0.1:443: read: connection reset by peer`:                                                                             "dependency: the connection to the registry",
		`Get "https://r.example/v2/": EOF`:                                                                                                              "dependency: the connection to the registry",
		`unexpected EOF`:                                                                                                                                "dependency: the connection to the registry",
		`received unexpected HTTP status: 500 Internal Server Error`:                                                                                    "dependency: fails itself",
		`error parsing HTTP 502 response body: invalid character '<' looking for beginning of value: "<html>"`:                                          "dependency: fails itself",
		`pull access denied for group/app, repository does not exist or may require 'docker login': denied: requested access to the resource is denied`: "config: none is set for it",
		`Head "https://r.example/v2/group/app/manifests/1": no basic auth credentials`:                                                                  "config: none is set for it",
		`Head "https://r.example/v2/group/app/manifests/1": unauthorized: incorrect username or password`:                                               "config: none is set for it",
		`Head "https://r.example/v2/group/app/manifests/1": denied: access forbidden`:                                                                   "config: none is set for it",
		`error parsing HTTP 403 response body: unexpected end of JSON input: ""`:                                                                        "config: none is set for it",
		`manifest for r.example/group/app:1 not found: manifest unknown: manifest unknown`:                                                              "config: does not have it",
		`initializing source docker://r.example/group/app:1: reading manifest 1 in r.example/group/app: manifest unknown`:                               "config: does not have it",
		`name unknown: repository name not known to registry`:                                                                                           "config: does not have it",
		`invalid reference format: repository name must be lowercase`:                                                                                   "config: does not accept the name",
		`filesystem layer verification failed for digest sha256:abc`:                                                                                    "pull: damaged",
		`unsupported manifest media type and no default available: application/x`:                                                                       "pull: no image that this engine can run",
		`something new`: "pull: the pull failed",
	} {
		kind, part, _ := strings.Cut(want, ": ")
		err := explain(&streamError{text: said}, orderFor(t, "r.example/group/app:1"))
		if typeOf(err) != kind || !strings.Contains(err.Error(), part) {
			t.Errorf("%s\nis %s: %v\nwant %s", said, typeOf(err), err, want)
		}
		if !strings.Contains(err.Error(), "image r.example/group/app:1: ") || !strings.Contains(err.Error(), said) {
			t.Errorf("the name or what the engine says is not in %v", err)
		}
	}
}

func TestTheStatusDecidesWhereTheTextDoesNot(t *testing.T) {
	o := orderFor(t, "r.example/app:1")
	for err, want := range map[error]string{
		cerrdefs.ErrNotFound.WithMessage("hm"):        "config",
		cerrdefs.ErrUnauthenticated.WithMessage("hm"): "config",
		cerrdefs.ErrInvalidArgument.WithMessage("hm"): "config",
		cerrdefs.ErrInternal.WithMessage("hm"):        "pull",
		errors.New("read: unexpected EOF"):            "system", // of the connection to the engine
		context.Canceled:                              "system",
	} {
		if got := typeOf(explain(err, o)); got != want {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
}

func TestTheNameDoesNotDecide(t *testing.T) {
	for _, image := range []string{"r.example/toomanyrequests/unauthorized:1", "toomanyrequests", "r.example/x509:toomanyrequests"} {
		o := orderFor(t, image)
		err := explain(&streamError{text: "manifest for " + o.name.full() + " not found: manifest unknown: " + o.name.repository() + " " + o.Name}, o)
		if typeOf(err) != "config" || !strings.Contains(err.Error(), "does not have it") {
			t.Errorf("%s: %v", image, err)
		}
	}
}

func TestWhatTheEngineSaysIsCleanedAndBounded(t *testing.T) {
	o := orderFor(t, "r.example/app:1")
	o.login = login{source: "a place", path: "r.example", auth: registry.AuthConfig{Username: "me", Password: "hidden"}}
	err := explain(&streamError{text: "unauthorized \x1b[2J\r\nhidden https://you:hidden2@r.example/ \xff" + strings.Repeat("x", 5000)}, o)
	said := err.Error()
	if strings.ContainsAny(said, "\x1b\r\n") || strings.Contains(said, "hidden") || len(said) > 2000 || !utf8.ValidString(said) {
		t.Errorf("%q", said)
	}
	if !strings.Contains(said, "credentials from a place, kept there for r.example as the user me") {
		t.Error(said)
	}
}

// scripted is an engine that answers as it is told.
func scripted(t *testing.T, version string, handler http.HandlerFunc) *Store {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	api, err := client.New(client.WithHost("tcp://"+strings.TrimPrefix(server.URL, "http://")), client.WithAPIVersion(version))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { api.Close() })
	return NewStore(api, Options{Pause: func() time.Duration { return time.Millisecond }})
}

func TestErrorsWithinTheStreamOfAPull(t *testing.T) {
	for name, c := range map[string]struct {
		stream string
		kind   string
		says   string
	}{
		"with detail":    {`{"errorDetail":{"message":"write /x: no space left on device"},"error":"no"}` + "\n", "pull", "disk of the engine is full"},
		"without detail": {`{"status":"Pulling from a","id":"1"}` + "\r\n" + `{"error":"manifest unknown"}`, "config", "does not have it"},
		"no JSON":        {"<html>", "system", "read what the engine says"},
		"endless":        {`{"status":"` + strings.Repeat("x", 2<<20), "system", "a message is too long"},
		"removed":        {`{"status":"done"}`, "pull", "something has removed it"},
	} {
		t.Run(name, func(t *testing.T) {
			s := scripted(t, "1.41", func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/json") {
					http.Error(w, `{"message":"No such image"}`, http.StatusNotFound)
					return
				}
				io.WriteString(w, c.stream)
			})
			_, err := s.Get(t.Context(), Wanted{Name: "a:1"}, io.Discard)
			if typeOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("%s: %v, want %s: %s", typeOf(err), err, c.kind, c.says)
			}
		})
	}
}

func TestAnEngineThatKeepsSeveralPlatformsIsToldWhich(t *testing.T) {
	var asked []string
	s := scripted(t, "1.49", func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Query().Get("platform"))
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"Id":"sha256:1","Os":"linux","Architecture":"arm64"}`)
	})
	f, err := s.Get(t.Context(), Wanted{Name: "a:1", Policies: []string{Never}, Platform: "linux/arm64"}, io.Discard)
	if err != nil || f.Arch != "arm64" || len(asked) != 1 || !strings.Contains(asked[0], `"arm64"`) {
		t.Errorf("%+v %v, asked %q", f, err, asked)
	}
}

// A scripted engine, for the registry does not see it: engines of old wait for what they have asked for in any case.
func TestTheLastJobThatLeavesEndsThePull(t *testing.T) {
	begun, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	s := scripted(t, "1.41", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"status":"Pulling from a"}`+"\n")
		w.(http.Flusher).Flush()
		begun <- struct{}{}
		<-r.Context().Done()
		ended <- struct{}{}
	})
	ctx, leave := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.Get(ctx, Wanted{Name: "a:1"}, io.Discard)
		done <- err
	}()
	<-begun
	cause := errors.New("the job was canceled")
	leave(cause)
	if err := <-done; !errors.Is(err, cause) || typeOf(err) != "system" {
		t.Errorf("error: %v", err)
	}
	<-ended
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pulls) != 0 {
		t.Errorf("%d pulls are left", len(s.pulls))
	}
}

func TestTheLastWordOnSeveralPolicies(t *testing.T) {
	o := orderFor(t, "a:1")
	o.Policies, o.What = []string{Always, Never}, "build"
	d := &tranter.DependencyError{Err: errors.New("down")}
	c := configError("not here")
	for want, failed := range map[string][]error{
		"dependency": {d, c},
		"config":     {c, c},
		"pull":       {c, &tranter.PullError{Err: errors.New("odd")}},
	} {
		err := refusal(o, failed)
		if typeOf(err) != want || !strings.HasPrefix(err.Error(), `failed to pull image "a:1" for the build container with specified policies [always never]: `) {
			t.Errorf("%s: %v", typeOf(err), err)
		}
		if n := strings.Count(err.Error(), "not here"); n != 1 {
			t.Errorf("said %d times: %v", n, err)
		}
	}
}

func FuzzExplain(f *testing.F) {
	f.Add("manifest unknown", "ruby:1")
	f.Add("429 Too Many Requests", "host:5000/img")
	f.Add("\x1b[0m\n", "sha256:"+strings.Repeat("a", 64))
	f.Fuzz(func(t *testing.T, said, image string) {
		n, err := parse(image)
		if err != nil {
			return
		}
		o := order{Wanted: Wanted{Name: n.asked}, name: n}
		err = explain(&streamError{text: said}, o)
		if typeOf(err) == "system" || strings.ContainsAny(strings.TrimPrefix(err.Error(), "image "+o.Name), "\x1b\n\r") {
			t.Errorf("%q: %v", said, err)
		}
	})
}

func FuzzFollow(f *testing.F) {
	f.Add(`{"status":"Downloading","id":"a","progressDetail":{"current":1,"total":2}}` + "\n")
	f.Add(`{"status":"Downloading","id":"a","progressDetail":{"current":-9223372036854775808,"total":9223372036854775807}}` + "\n")
	f.Fuzz(func(t *testing.T, stream string) {
		var log strings.Builder
		m := newMeter("x", 0, &log)
		moved := 0
		err := follow(strings.NewReader(stream), m, func() { moved++ })
		if lines := strings.Count(stream, "\n") + 1; err == nil && moved > lines {
			t.Errorf("%d steps in %d lines", moved, lines)
		}
	})
}
