package gitlab

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

func TestEachTryOfACallIsObserved(t *testing.T) {
	refuse := 2
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch {
		case strings.HasSuffix(r.URL.Path, "/jobs/request"):
			if refuse--; refuse >= 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		case r.Method == http.MethodPatch:
			w.WriteHeader(http.StatusAccepted)
		default:
			w.WriteHeader(http.StatusOK)
		}
	}))
	var seen []string
	c, err := New(Options{URL: server.URL, Token: "glrt-x", Backoff: time.Microsecond, Observe: func(c Call) {
		if c.Took < 0 || c.Took > time.Minute {
			t.Errorf("it took %v", c.Took)
		}
		seen = append(seen, fmt.Sprint(c.Method, " ", c.Endpoint, " ", c.Status))
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, job := t.Context(), tranter.JobRef{ID: 7, Token: "job-token"}
	_, _ = c.Request(ctx, tranter.Request{})
	_, _ = c.Update(ctx, job, tranter.Update{State: tranter.JobSuccess})
	_, _ = c.Append(ctx, job, 0, []byte("x"))
	server.Close()
	ended, stop := context.WithTimeout(ctx, 5*time.Second)
	defer stop()
	_, _ = c.Update(ended, job, tranter.Update{State: tranter.JobSuccess})
	want := "POST request_job 503, POST request_job 503, POST request_job 204, PUT update_job 200, PATCH patch_trace 202, PUT update_job -1"
	if got := strings.Join(seen, ", "); got != want {
		t.Errorf("seen: %s\nwant: %s", got, want)
	}
}
