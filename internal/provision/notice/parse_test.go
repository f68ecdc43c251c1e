package notice

import (
	"strings"
	"testing"
	"time"
)

// What the parsers say is bounded, printable, and in words of ours, whatever they are given.
func FuzzParsers(f *testing.F) {
	for _, seed := range []string{
		"", "TRUE", "TERMINATE_ON_HOST_MAINTENANCE", "2026-09-18T08:22:00Z", "9999-12-31T23:59:59-23:59", `{"action":"stop","time":"x"}`,
		`[{"Code":"system-reboot","NotBefore":"21 Jan 2019 09:00:43 GMT","State":"active"}]`, `[null]`, `{"Events":[{"EventType":"Reboot","Resources":["vm"]}]}`, "[[[[",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for name, parse := range map[string]func([]byte) (Notice, bool, error){
			"action":  parseAWSAction,
			"events":  parseAWSEvents,
			"alibaba": parseAlibaba,
			"azure":   func(b []byte) (Notice, bool, error) { return parseAzure(b, "vm") },
			"gcp": func(b []byte) (Notice, bool, error) {
				n, ok := parseGCP(b)
				return n, ok, nil
			},
		} {
			n, ok, err := parse(body)
			if ok == (n.Reason == "") || ok && err != nil || len(n.Reason) > 100 || !strings.HasPrefix(n.Reason+"the cloud ", "the cloud ") {
				t.Errorf("%s: %+v %t %v", name, n, ok, err)
			}
			if _, err := n.At.MarshalJSON(); err != nil {
				t.Errorf("%s: a time that can't be stored: %v", name, err)
			}
		}
	})
}

func TestPausesGrowAndEnd(t *testing.T) {
	for _, c := range []struct {
		base     time.Duration
		failures int
		want     time.Duration
	}{
		{5 * time.Second, 1, 5 * time.Second},
		{5 * time.Second, 2, 10 * time.Second},
		{5 * time.Second, 4, 30 * time.Second},
		{5 * time.Second, 1 << 40, 30 * time.Second},
		{time.Minute, 1, time.Minute},
		{time.Minute, 9, time.Minute},
	} {
		if got := backoff(c.base, c.failures); got != c.want {
			t.Errorf("%s after %d: %s, want %s", c.base, c.failures, got, c.want)
		}
	}
}
