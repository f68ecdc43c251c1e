package builtin_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/blob"
	"github.com/tranter-ci/tranter/internal/cache/builtin"
	"github.com/tranter-ci/tranter/internal/cache/remote"
)

const mib = 1 << 20

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a store that can be opened again, at the same address.
type rig struct {
	*builtin.Store
	t      *testing.T
	opt    builtin.Options
	mu     sync.RWMutex
	server *httptest.Server
	client *blob.Client
	signer *builtin.Signer
}

func newRig(t *testing.T, limit int64) *rig {
	t.Helper()
	r := &rig{t: t, opt: builtin.Options{Dir: t.TempDir(), Limit: limit, Key: []byte("a key of at least thirty-two bytes"), Log: slog.New(slog.DiscardHandler), InUse: time.Nanosecond}}
	r.open()
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.RLock()
		s := r.Store
		r.mu.RUnlock()
		s.ServeHTTP(w, req)
	}))
	t.Cleanup(r.server.Close)
	r.client = blob.New(blob.Options{Chunk: 4 * mib, Wait: time.Millisecond, Patience: 100 * time.Millisecond})
	t.Cleanup(r.client.Close)
	r.signer = builtin.NewSigner(r.server.URL, r.opt.Key)
	return r
}

func (r *rig) open() {
	r.t.Helper()
	s, err := builtin.Open(r.opt)
	must(r.t, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Store = s
}

func (r *rig) sign(object string) tranter.RemoteArchive {
	r.t.Helper()
	a, err := r.signer.Sign(r.t.Context(), remote.Object{Name: object, Key: "main/ö", Download: true, Upload: true}, time.Now().Add(time.Hour))
	must(r.t, err)
	return a
}

func content(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func (r *rig) put(object string, b []byte) error {
	_, err := r.client.Upload(r.t.Context(), r.sign(object).Upload, blob.Source{Write: func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}})
	return err
}

func (r *rig) get(object string) ([]byte, blob.Object, error) {
	r.t.Helper()
	f, err := os.CreateTemp(r.t.TempDir(), "")
	must(r.t, err)
	defer f.Close()
	obj, err := r.client.Download(r.t.Context(), r.sign(object).Download, f, blob.Want{})
	if err != nil {
		return nil, obj, err
	}
	b, err := os.ReadFile(f.Name())
	must(r.t, err)
	return b, obj, nil
}

func (r *rig) has(object string, want []byte) {
	r.t.Helper()
	b, obj, err := r.get(object)
	if err != nil || !bytes.Equal(b, want) || obj.Size != int64(len(want)) || obj.Tag == "" || obj.ModTime.IsZero() {
		r.t.Errorf("%s: %d of %d bytes, %+v, %v", object, len(b), len(want), obj, err)
	}
}

func (r *rig) lacks(object string) {
	r.t.Helper()
	if _, _, err := r.get(object); !errors.Is(err, tranter.ErrNotFound) {
		r.t.Errorf("%s: %v", object, err)
	}
}

// files returns the paths of the store's files whose names end with suffix.
func (r *rig) files(suffix string) []string {
	r.t.Helper()
	var out []string
	must(r.t, filepath.WalkDir(r.opt.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, suffix) {
			out = append(out, path)
		}
		return err
	}))
	return out
}

func TestArchivesComeBack(t *testing.T) {
	r := newRig(t, 0)
	names := []string{"project/1/main", "project/1/a b/%2f?#ö", "project/1/x&do=put", "runner/abc/project/1/../2"}
	for i, n := range []int{1, 8 * mib, 8*mib + 1, 20*mib + 3} {
		r.lacks(names[i])
		must(t, r.put(names[i], content(byte(i), n)))
		r.has(names[i], content(byte(i), n))
	}
	r.open() // they outlive the process
	for i, n := range []int{1, 8 * mib, 8*mib + 1, 20*mib + 3} {
		r.has(names[i], content(byte(i), n))
	}
	must(t, r.put(names[3], content(9, 9*mib))) // replaced
	r.has(names[3], content(9, 9*mib))
	if want := int64(1 + 8*mib + 8*mib + 1 + 9*mib); r.Size() != want || len(r.files(".archive")) != 4 {
		t.Errorf("size %d, want %d; %d files", r.Size(), want, len(r.files(".archive")))
	}
	_, obj, err := r.get(names[0])
	must(t, err)
	if obj.Key != "main/ö" {
		t.Errorf("key %q", obj.Key)
	}
}

// A URL is good for one archive, one deed and its time.
func TestSignatures(t *testing.T) {
	r := newRig(t, 0)
	must(t, r.put("project/1/main", content(1, 100)))
	must(t, r.put("project/2/main", content(2, 100)))
	a := r.sign("project/1/main")
	late, err := r.signer.Sign(t.Context(), remote.Object{Name: "project/1/main", Download: true}, time.Now().Add(-2*time.Second))
	must(t, err)
	other := builtin.NewSigner(r.server.URL, []byte("another key, also thirty-two bytes"))
	forged, err := other.Sign(t.Context(), remote.Object{Name: "project/1/main", Download: true}, time.Now().Add(time.Hour))
	must(t, err)
	try := func(method, url string) int {
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(strings.Repeat("x", 10)))
		must(t, err)
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		defer resp.Body.Close()
		return resp.StatusCode
	}
	get, put := a.Download.URL.Reveal(), a.Upload.Whole.URL.Reveal()
	part := strings.ReplaceAll(a.Upload.Parts.Part.URL.Reveal(), "{part}", "1")
	if code := try("GET", get); code != 200 {
		t.Fatalf("as it was signed: %d", code)
	}
	for name, c := range map[string][2]string{
		"another project":          {"GET", strings.Replace(get, "project/1", "project/2", 1)},
		"by a way round":           {"GET", strings.Replace(get, "project/1/main", "project/1/x/../../2/main", 1)},
		"another archive":          {"GET", strings.Replace(get, "main", "other", 1)},
		"upload with a download":   {"PUT", get},
		"download with an upload":  {"GET", put},
		"another deed":             {"PUT", strings.Replace(get, "do=get", "do=put", 1)},
		"a later end":              {"GET", strings.Replace(get, "until=1", "until=2", 1)},
		"too late":                 {"GET", late.Download.URL.Reveal()},
		"another key":              {"GET", forged.Download.URL.Reveal()},
		"no signature":             {"GET", get[:strings.Index(get, "?")]},
		"an upload to elsewhere":   {"PUT", strings.Replace(part, "upload=", "upload=..%2F", 1)},
		"larger parts":             {"PUT", strings.Replace(part, "bytes=8388608", "bytes=838860800", 1)},
		"an end with another part": {"POST", strings.Replace(part, "do=part", "do=complete", 1)},
	} {
		if code := try(c[0], c[1]); code != 403 {
			t.Errorf("%s: %d", name, code)
		}
	}
	if code := try("PUT", strings.ReplaceAll(a.Upload.Parts.Part.URL.Reveal(), "{part}", "10001")); code != 400 {
		t.Errorf("part 10001: %d", code)
	}
	r.has("project/1/main", content(1, 100))
	r.has("project/2/main", content(2, 100))
}

func TestLeastRecentlyUsedGoes(t *testing.T) {
	r := newRig(t, 50*mib)
	for i := range 5 {
		must(t, r.put(fmt.Sprint("o", i), content(byte(i), 9*mib)))
	}
	r.has("o0", content(0, 9*mib)) // o1 is the oldest now
	r.open()
	r.has("o0", content(0, 9*mib))
	must(t, r.put("new", content(7, 9*mib)))
	r.lacks("o1")
	for _, i := range []int{0, 2, 3, 4} {
		r.has(fmt.Sprint("o", i), content(byte(i), 9*mib))
	}
	if r.Size() > 50*mib {
		t.Errorf("%d bytes", r.Size())
	}
	if err := r.put("giant", content(8, 60*mib)); !errors.Is(err, tranter.ErrTooLarge) {
		t.Errorf("more than the limit: %v", err)
	}
	if len(r.files(".part")) > 0 || r.Size() > 50*mib {
		t.Errorf("left behind: %q, %d bytes", r.files(".part"), r.Size())
	}
}

func TestWhatIsServedStays(t *testing.T) {
	r := newRig(t, 20*mib)
	r.opt.InUse = time.Hour
	r.open()
	must(t, r.put("busy", content(1, 15*mib)))
	r.has("busy", content(1, 15*mib))
	if err := r.put("new", content(2, 10*mib)); !errors.Is(err, tranter.ErrTooLarge) {
		t.Errorf("%v", err)
	}
	r.has("busy", content(1, 15*mib))
}

func TestDamagedArchivesGo(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"a bit": func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			var b [1]byte
			_, err = f.ReadAt(b[:], 18*mib)
			must(t, err)
			b[0] ^= 4
			_, err = f.WriteAt(b[:], 18*mib)
			return err
		},
		"cut":  func(path string) error { return os.Truncate(path, 5*mib) },
		"gone": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 0)
			must(t, r.put("o", content(1, 20*mib)))
			must(t, damage(r.files(".archive")[0]))
			r.open()
			r.lacks("o")
			if len(r.files("")) > 0 || r.Size() != 0 {
				t.Errorf("left behind: %q, %d bytes", r.files(""), r.Size())
			}
			must(t, r.put("o", content(2, 20*mib)))
			r.has("o", content(2, 20*mib))
		})
	}
	r := newRig(t, 0)
	must(t, r.put("o", content(1, 100)))
	must(t, os.WriteFile(r.files("object.json")[0], []byte("{"), 0o600))
	r.open()
	r.lacks("o")
}

// The process dies in the middle of an upload: the old archive is there, and the upload goes on with the next one.
func TestUploadOverARestart(t *testing.T) {
	r := newRig(t, 0)
	must(t, r.put("o", content(1, 10*mib)))
	b := content(2, 30*mib)
	_, err := r.client.Upload(t.Context(), r.sign("o").Upload, blob.Source{Write: func(w io.Writer) error {
		_, err := w.Write(b[:20*mib])
		must(t, err)
		for deadline := time.Now().Add(5 * time.Second); len(r.files(".part")) == 0 && time.Now().Before(deadline); {
			<-time.After(time.Millisecond)
		}
		r.open()
		r.has("o", content(1, 10*mib))
		_, err = w.Write(b[20*mib:])
		return err
	}})
	must(t, err)
	r.has("o", b)
	r.open()
	r.has("o", b)
	if r.Size() != 30*mib {
		t.Errorf("%d bytes", r.Size())
	}
}

func TestUploadsThatNobodyCompletes(t *testing.T) {
	r := newRig(t, 0)
	a := r.sign("o")
	put := func() {
		url := strings.ReplaceAll(a.Upload.Parts.Part.URL.Reveal(), "{part}", "1")
		req, err := http.NewRequestWithContext(t.Context(), "PUT", url, bytes.NewReader(content(1, mib)))
		must(t, err)
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		must(t, resp.Body.Close())
	}
	put()
	put() // again: it counts once
	if r.Size() != mib {
		t.Errorf("%d bytes", r.Size())
	}
	r.open()
	if r.Size() != mib {
		t.Errorf("after a start: %d bytes", r.Size())
	}
	old := time.Now().Add(-25 * time.Hour)
	must(t, os.Chtimes(filepath.Dir(r.files(".part")[0]), old, old))
	r.open()
	if r.Size() != 0 || len(r.files("")) > 0 {
		t.Errorf("%d bytes, %q", r.Size(), r.files(""))
	}
}

func TestManyAtATime(t *testing.T) {
	r := newRig(t, 60*mib)
	must(t, r.put("o", content(0, 9*mib)))
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() {
			if err := r.put("o", content(byte(i), 9*mib)); err != nil && !errors.Is(err, tranter.ErrTooLarge) {
				t.Error(err)
			}
		})
		group.Go(func() {
			b, _, err := r.get("o")
			whole := false
			for seed := range 6 {
				whole = whole || bytes.Equal(b, content(byte(seed), 9*mib))
			}
			if err == nil && !whole {
				t.Error("a mixture of archives came back")
			}
		})
	}
	group.Wait()
	if r.Size() > 60*mib {
		t.Errorf("%d bytes", r.Size())
	}
	r.open()
	if _, _, err := r.get("o"); err != nil {
		t.Error(err)
	}
}
