package remote_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/tranter-ci/tranter"
)

// now is a fixed time for signatures.
var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

// amazon is a service that checks signatures of version 4, given in the header or in the address.
type amazon struct {
	*httptest.Server
	t       *testing.T
	service string
	secrets map[string]string // by access key
	answer  func(w http.ResponseWriter, r *http.Request, body string)

	mu   sync.Mutex
	seen []*http.Request
}

func newAmazon(t *testing.T, service string, answer func(http.ResponseWriter, *http.Request, string)) *amazon {
	a := &amazon{t: t, service: service, secrets: map[string]string{"AK": "SK"}, answer: answer}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *amazon) host() string { return strings.TrimPrefix(a.URL, "http://") }

func (a *amazon) requests() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen
}

func (a *amazon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if why := a.check(r, body); why != "" {
		a.t.Errorf("%s %s: %s", r.Method, r.URL, why)
		http.Error(w, why, http.StatusForbidden)
		return
	}
	a.mu.Lock()
	a.seen = append(a.seen, r)
	a.mu.Unlock()
	a.answer(w, r, string(body))
}

// check signs the request again, with the headers that it says are signed, and compares.
func (a *amazon) check(r *http.Request, body []byte) string {
	given, query := r.Header.Get("Authorization"), r.URL.Query()
	presigned := given == ""
	credential, signed := query.Get("X-Amz-Credential"), query.Get("X-Amz-SignedHeaders")
	if !presigned {
		credential, signed = between(given, "Credential=", ","), between(given, "SignedHeaders=", ",")
	}
	f := strings.Split(credential, "/")
	if len(f) != 5 || f[3] != a.service {
		return "the credential is " + credential
	}
	copied := &http.Request{Method: r.Method, Host: r.Host, Header: http.Header{}, ContentLength: 0}
	copied.URL = &url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawPath: r.URL.RawPath}
	for name := range strings.SplitSeq(signed, ";") {
		if name == "content-length" {
			copied.ContentLength = r.ContentLength
		} else if name != "host" {
			copied.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
		}
	}
	for k := range r.Header {
		if strings.HasPrefix(k, "X-Amz-") && !strings.Contains(signed, strings.ToLower(k)) {
			return k + " is not signed"
		}
	}
	query.Del("X-Amz-Signature")
	copied.URL.RawQuery = query.Encode()
	creds := aws.Credentials{AccessKeyID: f[0], SecretAccessKey: a.secrets[f[0]], SessionToken: query.Get("X-Amz-Security-Token") + r.Header.Get("X-Amz-Security-Token")}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = a.service == "s3" })
	if presigned {
		at, err := time.Parse("20060102T150405Z", query.Get("X-Amz-Date"))
		if err != nil {
			return err.Error()
		}
		again, _, err := signer.PresignHTTP(r.Context(), creds, copied, "UNSIGNED-PAYLOAD", a.service, f[2], at)
		if err != nil || between(again+"&", "X-Amz-Signature=", "&") != r.URL.Query().Get("X-Amz-Signature") {
			return "the signature in the address is wrong"
		}
		return ""
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return err.Error()
	}
	sum := sha256.Sum256(body)
	if err := signer.SignHTTP(r.Context(), creds, copied, hex.EncodeToString(sum[:]), a.service, f[2], at); err != nil || copied.Header.Get("Authorization") != given {
		return "the signature in the header is wrong"
	}
	return ""
}

func between(s, from, to string) string {
	_, s, _ = strings.Cut(s, from)
	s, _, _ = strings.Cut(s, to)
	return s
}

// send makes a signed request as an agent does, to whatever host is given in place of the real one.
func send(t *testing.T, r *tranter.SignedRequest, body []byte, via *http.Client) (int, http.Header, string) {
	t.Helper()
	if r == nil {
		t.Fatal("nothing was signed")
	}
	req, err := http.NewRequestWithContext(t.Context(), r.Method, r.URL.Reveal(), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range r.Header {
		req.Header.Set(k, v)
	}
	if via == nil {
		via = http.DefaultClient
	}
	resp, err := via.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
