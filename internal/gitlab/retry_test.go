package gitlab

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
)

func TestWishes(t *testing.T) {
	const server = "Tue, 05 Jan 2027 11:00:00 GMT"
	at := func(s string) string { return "Tue, 05 Jan 2027 " + s }
	for name, tc := range map[string]struct {
		header map[string]string
		want   []time.Duration // of the retries; negative: the client's own
	}{
		"none":                      {nil, []time.Duration{-1, -1, -1, -1}},
		"seconds":                   {map[string]string{"Retry-After": "7"}, []time.Duration{7 * time.Second, 7 * time.Second, 7 * time.Second, 7 * time.Second}},
		"zero":                      {map[string]string{"Retry-After": "0"}, []time.Duration{-1, -1, -1, -1}},
		"date":                      {map[string]string{"Retry-After": at("11:00:09 GMT")}, []time.Duration{9 * time.Second, 9 * time.Second, 9 * time.Second, 9 * time.Second}},
		"date that is over":         {map[string]string{"Retry-After": at("10:59:59 GMT")}, []time.Duration{-1, -1, -1, -1}},
		"rate limit before seconds": {map[string]string{"Retry-After": "7", "RateLimit-ResetTime": at("11:00:30 GMT")}, []time.Duration{30 * time.Second, 30 * time.Second, 30 * time.Second, 30 * time.Second}},
		"rate limit that is over":   {map[string]string{"Retry-After": "7", "RateLimit-ResetTime": at("10:00:00 GMT")}, []time.Duration{7 * time.Second, 7 * time.Second, 7 * time.Second, 7 * time.Second}},
		"other zone":                {map[string]string{"RateLimit-ResetTime": at("12:00:30 +0100")}, []time.Duration{30 * time.Second, 30 * time.Second, 30 * time.Second, 30 * time.Second}},
		"nonsense":                  {map[string]string{"Retry-After": "soon", "RateLimit-ResetTime": "later"}, []time.Duration{-1, -1, -1, -1}},
		"too long to wait here":     {map[string]string{"Retry-After": "300"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			header := map[string]string{"Date": server}
			maps.Copy(header, tc.header)
			s := newScript(t, reply{status: 429, header: header})
			c := connect(t, s.URL)
			_, err := c.Update(t.Context(), theJob(), tranter.Update{State: tranter.JobRunning})
			if _, ok := errors.AsType[*tranter.UnavailableError](err); !ok {
				t.Fatalf("error %v", err)
			}
			if len(c.waits) != len(tc.want) || len(s.seen()) != len(tc.want)+1 {
				t.Fatalf("%d calls, waits %v", len(s.seen()), c.waits)
			}
			for i, w := range c.waits {
				limit := 100 * time.Millisecond << i
				if own := tc.want[i] < 0; own && (w < 0 || w > limit) || !own && w != tc.want[i] {
					t.Errorf("wait %d was %v, want %v (at most %v)", i, w, tc.want[i], limit)
				}
			}
		})
	}
}

// Waiting for what comes after the deadline would only use the time up.
func TestNoWaitBeyondTheDeadline(t *testing.T) {
	s := newScript(t, reply{status: 503, header: map[string]string{"Retry-After": "60"}})
	c := connect(t, s.URL)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := c.Update(ctx, theJob(), tranter.Update{State: tranter.JobRunning})
	var busy *tranter.UnavailableError
	if !errors.As(err, &busy) || busy.RetryAfter != time.Minute || len(c.waits) != 0 {
		t.Errorf("error %v after waits %v", err, c.waits)
	}
}

func TestEachTryHasTheWholeBody(t *testing.T) {
	s := newScript(t, reply{status: 500}, reply{status: 502}, reply{status: 202})
	c := connect(t, s.URL)
	if a, err := c.Append(t.Context(), theJob(), 5, []byte("hello\n")); err != nil || a.Next != 11 {
		t.Fatalf("%+v, %v", a, err)
	}
	var bodies, ids []string
	for _, call := range s.seen() {
		bodies = append(bodies, call.body)
		ids = append(ids, call.header.Get("X-Request-Id"))
	}
	if !cmp.Equal(bodies, []string{"hello\n", "hello\n", "hello\n"}) || ids[0] != ids[2] {
		t.Errorf("bodies %q with ids %q", bodies, ids)
	}
}

func TestBackoffIsBounded(t *testing.T) {
	c := connect(t, "http://localhost")
	rapid.Check(t, func(t *rapid.T) {
		c.unit = time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "unit"))
		n := rapid.IntRange(1, maxTries).Draw(t, "try")
		if d := c.backoff(n); d < 0 || d > min(c.unit<<(n-1), maxBackoff) {
			t.Fatalf("try %d: %v", n, d)
		}
	})
}

func TestPause(t *testing.T) {
	if err := pause(t.Context(), time.Microsecond); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopping := errors.New("we stop")
	cancel(stopping)
	if err := pause(ctx, time.Hour); !errors.Is(err, stopping) {
		t.Error(err)
	}
}
