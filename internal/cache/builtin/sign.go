package builtin

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cache/remote"
)

// deed is what a signed URL allows.
type deed string

const (
	get      deed = "get"
	put      deed = "put"
	putPart  deed = "part"
	complete deed = "complete"
	abort    deed = "abort"
)

// method returns the method of a deed's requests.
func (d deed) method() string {
	switch d {
	case get:
		return http.MethodGet
	case complete:
		return http.MethodPost
	case abort:
		return http.MethodDelete
	default:
		return http.MethodPut
	}
}

// pathPrefix is what the paths of all archives begin with.
const pathPrefix = "/cache/"

// partBytes is the size of the parts of uploads.
const partBytes = 8 << 20

// ticket is what a URL says and its signature covers.
type ticket struct {
	deed   deed
	object string
	until  int64  // seconds since 1970
	upload string // id, of an upload in parts
	block  int64  // size of its parts
	key    string // of the cache, as the user knows it; for uploads
}

type signatures struct{ key []byte }

// of returns the signature of a ticket. Each field is quoted, so that none can pass for part of another.
func (s signatures) of(t ticket) string {
	h := hmac.New(sha256.New, s.key)
	fmt.Fprintf(h, "tranter cache 1\n%q\n%q\n%d\n%q\n%d\n%q", t.deed, t.object, t.until, t.upload, t.block, t.key)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

var errUnsigned = errors.New("the signature is missing, wrong or over")

// check returns what a request may do.
func (s signatures) check(r *http.Request, now time.Time) (ticket, error) {
	q := r.URL.Query()
	object, ok := strings.CutPrefix(r.URL.Path, pathPrefix)
	t := ticket{deed: deed(q.Get("do")), object: object, upload: q.Get("upload"), key: q.Get("key")}
	var err error
	if t.until, err = strconv.ParseInt(q.Get("until"), 10, 64); err != nil || !ok {
		return ticket{}, errUnsigned
	}
	if text := q.Get("bytes"); text != "" {
		if t.block, err = strconv.ParseInt(text, 10, 64); err != nil {
			return ticket{}, errUnsigned
		}
	}
	if !hmac.Equal([]byte(q.Get("signature")), []byte(s.of(t))) || now.Unix() > t.until {
		return ticket{}, errUnsigned
	}
	if r.Method != t.deed.method() && (r.Method != http.MethodHead || t.deed != get) {
		return ticket{}, errUnsigned
	}
	return t, nil
}

// request makes the signed request for a ticket below the URL base.
func (s signatures) request(base string, t ticket) tranter.SignedRequest {
	q := url.Values{"do": {string(t.deed)}, "until": {strconv.FormatInt(t.until, 10)}, "signature": {s.of(t)}}
	if t.upload != "" {
		q.Set("upload", t.upload)
		q.Set("bytes", strconv.FormatInt(t.block, 10))
	}
	if t.key != "" {
		q.Set("key", t.key)
	}
	text := q.Encode()
	if t.deed == putPart {
		text += "&partNumber={part}"
	}
	path := (&url.URL{Path: pathPrefix + t.object}).EscapedPath()
	return tranter.SignedRequest{Method: t.deed.method(), URL: tranter.Secret(strings.TrimSuffix(base, "/") + path + "?" + text)}
}

// Signer signs for a store. It is a remote.Backend.
type Signer struct {
	base string
	sign signatures
}

// NewSigner returns a signer for the store with the given key that jobs reach at the URL base.
func NewSigner(base string, key []byte) *Signer {
	return &Signer{base: base, sign: signatures{key: key}}
}

// Sign returns the requests for an archive. It needs nobody for that: an upload begins with its first part.
func (s *Signer) Sign(_ context.Context, o remote.Object, until time.Time) (tranter.RemoteArchive, error) {
	var out tranter.RemoteArchive
	request := func(d deed, upload string) *tranter.SignedRequest {
		t := ticket{deed: d, object: o.Name, until: until.Unix(), upload: upload}
		if upload != "" {
			t.block = partBytes
		}
		if d == put || d == complete {
			t.key = o.Key
		}
		r := s.sign.request(s.base, t)
		return &r
	}
	if o.Download {
		out.Download = request(get, "")
	}
	if o.Upload {
		id := newName()
		out.Upload = &tranter.RemoteUpload{Whole: request(put, ""), Parts: &tranter.PartUpload{
			Protocol: tranter.PartsS3, PartBytes: partBytes, Part: *request(putPart, id), Complete: request(complete, id), Abort: request(abort, id),
		}}
	}
	return out, nil
}
