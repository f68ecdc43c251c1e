// Package vault reads secrets from HashiCorp Vault and OpenBao servers for jobs, by their HTTP API.
//
// It makes two kinds of requests, a login and a read. The vendors' client is not used: it takes addresses and tokens
// from the manager's environment, which are not the job's.
package vault

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

const (
	requestLimit = 30 * time.Second
	answerLimit  = 16 << 20 // bytes
)

// Client asks servers. It is safe for concurrent use.
type Client struct{ http *http.Client }

// New returns a client that follows no redirects: a token must not get to another server.
func New(transport http.RoundTripper) *Client {
	return &Client{http: &http.Client{
		Transport: transport, Timeout: requestLimit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Login is a job's hold on servers: tokens that it got are used for all of its secrets, and given back by Close.
type Login struct {
	client *Client

	mu     sync.Mutex
	tokens map[login]tranter.Secret
}

// login is all on which a token depends.
type login struct {
	url, namespace, path, role string
	jwt                        tranter.Secret
}

// Open returns a hold on servers for one job.
func (c *Client) Open() tranter.SecretReader {
	return &Login{client: c, tokens: map[login]tranter.Secret{}}
}

// Read returns the value of a secret. The error is tranter.ErrNoSecret if there is none, a *tranter.ConfigError if the
// server refuses the request (400, 401, 403, 404), a *tranter.DependencyError if the server has failed (500 and above),
// or another one (runner contract, section 2.10).
func (l *Login) Read(ctx context.Context, s tranter.ExternalSecret) (tranter.Secret, error) {
	header := http.Header{}
	if s.Inline {
		inline(header, s)
	} else {
		token, err := l.token(ctx, s)
		if err != nil {
			return "", err
		}
		header.Set("X-Vault-Token", token.Reveal())
	}
	path := strings.Trim(s.Mount, "/") + "/" + strings.TrimPrefix(s.Path, "/")
	if s.Engine == "kv-v2" {
		path = strings.Trim(s.Mount, "/") + "/data/" + strings.TrimPrefix(s.Path, "/")
	}
	var answer struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	err := l.client.call(ctx, call{server: s, method: http.MethodGet, path: path, header: header}, &answer)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	data := answer.Data
	if s.Engine == "kv-v2" {
		if data, err = inner(data["data"]); err != nil {
			return "", fmt.Errorf("read %s: %w", path, err)
		}
	}
	value, err := text(data[s.Field], s.Inline)
	if err != nil {
		return "", fmt.Errorf("read the field %s of %s: %w", s.Field, path, err)
	}
	return value, nil
}

// inner reads the data of a versioned secret; of a deleted version there is none.
func inner(raw json.RawMessage) (map[string]json.RawMessage, error) {
	var data map[string]json.RawMessage
	if len(raw) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(raw, &data); err != nil {
		return nil, errors.New("the answer has an unknown form")
	}
	return data, nil
}

// text returns a field as a variable's value: a string as it is, another value as its JSON, unless only strings count.
func text(raw json.RawMessage, onlyText bool) (tranter.Secret, error) {
	var s string
	switch err := json.Unmarshal(raw, &s); {
	case len(raw) == 0 || string(raw) == "null" || (err == nil && s == ""):
		return "", tranter.ErrNoSecret
	case err == nil:
		return tranter.Secret(s), nil
	case onlyText:
		return "", &tranter.ConfigError{Err: errors.New("it is no text")}
	}
	return tranter.Secret(raw), nil
}

// token logs in, once for all secrets with the same login.
func (l *Login) token(ctx context.Context, s tranter.ExternalSecret) (tranter.Secret, error) {
	key := login{url: s.URL, namespace: s.Namespace, path: s.AuthPath, role: s.Role, jwt: s.JWT}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, ok := l.tokens[key]; ok {
		return t, nil
	}
	body := map[string]string{"jwt": s.JWT.Reveal()}
	if s.Role != "" {
		body["role"] = s.Role
	}
	var answer struct {
		Auth struct {
			Token tranter.Secret `json:"client_token"`
		} `json:"auth"`
	}
	if err := l.client.call(ctx, call{server: s, method: http.MethodPut, path: s.AuthPath, body: body}, &answer); err != nil {
		return "", fmt.Errorf("log in at %s: %w", s.AuthPath, err)
	}
	if answer.Auth.Token == "" {
		return "", fmt.Errorf("log in at %s: the answer has no token", s.AuthPath)
	}
	l.tokens[key] = answer.Auth.Token
	return answer.Auth.Token, nil
}

// Close gives the tokens back, as far as their servers allow that.
func (l *Login) Close(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, token := range l.tokens {
		s := tranter.ExternalSecret{URL: key.url, Namespace: key.namespace}
		header := http.Header{"X-Vault-Token": {token.Reveal()}}
		// It ends by itself soon, and many policies do not let it end itself.
		_ = l.client.call(ctx, call{server: s, method: http.MethodPut, path: "auth/token/revoke-self", header: header, body: map[string]string{}}, nil)
	}
	clear(l.tokens)
}

// inline puts the login into the read request itself, as OpenBao allows.
func inline(h http.Header, s tranter.ExternalSecret) {
	h.Set("X-Vault-Inline-Auth-Path", s.AuthPath)
	parameters := map[string]string{"jwt": s.JWT.Reveal()}
	if s.Role != "" {
		parameters["role"] = s.Role
	}
	for key, value := range parameters {
		data, _ := json.Marshal(map[string]string{"key": key, "value": value})
		h.Set("X-Vault-Inline-Auth-Parameter-"+key, base64.RawURLEncoding.EncodeToString(data))
	}
}

// call is one request of the API.
type call struct {
	server tranter.ExternalSecret // URL and Namespace
	method string
	path   string
	header http.Header
	body   any
}

func (c *Client) call(ctx context.Context, k call, answer any) error {
	req, err := request(ctx, k)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", req.URL.Host, causeOf(err))
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	if err != nil {
		return fmt.Errorf("%s: read the answer: %w", req.URL.Host, err)
	}
	if resp.StatusCode/100 != 2 {
		return refused(req.URL.Host, resp, data)
	}
	if answer == nil || len(data) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("%s: the answer is not that of a Vault or OpenBao server", req.URL.Host)
	}
	return nil
}

func request(ctx context.Context, k call) (*http.Request, error) {
	u, err := url.Parse(k.server.URL)
	if err != nil {
		return nil, &tranter.ConfigError{Err: errors.New("the server's address is malformed")}
	}
	u = u.JoinPath("v1", k.path)
	var body io.Reader
	if k.body != nil {
		data, err := json.Marshal(k.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, u.String(), body)
	if err != nil {
		return nil, &tranter.ConfigError{Err: errors.New("the server's address is malformed")}
	}
	if k.header != nil {
		req.Header = k.header.Clone()
	}
	req.Header.Set("X-Vault-Request", "true")
	if k.server.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", k.server.Namespace)
	}
	return req, nil
}

// causeOf leaves the address out of an error of package http: parts of it may be variables of the job.
func causeOf(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// refused is the error for an answer that is no success.
func refused(host string, resp *http.Response, data []byte) error {
	var body struct {
		Errors []string `json:"errors"`
	}
	said := ""
	if err := json.Unmarshal(data, &body); err == nil && len(body.Errors) > 0 {
		said = ": " + strings.Join(body.Errors, "; ")
	}
	err := fmt.Errorf("%s answered %d %s%s", host, resp.StatusCode, http.StatusText(resp.StatusCode), said)
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound && said == "":
		return errors.Join(tranter.ErrNoSecret, err)
	case code == 400, code == 401, code == 403, code == 404:
		return &tranter.ConfigError{Err: err}
	case code >= 500:
		return &tranter.DependencyError{Err: err}
	}
	return err
}
