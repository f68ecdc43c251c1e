package blob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/blob"
)

var errMine = errors.New("the disk is full")

// get downloads and compares.
func get(t *testing.T, c *blob.Client, s *storage) {
	t.Helper()
	f := file(t)
	obj, err := c.Download(t.Context(), s.download(), f, blob.Want{})
	must(t, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !bytes.Equal(read(t, f), s.object) || obj.Size != int64(len(s.object)) || !obj.ModTime.Equal(s.modified) {
		t.Errorf("got %+v with %d bytes of %d, equal: %v", obj, len(read(t, f)), len(s.object), bytes.Equal(read(t, f), s.object))
	}
}

func TestDownloadOfAnySize(t *testing.T) {
	for _, n := range []int{1, chunk - 1, chunk, chunk + 1, 7*chunk + 3} {
		for _, kind := range []string{"ranges", "no ranges", "weak tags"} {
			t.Run(fmt.Sprint(n, kind), func(t *testing.T) {
				s := newStorage(t)
				s.object, s.ranges, s.weak = content(n), kind != "no ranges", kind == "weak tags"
				get(t, client(t), s)
			})
		}
	}
}

// Whatever happens on the way, all arrives, and little of it twice.
func TestDownloadGoesOnWhereItBrokeOff(t *testing.T) {
	in := func(from string) func(*http.Request) bool {
		return func(r *http.Request) bool { return strings.HasPrefix(r.Header.Get("Range"), "bytes="+from+"-") }
	}
	later := func(r *http.Request) bool { return r.Header.Get("If-Match") != "" }
	for name, faults := range map[string][]fault{
		"first part cut":     {{when: in("0"), cut: 30000}},
		"later parts cut":    {{when: later, cut: 20000}, {when: later, cut: 20000}, {when: later, cut: 1}, {when: later, cut: 50000}},
		"server errors":      {{code: 500}, {code: 503}, {when: later, code: 502}, {when: later, code: 504}},
		"too many requests":  {{code: 429, header: map[string]string{"Retry-After": "1"}}, {when: later, code: 429}},
		"broken before all":  {{cut: 1}},
		"twice in one place": {{when: in("65536"), cut: 10000}, {when: in("75536"), cut: 10000}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStorage(t)
			s.object = content(9*chunk + 17)
			s.inject(faults...)
			began := time.Now()
			get(t, client(t), s)
			if len(s.faults) > 0 {
				t.Errorf("%d faults did not come to pass", len(s.faults))
			}
			if s.sent.Load() > int64(len(s.object)+64<<10) {
				t.Errorf("%d bytes were sent for %d", s.sent.Load(), len(s.object))
			}
			if name == "too many requests" && time.Since(began) < time.Second {
				t.Error("Retry-After was not heeded")
			}
		})
	}
}

func TestDownloadWithoutRangesBeginsAnew(t *testing.T) {
	s := newStorage(t)
	s.object, s.ranges = content(3*chunk), false
	s.inject(fault{cut: 100000}, fault{code: 503})
	get(t, client(t), s)
}

func TestReplacedObjectIsDownloadedAnew(t *testing.T) {
	for _, weak := range []bool{false, true} {
		s := newStorage(t)
		s.object, s.weak = content(8*chunk), weak
		replaced := content(6*chunk + 1)
		s.inject(fault{when: func(r *http.Request) bool { return strings.HasPrefix(r.Header.Get("Range"), "bytes=196608-") }, before: func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.object = replaced
		}})
		get(t, client(t), s)
		if !bytes.Equal(s.object, replaced) {
			t.Fatal("it was not replaced")
		}
	}
}

func TestNotModified(t *testing.T) {
	s := newStorage(t)
	s.object = content(3 * chunk)
	for name, c := range map[string]struct {
		have  blob.Object
		fresh bool
	}{
		"same tag":              {blob.Object{Tag: tagOf(s.object), ModTime: s.modified.Add(-time.Hour)}, true},
		"other tag":             {blob.Object{Tag: `"x"`, ModTime: s.modified.Add(time.Hour)}, false},
		"same time":             {blob.Object{ModTime: s.modified}, true},
		"later, in parts of it": {blob.Object{ModTime: s.modified.Add(time.Millisecond)}, true},
		"earlier":               {blob.Object{ModTime: s.modified.Add(-time.Second)}, false},
	} {
		before := len(s.asked())
		f := file(t)
		_, err := client(t).Download(t.Context(), s.download(), f, blob.Want{Have: &c.have})
		if errors.Is(err, blob.ErrNotModified) != c.fresh || !c.fresh && (err != nil || !bytes.Equal(read(t, f), s.object)) {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(s.asked()) - before; c.fresh && n != 1 {
			t.Errorf("%s: %d requests", name, n)
		}
	}
}

func TestWhatIsNotThere(t *testing.T) {
	for _, code := range []int{403, 404, 410} {
		s := newStorage(t)
		s.object = content(5)
		s.inject(fault{code: code}, fault{code: code})
		_, err := client(t).Download(t.Context(), s.download(), file(t), blob.Want{})
		_, err2 := client(t).Stat(t.Context(), s.download())
		if !errors.Is(err, tranter.ErrNotFound) || !errors.Is(err2, tranter.ErrNotFound) || len(s.asked()) != 2 {
			t.Errorf("%d: %v, %v, %q", code, err, err2, s.asked())
		}
	}
	s := newStorage(t)
	s.object = []byte{}
	if _, err := client(t).Download(t.Context(), s.download(), file(t), blob.Want{}); !errors.Is(err, blob.ErrDamaged) {
		t.Errorf("empty: %v", err)
	}
}

func TestStatTakesOneByte(t *testing.T) {
	s := newStorage(t)
	s.object, s.header = content(5*chunk), map[string]string{"x-amz-meta-cachekey": "main"}
	obj, err := client(t).Stat(t.Context(), s.download())
	if err != nil || obj.Size != 5*chunk || obj.Tag != tagOf(s.object) || obj.Key != "main" || s.sent.Load() != 1 {
		t.Errorf("%+v %v, %d bytes", obj, err, s.sent.Load())
	}
}

// Bytes that were altered on the way are found if the storage tells a hash.
func TestDamage(t *testing.T) {
	s := newStorage(t)
	s.object = content(4 * chunk)
	sum := sha256.Sum256(s.object)
	for name, header := range map[string]map[string]string{
		"repr-digest": {"Repr-Digest": "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"},
		"metadata":    {"x-goog-meta-sha256": hex.EncodeToString(sum[:])},
	} {
		s.header = header
		get(t, client(t), s)
		s.inject(fault{when: func(r *http.Request) bool { return r.Header.Get("If-Match") != "" }, body: func(b []byte) []byte {
			b[len(b)/2] ^= 1
			return b
		}})
		if _, err := client(t).Download(t.Context(), s.download(), file(t), blob.Want{}); !errors.Is(err, blob.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.header = nil
	s.inject(fault{when: func(r *http.Request) bool { return r.Header.Get("If-Match") != "" }, code: 206, header: map[string]string{"Content-Range": "bytes 5-9/262144", "ETag": tagOf(s.object)}})
	if _, err := client(t).Download(t.Context(), s.download(), file(t), blob.Want{}); err == nil {
		t.Error("a part that was not asked for was taken")
	}
}

// No error and no message may have what is in a URL.
func TestErrorsHaveNoSecrets(t *testing.T) {
	s := newStorage(t)
	s.object = content(10)
	quick := client(t, func(o *blob.Options) {
		o.Patience = 5 * time.Millisecond
		o.Warn = func(format string, args ...any) {
			if text := fmt.Sprintf(format, args...); strings.Contains(text, "SECRET") {
				t.Errorf("warned: %s", text)
			}
		}
	})
	var all []error
	for _, f := range []fault{{code: 403}, {code: 500}, {code: 400}, {sever: 1}} {
		s.mend()
		for range 50 {
			s.inject(f)
		}
		_, err := quick.Download(t.Context(), s.download(), file(t), blob.Want{})
		_, err2 := quick.Upload(t.Context(), s.upload(tranter.PartsS3), source(t, content(3*chunk)))
		all = append(all, err, err2)
	}
	s.Close()
	_, err := quick.Stat(t.Context(), s.download())
	_, err2 := quick.Stat(t.Context(), &tranter.SignedRequest{Method: "GET", URL: "http://h\x7f/SECRET"})
	_, err3 := quick.Stat(t.Context(), &tranter.SignedRequest{Method: "GET", URL: "gopher://host.invalid/SECRET"})
	for _, err := range append(all, err, err2, err3) {
		if err == nil || strings.Contains(fmt.Sprintf("%v %+v", err, err), "SECRET") {
			t.Errorf("%v", err)
		}
	}
	if !strings.Contains(err.Error(), blob.Host(s.download())) {
		t.Errorf("the host is not named: %v", err)
	}
}

// source writes b in pieces of odd sizes.
func source(t *testing.T, b []byte) blob.Source {
	return blob.Source{
		Write: func(w io.Writer) error {
			for i, left := 1, b; len(left) > 0; i++ {
				n := min(i*i*7, len(left))
				if _, err := w.Write(left[:n]); err != nil {
					return fmt.Errorf("pack: %w", err)
				}
				left = left[n:]
			}
			return nil
		},
		Temp: func() (*os.File, func(), error) {
			f, err := os.CreateTemp(t.TempDir(), "")
			return f, func() { _ = f.Close() }, err
		},
	}
}

func protocols() []string { return []string{tranter.PartsS3, tranter.PartsAzure, tranter.PartsGCS} }

func put(t *testing.T, c *blob.Client, s *storage, up *tranter.RemoteUpload, n int) {
	t.Helper()
	b := content(n)
	obj, err := c.Upload(t.Context(), up, source(t, b))
	must(t, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !bytes.Equal(s.object, b) || obj.Size != int64(n) || obj.Tag != tagOf(b) {
		t.Errorf("stored %d of %d bytes, %+v", len(s.object), n, obj)
	}
}

func TestUploadOfAnySize(t *testing.T) {
	for _, protocol := range protocols() {
		for _, n := range []int{1, chunk - 1, chunk, chunk + 1, 2 * chunk, 9*chunk + 5} {
			t.Run(fmt.Sprint(protocol, n), func(t *testing.T) {
				t.Parallel()
				s := newStorage(t)
				put(t, client(t), s, s.upload(protocol), n)
				whole := strings.Contains(strings.Join(s.asked(), "\n"), "PUT whole")
				if whole != (n <= chunk) {
					t.Errorf("in one piece: %v", whole)
				}
				if protocol == tranter.PartsS3 && s.aborted != 0 != whole {
					t.Errorf("aborted %d times", s.aborted)
				}
				up := s.upload(protocol)
				up.Whole = nil
				put(t, client(t), s, up, n)
			})
		}
	}
}

func TestUploadRepeatsPartsByThemselves(t *testing.T) {
	faults := map[string][]fault{
		"severed": {{sever: 30000}, {sever: 1}, {sever: 60000}},
		"errors":  {{code: 500}, {code: 503}, {code: 429, header: map[string]string{"Retry-After": "1"}}},
		"lost":    {{lost: true}, {lost: true}},
	}
	for _, protocol := range protocols() {
		for name, list := range faults {
			t.Run(protocol+" "+name, func(t *testing.T) {
				t.Parallel()
				s := newStorage(t)
				for i, f := range list {
					f.when = func(r *http.Request) bool {
						do := r.URL.Query().Get("do")
						return (do == "part" || do == "block" || do == "session") && r.ContentLength > 0 && i >= 0
					}
					s.inject(f)
				}
				put(t, client(t), s, s.upload(protocol), 6*chunk+9)
				if len(s.faults) > 0 {
					t.Error("not all faults came to pass")
				}
				if n := len(s.asked()); n > 8+3*len(list)+2 {
					t.Errorf("%d requests: %q", n, s.asked())
				}
			})
		}
	}
}

// The storage has made the object, and the answer that says so is lost.
func TestUploadWhoseEndIsLost(t *testing.T) {
	for do, protocol := range map[string]string{"complete": tranter.PartsS3, "blocklist": tranter.PartsAzure} {
		s := newStorage(t)
		s.inject(fault{when: func(r *http.Request) bool { return r.URL.Query().Get("do") == do }, lost: true})
		b := content(3 * chunk)
		if _, err := client(t).Upload(t.Context(), s.upload(protocol), source(t, b)); err != nil || !bytes.Equal(s.object, b) {
			t.Errorf("%s: %v", do, err)
		}
	}
}

// S3 may say 200 first and then that it has failed.
func TestEndThatFailsAfterItsHeader(t *testing.T) {
	s := newStorage(t)
	atEnd := func(r *http.Request) bool { return r.URL.Query().Get("do") == "complete" }
	s.inject(fault{when: atEnd, code: 200})
	if _, err := client(t).Upload(t.Context(), s.upload(tranter.PartsS3), source(t, content(3*chunk))); err == nil || s.object != nil || s.aborted != 1 {
		t.Errorf("%v, aborted %d times", err, s.aborted)
	}
}

func TestASessionThatTakesLittle(t *testing.T) {
	s := newStorage(t)
	s.mean = 16 << 10
	put(t, client(t), s, s.upload(tranter.PartsGCS), 3*chunk+100)
}

func TestStorageWithoutParts(t *testing.T) {
	for _, code := range []int{400, 405, 501} {
		s := newStorage(t)
		s.refuse = code
		put(t, client(t), s, s.upload(tranter.PartsS3), 3*chunk)
		if s.aborted != 1 {
			t.Errorf("%d: aborted %d times", code, s.aborted)
		}
	}
	s := newStorage(t)
	put(t, client(t), s, &tranter.RemoteUpload{Whole: s.request("PUT", "whole")}, 3*chunk)
	s.inject(fault{sever: 70000}, fault{code: 500})
	put(t, client(t), s, &tranter.RemoteUpload{Whole: s.request("PUT", "whole")}, 3*chunk)
}

// After any failure the object from before is there, and what was begun is undone.
func TestFailedUploadsLeaveTheObject(t *testing.T) {
	failing := source(t, nil)
	failing.Write = func(w io.Writer) error {
		if _, err := w.Write(content(3 * chunk)); err != nil {
			return err
		}
		return errMine
	}
	limited := source(t, content(5*chunk))
	limited.Limit = 4 * chunk
	canceled, cancel := context.WithCancelCause(t.Context())
	cancel(errMine)
	for _, protocol := range protocols() {
		for name, c := range map[string]struct {
			upload  func(s *storage) error
			want    error
			aborted bool
		}{
			"failing": {upload: func(s *storage) error {
				_, err := client(t).Upload(t.Context(), s.upload(protocol), failing)
				return err
			}, want: errMine, aborted: true},
			"limited": {upload: func(s *storage) error {
				_, err := client(t).Upload(t.Context(), s.upload(protocol), limited)
				return err
			}, want: tranter.ErrTooLarge, aborted: true},
			"canceled": {upload: func(s *storage) error {
				_, err := client(t).Upload(canceled, s.upload(protocol), source(t, content(3*chunk)))
				return err
			}, want: errMine},
			"small": {upload: func(s *storage) error {
				small := s.upload(protocol)
				small.WholeLimit, small.Parts = 10, nil
				_, err := client(t).Upload(t.Context(), small, source(t, content(11)))
				return err
			}, want: tranter.ErrTooLarge},
		} {
			s := newStorage(t) // each its own: a request of an upload that has failed may still be under way
			before := content(77)
			s.object = before
			if err := c.upload(s); !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %v", protocol, name, err)
			}
			s.Close() // what is under way ends
			if !bytes.Equal(s.object, before) || c.aborted && protocol != tranter.PartsAzure && s.aborted < 1 {
				t.Errorf("%s, %s: the object has %d bytes, %d aborted", protocol, name, len(s.object), s.aborted)
			}
		}
	}
	s := newStorage(t)
	up := s.upload(tranter.PartsS3)
	up.Parts.Signatures = up.Parts.Signatures[:2]
	if _, err := client(t).Upload(t.Context(), up, source(t, content(5*chunk))); !errors.Is(err, tranter.ErrTooLarge) {
		t.Errorf("more parts than were signed: %v", err)
	}
}

// A storage that stays away costs the patience once, not for each archive.
func TestPatience(t *testing.T) {
	s := newStorage(t)
	s.Close()
	c := client(t, func(o *blob.Options) { o.Patience = time.Second })
	began := time.Now()
	_, err := c.Stat(t.Context(), s.download())
	first := time.Since(began)
	_, err2 := c.Download(t.Context(), s.download(), file(t), blob.Want{})
	if err == nil || err2 == nil || first < time.Second || first > 20*time.Second || time.Since(began)-first > 900*time.Millisecond {
		t.Errorf("%v after %v, %v after %v", err, first, err2, time.Since(began)-first)
	}
}

// A server that is restarted in mid-transfer is waited for.
func TestRestartedServer(t *testing.T) {
	s := newStorage(t)
	b := content(9 * chunk)
	address := s.Listener.Addr().String()
	back := make(chan struct{})
	s.inject(fault{when: func(r *http.Request) bool { return r.URL.Query().Get("part") == "3" }, before: func() {
		go func() { // a handler can't wait for the server's end
			defer close(back)
			s.CloseClientConnections()
			_ = s.Config.Close()
			<-time.After(700 * time.Millisecond)
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			again := &http.Server{Handler: s, ReadHeaderTimeout: time.Second}
			t.Cleanup(func() { _ = again.Close() })
			go func() { _ = again.Serve(l) }()
		}()
	}, sever: chunk / 2})
	if _, err := client(t).Upload(t.Context(), s.upload(tranter.PartsS3), source(t, b)); err != nil || !bytes.Equal(s.object, b) {
		t.Errorf("%v", err)
	}
	<-back
}

func TestStalledConnection(t *testing.T) {
	s := newStorage(t)
	s.object = content(3 * chunk)
	release := make(chan struct{})
	defer close(release)
	s.inject(fault{before: func() { <-release }})
	get(t, client(t, func(o *blob.Options) { o.Stall = 200 * time.Millisecond }), s)
}
