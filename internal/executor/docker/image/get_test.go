package image_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/executor/docker/image"
)

func get(t *testing.T, s *image.Store, w image.Wanted) (image.Facts, string, error) {
	t.Helper()
	var log buffer
	f, err := s.Get(t.Context(), w, &log)
	return f, log.String(), err
}

// kindOf names the type of an error.
func kindOf(err error) string {
	var c *tranter.ConfigError
	var d *tranter.DependencyError
	var p *tranter.PullError
	switch {
	case err == nil:
		return "none"
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

func check(t *testing.T, err error, kind string, parts ...string) {
	t.Helper()
	if got := kindOf(err); got != kind {
		t.Fatalf("the error is of the kind %s, want %s: %v", got, kind, err)
	}
	contains(t, fmt.Sprint(err), parts...)
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in:\n%s", p, text)
		}
	}
}

func configFor(address, user, password string) string {
	return fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, address, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
}

func TestAnImageIsPulledAndDescribed(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	digest, ids := push(t, server, r, "1", tiny{config: map[string]any{
		"User": "1000:1000", "Env": []string{"A=b"}, "Entrypoint": []string{"/e"}, "Cmd": []string{"c", "d"}, "WorkingDir": "/w",
		"ExposedPorts": map[string]any{"8080/tcp": map[string]any{}, "53/udp": map[string]any{}, "80/tcp": map[string]any{}},
		"Volumes":      map[string]any{"/v": map[string]any{}, "/a": map[string]any{}},
	}})
	name := server.Address + "/" + r + ":1"
	f, log, err := get(t, image.NewStore(engine(t), image.Options{}), image.Wanted{Name: name, What: "build"})
	if err != nil {
		t.Fatal(err)
	}
	use := server.Address + "/" + r + "@" + digest
	want := image.Facts{
		ID: ids[0], Name: name, Use: use, Digest: digest, User: "1000:1000", OS: "linux", Arch: "amd64",
		Entrypoint: []string{"/e"}, Cmd: []string{"c", "d"}, Env: []string{"A=b"}, Ports: []int{80, 8080}, Volumes: []string{"/a", "/v"}, WorkDir: "/w",
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
	wantLog := "Using effective pull policy of [always] for container " + name + "\nPulling docker image " + name +
		" ...\nUsing docker image " + ids[0] + " for " + name + " with digest " + use + " ...\n"
	if log != wantLog {
		t.Errorf("log:\n%swant:\n%s", log, wantLog)
	}
}

func TestPoliciesDecideWhenToPull(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	p := newProxy(t, server)
	name := p.Address + "/" + r + ":1"
	_, first := push(t, server, r, "1", tiny{})
	s := image.NewStore(engine(t), noPause(image.Options{}))

	_, _, err := get(t, s, image.Wanted{Name: name, Policies: []string{image.Never}, What: "build"})
	check(t, err, "config", `with specified policies [never]`, "the engine does not have the image", `"if-not-present"`)
	if n := p.count(""); n != 0 {
		t.Errorf("%d requests to the registry with the policy never", n)
	}
	if _, _, err := get(t, s, image.Wanted{Name: name, Policies: []string{image.IfNotPresent}}); err != nil {
		t.Fatal(err)
	}
	_, second := push(t, server, r, "1", tiny{}) // the tag moves
	for _, policy := range []string{image.IfNotPresent, image.Never} {
		f, log, err := get(t, s, image.Wanted{Name: name, Policies: []string{policy}})
		if err != nil || f.ID != first[0] {
			t.Errorf("%s: %v %v, want %s\n%s", policy, f.ID, err, first[0], log)
		}
	}
	f, _, err := get(t, s, image.Wanted{Name: name, Policies: []string{image.Always}})
	if err != nil || f.ID != second[0] {
		t.Errorf("always: %v %v, want %s", f.ID, err, second[0])
	}

	p.fail(status(-1, http.StatusInternalServerError, ""))
	f, log, err := get(t, s, image.Wanted{Name: name, Policies: []string{image.Always, image.IfNotPresent}})
	if err != nil || f.ID != second[0] {
		t.Errorf("fallback: %v %v", f.ID, err)
	}
	contains(t, log, "Using effective pull policy of [always if-not-present]", `WARNING: Failed to pull image with policy "always"`,
		`Attempt #2: Trying "if-not-present" pull policy`, `Using locally found image version due to "if-not-present" pull policy`)
}

func TestAnImageOfTheJobIsNotPulledAgain(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	p := newProxy(t, server)
	push(t, server, r, "1", tiny{})
	s, seen := image.NewStore(engine(t), image.Options{}), &image.Seen{}
	w := image.Wanted{Name: p.Address + "/" + r + ":1", Seen: seen}
	if _, _, err := get(t, s, w); err != nil {
		t.Fatal(err)
	}
	before := p.count("")
	if _, _, err := get(t, s, w); err != nil {
		t.Fatal(err)
	}
	if after := p.count(""); after != before {
		t.Errorf("%d requests for an image that the job has got", after-before)
	}
}

func TestAnImageByItsIDIsNotPulled(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	_, ids := push(t, server, r, "1", tiny{})
	s := image.NewStore(engine(t), image.Options{})
	if _, _, err := get(t, s, image.Wanted{Name: server.Address + "/" + r + ":1"}); err != nil {
		t.Fatal(err)
	}
	f, log, err := get(t, s, image.Wanted{Name: ids[0], Policies: []string{image.Always}})
	if err != nil || f.ID != ids[0] || f.Use != ids[0] || strings.Contains(log, "Pulling") {
		t.Errorf("%+v %v\n%s", f, err, log)
	}
	_, _, err = get(t, s, image.Wanted{Name: "sha256:" + strings.Repeat("0", 64)})
	check(t, err, "config", "cannot be pulled by its id")
}

func TestADigestNamesAnImage(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	digest, ids := push(t, server, r, "1", tiny{})
	s := image.NewStore(engine(t), image.Options{})
	for _, name := range []string{r + "@" + digest, r + ":1@" + digest} {
		for _, policy := range []string{image.Always, image.IfNotPresent} {
			f, _, err := get(t, s, image.Wanted{Name: server.Address + "/" + name, Policies: []string{policy}})
			if err != nil || f.ID != ids[0] || f.Digest != digest {
				t.Errorf("%s %s: %+v %v", name, policy, f, err)
			}
		}
	}
}

func TestAnImageThatDoesNotExist(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	push(t, server, r, "1", tiny{})
	s := image.NewStore(engine(t), image.Options{})
	_, _, err := get(t, s, image.Wanted{Name: server.Address + "/" + r + ":2", What: "service db"})
	check(t, err, "config", "for the service db container", "does not have it", "tag 2", "Check the spelling", "manifest unknown")
	_, _, err = get(t, s, image.Wanted{Name: server.Address + "/" + r + "-other:2"})
	check(t, err, "config", "Check the spelling")
}

func TestAPrivateImage(t *testing.T) {
	server, r := enginetest.PrivateRegistry(t), repo(t)
	push(t, server, r, "1", tiny{})
	s := image.NewStore(engine(t), image.Options{})
	name := server.Address + "/" + r + ":1"

	_, _, err := get(t, s, image.Wanted{Name: name, Logins: image.LoginsOf("", configFor("example.com", "u", "p"), "", nil)})
	check(t, err, "config", "none is set for it", "DOCKER_AUTH_CONFIG", "of the runner's environment", server.Address+"/"+r)

	wrong := image.LoginsOf(configFor(server.Address, server.User, "hunter2hunter2"), "", "", nil)
	_, log, err := get(t, s, image.Wanted{Name: name, Logins: wrong})
	check(t, err, "config", "refuses access with the credentials from $DOCKER_AUTH_CONFIG, kept there for "+server.Address, server.User)
	if all := log + err.Error(); strings.Contains(all, "hunter2") {
		t.Errorf("the password is told:\n%s", all)
	}

	right := image.LoginsOf("", "", "", []tranter.Credential{{Type: "registry", URL: server.Address, Username: server.User, Password: tranter.Secret(server.Password)}})
	_, log, err = get(t, s, image.Wanted{Name: name, Logins: right})
	if err != nil {
		t.Fatal(err)
	}
	contains(t, log, "Authenticating with credentials from job payload (GitLab Registry)\n")

	// The engine has the image now; who may not pull it does not get it by the policy always.
	_, _, err = get(t, s, image.Wanted{Name: name})
	check(t, err, "config")
}

func TestARegistryThatFails(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	push(t, server, r, "1", tiny{})
	p := newProxy(t, server)
	s := image.NewStore(engine(t), noPause(image.Options{}))
	w := image.Wanted{Name: p.Address + "/" + r + ":1"}

	t.Run("and recovers", func(t *testing.T) {
		p.fail(status(2, http.StatusServiceUnavailable, ""))
		_, log, err := get(t, s, w)
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		contains(t, log, "attempt 2 of 3 follows", "fails itself")
	})
	for _, c := range []struct {
		name, body, kind string
		code, tries      int
		parts            []string
	}{
		{"for good", "", "dependency", http.StatusBadGateway, 3, []string{"fails itself"}},
		{
			"too many requests", `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}`, "dependency", http.StatusTooManyRequests, 3,
			[]string{"too many requests", "DOCKER_AUTH_CONFIG", "registry_mirror", "if-not-present"},
		},
		{"too many requests without a word", "", "dependency", http.StatusTooManyRequests, 3, []string{"too many requests"}},
		{"no access", `{"errors":[{"code":"DENIED","message":"access forbidden"}]}`, "config", http.StatusForbidden, 1, []string{"none is set for it"}},
		{"unauthorized", `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, "config", http.StatusUnauthorized, 1, []string{"none is set for it"}},
		{"no JSON", `<html>what</html>`, "config", http.StatusNotFound, 1, []string{"Check the spelling"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.fail(status(-1, c.code, c.body))
			_, log, err := get(t, s, w)
			check(t, err, c.kind, c.parts...)
			if tries := 1 + strings.Count(log, "follows in"); tries != c.tries {
				t.Errorf("%d attempts, want %d:\n%s", tries, c.tries, log)
			}
		})
	}
}

func TestARegistryThatHangs(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	push(t, server, r, "1", tiny{})
	p := newProxy(t, server)
	p.fail(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	s := image.NewStore(engine(t), noPause(image.Options{Stalled: 300 * time.Millisecond}))
	_, log, err := get(t, s, image.Wanted{Name: p.Address + "/" + r + ":1"})
	check(t, err, "dependency", "given up", "no progress for 300ms")
	if strings.Contains(log, "attempt 2") {
		t.Errorf("another attempt:\n%s", log)
	}
}

func TestARegistryThatIsNotThere(t *testing.T) {
	p := newProxy(t, enginetest.Registry(t))
	gone := httptest.NewServer(http.NotFoundHandler())
	address := strings.TrimPrefix(gone.URL, "http://")
	gone.Close()
	s := image.NewStore(engine(t), noPause(image.Options{}))
	_, _, err := get(t, s, image.Wanted{Name: address + "/a:1"})
	check(t, err, "dependency", "refuses connections", address)
	_, _, err = get(t, s, image.Wanted{Name: "registry.invalid/a:1"})
	check(t, err, "dependency", "registry.invalid")
	if p.count("") != 0 {
		t.Error("another registry was asked")
	}
}

func TestARegistryWithoutATrustedCertificate(t *testing.T) {
	s := image.NewStore(engine(t), noPause(image.Options{}))
	for name, c := range map[string]struct {
		start func(*httptest.Server)
		parts []string
	}{
		"plain HTTP": {(*httptest.Server).Start, []string{"speaks plain HTTP", "insecure-registries"}},
		"TLS":        {(*httptest.Server).StartTLS, []string{"does not trust the TLS certificate", "certs.d"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := outside(t)
			server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.NotFoundHandler()}}
			c.start(server)
			defer server.Close()
			_, _, err := get(t, s, image.Wanted{Name: l.Addr().String() + "/a:1"})
			check(t, err, "config", c.parts...)
		})
	}
}

func TestAnImageForAnotherPlatform(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	_, both := push(t, server, r, "both", tiny{}, tiny{arch: "arm64"})
	push(t, server, r, "one", tiny{}, tiny{arch: "386"})
	push(t, server, r, "single", tiny{})
	s := image.NewStore(engine(t), image.Options{})
	name := server.Address + "/" + r

	f, _, err := get(t, s, image.Wanted{Name: name + ":both", Platform: "linux/arm64"})
	if err != nil || f.ID != both[1] || f.Arch != "arm64" || f.Use != f.ID {
		t.Errorf("arm64: %+v %v", f, err)
	}
	f, log, err := get(t, s, image.Wanted{Name: name + ":both", Platform: "linux/amd64", Policies: []string{image.IfNotPresent}})
	if err != nil || f.ID != both[0] {
		t.Errorf("amd64: %+v %v", f, err)
	}
	contains(t, log, "for linux/arm64, not for linux/amd64: it counts as not present")
	f, _, err = get(t, s, image.Wanted{Name: name + ":both"})
	if err != nil || f.ID != both[0] || f.Arch != "amd64" {
		t.Errorf("the engine's own: %+v %v", f, err)
	}
	_, _, err = get(t, s, image.Wanted{Name: name + ":one", Platform: "linux/arm64"})
	check(t, err, "config", "does not exist for the platform linux/arm64", "no matching manifest")
	_, _, err = get(t, s, image.Wanted{Name: name + ":single", Platform: "linux/arm64"})
	check(t, err, "config", "for linux/amd64 only")
	_, _, err = get(t, s, image.Wanted{Name: name + ":single", Platform: "a b"})
	check(t, err, "config", "is not a platform")
}

func TestPlatformsOfOneNameAtTheSameTime(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	_, ids := push(t, server, r, "1", tiny{}, tiny{arch: "arm64"})
	s := image.NewStore(engine(t), image.Options{})
	results := make(chan error, 8)
	for i := range 8 {
		go func() {
			f, err := s.Get(t.Context(), image.Wanted{Name: server.Address + "/" + r + ":1", Platform: []string{"linux/amd64", "linux/arm64"}[i%2]}, &buffer{})
			if err == nil && f.Use != ids[i%2] {
				err = fmt.Errorf("got %s for another platform", f.Use)
			}
			results <- err
		}()
	}
	for range 8 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestAnEngineThatIsGone(t *testing.T) {
	api, err := client.New(client.WithHost("unix://" + t.TempDir() + "/none.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	for _, policies := range [][]string{{image.Always}, {image.IfNotPresent, image.Always}} {
		_, log, err := get(t, image.NewStore(api, noPause(image.Options{})), image.Wanted{Name: "a", Policies: policies})
		check(t, err, "system", "none.sock")
		if strings.Contains(log, "attempt 2") || strings.Contains(log, "Attempt #2") {
			t.Errorf("tried again:\n%s", log)
		}
	}
}

// jobs that want the same image at the same time

func TestJobsShareOnePull(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	_, ids := push(t, server, r, "1", tiny{})
	p := newProxy(t, server)
	release := make(chan struct{})
	p.fail(func(http.ResponseWriter, *http.Request) bool { <-release; return false })
	s := image.NewStore(engine(t), image.Options{})
	w := image.Wanted{Name: p.Address + "/" + r + ":1"}
	type outcome struct {
		facts image.Facts
		err   error
	}
	start := func(ctx context.Context) (*buffer, chan outcome) {
		log, done := &buffer{}, make(chan outcome, 1)
		go func() {
			f, err := s.Get(ctx, w, log)
			done <- outcome{f, err}
		}()
		return log, done
	}
	firstCtx, leave := context.WithCancel(t.Context())
	_, first := start(firstCtx)
	<-p.arrived
	var logs []*buffer
	var others []chan outcome
	for range 3 {
		log, done := start(t.Context())
		logs, others = append(logs, log), append(others, done)
	}
	for _, log := range logs {
		until(t, func() bool { return strings.Contains(log.String(), "Pulling docker image") })
		contains(t, log.String(), "Waiting for the pull of")
	}
	leave() // the one that began it
	if o := <-first; !errors.Is(o.err, context.Canceled) {
		t.Errorf("the job that left: %v", o.err)
	}
	close(release)
	for _, done := range others {
		if o := <-done; o.err != nil || o.facts.ID != ids[0] {
			t.Errorf("%+v", o)
		}
	}
	if n := p.count("GET /v2/" + r + "/blobs/"); n != 2 {
		t.Errorf("%d blobs fetched, want the configuration and one layer", n)
	}
}

func TestALoginIsNotShared(t *testing.T) {
	server, r := enginetest.PrivateRegistry(t), repo(t)
	push(t, server, r, "1", tiny{})
	p := newProxy(t, server)
	release := make(chan struct{})
	p.fail(func(http.ResponseWriter, *http.Request) bool { <-release; return false })
	s := image.NewStore(engine(t), image.Options{})
	w := image.Wanted{Name: p.Address + "/" + r + ":1"}
	mayDone, mayNotDone := make(chan error, 1), make(chan error, 1)
	go func() {
		w := w
		w.Logins = image.LoginsOf(configFor(p.Address, server.User, server.Password), "", "", nil)
		_, err := s.Get(t.Context(), w, &buffer{})
		mayDone <- err
	}()
	<-p.arrived
	log := &buffer{}
	go func() {
		_, err := s.Get(t.Context(), w, log)
		mayNotDone <- err
	}()
	until(t, func() bool { return strings.Contains(log.String(), "Pulling docker image") })
	close(release)
	if err := <-mayDone; err != nil {
		t.Error(err)
	}
	check(t, <-mayNotDone, "config", "none is set for it")
	if strings.Contains(log.String(), "Waiting for the pull") {
		t.Errorf("the pull was shared:\n%s", log)
	}
}

// until waits for what another goroutine does.
func until(t *testing.T, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(20 * time.Second); !is(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it does not happen")
		}
	}
}
