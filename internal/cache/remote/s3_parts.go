package remote

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

const (
	// partBytes times partCount is 5 GiB, what S3 takes in one request too. A signature is 64 bytes in the phase's file.
	partBytes = 8 << 20
	partCount = 640
	mostParts = 10000 // that S3 takes: an agent keeps parts in memory, so more of them are better than larger ones
)

// parts is an upload that was begun.
type parts struct {
	id    string
	limit int64 // bytes of the whole; 0: none
}

// sizes returns how large the parts of an upload are, and how many there can be.
func (p parts) sizes() (size int64, count int) {
	size, count = partBytes, partCount
	const mib = 1 << 20
	switch full := int64(partBytes * partCount); {
	case p.limit > full:
		size = max(size, ((p.limit+mostParts-1)/mostParts+mib-1)/mib*mib)
		count = int((p.limit + size - 1) / size)
	case p.limit > 0:
		count = int((p.limit + size - 1) / size)
	}
	return size, count
}

// signParts signs all requests that an upload in parts may need. The parts' addresses differ in the number and the
// signature only.
func (s *S3) signParts(ctx context.Context, sc scope, target url.URL, p parts) (*tranter.PartUpload, error) {
	size, count := p.sizes()
	out := &tranter.PartUpload{Protocol: tranter.PartsS3, PartBytes: size}
	id := url.Values{"uploadId": {p.id}}.Encode()
	target.RawQuery = id
	var err error
	if out.Complete, err = s.presign(ctx, sc, http.MethodPost, target, nil); err != nil {
		return nil, err
	}
	if out.Abort, err = s.presign(ctx, sc, http.MethodDelete, target, nil); err != nil {
		return nil, err
	}
	target.RawQuery = "partNumber=1&" + id
	first, err := s.presign(ctx, sc, http.MethodPut, target, nil)
	if err != nil {
		return nil, err
	}
	t, err := splitSigned(first)
	if err != nil {
		return nil, err
	}
	out.Part = tranter.SignedRequest{Method: http.MethodPut, URL: tranter.Secret(t.before + "partNumber={part}&" + t.after + "&X-Amz-Signature={signature}")}
	out.Signatures = t.signatures(sc, count)
	if out.Signatures[0] != t.signature {
		return nil, errors.New("sign the parts of an upload to S3: the signatures do not agree")
	}
	return out, nil
}

// template is the address of a signed part, cut at the number of the part and before the signature.
type template struct{ before, after, signature string }

func splitSigned(r *tranter.SignedRequest) (template, error) {
	signed, signature, ok := strings.Cut(r.URL.Reveal(), "&X-Amz-Signature=")
	before, after, cut := strings.Cut(signed, "partNumber=1&")
	if !ok || !cut {
		return template{}, errors.New("sign the parts of an upload to S3: the signed address has an unknown form")
	}
	return template{before, after, signature}, nil
}

// signatures signs the parts one by one. It does by hand what the signer did for the first one, which takes a tenth of
// the time: all but the number of the part stays as it is.
func (t template) signatures(sc scope, count int) []string {
	u, err := url.Parse(t.before)
	if err != nil {
		return []string{""}
	}
	date := u.Query().Get("X-Amz-Date")
	day, _, _ := strings.Cut(date, "T")
	within := day + "/" + sc.region + "/s3/aws4_request"
	key := []byte("AWS4" + sc.creds.SecretAccessKey)
	for _, part := range []string{day, sc.region, "s3", "aws4_request"} {
		key = sign(key, part)
	}
	_, query, _ := strings.Cut(t.before, "?")
	head := "PUT\n" + u.EscapedPath() + "\n" + query + "partNumber="
	tail := "&" + t.after + "\nhost:" + u.Host + "\n\nhost\n" + unsigned
	prefix := "AWS4-HMAC-SHA256\n" + date + "\n" + within + "\n"
	out := make([]string, count)
	for i := range out {
		sum := sha256.Sum256([]byte(head + strconv.Itoa(i+1) + tail))
		out[i] = hex.EncodeToString(sign(key, prefix+hex.EncodeToString(sum[:])))
	}
	return out
}

func sign(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// abort implements aborter.
func (s *S3) abort(ctx context.Context, r tranter.SignedRequest) error {
	signed, err := url.Parse(r.URL.Reveal())
	if err != nil {
		return errors.New("undo an upload to S3: its address is not one")
	}
	id := signed.Query().Get("uploadId")
	object, ok := s.objectOf(signed)
	if id == "" || !ok {
		return errors.New("undo an upload to S3: it is not one to this bucket")
	}
	sc, err := s.scope(ctx, object, true, s.options.Now().Add(time.Hour))
	if err != nil {
		return err
	}
	target := s.objectURL(object, sc.region)
	target.RawQuery = url.Values{"uploadId": {id}}.Encode()
	_, err = s.call(ctx, sc, http.MethodDelete, target, nil)
	if refused, ok := errors.AsType[*callError](err); ok && refused.status == http.StatusNotFound {
		return nil // completed, or undone by the agent
	}
	if err != nil {
		return fmt.Errorf("undo an upload to the bucket %s: %w", s.options.Bucket, err)
	}
	return nil
}

// objectOf returns the name of the object at an address.
func (s *S3) objectOf(u *url.URL) (string, bool) {
	p := strings.TrimPrefix(u.Path, "/")
	bucket := s.options.Bucket
	if strings.HasPrefix(u.Host, bucket+".") {
		return p, p != ""
	}
	name, ok := strings.CutPrefix(p, bucket+"/")
	return name, ok && name != ""
}
