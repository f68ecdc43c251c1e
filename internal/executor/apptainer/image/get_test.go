package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/tranter-ci/tranter"
)

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
	}
	return "other"
}

func hello(t testing.TB, text string) v1.Image {
	return imageOf(t, layerOf(t, entry{name: "etc/", kind: '5'}, entry{name: "etc/a", text: "base"}), layerOf(t, entry{name: "etc/hello", text: text}, entry{name: "bin/sh", text: "#!", mode: 0o4755}))
}

func TestAnImageComesFromARegistryWithALogin(t *testing.T) {
	r := startRegistry(t, "me", "s3cret")
	ref, digest := r.push(t, "group/app:1", hello(t, "hello"))
	s := open(t, filepath.Join(t.TempDir(), "images"), Options{})

	_, err := s.Get(t.Context(), ref, Want{})
	if kindOf(err) != "config" || !strings.Contains(err.Error(), "needs a login") || !strings.Contains(err.Error(), "DOCKER_AUTH_CONFIG") || !strings.Contains(err.Error(), r.address) {
		t.Errorf("without a login: %v", err)
	}
	_, err = s.Get(t.Context(), ref, Want{Login: func(string) (string, string, bool) { return "me", "wr0ng", true }})
	if kindOf(err) != "config" || !strings.Contains(err.Error(), "as the user me") || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("with a wrong login: %v", err)
	}

	var log bytes.Buffer
	img := get(t, s, ref, Want{Login: r.login, Log: &log})
	if img.Digest != digest || img.Form != Directory || img.Ref != ref || !strings.Contains(log.String(), "Pulling image "+ref) {
		t.Errorf("%+v\n%s", img, &log)
	}
	if got := fmt.Sprint(img.Config); got != "{[/entry] [run] [A=1] 1000 /work [80 443]}" {
		t.Error(got)
	}
	if read(t, img.Path, "etc/hello") != "hello" || read(t, img.Path, "etc/a") != "base" {
		t.Error("its files are not there")
	}
	if info, err := os.Stat(filepath.Join(img.Path, "bin/sh")); err != nil || info.Mode() != 0o755 || info.ModTime().Unix() != 1e9 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if info, err := os.Stat(s.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("others can read private images: %v", info.Mode())
	}
	again := get(t, s, s.dir[:0]+ref, Want{Login: r.login, Policies: []string{"never"}})
	stable := get(t, s, r.address+"/group/app@"+digest, Want{Policies: []string{"never"}})
	if again.Path != img.Path || stable.Path != img.Path {
		t.Errorf("%s %s", again.Path, stable.Path)
	}
}

func TestPoliciesAreTriedInTheirOrder(t *testing.T) {
	r := startRegistry(t, "", "")
	ref, first := r.push(t, "app:1", hello(t, "one"))
	s := open(t, filepath.Join(t.TempDir(), "images"), Options{})
	if _, err := s.Get(t.Context(), ref, Want{Policies: []string{"never"}}); kindOf(err) != "config" || !strings.Contains(err.Error(), "if-not-present") {
		t.Errorf("never: %v", err)
	}
	if img := get(t, s, ref, Want{Policies: []string{"if-not-present"}}); img.Digest != first || r.count("GET", "/blobs/") != 3 {
		t.Errorf("%s, %v", img.Digest, r.seen)
	}
	_, second := r.push(t, "app:1", hello(t, "two"))
	if img := get(t, s, ref, Want{Policies: []string{"if-not-present"}}); img.Digest != first || len(r.seen) != 0 {
		t.Errorf("if-not-present asks: %v", r.seen)
	}
	img := get(t, s, ref, Want{Policies: []string{"always"}})
	if img.Digest != second || read(t, img.Path, "etc/hello") != "two" || r.count("GET", "/blobs/") != 2 {
		t.Errorf("only what is new is downloaded: %v", r.seen)
	}
	r.forget()
	if img := get(t, s, ref, Want{}); img.Digest != second || r.count("HEAD", "") != 1 || r.count("GET", "/manifests/")+r.count("GET", "/blobs/") != 0 {
		t.Errorf("always asks for more than the digest: %v", r.seen)
	}
	r.failWith(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusNotImplemented)
		return true
	})
	var log bytes.Buffer
	if img := get(t, s, ref, Want{Policies: []string{"always", "if-not-present"}, Log: &log}); img.Digest != second || !strings.Contains(log.String(), `Attempt #2: Trying "if-not-present"`) || !strings.Contains(log.String(), "WARNING") {
		t.Errorf("%s", &log)
	}
	_, err := s.Get(t.Context(), r.address+"/other", Want{Policies: []string{"always", "never"}})
	if kindOf(err) != "dependency" || !strings.Contains(err.Error(), "[always never]") {
		t.Errorf("what may work later decides: %s %v", kindOf(err), err)
	}
	if _, err := s.Get(t.Context(), ref, Want{Policies: []string{"often"}}); kindOf(err) != "config" {
		t.Error(err)
	}
}

// fetchProgram is what the test program is as another process: it gets an image.
const fetchProgram = "IMAGE_TEST_FETCH"

func TestMain(m *testing.M) {
	if ref := os.Getenv(fetchProgram); ref != "" {
		s, err := Open(os.Getenv("IMAGE_TEST_DIR"), Options{})
		if err == nil {
			var img *Image
			if img, err = s.Get(context.Background(), ref, Want{Log: os.Stdout}); err == nil {
				fmt.Println("PATH", img.Path)
				img.Release()
			}
		}
		if err != nil {
			fmt.Println("FAILED", err)
		}
		return
	}
	os.Exit(m.Run())
}

func TestFiftyAtOnceMakeOneDownload(t *testing.T) {
	r := startRegistry(t, "", "")
	ref, digest := r.push(t, "app:1", hello(t, strings.Repeat("x", 1<<20)))
	// Answers take a while, so that all are there before the first one has the image.
	r.failWith(func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/blobs/") {
			<-time.After(200 * time.Millisecond)
		}
		return false
	})
	dir := filepath.Join(t.TempDir(), "images")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	said := make([]string, 10)
	for i := range said { // processes
		all.Go(func() {
			cmd := exec.CommandContext(t.Context(), self)
			cmd.Env = append(os.Environ(), fetchProgram+"="+ref, "IMAGE_TEST_DIR="+dir)
			out, err := cmd.CombinedOutput()
			said[i] = fmt.Sprint(string(out), err)
		})
	}
	s := open(t, dir, Options{})
	for range 40 {
		all.Go(func() {
			img, err := s.Get(t.Context(), ref, Want{})
			if err != nil || img.Digest != digest {
				t.Error(err)
			}
			img.Release()
		})
	}
	all.Wait()
	for _, text := range said {
		if !strings.Contains(text, "PATH "+dir) || strings.Contains(text, "FAILED") {
			t.Error(text)
		}
		if n := strings.Count(text, "Waiting for"); n > 1 {
			t.Errorf("it is said %d times that it waits:\n%s", n, text)
		}
	}
	if n := r.count("GET", "/blobs/"); n != 3 { // two layers and the configuration
		t.Errorf("%d downloads: %v", n, r.seen)
	}
	for _, left := range []string{tmpDir, locksDir} {
		if entries, err := os.ReadDir(filepath.Join(dir, left)); err != nil || len(entries) > 0 {
			t.Errorf("%s: %v %v", left, entries, err)
		}
	}
}

func TestWhatRegistriesAnswerIsExplained(t *testing.T) {
	r := startRegistry(t, "", "")
	ref, _ := r.push(t, "app:1", hello(t, "x"))
	s := open(t, filepath.Join(t.TempDir(), "images"), Options{})
	status := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, q *http.Request) bool {
			if !strings.Contains(q.URL.Path, "/manifests/") {
				return false
			}
			w.WriteHeader(code)
			return true
		}
	}
	for code, want := range map[int]string{429: "dependency: too many requests", 501: "dependency: fails itself", 403: "config: needs a login", 404: "config: does not have it"} {
		r.failWith(status(code))
		kind, text, _ := strings.Cut(want, ": ")
		if _, err := s.Get(t.Context(), ref, Want{}); kindOf(err) != kind || !strings.Contains(err.Error(), text) {
			t.Errorf("%d is %s: %v", code, kindOf(err), err)
		}
	}
	r.failWith(nil)
	for name, want := range map[string]string{
		r.address + "/nothing:1":          "config: does not have it",
		"127.0.0.1:1/app":                 "dependency: refuses connections",
		"registry.invalid/app":            "dependency: does not resolve",
		"Upper/Case":                      "config: is not the name",
		"":                                "config: no image is named",
		"a b":                             "config: a blank",
		"oci-archive:relative.tar":        "config: an absolute path",
		"/nonexistent/image.sif":          "config: nothing that can be read",
		"library://group/app":             "config: only Apptainer",
		"oci:/nonexistent":                "config: can't be read",
		r.address + "/app@sha256:" + "0f": "config: is not the name",
	} {
		kind, text, _ := strings.Cut(want, ": ")
		if _, err := s.Get(t.Context(), name, Want{}); kindOf(err) != kind || !strings.Contains(err.Error(), text) {
			t.Errorf("%q is %s: %v", name, kindOf(err), err)
		}
	}
	if _, err := s.Get(t.Context(), ref, Want{Platform: "linux/s390x"}); kindOf(err) != "config" || !strings.Contains(err.Error(), "s390x") {
		t.Errorf("another platform: %v", err)
	}
	if _, err := s.Get(t.Context(), ref, Want{Form: File}); err == nil {
		t.Error("a file without a Build")
	}
}

func TestPlainHTTPNeedsPermission(t *testing.T) {
	c := newCarrier([]string{"registry:5000"})
	for address, refused := range map[string]bool{"http://10.0.0.1:5000/v2/": true, "http://example.com/": true} {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.RoundTrip(q)
		if err == nil {
			answer.Body.Close()
		}
		if errors.Is(err, errPlainHTTP) != refused {
			t.Errorf("%s: %v", address, err)
		}
	}
	r, err := parse("registry:5000/app", []string{"registry:5000"})
	if err != nil || r.name.Context().Scheme() != "http" {
		t.Errorf("%v %v", r, err)
	}
}

func TestADownloadThatIsCutOffBeginsAgain(t *testing.T) {
	r := startRegistry(t, "", "")
	ref, _ := r.push(t, "app:1", hello(t, "hello"))
	var mu sync.Mutex
	cut := map[string]bool{}
	r.failWith(func(w http.ResponseWriter, q *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if !strings.Contains(q.URL.Path, "/blobs/") || cut[q.URL.Path] {
			return false
		}
		cut[q.URL.Path] = true
		if len(cut) == 1 {
			return false // the configuration
		}
		w.Header().Set("Content-Length", "1000")
		w.Write([]byte("half"))
		return true
	})
	s := open(t, filepath.Join(t.TempDir(), "images"), Options{})
	if img := get(t, s, ref, Want{}); read(t, img.Path, "etc/hello") != "hello" {
		t.Error("it is not there")
	}
}

func TestADamagedLayerIsFoundAndRemoved(t *testing.T) {
	r := startRegistry(t, "", "")
	ref, _ := r.push(t, "app:1", hello(t, "hello"))
	s := open(t, filepath.Join(t.TempDir(), "images"), Options{})
	get(t, s, ref, Want{Form: OCI})
	layers, err := os.ReadDir(s.blobs)
	if err != nil || len(layers) != 2 {
		t.Fatal(layers, err)
	}
	path := filepath.Join(s.blobs, layers[0].Name())
	data := []byte(read(t, path))
	os.Remove(path) // it is linked
	data[len(data)-5] ^= 1
	write(t, path, string(data))
	if _, err := s.Get(t.Context(), ref, Want{}); kindOf(err) != "pull" || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("%s %v", kindOf(err), err)
	}
	if img := get(t, s, ref, Want{}); read(t, img.Path, "etc/hello") != "hello" {
		t.Error("the next one does not work")
	}
}

func TestFormsAndSources(t *testing.T) {
	r := startRegistry(t, "", "")
	img := hello(t, "hello")
	ref, digest := r.push(t, "app:1", img)
	s := open(t, filepath.Join(t.TempDir(), "images"), Options{TmpDir: t.TempDir(), CacheDir: t.TempDir()})

	builds := 0
	build := func(_ context.Context, source, target string) error {
		builds++
		if dir, ok := strings.CutPrefix(source, "oci:"); ok {
			index, err := layout.ImageIndexFromPath(dir)
			if err != nil {
				return err
			}
			m, err := index.IndexManifest()
			if err != nil || len(m.Manifests) != 1 || m.Manifests[0].Digest.String() != digest {
				return fmt.Errorf("%v %w", m, err)
			}
		}
		return os.WriteFile(target, []byte("sif of "+strings.SplitN(source, ":", 2)[0]), 0o600)
	}
	sif := get(t, s, "docker://"+ref, Want{Form: File, Build: build})
	if sif.Form != File || read(t, sif.Path) != "sif of oci" || sif.Digest != digest || sif.Config.User != "1000" {
		t.Errorf("%+v", sif)
	}
	get(t, s, ref, Want{Form: File, Build: build})
	if builds != 1 {
		t.Errorf("%d builds", builds)
	}
	lib := get(t, s, "library://group/app:1", Want{Build: build})
	if lib.Form != File || read(t, lib.Path) != "sif of library" {
		t.Errorf("%+v", lib)
	}
	if again := get(t, s, "library://group/app:1", Want{Policies: []string{"never"}}); again.Path != lib.Path {
		t.Errorf("%+v", again)
	}
	if _, err := s.Get(t.Context(), "oras://x/y", Want{Build: func(context.Context, string, string) error { return errors.New("it failed") }}); kindOf(err) != "pull" || !strings.Contains(err.Error(), "it failed") {
		t.Errorf("%s %v", kindOf(err), err)
	}

	oci := get(t, s, ref, Want{Form: OCI})
	dir := t.TempDir()
	if err := tarball.WriteToFile(filepath.Join(dir, "docker.tar"), mustTag(t, ref), img); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", oci.Path, "-cf", filepath.Join(dir, "oci.tar"), ".").CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	for _, from := range []string{"oci:" + oci.Path, "oci-archive:" + filepath.Join(dir, "oci.tar"), "docker-archive:" + filepath.Join(dir, "docker.tar")} {
		other := open(t, filepath.Join(t.TempDir(), "images"), Options{})
		local := get(t, other, from, Want{})
		if read(t, local.Path, "etc/hello") != "hello" || local.Config.WorkingDir != "/work" {
			t.Errorf("%s: %+v", from, local)
		}
		if again := get(t, other, from, Want{Policies: []string{"never"}}); again.Path != local.Path {
			t.Errorf("%+v", again)
		}
	}
	if _, err := s.Get(t.Context(), "oci:"+oci.Path+":other", Want{}); kindOf(err) != "config" || !strings.Contains(err.Error(), "no image called other") {
		t.Error(err)
	}
	if host := get(t, s, sif.Path, Want{}); host.Form != Given || host.Path != sif.Path || host.Digest != "" {
		t.Errorf("%+v", host)
	}
}

func TestTheImageOfAListIsTheOneForThePlatform(t *testing.T) {
	r := startRegistry(t, "", "")
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: hello(t, "other"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}},
		mutate.IndexAddendum{Add: hello(t, "ours"), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: mustPlatform(t).Architecture}}})
	ref := r.address + "/list:1"
	if err := remote.WriteIndex(mustTag(t, ref), index); err != nil {
		t.Fatal(err)
	}
	s := open(t, filepath.Join(t.TempDir(), "images"), Options{})
	if img := get(t, s, ref, Want{}); read(t, img.Path, "etc/hello") != "ours" {
		t.Error("another platform's")
	}
	if _, err := s.Get(t.Context(), ref, Want{Platform: "linux/riscv64"}); kindOf(err) != "config" || !strings.Contains(err.Error(), "platform linux/riscv64") {
		t.Errorf("%s %v", kindOf(err), err)
	}
}

func TestTheSecondTimeIsFast(t *testing.T) {
	r := startRegistry(t, "", "")
	ref, _ := r.push(t, "app:1", hello(t, "x"))
	s := open(t, filepath.Join(t.TempDir(), "images"), Options{})
	get(t, s, ref, Want{})
	for policy, most := range map[string]time.Duration{"always": 5 * time.Second, "if-not-present": 2 * time.Second} {
		best := time.Hour
		for range 10 {
			began := time.Now()
			get(t, s, ref, Want{Policies: []string{policy}}).Release()
			best = min(best, time.Since(began))
		}
		t.Logf("%s takes %s", policy, best)
		if best > most {
			t.Errorf("%s takes %s", policy, best)
		}
	}
}
