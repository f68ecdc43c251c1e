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

func (a *answer) redirected() bool {
	switch a.status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return a.header.Get("Location") != ""
	}
	return false
}
