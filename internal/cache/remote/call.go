package remote

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	callTimeout = 10 * time.Second
	// maxAnswer bounds what is read of an answer: all that are asked for here are small.
	maxAnswer = 1 << 20
	tries     = 3
	tryWait   = 200 * time.Millisecond
)

// callError is a refusal by a service.
type callError struct {
	status  int
	code    string // of the service's own
	message string
	region  string // that an S3 bucket is in, if the answer says so
}

func (e *callError) Error() string {
	switch {
	case e.code == "":
		return fmt.Sprintf("the service answered with status %d", e.status)
	case e.message == "":
		return e.code
	default:
		return e.code + ": " + e.message
	}
}

// faultText finds code and message in the forms of the three clouds.
type faultText struct {
	XMLName xml.Name
	Code    string `xml:"Code"`
	Message string `xml:"Message"`
	Region  string `xml:"Region"`
	STSCode string `xml:"Error>Code"`
	STSText string `xml:"Error>Message"`
}

func newCallError(resp *http.Response, body []byte) error {
	e := &callError{status: resp.StatusCode, region: resp.Header.Get("X-Amz-Bucket-Region")}
	var x faultText
	if xml.Unmarshal(body, &x) == nil {
		e.code, e.message = x.Code+x.STSCode, x.Message+x.STSText
		if e.region == "" {
			e.region = x.Region
		}
	} else {
		e.code, e.message = jsonFault(body)
	}
	e.message, _, _ = strings.Cut(e.message, "\n")
	if len(e.message) > 300 {
		e.message = e.message[:300]
	}
	return e
}

// jsonFault reads Google's {"error": {"status", "message"}} and the {"error", "error_description"} of OAuth.
func jsonFault(body []byte) (code, message string) {
	var j struct {
		Error       json.RawMessage `json:"error"`
		Description string          `json:"error_description"`
	}
	if json.Unmarshal(body, &j) != nil {
		return "", ""
	}
	var inner struct{ Status, Message string }
	if json.Unmarshal(j.Error, &inner) == nil {
		return inner.Status, inner.Message
	}
	if json.Unmarshal(j.Error, &code) != nil {
		return "", ""
	}
	return code, j.Description
}

// caller makes requests to services. What it sends is made anew by each try, since a signature has a time.
type caller struct{ client *http.Client }

func newCaller(client *http.Client) caller {
	if client == nil {
		client = &http.Client{Timeout: callTimeout, CheckRedirect: stay}
	}
	return caller{client}
}

// stay follows no redirects: none of the services needs them, and tokens must not get to another server.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// do returns the body of an answer of status 2xx. Faults of the network and of the server are tried again.
func (c caller) do(ctx context.Context, request func() (*http.Request, error)) ([]byte, error) {
	for try := 1; ; try++ {
		body, err := c.once(request)
		if err == nil || try == tries || !passing(err) || !wait(ctx, time.Duration(try)*tryWait) {
			return body, err
		}
	}
}

func (c caller) once(request func() (*http.Request, error)) ([]byte, error) {
	req, err := request()
	if err != nil {
		return nil, err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, withoutURL(req, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", req.URL.Host, err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, newCallError(resp, body)
	}
	return body, nil
}

// withoutURL leaves the query out of an error: it may hold what is secret.
func withoutURL(req *http.Request, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return fmt.Errorf("ask %s: %w", req.URL.Host, err)
}

func passing(err error) bool {
	if e, ok := errors.AsType[*callError](err); ok {
		return e.status >= 500 || e.status == http.StatusTooManyRequests
	}
	return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// escapePath encodes all of a path but letters, digits, "-._~" and "/", as the clouds do for their signatures.
func escapePath(p string) string {
	const plain = "-._~/"
	var b strings.Builder
	for i := range len(p) {
		c := p[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(plain, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}
