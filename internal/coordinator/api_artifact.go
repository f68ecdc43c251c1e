package coordinator

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/tranter-ci/tranter"
)

const (
	archiveType = "archive"
	dotenvType  = "dotenv"
)

var artifactKind = regexp.MustCompile(`^[a-z0-9_]{1,64}$`)

func dirOf(path string) string { return filepath.Dir(path) }

// authorize is what old runners ask before they upload.
func (a *jobAPI) authorize(w http.ResponseWriter, r *http.Request) {
	if a.mayUpload(w, r) {
		answer(w, http.StatusOK, map[string]any{})
	}
}

// mayUpload tells whether the request comes from the runner of the job. Else it has answered.
func (a *jobAPI) mayUpload(w http.ResponseWriter, r *http.Request) bool {
	b := a.c.book
	b.mu.Lock()
	j, send := b.holder(pathID(r, "id"), a.uploadToken(r))
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

func (a *jobAPI) uploadToken(r *http.Request) tranter.Secret {
	return tokenOf(r, tranter.Secret(r.URL.Query().Get("token")), "Job-Token")
}

// upload stores one artifact (gitlab-server 1.7). The parameters are in the query, the file is the part "file".
func (a *jobAPI) upload(w http.ResponseWriter, r *http.Request) {
	if !a.mayUpload(w, r) {
		return
	}
	q := r.URL.Query()
	art := StoredArtifact{Type: q.Get("artifact_type"), Format: q.Get("artifact_format"), ExpireIn: q.Get("expire_in")}
	if art.Type == "" {
		art.Type = archiveType
	}
	if art.Format == "" {
		art.Format = "zip"
	}
	if !artifactKind.MatchString(art.Type) {
		invalid(w, "artifact_type does not have a valid value")
		return
	}
	part, err := filePart(r)
	if err != nil {
		invalid(w, "file is missing")
		return
	}
	defer part.Close()
	art.Filename = filepath.Base(part.FileName())
	tmp, err := a.receive(pathID(r, "id"), part, &art)
	if errors.Is(err, tranter.ErrTooLarge) {
		answer(w, http.StatusRequestEntityTooLarge, map[string]string{"message": "file size has reached maximum size limit"})
		return
	}
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, "the file could not be stored")
		return
	}
	defer os.Remove(tmp) // gone when it was stored
	a.store(r, tmp, art)(w)
}

func filePart(r *http.Request) (*multipart.Part, error) {
	form, err := r.MultipartReader()
	if err != nil {
		return nil, err
	}
	for {
		part, err := form.NextPart()
		if err != nil {
			return nil, err
		}
		if part.FormName() == "file" {
			return part, nil
		}
	}
}

// receive writes the file beside its place and returns its name.
func (a *jobAPI) receive(id int64, from io.Reader, art *StoredArtifact) (string, error) {
	dir := a.c.disk.jobDir(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("receive: %w", err)
	}
	tmp, err := os.CreateTemp(dir, ".upload-*")
	if err != nil {
		return "", fmt.Errorf("receive: %w", err)
	}
	limit := a.c.options.MaxArtifact
	if limit > 0 {
		from = io.LimitReader(from, limit+1)
	}
	sum := sha256.New()
	art.Size, err = io.Copy(io.MultiWriter(tmp, sum), from)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil && limit > 0 && art.Size > limit {
		err = tranter.ErrTooLarge
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("receive: %w", err), os.Remove(tmp.Name()))
	}
	art.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return tmp.Name(), nil
}

// store puts a received file in its place.
func (a *jobAPI) store(r *http.Request, tmp string, art StoredArtifact) reply {
	var dotenv []tranter.Variable
	if art.Type == dotenvType {
		var err error
		if dotenv, err = readDotenv(tmp, art.Format); err != nil {
			return replyJSON(http.StatusBadRequest, map[string]string{"message": err.Error()})
		}
	}
	b := a.c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	j, send := b.holder(pathID(r, "id"), a.uploadToken(r))
	if j == nil {
		return send
	}
	if old, ok := j.artifact(art.Type); ok {
		if old.SHA256 != art.SHA256 {
			return replyJSON(http.StatusBadRequest, map[string]string{"message": "another artifact of the same type already exists"})
		}
		return a.status(http.StatusCreated, j)
	}
	if err := os.Rename(tmp, a.c.disk.artifactPath(j.ID, art.Type)); err != nil {
		return replyRefusal(http.StatusServiceUnavailable, "the file could not be stored")
	}
	art.Created = b.now()
	j.Artifacts = append(j.Artifacts, art)
	j.Dotenv = append(j.Dotenv, dotenv...)
	j.contact = b.now()
	b.touch(j)
	if err := b.settle(); err != nil {
		return replyFault(err)
	}
	return a.status(http.StatusCreated, j)
}

// download gives a job's archive to a job of the same project that is running.
func (a *jobAPI) download(w http.ResponseWriter, r *http.Request) {
	b := a.c.book
	token := a.uploadToken(r)
	b.mu.Lock()
	consumer, producer := b.tokens[token], b.jobs[pathID(r, "id")]
	var art StoredArtifact
	var found bool
	status := 0
	switch {
	case consumer == nil || !consumer.Status.Executing():
		status = http.StatusUnauthorized
	case producer == nil:
		status = http.StatusNotFound
	case producer.run.Project != consumer.run.Project:
		status = http.StatusForbidden
	default:
		consumer.contact = b.now()
		if art, found = producer.artifact(archiveType); !found {
			status = http.StatusNotFound
		}
	}
	b.mu.Unlock()
	if status != 0 {
		refuse(w, status, "")
		return
	}
	a.c.sendArtifact(w, producer.ID, art)
}

func (c *Coordinator) sendArtifact(w http.ResponseWriter, id int64, art StoredArtifact) {
	f, err := os.Open(c.disk.artifactPath(id, art.Type))
	if err != nil {
		refuse(w, http.StatusNotFound, "")
		return
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(art.Size, 10))
	h.Set("Content-Disposition", "attachment; filename="+strconv.Quote(art.Filename))
	h.Set("Last-Modified", art.Created.UTC().Format(time.RFC1123))
	w.WriteHeader(http.StatusOK)
	_, _ = io.Copy(w, f)
}
