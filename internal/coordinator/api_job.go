package coordinator

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// jobAPI serves what runners call with the token of a job (gitlab-server 1.4 to 1.7).
type jobAPI struct{ c *Coordinator }

func (a *jobAPI) register(mux *http.ServeMux) {
	mux.HandleFunc("PUT /jobs/{id}", a.update)
	mux.HandleFunc("PATCH /jobs/{id}/trace", a.trace)
	mux.HandleFunc("POST /jobs/{id}/artifacts/authorize", a.authorize)
	mux.HandleFunc("POST /jobs/{id}/artifacts", a.upload)
	mux.HandleFunc("GET /jobs/{id}/artifacts", a.download)
}

// jobToken is the token that a call about a job presents; the parameter goes before the header.
func jobToken(r *http.Request) tranter.Secret {
	return tokenOf(r, tranter.Secret(r.URL.Query().Get("token")), "Job-Token")
}

// holds tells whether the request comes from the runner of the job that the path names. Else it has answered.
func (a *jobAPI) holds(w http.ResponseWriter, r *http.Request) bool {
	b := a.c.book
	b.mu.Lock()
	j, send := b.holder(pathID(r), jobToken(r))
	if j != nil {
		j.contact = b.now()
	}
	b.mu.Unlock()
	if send != nil {
		send(w)
		return false
	}
	return true
}

type updateBody struct {
	Token    tranter.Secret        `json:"token"`
	State    string                `json:"state"`
	Reason   tranter.FailureReason `json:"failure_reason"`
	Checksum string                `json:"checksum"`
	Output   struct {
		Checksum string `json:"checksum"`
		Bytes    int64  `json:"bytesize"`
	} `json:"output"`
	ExitCode int `json:"exit_code"`
}

func (u *updateBody) checksum() string {
	if u.Output.Checksum != "" {
		return u.Output.Checksum
	}
	return u.Checksum
}

func (a *jobAPI) update(w http.ResponseWriter, r *http.Request) {
	var body updateBody
	if !decode(w, r, &body) {
		return
	}
	token := tokenOf(r, body.Token, "Job-Token")
	if token == "" {
		invalid(w, "token is missing")
		return
	}
	b := a.c.book
	b.mu.Lock()
	j, send := b.holder(pathID(r), token)
	if j != nil {
		send = a.apply(j, &body)
	}
	b.mu.Unlock()
	send(w)
}

// apply carries out a state update of a job that is executing.
func (a *jobAPI) apply(j *job, u *updateBody) reply {
	b := a.c.book
	j.contact = b.now()
	switch u.State {
	case string(tranter.JobRunning):
		return a.status(http.StatusOK, j)
	case string(tranter.JobSuccess), string(tranter.JobFailed):
	default:
		return replyRefusal(http.StatusBadRequest, "")
	}
	var damaged bool
	err := b.commit(j, func() {
		if damaged = a.damaged(j, u); damaged {
			j.Log = logRecord{Debug: j.Log.Debug, Checksum: j.Log.Checksum, Damaged: true, Resends: j.Log.Resends + 1}
			b.touch(j)
			return
		}
		b.finish(j, u)
	})
	switch {
	case err != nil:
		return replyFault(err)
	case damaged:
		_ = os.Truncate(a.c.disk.tracePath(j.ID), 0) // else the next piece does it
		return a.status(http.StatusPreconditionFailed, j)
	}
	return a.status(http.StatusOK, j)
}

// finish applies a final state.
func (b *book) finish(j *job, u *updateBody) {
	switch {
	case j.Status == Canceling:
		b.move(j, Canceled)
	case u.State == string(tranter.JobSuccess):
		b.move(j, Success)
	default:
		j.Reason, j.ExitCode = knownReason(u.Reason), u.ExitCode
		b.move(j, Failed)
	}
}

// damaged compares the stored log with what the runner says about it, and tells whether to demand all of it again
// (status 412, which GitLab itself does not send).
func (a *jobAPI) damaged(j *job, u *updateBody) bool {
	reported := u.checksum()
	if reported == "" {
		return false
	}
	have := formatChecksum(j.Log.sum)
	j.Log.Checksum = reported
	j.Log.Damaged = have != reported || u.Output.Bytes > 0 && u.Output.Bytes != j.Log.size
	if j.Log.Damaged {
		a.c.options.Log.Warn("the log differs from what the runner reports", slog.Int64("job", j.ID), slog.String("stored", have),
			slog.String("reported", reported), slog.Int64("bytes", j.Log.size), slog.Int64("reported_bytes", u.Output.Bytes))
	}
	return j.Log.Damaged && a.c.options.VerifyLog && j.Hold.Reset && j.Log.Resends < maxResends
}

// maxResends is how often a log is demanded again.
const maxResends = 3

// checksum is the CRC-32 of a file.
func checksum(path string) (uint32, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sum := crc32.NewIEEE()
	if _, err := io.Copy(sum, f); err != nil {
		return 0, err
	}
	return sum.Sum32(), nil
}

// formatChecksum gives a checksum the form in which runners report it.
func formatChecksum(sum uint32) string { return fmt.Sprintf("crc32:%08x", sum) }

// status answers a report about a job: how it stands, and how often to report.
func (a *jobAPI) status(code int, j *job) reply {
	status, size := j.Status, j.Log.size
	return func(w http.ResponseWriter) {
		h := w.Header()
		h.Set("Job-Status", string(status))
		h.Set("X-GitLab-Trace-Update-Interval", seconds(a.c.options.UpdateInterval))
		if code == http.StatusAccepted {
			h.Set("Range", "0-"+strconv.FormatInt(size, 10))
		}
		h.Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprint(w, code)
	}
}

func seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int(d/time.Second)))
}

// maxChunk is how many bytes of a log one call may bring. Runners send at most 1 MiB.
const maxChunk = 16 << 20

// trace takes the next piece of a log (gitlab-server 1.5).
func (a *jobAPI) trace(w http.ResponseWriter, r *http.Request) {
	if !a.holds(w, r) { // before a stranger's body is read
		return
	}
	first, _, ok := strings.Cut(r.Header.Get("Content-Range"), "-")
	start, err := strconv.ParseInt(strings.TrimSpace(first), 10, 64)
	if !ok || err != nil || start < 0 {
		refuse(w, http.StatusBadRequest, "Missing header Content-Range")
		return
	}
	chunk, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxChunk))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		refuse(w, http.StatusRequestEntityTooLarge, "")
		return
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "the log could not be read")
		return
	}
	b := a.c.book
	b.mu.Lock()
	j, send := b.holder(pathID(r), jobToken(r))
	if j != nil {
		send = a.append(j, start, chunk, r.URL.Query().Get("debug_trace") == "true")
	}
	b.mu.Unlock()
	send(w)
}

// append stores a piece of a log if it is the next one. Only its start counts (gitlab-server 1.5).
func (a *jobAPI) append(j *job, start int64, chunk []byte, debug bool) reply {
	b := a.c.book
	j.contact = b.now()
	if start > a.c.options.MaxLog || start+int64(len(chunk)) > a.c.options.MaxLog {
		b.lose(j, traceSizeExceeded, "the log is larger than "+strconv.FormatInt(a.c.options.MaxLog, 10)+" bytes")
		_ = b.settle() // logged, and saved with the next change
		status := string(j.Status)
		return func(w http.ResponseWriter) {
			w.Header().Set("Job-Status", status)
			refuse(w, http.StatusForbidden, "Trace size limit exceeded")
		}
	}
	if start != j.Log.size {
		size := strconv.FormatInt(j.Log.size, 10)
		status := string(j.Status)
		return func(w http.ResponseWriter) {
			w.Header().Set("Job-Status", status)
			w.Header().Set("Range", "0-"+size)
			answer(w, http.StatusRequestedRangeNotSatisfiable, map[string]string{"message": "416 Range Not Satisfiable"})
		}
	}
	if err := appendFile(a.c.disk.tracePath(j.ID), start, chunk); err != nil {
		a.c.options.Log.Error("a log could not be stored", slog.Int64("job", j.ID), slog.Any("error", err))
		return replyFault(err)
	}
	j.Log.size += int64(len(chunk))
	j.Log.sum = crc32.Update(j.Log.sum, crc32.IEEETable, chunk)
	if start == 0 && debug && !j.Log.Debug {
		j.Log.Debug = true
		b.touch(j)
		_ = b.settle() // logged, and saved with the next change
	}
	j.bell.ring()
	return a.status(http.StatusAccepted, j)
}

// appendFile writes at the offset, so that a piece that was written only in part before is written over. What may lie
// there when a log begins is not of this log.
func appendFile(path string, offset int64, data []byte) error {
	flags := os.O_CREATE | os.O_WRONLY
	if offset == 0 {
		flags |= os.O_TRUNC
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("append: %w", err)
		}
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return fmt.Errorf("append: %w", err)
	}
	_, err = f.WriteAt(data, offset)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("append: %w", err)
	}
	return nil
}
