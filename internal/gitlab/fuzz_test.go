package gitlab

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
)

func FuzzJob(f *testing.F) {
	for _, s := range []string{
		payload, payload[:40], `{}`, `null`, `[]`, `{"id":77}`, `{"token":"t","id":1}`, `{"id":1,"token":"t","steps":{"a":[1,{}]}}`,
		`{"id":1,"token":"t","git_info":{"depth":"x"}}`, `{"variables":[{"key":"A","value":"id"}],"id":9,"token":"t"}`,
		`{"id":1,"id":2,"token":"t"}`, `{"job_info":{"id":5,"token":"inner"}}`, `{"id":1e3,"token":"t"}`, `{"id":99999999999999999999,"token":"t"}`,
		`{"id":1,"token":"t","image":null,"services":null,"secrets":{"A":{"file":true}},"inputs":[{"key":"a","value":{"x":1}}]}`,
		strings.Repeat(`{"a":`, 2000), "\x00", `{"id":1,"token":"t"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a := &answer{status: http.StatusCreated, header: http.Header{"Content-Type": {"application/json"}}, body: data}
		job, err := decodeJob(a)
		if (job != nil) == (err != nil) {
			t.Fatalf("%v and %v", job, err)
		}
		if job != nil && (job.ID <= 0 || job.Token == "") {
			t.Fatalf("a job without a name: %+v", job)
		}
		if ref, ok := salvage(data); ok && (ref.ID <= 0 || ref.Token == "") {
			t.Fatalf("salvaged %+v", ref)
		}
	})
}

// Whatever is cut off a payload that begins as GitLab's do, the job can be reported.
func TestSalvage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		job := tranter.Job{
			ID: rapid.Int64Range(1, 1<<60).Draw(t, "id"), Token: tranter.Secret(rapid.StringN(1, 30, -1).Draw(t, "token")),
			Info:      tranter.JobInfo{Name: rapid.String().Draw(t, "name")},
			Variables: []tranter.Variable{{Key: "id", Value: rapid.String().Draw(t, "value")}},
		}
		data, err := json.Marshal(job)
		if err != nil {
			t.Fatal(err)
		}
		head, err := json.Marshal(map[string]any{"id": job.ID, "token": job.Token})
		if err != nil {
			t.Fatal(err)
		}
		cut := rapid.IntRange(len(head)-1, len(data)).Draw(t, "cut")
		if ref, ok := salvage(data[:cut]); !ok || ref.ID != job.ID || ref.Token != job.Token {
			t.Fatalf("%s: %v, %v", data[:cut], ref.ID, ok)
		}
	})
}

func FuzzHeaders(f *testing.F) {
	for _, s := range []string{
		"0-11", "0-0", "11", "-", "0--5", "bytes=0-5", "0-99999999999999999999", " 0 - 7 ", "60", "0", "-1", "1e9", "18446744073709551615",
		"Tue, 05 Jan 2027 11:00:00 GMT", "Tue, 05 Jan 2027 11:00:00 +0100", "Tuesday, 05-Jan-27 11:00:00 GMT", "Tue Jan  5 11:00:00 2027",
		"Fri, 31 Dec 9999 23:59:59 GMT", "soon", "",
	} {
		f.Add(s, s, s)
	}
	now := time.Date(2027, 1, 5, 10, 59, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if n := parseRange(a); n < 0 {
			t.Errorf("range %q: %d", a, n)
		}
		if d := parseInterval(a); d < 0 || d > maxInterval {
			t.Errorf("interval %q: %v", a, d)
		}
		h := http.Header{}
		h.Set("Retry-After", a)
		h.Set("RateLimit-ResetTime", b)
		h.Set("Date", c)
		if d, ok := wish(h, now); d < 0 || d > maxWish || ok != (d > 0) {
			t.Errorf("%q: %v, %v", h, d, ok)
		}
	})
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{
		`{"message":"403 Forbidden - Job has been erased!"}`, `{"message":{"a":["b",null,{"c":1}]}}`, `{"error":"token is missing"}`,
		"<html><TITLE>a\nb</TITLE>", "<!DOCTYPE html>", "<title>İİİİ</title", "<Error><Code>C</Code><Message>M</Message></Error>",
		"\xff\xfe\x00", "no " + runnerToken, strings.Repeat("long ", 1000), `{"message":5}`, `"text"`,
	} {
		f.Add("text/html", []byte(s))
		f.Add("application/json", []byte(s))
	}
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		m := message(kind, data)
		if !utf8.ValidString(m) || utf8.RuneCountInString(m) > maxMessage+3 || strings.ContainsAny(m, "\n\r\x1b") {
			t.Errorf("%q", m)
		}
		if strings.Contains(m, runnerToken) {
			t.Errorf("%q shows a token", m)
		}
	})
}

func TestMessages(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{`{"message":"403 Forbidden - Job has been erased!"}`, "403 Forbidden - Job has been erased!"},
		{`{"message":{"tags_list":["one","two"],"base":["x"]}}`, "base: x, tags_list: one; two"},
		{`{"error":"token is missing"}`, "token is missing"},
		{`{"message":"","error":"e"}`, "e"},
		{`{}`, ""},
		{"<html><head><title>\n 502 Bad\n Gateway</title></head></html>", `a web page with the title "502 Bad Gateway"`},
		{"<!DOCTYPE html><p>hello", "a web page instead of an answer; is the URL right?"},
		{"<Error><Code>Denied</Code><Message>Expired</Message></Error>", "Denied: Expired"},
		{"plain\n  text\x1b[31m", "plain text[31m"},
		{"see glrt-t1_abcdefghijklmnopqrst, glcbt-64_abcdefgh", "see [MASKED], [MASKED]"},
	} {
		if got := message("", []byte(tc.in)); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.in, got, tc.want)
		}
	}
}
