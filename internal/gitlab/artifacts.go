package gitlab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter"
)

// maxRedirects is how often an upload or a download is sent elsewhere.
const maxRedirects = 10

// Upload sends an artifact (runner contract, section 1.10). Statuses that ask for it are retried inside; a caller may
// try again after any error but ErrForbidden and ErrTooLarge. A server that redirects the upload gets the job's token at
// the new address too: the protocol wants that.
func (c *Client) Upload(ctx context.Context, job tranter.JobRef, a tranter.ArtifactUpload) error {
	q := c.jobCall("upload the artifact", http.MethodPost, job, "/artifacts")
	query := url.Values{}
	for key, value := range map[string]string{"expire_in": a.ExpireIn, "artifact_format": a.Format, "artifact_type": a.Type} {
		if value != "" {
			query.Set(key, value)
		}
	}
	q.url.RawQuery = query.Encode()
	q.redirect = false
	q.header.Set("Expect", "100-continue") // a refusal comes before the file is sent
	q.timeout = cmp.Or(a.Timeout, streamTimeout)
	q.headers = cmp.Or(a.HeaderTimeout, headerTimeout)
	boundary := multipart.NewWriter(io.Discard).Boundary()
	q.body = func() (body, error) { return multipartBody(a, boundary) }
	for redirects := 0; ; redirects++ {
		answer, err := c.exchange(ctx, q)
		if err != nil {
			return err
		}
		if a.Answered != nil {
			a.Answered(q.tell(answer))
		}
		switch {
		case answer.status == http.StatusCreated:
			return nil
		case answer.status == http.StatusTemporaryRedirect && redirects < maxRedirects:
			if err := q.moveTo(answer.header.Get("Location")); err != nil {
				return err
			}
		default:
			return q.refusal(answer)
		}
	}
}

// tell returns what an answer says, without the call's token.
func (q *call) tell(a *answer) (status string, header map[string][]string, body []byte) {
	hide := strings.NewReplacer(q.token.Reveal(), "[MASKED]")
	if q.token == "" {
		hide = strings.NewReplacer()
	}
	header = map[string][]string{}
	for key, values := range a.header {
		for _, v := range values {
			header[key] = append(header[key], hide.Replace(v))
		}
	}
	return fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)), header, []byte(hide.Replace(string(a.body)))
}

// moveTo sends the next try to the host that a redirect names; the rest of its address does not count.
func (q *call) moveTo(location string) error {
	to, err := url.Parse(location)
	switch {
	case location == "":
		return fmt.Errorf("%s: the server redirects without saying where", q.what)
	case err != nil:
		return fmt.Errorf("%s: the server redirects to an address that can't be read", q.what)
	case to.Host == "" || to.Scheme != "http" && to.Scheme != "https":
		return fmt.Errorf("%s: the server redirects to an address without a host", q.what)
	case q.url.Scheme == "https" && to.Scheme == "http":
		return fmt.Errorf("%s: the server redirects to http://%s, without encryption; the job's token is not sent there", q.what, to.Host)
	}
	next := &url.URL{Scheme: to.Scheme, Host: to.Host, Path: q.url.Path, RawQuery: q.url.RawQuery}
	if i := strings.LastIndex(q.url.Path, "/api/v4/"); i >= 0 {
		next.Path = q.url.Path[i:]
	}
	q.url = next
	return nil
}

// multipartBody is a form with the artifact as its one part "file". If the artifact's size is known, so is the form's:
// a proxy can refuse it at once.
func multipartBody(a tranter.ArtifactUpload, boundary string) (body, error) {
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	if err := w.SetBoundary(boundary); err != nil {
		return body{}, fmt.Errorf("make the form: %w", err)
	}
	if _, err := w.CreateFormFile("file", a.Filename); err != nil {
		return body{}, fmt.Errorf("make the form: %w", err)
	}
	head := form.Len()
	if err := w.Close(); err != nil {
		return body{}, fmt.Errorf("make the form: %w", err)
	}
	file, err := a.Body()
	if err != nil {
		return body{}, fmt.Errorf("open the artifact: %w", err)
	}
	length := int64(-1)
	if f, ok := file.(interface{ Stat() (os.FileInfo, error) }); ok {
		if s, err := f.Stat(); err == nil && s.Mode().IsRegular() {
			length = s.Size() + int64(form.Len())
		}
	}
	text := form.Bytes()
	return body{
		reader: joined{io.MultiReader(bytes.NewReader(text[:head]), file, bytes.NewReader(text[head:])), file},
		kind:   w.FormDataContentType(), length: length,
	}, nil
}

type joined struct {
	io.Reader
	io.Closer
}

// Download streams a job's artifacts archive (runner contract, section 1.11). An object storage to which the server
// redirects does not get the job's token; when it can't be reached, the server is asked to send the archive itself.
// A caller may try again after any error but ErrForbidden and ErrNotFound.
func (c *Client) Download(ctx context.Context, job tranter.JobRef) (io.ReadCloser, error) {
	answer, q, err := c.download(ctx, job, true)
	if ctx.Err() == nil && q.url.Query().Get("direct_download") == "" && (err != nil || answer.status != http.StatusOK) {
		c.log.Debug("The object storage does not give the artifacts; the server is asked for them", "job", job.ID)
		answer, q, err = c.download(ctx, job, false)
	}
	if err != nil {
		return nil, err
	}
	if answer.status != http.StatusOK {
		return nil, q.refusal(answer)
	}
	return answer.stream, nil
}

// download follows redirects by itself, to decide at each who gets the token. It returns the last call too.
func (c *Client) download(ctx context.Context, job tranter.JobRef, direct bool) (*answer, *call, error) {
	q := c.jobCall("download the artifacts", http.MethodGet, job, "/artifacts")
	q.redirect, q.stream, q.want, q.timeout = false, true, http.StatusOK, streamTimeout
	q.header.Set("Accept-Encoding", "identity") // an archive does not get smaller
	if direct {
		q.url.RawQuery = "direct_download=true"
	}
	for range maxRedirects {
		a, err := c.exchange(ctx, q)
		if err != nil || !a.redirected() {
			return a, q, err
		}
		to, err := q.url.Parse(a.header.Get("Location"))
		if err != nil || to.Host == "" {
			return nil, q, fmt.Errorf("%s: the server redirects to an address that can't be read", q.what)
		}
		next := *q
		next.url = to
		if !c.trusted(to) {
			next.token = ""
		}
		q = &next
	}
	return nil, q, errors.New(q.what + ": the server redirects in circles")
}

// Locate finds a job's artifacts archive in an object storage that gives parts of it (runner contract, section 1.11). The
// function that it returns gives the bytes from one offset up to another, of the archive as it is now: if it changes, an
// error. The error of Locate is about this way only.
func (c *Client) Locate(ctx context.Context, job tranter.JobRef) (open func(ctx context.Context, from, to int64) (io.ReadCloser, error), size int64, err error) {
	q := c.jobCall("download the artifacts", http.MethodGet, job, "/artifacts")
	q.redirect, q.timeout = false, streamTimeout
	q.stream, q.want = true, http.StatusOK
	q.url.RawQuery = "direct_download=true"
	a, err := c.exchange(ctx, q)
	if err != nil {
		return nil, 0, err
	}
	if a.stream != nil {
		_ = a.stream.Close()
	}
	to, err := q.url.Parse(a.header.Get("Location"))
	if !a.redirected() || err != nil || to.Host == "" {
		return nil, 0, errors.New(q.what + ": the server does not send to an object storage")
	}
	part := func(from, end int64) *call {
		next := *q
		next.url, next.want, next.header = to, http.StatusPartialContent, http.Header{}
		if !c.trusted(to) {
			next.token = ""
		}
		next.header.Set("Accept-Encoding", "identity")
		next.header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, end-1))
		return &next
	}
	probe, err := c.openPart(ctx, part(0, 1), 0)
	if err != nil {
		return nil, 0, err
	}
	_ = probe.stream.Close()
	tag, whole := probe.header.Get("ETag"), wholeSize(probe.header.Get("Content-Range"))
	if whole <= 0 {
		return nil, 0, errors.New(q.what + ": the object storage does not tell the size")
	}
	return func(ctx context.Context, from, to int64) (io.ReadCloser, error) {
		p, err := c.openPart(ctx, part(from, to), from)
		if err != nil {
			return nil, err
		}
		if p.header.Get("ETag") != tag || wholeSize(p.header.Get("Content-Range")) != whole {
			_ = p.stream.Close()
			return nil, errors.New(q.what + ": the archive has changed meanwhile")
		}
		return p.stream, nil
	}, whole, nil
}

// openPart makes a call for a part that begins at from.
func (c *Client) openPart(ctx context.Context, q *call, from int64) (*answer, error) {
	a, err := c.exchange(ctx, q)
	if err != nil {
		return nil, err
	}
	if a.stream == nil {
		return nil, q.refusal(a)
	}
	if !strings.HasPrefix(a.header.Get("Content-Range"), fmt.Sprintf("bytes %d-", from)) {
		_ = a.stream.Close()
		return nil, errors.New(q.what + ": the object storage gives another part than was asked for")
	}
	return a, nil
}

// wholeSize reads the size from a header such as "bytes 0-0/1234"; 0: it does not tell.
func wholeSize(contentRange string) int64 {
	_, size, _ := strings.Cut(contentRange, "/")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func (a *answer) redirected() bool {
	switch a.status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return a.header.Get("Location") != ""
	}
	return false
}
