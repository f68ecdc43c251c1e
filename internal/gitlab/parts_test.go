package gitlab

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestLocate(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 100)
	tag := `"one"`
	seekable := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Job-Token") != "" {
			t.Error("the storage was sent the job's token")
		}
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
	for name, tc := range map[string]struct {
		server, storage http.HandlerFunc
		text            string // of the error
	}{
		"in parts":           {storage: seekable},
		"no storage":         {server: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }, storage: seekable, text: "does not send to an object storage"},
		"no parts":           {storage: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }, text: "200"},
		"refused":            {storage: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, text: "403"},
		"another part":       {storage: other("bytes 5-5/1000"), text: "another part"},
		"of unknown size":    {storage: other("bytes 0-0/*"), text: "does not tell the size"},
		"of impossible size": {storage: other("bytes 0-0/-4"), text: "does not tell the size"},
	} {
		t.Run(name, func(t *testing.T) {
			storage := httptest.NewServer(tc.storage)
			defer storage.Close()
			if tc.server == nil {
				tc.server = func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != "/api/v4/jobs/77/artifacts" || r.URL.RawQuery != "direct_download=true" || r.Header.Get("Job-Token") != jobToken {
						t.Errorf("%s %v", r.URL, r.Header)
					}
					w.Header().Set("Location", storage.URL+"/bucket/a?X-Amz-Signature=0123456789")
					w.WriteHeader(http.StatusFound)
				}
			}
			server := httptest.NewServer(tc.server)
			defer server.Close()
			open, size, err := connect(t, server.URL).Locate(t.Context(), theJob())
			discreet(t, err)
			if (err != nil) != (tc.text != "") || err != nil && !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("error %v, want %q", err, tc.text)
			}
			if err != nil {
				return
			}
			if size != int64(len(data)) {
				t.Errorf("%d bytes", size)
			}
			body, err := open(t.Context(), 123, 456)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(body); err != nil || string(got) != string(data[123:456]) {
				t.Errorf("%q, %v", got, err)
			}
			if err := body.Close(); err != nil {
				t.Error(err)
			}
			tag = `"two"`
			if _, err := open(t.Context(), 0, 1); err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
				t.Error(err)
			}
			tag = `"one"`
		})
	}
}

func other(contentRange string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", contentRange)
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write([]byte("0"))
	}
}

func TestUploadTellsAnswers(t *testing.T) {
	s := newScript(t, reply{status: 503, body: "busy"}, reply{status: 201, body: "got " + jobToken, header: map[string]string{"X-Token": jobToken}})
	a := artifact(t, "x", false)
	var told []string
	a.Answered = func(status string, header map[string][]string, body []byte) {
		told = append(told, status, strings.Join(header["X-Token"], ""), string(body))
	}
	if err := connect(t, s.URL).Upload(t.Context(), theJob(), a); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(told, "|"); got != "201 Created|[MASKED]|got [MASKED]" {
		t.Error(got)
	}
}
