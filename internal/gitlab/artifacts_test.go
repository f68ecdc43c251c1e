package gitlab

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

// artifact is an upload of the text; onDisk: from a file, whose size is known.
func artifact(t *testing.T, text string, onDisk bool) tranter.ArtifactUpload {
	t.Helper()
	a := tranter.ArtifactUpload{
		Filename: `a "b".zip`, Type: "junit", Format: "gzip", ExpireIn: "1 week",
		Body: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil },
	}
	if onDisk {
		path := filepath.Join(t.TempDir(), "a")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		a.Body = func() (io.ReadCloser, error) { return os.Open(path) }
	}
	return a
}

// parts are what a form has in it, by the names of its fields.
func parts(t *testing.T, call seen) (content, filename string) {
	t.Helper()
	_, params, err := mime.ParseMediaType(call.header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	form := multipart.NewReader(strings.NewReader(call.body), params["boundary"])
	part, err := form.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(part)
	if err != nil || part.FormName() != "file" {
		t.Fatalf("part %q: %v", part.FormName(), err)
	}
	if _, err := form.NextPart(); !errors.Is(err, io.EOF) {
		t.Errorf("a second part: %v", err)
	}
	return string(data), part.FileName()
}

func TestUploadAnswers(t *testing.T) {
	moved := newScript(t, reply{status: 201, body: "201"})
	to := func(u string) map[string]string { return map[string]string{"Location": u} }
	for name, tc := range map[string]struct {
		replies []reply
		onDisk  bool
		calls   int // at the first server
		moved   int // at the other
		is      error
		text    string // of the error
	}{
		"done":                      {replies: []reply{{status: 201}}, calls: 1},
		"done, of known size":       {replies: []reply{{status: 201}}, onDisk: true, calls: 1},
		"busy":                      {replies: []reply{{status: 503}, {status: 503}, {status: 503}, {status: 503}, {status: 201}}, calls: 5},
		"busy, of known size":       {replies: []reply{{status: 502}, {status: 201}}, onDisk: true, calls: 2},
		"busy for long":             {replies: []reply{{status: 503}}, calls: 5, text: "503"},
		"forbidden":                 {replies: []reply{{status: 403, body: `{"message":"403 Forbidden - Job is not processing on runner"}`}}, calls: 1, is: tranter.ErrForbidden, text: "not processing"},
		"too large":                 {replies: []reply{{status: 413, body: `{"message":"file size has reached maximum size limit"}`}}, calls: 1, is: tranter.ErrTooLarge, text: "maximum size limit"},
		"other content":             {replies: []reply{{status: 400, body: `{"message":"another artifact of the same type already exists"}`}}, calls: 1, text: "400 Bad Request: another artifact"},
		"ok is not created":         {replies: []reply{{status: 200}}, calls: 1, text: "200 OK"},
		"elsewhere":                 {replies: []reply{{status: 307, header: to(moved.URL + "/some/path?with=query")}}, calls: 1, moved: 1},
		"elsewhere after a fault":   {replies: []reply{{status: 500}, {status: 307, header: to(moved.URL)}}, calls: 2, moved: 1},
		"elsewhere, but not where":  {replies: []reply{{status: 307}}, calls: 1, text: "without saying where"},
		"elsewhere on this server":  {replies: []reply{{status: 307, header: to("/x")}}, calls: 1, text: "without a host"},
		"elsewhere by other scheme": {replies: []reply{{status: 307, header: to("ftp://host/")}}, calls: 1, text: "without a host"},
		"other redirect":            {replies: []reply{{status: 302, header: to(moved.URL)}}, calls: 1, text: "302 Found"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, tc.replies...)
			before := len(moved.seen())
			err := connect(t, s.URL+"/gitlab").Upload(t.Context(), theJob(), artifact(t, "content", tc.onDisk))
			discreet(t, err)
			if (err != nil) != (tc.text != "") || tc.is != nil && !errors.Is(err, tc.is) || err != nil && !strings.Contains(err.Error(), tc.text) {
				t.Errorf("error %v, want %q", err, tc.text)
			}
			calls, after := s.seen(), moved.seen()[before:]
			if len(calls) != tc.calls || len(after) != tc.moved {
				t.Fatalf("%d calls and %d elsewhere, want %d and %d", len(calls), len(after), tc.calls, tc.moved)
			}
			for _, call := range append(calls, after...) {
				content, filename := parts(t, call)
				if content != "content" || filename != `a "b".zip` {
					t.Errorf("file %q with %q", filename, content)
				}
				if call.method != "POST" || call.header.Get("Job-Token") != jobToken || call.query != "artifact_format=gzip&artifact_type=junit&expire_in=1+week" {
					t.Errorf("request: %+v", call)
				}
				if known := call.length >= 0; known != tc.onDisk || known && call.length != int64(len(call.body)) {
					t.Errorf("length %d of %d", call.length, len(call.body))
				}
			}
			if calls[0].path != "/gitlab/api/v4/jobs/77/artifacts" || tc.moved > 0 && after[0].path != "/api/v4/jobs/77/artifacts" {
				t.Errorf("paths: %s and %+v", calls[0].path, after)
			}
		})
	}
}

func TestUploadWithoutParameters(t *testing.T) {
	s := newScript(t, reply{status: 201})
	a := artifact(t, "", false)
	a.Type, a.Format, a.ExpireIn = "", "", ""
	if err := connect(t, s.URL).Upload(t.Context(), theJob(), a); err != nil || s.seen()[0].query != "" {
		t.Errorf("%v, query %q", err, s.seen()[0].query)
	}
}

func TestUploadInCircles(t *testing.T) {
	s := newScript(t, reply{status: 307})
	s.replies[0].header = map[string]string{"Location": s.URL}
	err := connect(t, s.URL).Upload(t.Context(), theJob(), artifact(t, "content", false))
	if err == nil || len(s.seen()) != maxRedirects+1 {
		t.Errorf("error %v after %d calls", err, len(s.seen()))
	}
}

func TestUploadOfWhatCannotBeRead(t *testing.T) {
	s := newScript(t, reply{status: 201})
	broken := errors.New("disk on fire")
	a := artifact(t, "", false)
	a.Body = func() (io.ReadCloser, error) { return nil, broken }
	if err := connect(t, s.URL).Upload(t.Context(), theJob(), a); !errors.Is(err, broken) || len(s.seen()) != 0 {
		t.Errorf("error %v", err)
	}
	a.Body = func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader("half"), failing{broken})), nil
	}
	if err := connect(t, s.URL).Upload(t.Context(), theJob(), a); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A server that refuses an upload need not be sent it.
func TestARefusedUploadIsNotSent(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestEntityTooLarge) }))
	t.Cleanup(s.Close)
	a := artifact(t, "", false)
	var read counter
	a.Body = func() (io.ReadCloser, error) { return io.NopCloser(&read), nil }
	if err := connect(t, s.URL).Upload(t.Context(), theJob(), a); !errors.Is(err, tranter.ErrTooLarge) || read > 0 {
		t.Errorf("error %v after %d bytes", err, read)
	}
}

// counter is an endless file that counts what is read of it.
type counter int64

func (c *counter) Read(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func TestUploadTimeouts(t *testing.T) {
	hold := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-hold
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(hold) })
	for name, tc := range map[string]struct {
		change func(*tranter.ArtifactUpload)
		text   string
	}{
		"of the answer":  {func(a *tranter.ArtifactUpload) { a.HeaderTimeout = 20 * time.Millisecond }, "timeout awaiting response headers"},
		"of the upload":  {func(a *tranter.ArtifactUpload) { a.Timeout = 20 * time.Millisecond }, "no answer within 20ms"},
		"of both, first": {func(a *tranter.ArtifactUpload) { a.Timeout, a.HeaderTimeout = 20*time.Millisecond, time.Hour }, "no answer within 20ms"},
	} {
		t.Run(name, func(t *testing.T) {
			a := artifact(t, "content", true)
			tc.change(&a)
			err := connect(t, s.URL).Upload(t.Context(), theJob(), a)
			if err == nil || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("error %v, want %q", err, tc.text)
			}
		})
	}
}

func TestDownloadAnswers(t *testing.T) {
	const address = "/bucket/archive.zip?X-Amz-Signature=0123456789"
	closed := newScript(t, reply{status: 200})
	closed.Close()
	for name, tc := range map[string]struct {
		replies []reply
		storage []reply
		to      string // where the redirect leads; empty: to the storage
		direct  []bool // whether each call at the server asks for a redirect
		want    string
		is      error
		text    string
	}{
		"streamed":                    {replies: []reply{{status: 200, body: "zip"}}, direct: []bool{true}, want: "zip"},
		"redirected":                  {replies: []reply{{status: 302}}, storage: []reply{{status: 200, body: "zip"}}, direct: []bool{true}, want: "zip"},
		"redirected with method":      {replies: []reply{{status: 307}}, storage: []reply{{status: 200, body: "zip"}}, direct: []bool{true}, want: "zip"},
		"storage was busy":            {replies: []reply{{status: 302}}, storage: []reply{{status: 503}, {status: 200, body: "zip"}}, direct: []bool{true}, want: "zip"},
		"storage refuses":             {replies: []reply{{status: 302}, {status: 200, body: "zip"}}, storage: []reply{{status: 403}}, direct: []bool{true, false}, want: "zip"},
		"storage is out of reach":     {replies: []reply{{status: 302}, {status: 200, body: "zip"}}, to: closed.URL + address, direct: []bool{true, false}, want: "zip"},
		"storage and server refuse":   {replies: []reply{{status: 302}, {status: 404}}, storage: []reply{{status: 403}}, direct: []bool{true, false}, is: tranter.ErrNotFound, text: "404"},
		"storage is the only way":     {replies: []reply{{status: 302}}, storage: []reply{{status: 403, body: "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"}}, direct: []bool{true, false}, is: tranter.ErrForbidden, text: "AccessDenied: Request has expired"},
		"busy":                        {replies: []reply{{status: 500}, {status: 200, body: "zip"}}, direct: []bool{true, true}, want: "zip"},
		"of a job that is over":       {replies: []reply{{status: 401, body: `{"message":"401 Unauthorized"}`}}, direct: []bool{true}, is: tranter.ErrForbidden, text: "401"},
		"forbidden":                   {replies: []reply{{status: 403}}, direct: []bool{true}, is: tranter.ErrForbidden, text: "403"},
		"not there":                   {replies: []reply{{status: 404}}, direct: []bool{true}, is: tranter.ErrNotFound, text: "404"},
		"other":                       {replies: []reply{{status: 400}}, direct: []bool{true}, text: "400"},
		"redirected without an aim":   {replies: []reply{{status: 302, header: map[string]string{"Location": ""}}}, direct: []bool{true}, text: "302 Found"},
		"redirected on this server":   {replies: []reply{{status: 302}, {status: 200, body: "zip"}}, to: "?moved=1", direct: []bool{true, false}, want: "zip"},
		"redirected to what is wrong": {replies: []reply{{status: 302}}, to: "http://[", direct: []bool{true}, text: "Location"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.storage == nil {
				tc.storage = []reply{{status: 500}}
			}
			storage := newScript(t, tc.storage...)
			if tc.to == "" {
				tc.to = storage.URL + address
			}
			for i := range tc.replies {
				if tc.replies[i].status/100 == 3 && tc.replies[i].header == nil {
					tc.replies[i].header = map[string]string{"Location": tc.to}
				}
			}
			s := newScript(t, tc.replies...)
			body, err := connect(t, s.URL).Download(t.Context(), theJob())
			discreet(t, err)
			if (err != nil) != (tc.text != "") || tc.is != nil && !errors.Is(err, tc.is) || err != nil && !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("error %v, want %q", err, tc.text)
			}
			if err == nil {
				got, err := io.ReadAll(body)
				if err != nil || string(got) != tc.want {
					t.Errorf("got %q, %v", got, err)
				}
				if err := body.Close(); err != nil {
					t.Error(err)
				}
			}
			calls := s.seen()
			if len(calls) != len(tc.direct) {
				t.Fatalf("%d calls, want %d", len(calls), len(tc.direct))
			}
			for i, call := range calls {
				if direct := call.query == "direct_download=true"; direct != tc.direct[i] || call.header.Get("Job-Token") != jobToken || call.path != "/api/v4/jobs/77/artifacts" {
					t.Errorf("call %d: %+v", i, call)
				}
			}
			for _, call := range storage.seen() {
				if call.header.Get("Job-Token") != "" || call.method != "GET" || call.path+"?"+call.query != address {
					t.Errorf("the storage was sent %+v", call)
				}
			}
		})
	}
}

func TestDownloadInCircles(t *testing.T) {
	s := newScript(t, reply{status: 302, header: map[string]string{"Location": "?direct_download=true"}})
	_, err := connect(t, s.URL).Download(t.Context(), theJob())
	if err == nil || !strings.Contains(err.Error(), "in circles") || len(s.seen()) != maxRedirects {
		t.Errorf("error %v after %d calls", err, len(s.seen()))
	}
}

func TestADownloadEndsWithItsContext(t *testing.T) {
	hold := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(bytes.Repeat([]byte("x"), 10))
		_ = http.NewResponseController(w).Flush()
		<-hold
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(hold) })
	ctx, cancel := context.WithCancel(t.Context())
	body, err := connect(t, s.URL).Download(ctx, theJob())
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := body.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestACutDownloadIsNoticed(t *testing.T) {
	s := newScript(t, reply{status: 200, body: "half", header: map[string]string{"Content-Length": "8"}})
	body, err := connect(t, s.URL).Download(t.Context(), theJob())
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadAll(body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
}
