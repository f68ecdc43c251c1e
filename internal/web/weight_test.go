package web_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/web/webtest"
)

func packed(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip, br") }

// unpack returns the content of an answer that must be packed.
func unpack(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	if got := w.Header().Get("Content-Encoding"); got != "gzip" {
		t.Fatalf("the answer is not packed but %q", got)
	}
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestNoPageWeighs150KB(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	needs := regexp.MustCompile(`(?:src|href)="(/static/[^"]+)"`)
	for _, path := range append(pagePaths(), "/jobs/aUt0sCale-99001/log") {
		if path == "/nothing-here" {
			continue
		}
		w := r.do("GET", path, packed)
		total := w.Body.Len()
		files := map[string]bool{}
		for _, m := range needs.FindAllStringSubmatch(unpack(t, w), -1) {
			files[m[1]] = true
		}
		for file := range files {
			w := r.do("GET", file, packed)
			if w.Code != 200 {
				t.Errorf("%s needs %s, which answered %d", path, file, w.Code)
			}
			total += w.Body.Len()
		}
		t.Logf("%-30s %6d bytes in %d files", path, total, len(files)+1)
		if total >= 150_000 {
			t.Errorf("%s weighs %d bytes", path, total)
		}
	}
}

func TestFilesAreKeptForGoodUnderTheirHash(t *testing.T) {
	r := newRig(t, webtest.Sample(time.Now()), nil)
	css := regexp.MustCompile(`/static/[0-9a-f]+/app\.css`).FindString(r.do("GET", "/").Body.String())
	w := r.do("GET", css, packed)
	if w.Header().Get("Cache-Control") != "public, max-age=31536000, immutable" || w.Header().Get("ETag") == "" || w.Header().Get("Content-Type") != "text/css; charset=utf-8" {
		t.Errorf("its headers are %v", w.Header())
	}
	tag := w.Header().Get("ETag")
	text := unpack(t, w)
	if plain := r.do("GET", css); plain.Body.String() != text {
		t.Error("packed and plain differ")
	}
	if w := r.do("GET", css, func(r *http.Request) { r.Header.Set("If-None-Match", tag) }); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
		t.Errorf("who has it got %d and %d bytes", w.Code, w.Body.Len())
	}
	for _, path := range []string{"/static/app.css", "/static/000000000000/app.css", "/static/", css + "/..", "/static/../web.go"} {
		if w := r.do("GET", path); w.Code == 200 {
			t.Errorf("%s answered %d", path, w.Code)
		}
	}
	page := r.do("GET", "/runners")
	if w := r.do("GET", "/runners", func(r *http.Request) { r.Header.Set("If-None-Match", page.Header().Get("ETag")) }); w.Code != http.StatusNotModified {
		t.Errorf("a page that has not changed answered %d", w.Code)
	}
	if w := r.do("HEAD", "/runners"); w.Code != 200 || w.Body.Len() > 0 || w.Header().Get("Content-Length") == "0" {
		t.Errorf("HEAD answered %d with %d bytes", w.Code, w.Body.Len())
	}
	if w := r.do("GET", "/runners", func(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip;q=0") }); w.Header().Get("Content-Encoding") != "" {
		t.Error("it was packed for who does not want that")
	}
}

// The limit of 200 ms is measured by BenchmarkLargePages; here it is so loose that only what grows with the square of
// the jobs is above it, as machines for tests are busy.
func TestALargeManagerIsShownFast(t *testing.T) {
	r := newRig(t, webtest.Large(time.Now(), 2000, 5000), nil)
	for _, path := range []string{"/", "/jobs", "/machines", "/runners", "/events", "/cost", "/api/snapshot"} {
		start := time.Now()
		w := r.do("GET", path, packed)
		took := time.Since(start)
		t.Logf("%-15s %s, %d bytes", path, took, w.Body.Len())
		if w.Code != 200 || took > 20*time.Second && path != "/api/snapshot" {
			t.Errorf("%s answered %d after %s", path, w.Code, took)
		}
		if path != "/api/snapshot" && w.Body.Len() > 100_000 {
			t.Errorf("%s has %d bytes", path, w.Body.Len())
		}
	}
}

func BenchmarkLargePages(b *testing.B) {
	for _, path := range []string{"/", "/jobs", "/machines", "/runners", "/events", "/cost"} {
		b.Run(strings.Trim(path, "/")+"page", func(b *testing.B) {
			t := &testing.T{}
			r := newRig(t, webtest.Large(time.Now(), 2000, 5000), nil)
			i := 0
			for b.Loop() {
				i++
				req := httptest.NewRequest(http.MethodGet, path+"?n="+strconv.Itoa(i), nil) // no rendering serves twice
				req.Header.Set("Accept-Encoding", "gzip")
				w := httptest.NewRecorder()
				r.h.ServeHTTP(w, req)
				if w.Code != 200 {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
