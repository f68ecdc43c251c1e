package remote

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"cloud.google.com/go/compute/metadata"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"github.com/tranter-ci/tranter"
)

const googleScope = "https://www.googleapis.com/auth/cloud-platform"

// signer signs for a service account.
type signer interface {
	email() string
	sign(ctx context.Context, text []byte) ([]byte, error)
}

// account finds the service account to sign for, once it is needed (runner contract, section 7.8).
type account struct {
	options GCSOptions
	http    caller

	mu    sync.Mutex
	found signer
}

// The lock is held while it is looked for: all who wait want the same answer.
func (a *account) signer(ctx context.Context) (signer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.found != nil {
		return a.found, nil
	}
	s, err := a.find(ctx)
	if err != nil {
		return nil, err
	}
	a.found = s
	return s, nil
}

func (a *account) find(ctx context.Context) (signer, error) {
	o := a.options
	switch {
	case o.CredentialsFile != "":
		data, err := o.Read(o.CredentialsFile)
		if err != nil {
			return nil, fmt.Errorf("read the credentials file: %w", err)
		}
		return a.fromJSON(ctx, data)
	case o.AccessID != "" && o.PrivateKey != "":
		return newKeySigner(o.AccessID, o.PrivateKey)
	}
	creds, err := google.FindDefaultCredentials(a.context(ctx), googleScope)
	if err != nil {
		return nil, errors.New("there is no CredentialsFile, no AccessID with PrivateKey, and this machine has no service account")
	}
	if creds.JSON != nil {
		return a.fromJSON(ctx, creds.JSON)
	}
	email, err := metadata.EmailWithContext(ctx, "default")
	if err != nil {
		return nil, fmt.Errorf("ask for the machine's service account: %w", err)
	}
	return a.remote(email, creds.TokenSource), nil
}

// context returns one for token sources, which outlive the call that makes them.
func (a *account) context(ctx context.Context) context.Context {
	return context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, a.http.client)
}

// credentialsJSON is what is used here of the files that Google's tools write.
type credentialsJSON struct {
	Type             string         `json:"type"`
	ClientEmail      string         `json:"client_email"`
	PrivateKey       tranter.Secret `json:"private_key"`
	ImpersonationURL string         `json:"service_account_impersonation_url"`
}

// fromJSON returns the signer for a credentials file: the key in it, or the account that it lets us act for.
func (a *account) fromJSON(ctx context.Context, data []byte) (signer, error) {
	var c credentialsJSON
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, errors.New("the credentials file is not JSON")
	}
	if c.PrivateKey != "" {
		return newKeySigner(c.ClientEmail, c.PrivateKey)
	}
	_, name, ok := strings.Cut(c.ImpersonationURL, "/serviceAccounts/")
	email, _, _ := strings.Cut(name, ":")
	if !ok || email == "" {
		return nil, fmt.Errorf("credentials of type %q name no service account, and only those can sign; use the key of one", c.Type)
	}
	if unescaped, err := url.PathUnescape(email); err == nil {
		email = unescaped
	}
	kind := google.CredentialsType(c.Type)
	creds, err := google.CredentialsFromJSONWithType(a.context(ctx), data, kind, googleScope)
	if err != nil {
		return nil, fmt.Errorf("use the credentials file: %w", err)
	}
	return a.remote(email, creds.TokenSource), nil
}

func (a *account) remote(email string, tokens oauth2.TokenSource) signer {
	return &remoteSigner{account: email, tokens: oauth2.ReuseTokenSource(nil, tokens), http: a.http, universe: a.options.Universe}
}

// keySigner has the account's key.
type keySigner struct {
	account string
	key     *rsa.PrivateKey
}

func newKeySigner(email string, text tranter.Secret) (signer, error) {
	// In TOML and in environment variables, line ends are often written as \n.
	block, _ := pem.Decode([]byte(strings.ReplaceAll(text.Reveal(), `\n`, "\n")))
	if block == nil {
		return nil, errors.New("the private key is not in PEM form")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return &keySigner{email, key}, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the private key cannot be read")
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("the private key is not one of RSA")
	}
	return &keySigner{email, key}, nil
}

func (s *keySigner) email() string { return s.account }

func (s *keySigner) sign(_ context.Context, text []byte) ([]byte, error) {
	sum := sha256.Sum256(text)
	return rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, sum[:])
}

// remoteSigner has Google sign with the account's key, which never leaves it.
type remoteSigner struct {
	account  string
	tokens   oauth2.TokenSource
	http     caller
	universe string
}

func (s *remoteSigner) email() string { return s.account }

func (s *remoteSigner) sign(ctx context.Context, text []byte) ([]byte, error) {
	token, err := s.tokens.Token()
	if err != nil {
		return nil, errors.New("no token could be had for the service account")
	}
	payload, err := json.Marshal(map[string]string{"payload": base64.StdEncoding.EncodeToString(text)})
	if err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	target := "https://iamcredentials." + s.universe + "/v1/projects/-/serviceAccounts/" + url.PathEscape(s.account) + ":signBlob"
	body, err := s.http.do(ctx, func() (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(payload))
		if err != nil {
			return nil, fmt.Errorf("make the request: %w", err)
		}
		req.Header.Set("Content-Type", "application/json")
		token.SetAuthHeader(req)
		return req, nil
	})
	if err != nil {
		return nil, fmt.Errorf("have it signed for %s: %w", s.account, err)
	}
	var answer struct {
		SignedBlob []byte `json:"signedBlob"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.SignedBlob) == 0 {
		return nil, errors.New("the answer holds no signature")
	}
	return answer.SignedBlob, nil
}
