package notice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// answerTime is how long a question takes that the server has the answer to.
	answerTime = 5 * time.Second
	// maxAnswer is far more than any answer has that is wanted here.
	maxAnswer = 256 << 10
	maxHeader = 16 << 10
)

// client asks one metadata server.
type client struct {
	http *http.Client
	base string
}

func newClient(reach Reach, address string) *client {
	return &client{
		base: "http://" + address,
		http: &http.Client{
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					conn, err := reach(ctx, network, address)
					if err != nil {
						return nil, &unreachedError{err}
					}
					return conn, nil
				},
				MaxConnsPerHost:        2,
				MaxIdleConnsPerHost:    1,
				MaxResponseHeaderBytes: maxHeader,
				DisableCompression:     true,
			},
			// Nobody is followed to anywhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// unreachedError is one of reach: no server was heard.
type unreachedError struct{ err error }

func (e *unreachedError) Error() string { return e.err.Error() }
func (e *unreachedError) Unwrap() error { return e.err }

// refuses says whether an error means that there is no such server, as far as the machine can tell: it says so, or nothing
// comes back, or what comes back is not HTTP.
func refuses(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	if _, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		return true
	}
	for _, no := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH} {
		if errors.Is(err, no) {
			return true
		}
	}
	_, unreached := errors.AsType[*unreachedError](err)
	_, network := errors.AsType[net.Error](err)
	return !unreached && !network && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF)
}

// question is one request.
type question struct {
	method, path, header, value string
	limit                       time.Duration // 0: answerTime
}

// answer is what came back, with any status.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (c *client) ask(ctx context.Context, q question) (answer, error) {
	if q.limit <= 0 {
		q.limit = answerTime
	}
	if q.method == "" {
		q.method = http.MethodGet
	}
	ctx, stop := context.WithTimeout(ctx, q.limit)
	defer stop()
	request, err := http.NewRequestWithContext(ctx, q.method, c.base+q.path, nil)
	if err != nil {
		return answer{}, fmt.Errorf("ask the metadata server: %w", err)
	}
	if q.header != "" {
		request.Header.Set(q.header, q.value)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return answer{}, fmt.Errorf("ask the metadata server: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return answer{}, fmt.Errorf("read the metadata server's answer to %s: %w", q.path, err)
	}
	if len(body) > maxAnswer {
		return answer{}, fmt.Errorf("the metadata server's answer to %s is too long", q.path)
	}
	return answer{response.StatusCode, response.Header, body}, nil
}

// good is ask where any status but 200 is an error.
func (c *client) good(ctx context.Context, q question) (answer, error) {
	a, err := c.ask(ctx, q)
	if err == nil && a.status != http.StatusOK {
		err = unexpected(q.path, a.status)
	}
	return a, err
}

func unexpected(path string, status int) error {
	return fmt.Errorf("the metadata server answers %d to %s", status, path)
}

// word says whether an answer is one short word, as names and tokens are, and not a page of something else.
func word(body []byte) bool {
	if len(body) == 0 || len(body) > 1024 {
		return false
	}
	for _, b := range body {
		if b <= ' ' || b > '~' || b == '<' || b == '>' {
			return false
		}
	}
	return true
}
