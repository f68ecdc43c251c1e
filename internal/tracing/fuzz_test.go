package tracing

import (
	"testing"
	"time"
)

// Whatever an endpoint answers: it is read, and no pause is longer than is believed.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{0x0a, 2, 0x08, 5}, "120")
	f.Add([]byte{0x12, 1, 'x', 0x0a, 0xff}, "Sun, 29 Nov 2026 14:00:00 GMT")
	f.Add([]byte{0x0a, 11, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, "99999999999")
	now := time.Date(2026, 11, 29, 13, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, answer []byte, after string) {
		if n := rejected(answer); n < 0 || n > 1<<40 {
			t.Errorf("%d rejected", n)
		}
		if d := retryAfter(after, now); d < 0 || d > defaultPatience {
			t.Errorf("a pause of %v", d)
		}
		if _, err := address(after); err == nil && len(after) < len("http://h") {
			t.Errorf("%q is an address", after)
		}
	})
}
