package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

const (
	logWait  = 25 * time.Second       // how long a reader of a live log is kept waiting for more
	logLook  = 150 * time.Millisecond // how often it is looked whether there is more
	logWrite = 10 * time.Minute       // how long sending a log may take
)

// logData is what the viewer needs: see templates/parts/log.html.
type logData struct {
	Raw  string // address of the bytes
	Page string // of the log alone
	Live bool
	Size int64
	Name string // of the file, when it is saved
}

func logOf(j tranter.JobHistory, running bool) logData {
	link := jobLink(j.Key) + "/log"
	return logData{Raw: link + "/raw", Page: link, Live: running, Size: j.LogBytes, Name: logName(j.Key)}
}

func logName(key string) string { return "job-" + jobNumber(key) + ".log" }

// showLog is a page with the log alone.
func (s jobPages) showLog(w http.ResponseWriter, r *http.Request) {
	_, d, ok := s.lookUp(w, r)
	if !ok {
		return
	}
	s.page(w, r, "log", d)
}

// rawLog sends the bytes of a log, or the range of them that was asked for. X-Log says whether more may come: live or complete. With
// wait=1 a range that begins at the end of a live log is answered once there is more, or with 204 when there was none for a while.
//
// What a job writes is not trusted: it is text whatever it looks like.
func (s jobPages) rawLog(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("key")
	if s.options.Logs == nil {
		s.fail(w, r, http.StatusNotFound, "This server has no logs.")
		return
	}
	file, err := s.options.Logs.Open(r.Context(), key)
	if errors.Is(err, tranter.ErrNotFound) {
		s.fail(w, r, http.StatusNotFound, "The log of job "+strconv.Quote(key)+" is not on this host, or not any more. GitLab has what was sent to it.")
		return
	}
	if err != nil {
		s.fail(w, r, http.StatusInternalServerError, "The log could not be opened: "+err.Error())
		return
	}
	defer file.Close()
	size, live, err := settle(r.Context(), file, waitFrom(r))
	if err != nil {
		s.fail(w, r, http.StatusInternalServerError, "The log could not be read: "+err.Error())
		return
	}
	to := w.Header()
	to.Set("X-Log", map[bool]string{true: "live", false: "complete"}[live])
	to.Set("Cache-Control", "no-store")
	to.Set("X-Content-Type-Options", "nosniff")
	if from := waitFrom(r); from >= size {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	to.Set("Content-Type", "text/plain; charset=utf-8")
	how := "inline"
	if r.URL.Query().Get("download") == "1" {
		how = "attachment"
	}
	to.Set("Content-Disposition", fmt.Sprintf("%s; filename=%q", how, logName(safeName(key))))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(logWrite)) // not every writer can
	if size == 0 {
		w.WriteHeader(http.StatusOK) // a range of nothing can't be satisfied, but is no mistake of the viewer's
		return
	}
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(file, 0, size))
}

// safeName keeps the digits of a key: it comes from an address.
func safeName(key string) string {
	return strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' || c == '-' {
			return c
		}
		return -1
	}, key)
}

// waitFrom returns where a reader who waits for more is, or -1.
func waitFrom(r *http.Request) int64 {
	if r.URL.Query().Get("wait") != "1" {
		return -1
	}
	begin, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	begin, open := strings.CutSuffix(begin, "-")
	from, err := strconv.ParseInt(begin, 10, 64)
	if !ok || !open || err != nil || from < 0 {
		return -1
	}
	return from
}

// settle returns the size of a log and whether more may come, for a reader at from as soon as there is something to tell.
func settle(ctx context.Context, file Log, from int64) (size int64, live bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, logWait)
	defer cancel()
	look := time.NewTicker(logLook)
	defer look.Stop()
	for {
		live = file.Live() // before the size: what came last is counted
		if size, err = file.Size(); err != nil || size > from || !live {
			return size, live, err
		}
		select {
		case <-ctx.Done():
			return size, live, nil
		case <-look.C:
		}
	}
}
