package remote_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cache/remote"
)

func keys(address string) remote.S3Options {
	return remote.S3Options{
		Bucket: "bucket", Region: "eu-west-1", Endpoint: remote.S3Endpoint{Address: address, Insecure: true}, Now: clock,
		Credentials: remote.S3Credentials{Type: "access-key", AccessKey: "AK", SecretKey: "SK"},
	}
}

func downloadURL(t *testing.T, o remote.S3Options, object string) *url.URL {
	t.Helper()
	r, err := remote.NewS3(o).Sign(t.Context(), remote.Object{Name: object, Download: true}, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(r.Download.URL.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestAddressesOfBuckets(t *testing.T) {
	for _, c := range []struct {
		name     string
		bucket   string
		region   string
		endpoint remote.S3Endpoint
		want     string
	}{
		{"Amazon's own", "bucket", "eu-west-1", remote.S3Endpoint{DualStack: true}, "https://bucket.s3.dualstack.eu-west-1.amazonaws.com/o"},
		{"IPv4 only", "bucket", "eu-west-1", remote.S3Endpoint{}, "https://bucket.s3.eu-west-1.amazonaws.com/o"},
		{"the name of Amazon's own", "bucket", "eu-west-1", remote.S3Endpoint{Address: "s3.amazonaws.com"}, "https://bucket.s3.eu-west-1.amazonaws.com/o"},
		{"China", "bucket", "cn-north-1", remote.S3Endpoint{}, "https://bucket.s3.cn-north-1.amazonaws.com.cn/o"},
		{"path style", "bucket", "eu-west-1", remote.S3Endpoint{PathStyle: remote.PathStyleOn}, "https://s3.eu-west-1.amazonaws.com/bucket/o"},
		{"a dot, which no certificate covers", "my.bucket", "eu-west-1", remote.S3Endpoint{}, "https://s3.eu-west-1.amazonaws.com/my.bucket/o"},
		{"capitals", "Bucket", "us-east-1", remote.S3Endpoint{}, "https://s3.us-east-1.amazonaws.com/Bucket/o"},
		{"accelerated", "bucket", "eu-west-1", remote.S3Endpoint{Accelerate: true}, "https://bucket.s3-accelerate.amazonaws.com/o"},
		{"accelerated on both", "bucket", "eu-west-1", remote.S3Endpoint{Accelerate: true, DualStack: true}, "https://bucket.s3-accelerate.dualstack.amazonaws.com/o"},
		{"another service", "bucket", "eu-west-1", remote.S3Endpoint{Address: "minio.example.com:9000", DualStack: true, Accelerate: true}, "https://minio.example.com:9000/bucket/o"},
		{"another service without TLS", "bucket", "eu-west-1", remote.S3Endpoint{Address: "minio.example.com:9000", Insecure: true}, "http://minio.example.com:9000/bucket/o"},
		{"another service, hosts", "bucket", "eu-west-1", remote.S3Endpoint{Address: "minio.example.com", PathStyle: remote.PathStyleOff}, "https://bucket.minio.example.com/o"},
		{"Amazon's, named", "bucket", "eu-west-1", remote.S3Endpoint{Address: "s3.eu-west-1.amazonaws.com"}, "https://bucket.s3.eu-west-1.amazonaws.com/o"},
		{"Google's", "bucket", "auto", remote.S3Endpoint{Address: "storage.googleapis.com"}, "https://bucket.storage.googleapis.com/o"},
		{"a name that only looks like Amazon's", "bucket", "eu-west-1", remote.S3Endpoint{Address: "notamazonaws.com"}, "https://notamazonaws.com/bucket/o"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := keys("")
			o.Bucket, o.Region, o.Endpoint = c.bucket, c.region, c.endpoint
			u := downloadURL(t, o, "o")
			if got := u.Scheme + "://" + u.Host + u.EscapedPath(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if got := u.Query().Get("X-Amz-Credential"); got != "AK/20260301/"+c.region+"/s3/aws4_request" {
				t.Errorf("signed for %s", got)
			}
		})
	}
}

func TestLifetimeOfSignatures(t *testing.T) {
	for until, want := range map[time.Duration]string{time.Hour: "3600", 30 * 24 * time.Hour: "604800", -time.Hour: "1"} {
		r, err := remote.NewS3(keys("")).Sign(t.Context(), remote.Object{Name: "o", Download: true}, now.Add(until))
		if err != nil {
			t.Fatal(err)
		}
		if u, _ := url.Parse(r.Download.URL.Reveal()); u.Query().Get("X-Amz-Expires") != want {
			t.Errorf("for %v: %s s, want %s", until, u.Query().Get("X-Amz-Expires"), want)
		}
	}
}

// s3Answer begins uploads and takes all else.
func s3Answer(w http.ResponseWriter, r *http.Request, _ string) {
	if r.Method == http.MethodPost && r.URL.Query().Has("uploads") {
		_, _ = w.Write([]byte(`<?xml version="1.0" encoding="UTF-8"?><InitiateMultipartUploadResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Bucket>b</Bucket><UploadId>up/1+2=</UploadId></InitiateMultipartUploadResult>`))
	}
}

func TestEncryptionIsAskedForInAllUploads(t *testing.T) {
	for _, c := range []struct {
		kind, key string
		want      string
		wantKey   string
	}{
		{"", "", "", ""},
		{"S3", "ignored", "AES256", ""},
		{"aes256", "", "AES256", ""},
		{"KMS", "arn:aws:kms:k", "aws:kms", "arn:aws:kms:k"},
		{"aws:kms", "", "aws:kms", ""},
		{"DSSE-KMS", "key-1", "aws:kms:dsse", "key-1"},
		{"AWS:KMS:DSSE", "key-1", "aws:kms:dsse", "key-1"},
	} {
		t.Run(c.kind, func(t *testing.T) {
			server := newAmazon(t, "s3", s3Answer)
			o := keys(server.host())
			o.Encryption = remote.S3Encryption{Type: c.kind, Key: c.key}
			r, err := remote.NewS3(o).Sign(t.Context(), remote.Object{Name: "o", Key: "o", Upload: true}, now.Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			if code, _, body := send(t, r.Upload.Whole, []byte("x"), nil); code != http.StatusOK {
				t.Fatalf("upload gives %d: %s", code, body)
			}
			if n := len(server.requests()); n != 2 {
				t.Fatalf("%d requests", n)
			}
			for _, req := range server.requests() {
				kind, key := req.Header.Get("X-Amz-Server-Side-Encryption"), req.Header.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id")
				if kind != c.want || key != c.wantKey || req.Header.Get("Content-Type") != "application/octet-stream" {
					t.Errorf("%s %s: encryption %q with %q, headers %v", req.Method, req.URL.Path, kind, key, req.Header)
				}
			}
			plain := *r.Upload.Whole
			plain.Header = nil
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, plain.URL.Reveal(), nil)
			if c.want != "" && !strings.Contains(req.URL.Query().Get("X-Amz-SignedHeaders"), "x-amz-server-side-encryption") {
				t.Error("an agent could leave the encryption out")
			}
		})
	}
}

// The signatures that are made by hand are those that Amazon's own signer makes.
func TestSignaturesOfPartsAreThoseOfTheSDK(t *testing.T) {
	server := newAmazon(t, "s3", s3Answer)
	rapid.Check(t, func(rt *rapid.T) {
		o := keys(server.host())
		o.Credentials.SessionToken = tranter.Secret(rapid.StringMatching(`([A-Za-z0-9+/=]{20})?`).Draw(rt, "token"))
		object := rapid.StringN(1, 20, 60).Filter(func(s string) bool { return !strings.ContainsRune(s, '/') && s != "." && s != ".." }).Draw(rt, "object")
		limit := rapid.Int64Range(0, 60<<30).Draw(rt, "limit")
		r, err := remote.NewS3(o).Sign(t.Context(), remote.Object{Name: "p/" + object, Key: "k", Upload: true, MaxUpload: limit}, now.Add(time.Hour))
		if err != nil {
			rt.Fatal(err)
		}
		up := r.Upload.Parts
		n := rapid.IntRange(1, len(up.Signatures)).Draw(rt, "part")
		u, err := url.Parse(part(up, n).URL.Reveal())
		if err != nil {
			rt.Fatal(err)
		}
		query := u.Query()
		given := query.Get("X-Amz-Signature")
		query.Del("X-Amz-Signature")
		u.RawQuery = query.Encode()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, u.String(), nil)
		if err != nil {
			rt.Fatal(err)
		}
		creds := aws.Credentials{AccessKeyID: "AK", SecretAccessKey: "SK", SessionToken: o.Credentials.SessionToken.Reveal()}
		again, _, err := v4.NewSigner(func(so *v4.SignerOptions) { so.DisableURIPathEscaping = true }).PresignHTTP(t.Context(), creds, req, "UNSIGNED-PAYLOAD", "s3", "eu-west-1", now)
		if err != nil || between(again, "X-Amz-Signature=", "&") != given {
			rt.Fatalf("part %d of %q: %s, want %s (%v)", n, object, given, again, err)
		}
	})
}

func TestPartsAreEnoughForTheLimit(t *testing.T) {
	server := newAmazon(t, "s3", s3Answer)
	backend := remote.NewS3(keys(server.host()))
	for _, limit := range []int64{0, 1, 16 << 20, 16<<20 + 1, 5 << 30, 5<<30 + 1, 100 << 30, 5 << 40} {
		r, err := backend.Sign(t.Context(), remote.Object{Name: "o", Key: "o", Upload: true, MaxUpload: limit}, now.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		up := r.Upload.Parts
		n := int64(len(up.Signatures))
		if need := max(limit, 1); up.PartBytes*n < need || n > 10000 || up.PartBytes < 5<<20 || up.PartBytes > 5<<30*4 {
			t.Errorf("limit %d: %d parts of %d bytes", limit, n, up.PartBytes)
		}
		if limit == 0 && up.PartBytes*n != 5<<30 {
			t.Errorf("without a limit there is room for %d bytes", up.PartBytes*n)
		}
	}
}

func TestTheRegionIsAskedForOnce(t *testing.T) {
	for want, answer := range map[string]func(http.ResponseWriter){
		"eu-central-1": func(w http.ResponseWriter) {
			_, _ = w.Write([]byte(`<LocationConstraint xmlns="x">eu-central-1</LocationConstraint>`))
		},
		"us-east-1": func(w http.ResponseWriter) { _, _ = w.Write([]byte(`<LocationConstraint xmlns="x"/>`)) },
		"eu-west-1": func(w http.ResponseWriter) { _, _ = w.Write([]byte(`<LocationConstraint>EU</LocationConstraint>`)) },
		"ap-south-1": func(w http.ResponseWriter) {
			w.Header().Set("X-Amz-Bucket-Region", "ap-south-1")
			w.WriteHeader(http.StatusForbidden)
		},
		"us-west-2": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`<Error><Code>AuthorizationHeaderMalformed</Code><Region>us-west-2</Region></Error>`))
		},
	} {
		t.Run(want, func(t *testing.T) {
			server := newAmazon(t, "s3", func(w http.ResponseWriter, r *http.Request, _ string) {
				if !r.URL.Query().Has("location") || r.URL.Path != "/bucket" {
					t.Errorf("asked for %s", r.URL)
				}
				answer(w)
			})
			o := keys(server.host())
			o.Region = ""
			backend := remote.NewS3(o)
			for range 3 {
				r, err := backend.Sign(t.Context(), remote.Object{Name: "o", Download: true}, now.Add(time.Hour))
				if err != nil {
					t.Fatal(err)
				}
				if u := r.Download.URL.Reveal(); !strings.Contains(u, "%2F"+want+"%2F") {
					t.Errorf("signed for another region: %s", u)
				}
			}
			if n := len(server.requests()); n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

func TestPassingFaultsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		o := keys("s3.example.com")
		o.Client = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			switch calls++; calls {
			case 1:
				return nil, errors.New("connection reset")
			case 2:
				return &http.Response{StatusCode: http.StatusServiceUnavailable, Body: http.NoBody, Request: r}, nil
			default:
				return &http.Response{StatusCode: http.StatusForbidden, Body: http.NoBody, Request: r}, nil
			}
		})}
		_, err := remote.NewS3(o).Sign(t.Context(), remote.Object{Name: "o", Upload: true}, now.Add(time.Hour))
		if err == nil || !strings.Contains(err.Error(), "status 403") || calls != 3 {
			t.Errorf("%d calls, then %v", calls, err)
		}
	})
}

func BenchmarkSignUpload(b *testing.B) {
	o := keys("s3.example.com")
	o.Client = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		s3Answer(w, r, "")
		return w.Result(), nil
	})}
	backend := remote.NewS3(o)
	b.ReportAllocs()
	for b.Loop() {
		r, err := backend.Sign(b.Context(), remote.Object{Name: "runner/abc/project/1/key", Key: "key", Download: true, Upload: true}, now.Add(time.Hour))
		if err != nil || len(r.Upload.Parts.Signatures) != 320 {
			b.Fatal(err, strconv.Itoa(len(r.Upload.Parts.Signatures)))
		}
	}
}
