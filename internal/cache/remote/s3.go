package remote

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/tranter-ci/tranter"
)

// S3Options say how to reach a bucket: [runners.cache.s3].
type S3Options struct {
	Bucket      string
	Region      string // empty: asked for
	Endpoint    S3Endpoint
	Credentials S3Credentials
	Encryption  S3Encryption
	Roles       S3Roles

	Client *http.Client                 // for the manager's own requests; nil: one with a time limit
	Getenv func(string) string          // nil: os.Getenv
	Now    func() time.Time             // nil: time.Now
	Read   func(string) ([]byte, error) // a file; nil: os.ReadFile
}

// S3Credentials are the keys of [runners.cache.s3].
type S3Credentials struct {
	Type                               string // iam or access-key; empty: as the stock runner chooses
	AccessKey, SecretKey, SessionToken tranter.Secret
}

// S3Encryption says how objects are encrypted where they lie: S3 or AES256, KMS, DSSE-KMS, or Amazon's names of these.
type S3Encryption struct{ Type, Key string }

// S3 signs for a bucket in S3, or in what speaks its protocol. It is safe for concurrent use.
type S3 struct {
	options S3Options
	http    caller
	signer  *v4.Signer
	base    aws.CredentialsProvider
	sts     *sts
	roles   *roles

	mu     sync.Mutex
	region string
	asked  time.Time // when the region was asked for in vain
}

const (
	unsigned    = "UNSIGNED-PAYLOAD"
	emptyHash   = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	anyRegion   = "us-east-1"
	maxLifetime = 7 * 24 * time.Hour // of signature version 4
	// regionRetry is how long a bucket's region that could not be found out is taken for the usual one.
	regionRetry = 5 * time.Minute
	// freshCredentials is how long credentials that end must hold when a job starts: what they signed ends with them.
	freshCredentials = 30 * time.Minute
	// maxWhole is what S3 takes in one request.
	maxWhole = 5 << 30
)

// NewS3 returns the backend of a bucket.
func NewS3(o S3Options) *S3 {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Read == nil {
		o.Read = os.ReadFile
	}
	s := &S3{options: o, http: newCaller(o.Client), signer: v4.NewSigner(func(so *v4.SignerOptions) { so.DisableURIPathEscaping = true }), region: o.Region}
	s.sts = &sts{http: s.http, endpoint: cmp.Or(o.Getenv("AWS_ENDPOINT_URL_STS"), o.Getenv("AWS_ENDPOINT_URL")), region: s.bucketRegion, now: o.Now}
	login := *s.sts
	login.region = func(context.Context) string { // the bucket's can't be asked for without the credentials that are looked for
		return cmp.Or(o.Region, o.Getenv("AWS_REGION"), o.Getenv("AWS_DEFAULT_REGION"), anyRegion)
	}
	c := o.Credentials
	s.base = aws.NewCredentialsCache(&chain{getenv: o.Getenv, read: o.Read, sts: &login}, func(c *aws.CredentialsCacheOptions) {
		c.ExpiryWindow = freshCredentials
	})
	if c.static(o.Endpoint) {
		s.base = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: c.AccessKey.Reveal(), SecretAccessKey: c.SecretKey.Reveal(), SessionToken: c.SessionToken.Reveal()}, nil
		})
	}
	s.roles = newRoles(s, o.Roles)
	return s
}

// static says whether the configuration's own keys are used (runner contract, section 7.8).
func (c S3Credentials) static(e S3Endpoint) bool {
	if c.Type != "" {
		return strings.EqualFold(c.Type, "access-key")
	}
	return e.Address != "" && c.AccessKey != "" && c.SecretKey != ""
}

// bucketRegion returns the region to sign for.
func (s *S3) bucketRegion(ctx context.Context) string {
	s.mu.Lock()
	region, asked := s.region, s.asked
	s.mu.Unlock()
	if region != "" {
		return region
	}
	if s.options.Now().Sub(asked) < regionRetry {
		return anyRegion
	}
	region, err := s.askRegion(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.asked = s.options.Now()
		return anyRegion
	}
	s.region = region
	return region
}

// askRegion asks where the bucket is. Those who may not ask are told by the refusal.
func (s *S3) askRegion(ctx context.Context) (string, error) {
	creds, err := s.base.Retrieve(ctx)
	if err != nil {
		return "", err
	}
	e := s.options.Endpoint
	e.PathStyle, e.Accelerate = PathStyleOn, false
	target := e.bucketURL(s.options.Bucket, anyRegion)
	target.RawQuery = "location="
	body, err := s.call(ctx, scope{creds: creds, region: anyRegion}, http.MethodGet, target, nil)
	if refused, ok := errors.AsType[*callError](err); ok && refused.region != "" {
		return refused.region, nil
	}
	if err != nil {
		return "", err
	}
	var answer struct {
		Text string `xml:",chardata"`
	}
	if err := xml.Unmarshal(body, &answer); err != nil {
		return "", fmt.Errorf("read the bucket's region: %w", err)
	}
	switch region := strings.TrimSpace(answer.Text); region {
	case "":
		return anyRegion, nil
	case "EU": // what eu-west-1 was called first
		return "eu-west-1", nil
	default:
		return region, nil
	}
}

// scope is whom and where a signature is for, and how long.
type scope struct {
	creds  aws.Credentials
	region string
	until  time.Time // of requests that somebody else makes
}

// call makes a request of the manager's own.
func (s *S3) call(ctx context.Context, sc scope, method string, target url.URL, header http.Header) ([]byte, error) {
	return s.http.do(ctx, func() (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, method, target.String(), nil)
		if err != nil {
			return nil, fmt.Errorf("make a request to S3: %w", err)
		}
		maps.Copy(req.Header, header)
		req.Header.Set("X-Amz-Content-Sha256", emptyHash)
		return req, s.signer.SignHTTP(ctx, sc.creds, req, emptyHash, "s3", sc.region, s.options.Now())
	})
}

// presign signs a request that somebody else is to make.
func (s *S3) presign(ctx context.Context, sc scope, method string, target url.URL, header http.Header) (*tranter.SignedRequest, error) {
	query := target.Query()
	query.Set("X-Amz-Expires", strconv.Itoa(lifetime(s.options.Now(), sc.until)))
	target.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, target.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("make a request to S3: %w", err)
	}
	maps.Copy(req.Header, header)
	signed, headers, err := s.signer.PresignHTTP(ctx, sc.creds, req, unsigned, "s3", sc.region, s.options.Now())
	if err != nil {
		return nil, fmt.Errorf("sign a request to S3: %w", err)
	}
	out := &tranter.SignedRequest{Method: method, URL: tranter.Secret(signed)}
	for k := range headers {
		if k == "Host" || len(header[k]) == 0 {
			continue
		}
		if out.Header == nil {
			out.Header = map[string]string{}
		}
		out.Header[k] = header.Get(k)
	}
	return out, nil
}

// lifetime returns the seconds that a signature is to hold, within what the clouds allow.
func lifetime(now, until time.Time) int {
	return int(min(max(until.Sub(now).Round(time.Second), time.Second), maxLifetime) / time.Second)
}

// Sign implements Backend.
func (s *S3) Sign(ctx context.Context, o Object, until time.Time) (tranter.RemoteArchive, error) {
	var out tranter.RemoteArchive
	if o.Download {
		sc, err := s.scope(ctx, o.Name, false, until)
		if err != nil {
			return out, err
		}
		if out.Download, err = s.presign(ctx, sc, http.MethodGet, s.objectURL(o.Name, sc.region), nil); err != nil {
			return out, err
		}
	}
	if o.Upload {
		sc, err := s.scope(ctx, o.Name, true, until)
		if err != nil {
			return out, err
		}
		out.Upload, err = s.signUpload(ctx, sc, o)
		if err != nil {
			return tranter.RemoteArchive{Download: out.Download}, err
		}
	}
	return out, nil
}

// scope returns what an object is signed with: a role's credentials if one is to be assumed.
func (s *S3) scope(ctx context.Context, object string, upload bool, until time.Time) (scope, error) {
	region := s.bucketRegion(ctx)
	creds, err := s.roles.credentials(ctx, object, upload, until)
	if err != nil {
		return scope{}, fmt.Errorf("get credentials for S3: %w", err)
	}
	return scope{creds, region, until}, nil
}

func (s *S3) signUpload(ctx context.Context, sc scope, o Object) (*tranter.RemoteUpload, error) {
	header := s.objectHeader(o)
	target := s.objectURL(o.Name, sc.region)
	whole, err := s.presign(ctx, sc, http.MethodPut, target, header)
	if err != nil {
		return nil, err
	}
	up := &tranter.RemoteUpload{Whole: whole, WholeLimit: maxWhole}
	create := target
	create.RawQuery = "uploads="
	body, err := s.call(ctx, sc, http.MethodPost, create, header)
	if refused, ok := errors.AsType[*callError](err); ok && (refused.status == http.StatusNotImplemented || refused.status == http.StatusMethodNotAllowed) {
		return up, nil // a storage that takes no parts
	}
	if err != nil {
		return nil, fmt.Errorf("begin an upload to the bucket %s: %w", s.options.Bucket, err)
	}
	var answer struct{ UploadId string } //nolint:revive // the name in the document
	if err := xml.NewDecoder(bytes.NewReader(body)).Decode(&answer); err != nil || answer.UploadId == "" {
		return nil, fmt.Errorf("begin an upload to the bucket %s: the answer names no upload", s.options.Bucket)
	}
	up.Parts, err = s.signParts(ctx, sc, target, parts{id: answer.UploadId, limit: o.MaxUpload})
	return up, err
}

// objectHeader is what an object is saved with.
func (s *S3) objectHeader(o Object) http.Header {
	h := http.Header{}
	h.Set("Content-Type", contentType)
	h.Set("X-Amz-Meta-Cachekey", metadataValue(o.Key))
	if kind := s.options.Encryption.algorithm(); kind != "" {
		h.Set("X-Amz-Server-Side-Encryption", kind)
		if key := s.options.Encryption.Key; key != "" && s.options.Encryption.kms() {
			h.Set("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", key)
		}
	}
	return h
}

const contentType = "application/octet-stream"

// algorithm is Amazon's name for a kind of encryption.
func (e S3Encryption) algorithm() string {
	switch strings.ToUpper(e.Type) {
	case "S3", "AES256":
		return "AES256"
	case "KMS", "AWS:KMS":
		return "aws:kms"
	case "DSSE-KMS", "AWS:KMS:DSSE":
		return "aws:kms:dsse"
	default:
		return ""
	}
}

func (e S3Encryption) kms() bool { return strings.HasPrefix(e.algorithm(), "aws:kms") }

func (s *S3) objectURL(object, region string) url.URL {
	u := s.options.Endpoint.bucketURL(s.options.Bucket, region)
	u.Path = strings.TrimSuffix(u.Path, "/") + "/" + object
	u.RawPath = escapePath(u.Path)
	return u
}
