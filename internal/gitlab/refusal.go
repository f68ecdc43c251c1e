package gitlab

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/tranter-ci/tranter"
)

// failure is the error of a call that got no answer. If its context has ended, that is why.
func (q *call) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", q.what, context.Cause(ctx))
	}
	return fmt.Errorf("%s: %s: %w", q.what, q.url.Host, err)
}

// withoutURL takes the address out of an error of net/http: that of an object storage is as good as a password.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// refusal is the error for an answer that is not the one wanted.
func (q *call) refusal(a *answer) error {
	err := fmt.Errorf("%s: the server answers %s", q.what, q.describe(a))
	switch {
	case q.forbidden(a):
		return fmt.Errorf("%s: %w (%s)", q.what, tranter.ErrForbidden, q.describe(a))
	case a.status == http.StatusNotFound:
		return fmt.Errorf("%s: %w (%s)", q.what, tranter.ErrNotFound, q.describe(a))
	case a.status == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%s: %w (%s)", q.what, tranter.ErrTooLarge, q.describe(a))
	case passing(a.status):
		wait, _ := wish(a.header, time.Now())
		return &tranter.UnavailableError{RetryAfter: wait, Err: err}
	}
	return err
}

// forbidden says whether it is the server that does not accept the token. A web page is from somebody on the way to it,
// and so is 401 to a runner's token, which GitLab answers with 403 (runner contract, section 1.6).
func (q *call) forbidden(a *answer) bool {
	page := strings.Contains(a.header.Get("Content-Type"), "html") || looksLikeHTML(a.body)
	return !page && (a.status == http.StatusForbidden || a.status == http.StatusUnauthorized && q.tokenHeader != runnerHeader)
}

// describe tells status and message of an answer.
func (q *call) describe(a *answer) string {
	text := strings.TrimSpace(fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)))
	if to, err := url.Parse(a.header.Get("Location")); err == nil && a.status/100 == 3 && to.Host != "" {
		return fmt.Sprintf("%s to %s://%s; if that is the server's address, configure it as url", text, to.Scheme, to.Host)
	}
	m := message(a.header.Get("Content-Type"), a.body)
	if q.token != "" {
		m = strings.ReplaceAll(m, q.token.Reveal(), "[MASKED]")
	}
	switch {
	case m == "" || m == text:
		return text
	case strings.HasPrefix(m, text):
		return m // "403 Forbidden - Job has been erased!"
	}
	return text + ": " + m
}

// message finds what a refusal says (runner contract, section 1.3).
func message(kind string, data []byte) string {
	var object struct {
		Message any `json:"message"`
		Error   any `json:"error"`
	}
	if json.Unmarshal(data, &object) == nil {
		if m := flatten(object.Message); m != "" {
			return shorten(m)
		}
		return shorten(flatten(object.Error))
	}
	if strings.Contains(kind, "html") || looksLikeHTML(data) {
		return shorten(title(data))
	}
	var storage struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}
	if xml.Unmarshal(data, &storage) == nil {
		return shorten(strings.Trim(storage.Code+": "+storage.Message, ": "))
	}
	return shorten(string(data))
}

// flatten makes a line of a message: text, or lists of texts by field.
func flatten(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []any:
		parts := make([]string, 0, len(v))
		for _, e := range v {
			parts = append(parts, flatten(e))
		}
		return strings.Join(parts, "; ")
	case map[string]any:
		parts := make([]string, 0, len(v))
		for key, e := range v {
			parts = append(parts, key+": "+flatten(e))
		}
		slices.Sort(parts)
		return strings.Join(parts, ", ")
	default:
		return fmt.Sprint(v)
	}
}

func looksLikeHTML(data []byte) bool {
	start := strings.ToLower(strings.TrimSpace(string(data[:min(len(data), 200)])))
	return strings.HasPrefix(start, "<!doctype html") || strings.HasPrefix(start, "<html")
}

// title is what a person would read first of a page.
func title(page []byte) string {
	lower := strings.ToLower(string(page))
	_, rest, ok := strings.Cut(lower, "<title")
	if ok {
		_, rest, ok = strings.Cut(rest, ">")
	}
	from := len(lower) - len(rest)
	end := strings.Index(rest, "</title")
	if !ok || end < 0 || from+end > len(page) {
		return "a web page instead of an answer; is the URL right?"
	}
	return "a web page with the title \"" + strings.TrimSpace(string(page[from:from+end])) + "\""
}

// maxMessage is how much of a message is shown, in runes.
const maxMessage = 300

// tokenLike is how GitLab's tokens look, should a server repeat one.
var tokenLike = regexp.MustCompile(`\bgl[a-z]{2,8}-[0-9A-Za-z_.-]{8,}`)

// shorten makes one printable line of a text.
func shorten(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = tokenLike.ReplaceAllString(strings.Join(strings.Fields(s), " "), "[MASKED]")
	if r := []rune(s); len(r) > maxMessage {
		s = string(r[:maxMessage]) + "..."
	}
	return s
}
