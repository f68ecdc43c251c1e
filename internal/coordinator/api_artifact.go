package coordinator

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/lazy"
)

const (
	archiveType = "archive"
	dotenvType  = "dotenv"
)

var artifactKind = lazy.Regexp(`^[a-z0-9_]{1,64}$`)

// formats lists the formats that go with a type (gitlab-server 1.7); nil: any.
func formats(kind string) []string {
	switch kind {
	case archiveType:
		return []string{"zip", "zipzstd", "tarzstd"}
	case "junit", "metrics", dotenvType, "cobertura", "jacoco", "cyclonedx", "annotations", "repository_xray", "metrics_referee", "network_referee":
		return []string{"gzip"}
	case "lsif", "scip":
		return []string{"zip"}
	case "sast", "secret_detection", "dependency_scanning", "container_scanning", "cluster_image_scanning", "dast", "license_scanning",
		"accessibility", "codequality", "performance", "browser_performance", "load_performance", "terraform", "requirements",
		"requirements_v2", "coverage_fuzzing", "api_fuzzing", "sarif":
		return []string{"raw"}
	}
	return nil
}

// authorize is what GitLab's own front end asks before an upload. A runner that asks gets the same answer.
func (a *jobAPI) authorize(w http.ResponseWriter, r *http.Request) {
	if !a.holds(w, r) {
		return
	}
	size, err := strconv.ParseInt(r.URL.Query().Get("filesize"), 10, 64)
	if limit := a.c.options.MaxArtifact; err == nil && limit > 0 && size > limit {
		refuseSize(w)
		return
	}
	answer(w, http.StatusOK, map[string]any{})
}

func refuseSize(w http.ResponseWriter) {
	answer(w, http.StatusRequestEntityTooLarge, map[string]string{"message": "file size has reached maximum size limit"})
}

// upload stores one artifact (gitlab-server 1.7). The parameters are in the query, the file is the part "file".
func (a *jobAPI) upload(w http.ResponseWriter, r *http.Request) {
	if !a.holds(w, r) {
		return
	}
	q := r.URL.Query()
	art := StoredArtifact{
		Type: cmp.Or(q.Get("artifact_type"), archiveType), Format: cmp.Or(q.Get("artifact_format"), "zip"), ExpireIn: q.Get("expire_in"),
	}
	if !artifactKind().MatchString(art.Type) {
		invalid(w, "artifact_type does not have a valid value")
		return
	}
	if !slices.Contains([]string{"raw", "gzip", "zip", "zipzstd", "tarzstd"}, art.Format) {
		invalid(w, "artifact_format does not have a valid value")
		return
	}
	if fit := formats(art.Type); fit != nil && !slices.Contains(fit, art.Format) {
		answer(w, http.StatusBadRequest, map[string]string{"message": "Invalid file format with specified file type"})
		return
	}
	part, err := filePart(r)
	if err != nil {
		invalid(w, "file is missing")
		return
	}
	defer func() { _ = part.Close() }()
	art.Filename = plainName(part.FileName())
	tmp, err := a.receive(pathID(r), part, &art)
	if errors.Is(err, tranter.ErrTooLarge) {
		refuseSize(w)
		return
	}
	if err != nil {
		a.c.options.Log.Error("an artifact could not be stored", slog.Int64("job", pathID(r)), slog.Any("error", err))
		refuse(w, http.StatusServiceUnavailable, "the file could not be stored")
		return
	}
	defer func() { _ = os.Remove(tmp) }() // gone when it was stored
	a.store(r, tmp, art)(w)
}

// plainName makes a harmless file name of what a runner sends. It is only told to others, never used here.
func plainName(name string) string {
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == utf8.RuneError {
			return '_'
		}
		return c
	}, name)
	if len(name) > maxFileName {
		name = strings.ToValidUTF8(name[len(name)-maxFileName:], "_")
	}
	if name == "" || name == "." || name == ".." {
		return "artifacts"
	}
	return name
}

const maxFileName = 255

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
	j, send := b.holder(pathID(r), jobToken(r))
	if j == nil {
		return send
	}
	j.contact = b.now()
	if old, ok := j.artifact(art.Type); ok {
		if old.SHA256 != art.SHA256 {
			return replyJSON(http.StatusBadRequest, map[string]string{"message": "another artifact of the same type already exists"})
		}
		return a.status(http.StatusCreated, j)
	}
	if err := os.Rename(tmp, a.c.disk.artifactPath(j.ID, art.Type)); err != nil {
		return replyRefusal(http.StatusServiceUnavailable, "the file could not be stored")
	}
	err := b.commit(j, func() {
		art.Created = b.now()
		j.Artifacts = append(slices.Clip(j.Artifacts), art)
		j.Dotenv = append(slices.Clip(j.Dotenv), dotenv...)
		b.touch(j)
	})
	if err != nil {
		return replyRefusal(http.StatusServiceUnavailable, "the file could not be stored")
	}
	return a.status(http.StatusCreated, j)
}

// download gives a job's archive to a job of the same project that is running.
func (a *jobAPI) download(w http.ResponseWriter, r *http.Request) {
	b := a.c.book
	token := jobToken(r)
	b.mu.Lock()
	consumer, producer := b.tokens[token], b.jobs[pathID(r)]
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
	a.c.sendArtifact(w, r, producer.ID, art)
}

func (c *Coordinator) sendArtifact(w http.ResponseWriter, r *http.Request, id int64, art StoredArtifact) {
	f, err := os.Open(c.disk.artifactPath(id, art.Type))
	if err != nil {
		refuse(w, http.StatusNotFound, "")
		return
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": art.Filename}))
	http.ServeContent(w, r, "", art.Created, f)
}
