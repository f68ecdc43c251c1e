package gitlab

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxTries   = 5
	maxBackoff = time.Minute
	maxWish    = 15 * time.Minute // longer pauses are not believed: a wrong clock must not switch a runner off

	shortPatience = 5 * time.Second // of a request for a job: the place that it holds can be used meanwhile
	longPatience  = 2 * time.Minute // of what is only of use to one job
)

// exchange makes a call and repeats it while the server asks for that (runner contract, section 1.3). The answer may
// still be a refusal; an error means that there is none.
func (w *wire) exchange(ctx context.Context, q *call) (*answer, error) {
	id := newID()
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return nil, q.failure(ctx, ctx.Err())
		}
		a, err := w.try(ctx, q, id)
		if err != nil {
			return nil, err
		}
		if a.status >= http.StatusBadRequest {
			w.log.Debug("The server refuses a call", "call", q.what, "status", a.status, "try", n, "correlation_id", a.id)
		}
		if !q.again(a.status) || n == maxTries {
			return a, nil
		}
		wait, wished := wish(a.header, time.Now())
		if !wished {
			wait = w.backoff(n)
		}
		if deadline, ok := ctx.Deadline(); wait > q.patience || ok && time.Until(deadline) < wait {
			return a, nil
		}
		if err := w.pause(ctx, wait); err != nil {
			return nil, q.failure(ctx, err)
		}
	}
}

// again says whether the call is made again after a status.
func (q *call) again(status int) bool {
	if q.once {
		return status == http.StatusTooManyRequests
	}
	return passing(status)
}

// passing says whether a status asks to try again.
func passing(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return status >= 512
}

// backoff is a random part of a time that doubles with each try.
func (w *wire) backoff(n int) time.Duration {
	return rand.N(min(w.unit<<(n-1), maxBackoff) + 1)
}

// wish returns how long the server asks to be left alone, and whether it does.
func wish(h http.Header, now time.Time) (time.Duration, bool) {
	if theirs, err := http.ParseTime(h.Get("Date")); err == nil {
		now = theirs // our clock may be wrong
	}
	if t, ok := parseDate(h.Get("RateLimit-ResetTime")); ok && t.After(now) {
		return min(t.Sub(now), maxWish), true
	}
	if wait, ok := parseRetryAfter(h.Get("Retry-After"), now); ok {
		return wait, true
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(h.Get("RateLimit-Reset")), 10, 64); err == nil && n > now.Unix() && h.Get("RateLimit-Remaining") == "0" {
		return min(time.Duration(min(n-now.Unix(), int64(maxWish/time.Second)))*time.Second, maxWish), true
	}
	return 0, false
}

// parseRetryAfter reads seconds or a date. A time that is over is no wish.
func parseRetryAfter(text string, now time.Time) (time.Duration, bool) {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return time.Duration(min(n, uint64(maxWish/time.Second))) * time.Second, n > 0
	}
	if t, ok := parseDate(text); ok && t.After(now) {
		return min(t.Sub(now), maxWish), true
	}
	return 0, false
}

func parseDate(text string) (time.Time, bool) {
	text = strings.TrimSpace(text)
	if t, err := http.ParseTime(text); err == nil {
		return t, true
	}
	for _, layout := range []string{time.RFC1123Z, time.RFC1123} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
