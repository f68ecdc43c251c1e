package image_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/executor/docker/image"
)

func TestALongPullTellsItsProgress(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	push(t, server, r, "1", tiny{bytes: 2 << 20})
	p := newProxy(t, server)
	// The layer comes in pieces, 2.2 s in all; the limit without progress is shorter than that.
	p.fail(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, "/blobs/") || q.Method != http.MethodGet {
			return false
		}
		answer, err := http.Get("http://" + server.Address + q.URL.Path)
		if err != nil {
			t.Error(err)
			return false
		}
		defer answer.Body.Close()
		w.Header().Set("Content-Length", answer.Header.Get("Content-Length"))
		piece := make([]byte, 200<<10)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			n, err := io.ReadFull(answer.Body, piece)
			w.Write(piece[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				return true
			}
			<-tick.C
		}
	})
	s := image.NewStore(engine(t), noPause(image.Options{Stalled: 1500 * time.Millisecond, Progress: 500 * time.Millisecond}))
	_, log, err := get(t, s, image.Wanted{Name: p.Address + "/" + r + ":1"})
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	contains(t, log, " of 2.1 MB fetched, 0 of 1 layers done", "Pulled "+p.Address+"/"+r+":1 in ", ": 2.1 MB fetched, 1 layers\n")
	if n := strings.Count(log, "so far\n"); n < 2 || n > 20 {
		t.Errorf("%d lines of progress:\n%s", n, log)
	}
	if strings.ContainsAny(log, "\r\x1b") {
		t.Errorf("the cursor is moved:\n%q", log)
	}
}
