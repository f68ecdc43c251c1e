package engine_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/tranter-ci/tranter/internal/executor/docker/engine"
)

// endless is an engine that answers every question for ever.
func endless(t *testing.T) *engine.Engine {
	t.Helper()
	full := bytes.Repeat([]byte(`{"Id":"`+strings.Repeat("x", 1000)+`"},`), 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.44")
		switch {
		case strings.HasSuffix(r.URL.Path, "/_ping"):
			return
		case strings.HasSuffix(r.URL.Path, "/info"), strings.HasSuffix(r.URL.Path, "/version"):
			_, _ = io.WriteString(w, "{}")
			return
		case strings.HasSuffix(r.URL.Path, "/logs"):
			_, _ = io.CopyN(w, zeros{}, 80<<20)
			return
		}
		_, _ = io.WriteString(w, "[")
		for {
			if _, err := w.Write(full); err != nil {
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	return open(t, engine.Options{Host: "tcp://" + server.Listener.Addr().String()})
}

func TestAFrameThatClaimsToBeHugeTakesNoMemory(t *testing.T) {
	var out bytes.Buffer
	logs := strings.NewReader("\x01\x00\x00\x00\x00\x00\x00\x02ab\x02\x00\x00\x00\xff\xff\xff\xffcd")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := engine.CopyLogs(&out, logs); err == nil || out.String() != "abcd" {
		t.Errorf("%q, error %v", out.String(), err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("%d bytes were allocated", took)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestAnEngineThatAnswersWithoutEndIsNotHeardToTheEnd(t *testing.T) {
	e := endless(t)
	_, err := e.API().ContainerList(t.Context(), client.ContainerListOptions{All: true})
	if err == nil || !strings.Contains(err.Error(), "longer than 64 MiB") {
		t.Errorf("error %v", err)
	}
}

func TestLogsMayBeAsLongAsTheyLike(t *testing.T) {
	logs, err := endless(t).API().ContainerLogs(t.Context(), "x", client.ContainerLogsOptions{ShowStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	if n, err := io.Copy(io.Discard, logs); err != nil || n != 80<<20 {
		t.Errorf("%d bytes, error %v", n, err)
	}
}
