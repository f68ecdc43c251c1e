package tracing

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// passingError is a failure after which a batch is sent again.
type passingError struct{ err error }

func (e *passingError) Error() string { return e.err.Error() }

func (e *passingError) Unwrap() error { return e.err }

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 10

// try sends a batch once. It returns how long the endpoint wants to be left alone.
func (t *Tracer) try(ctx context.Context, body []byte) (time.Duration, error) {
	ctx, stop := context.WithTimeout(ctx, tryLimit)
	defer stop()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("send traces: %w", plain(err))
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("Content-Encoding", "gzip")
	r.Header.Set("User-Agent", strings.TrimSuffix("tranter/"+t.o.Version, "/"))
	for name, value := range t.o.Headers {
		r.Header.Set(name, value.Reveal())
	}
	resp, err := t.client.Do(r)
	if _, is := errors.AsType[*tls.CertificateVerificationError](err); is {
		return 0, fmt.Errorf("send traces to %s: %w; ca_file of [tracing] names further authorities", r.URL.Host, plain(err))
	}
	if err != nil {
		return 0, &passingError{fmt.Errorf("send traces to %s: %w", r.URL.Host, plain(err))}
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // all that is wanted of it is a hint
	switch resp.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
		t.partly(answer)
		return 0, nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return retryAfter(resp.Header.Get("Retry-After"), time.Now()), &passingError{fmt.Errorf("send traces to %s: it answers %s", r.URL.Host, resp.Status)}
	}
	return 0, fmt.Errorf("send traces to %s: it answers %s; look at endpoint and headers of [tracing]", r.URL.Host, resp.Status)
}

// plain is an error without the URL, which may hold a secret.
func plain(err error) error {
	if u, is := errors.AsType[*url.Error](err); is {
		return u.Err
	}
	return err
}

// retryAfter reads the seconds or the date of a header Retry-After; at most a few minutes are believed.
func retryAfter(text string, now time.Time) time.Duration {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(n)*time.Second, defaultPatience) //nolint:gosec // 32 bits of seconds fit
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, min(at.Sub(now), defaultPatience))
	}
	return 0
}

// partly logs what an endpoint has rejected of a batch that it took otherwise: field 1 of the answer is a message whose field 1 is the
// number of spans.
func (t *Tracer) partly(answer []byte) {
	if n := rejected(answer); n > 0 {
		t.complain("The endpoint has rejected spans of traces", fmt.Errorf("it took all but %d", n))
	}
}

func rejected(answer []byte) int64 {
	partial, ok := field(answer, protowire.BytesType)
	if !ok {
		return 0
	}
	message, n := protowire.ConsumeBytes(partial)
	if n < 0 {
		return 0
	}
	count, ok := field(message, protowire.VarintType)
	if !ok {
		return 0
	}
	value, n := protowire.ConsumeVarint(count)
	if n < 0 || value > 1<<40 {
		return 0
	}
	return int64(value)
}

// field returns what follows the tag of field 1 of a message, if it has that field.
func field(message []byte, kind protowire.Type) ([]byte, bool) {
	for len(message) > 0 {
		number, found, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, false
		}
		if number == 1 && found == kind {
			return message[n:], true
		}
		skip := protowire.ConsumeFieldValue(number, found, message[n:])
		if skip < 0 {
			return nil, false
		}
		message = message[n+skip:]
	}
	return nil, false
}
