package web

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tranter-ci/tranter"
)

const (
	sessionCookie = "tranter_session"
	sessionTime   = 12 * time.Hour
	failuresBurst = 5                // wrong tokens from one address before it has to wait
	failureEvery  = 10 * time.Second // then one more in this time
	maxAddresses  = 1000             // that are remembered for wrong tokens
	maxLoggedOut  = 10000            // sessions that were ended before their time
)

// role is what a visitor may do; each includes those before it.
type role int

const (
	nobody role = iota // health probes and the sign-in page
	reader
	actor
)

// visitor is who asks.
type visitor struct {
	role    role
	session bool // signed in with a cookie, else by a header or not at all
	from    string
}

type visitorKey struct{}

func visitorOf(r *http.Request) visitor {
	v, _ := r.Context().Value(visitorKey{}).(visitor)
	return v
}

func withVisitor(r *http.Request, v visitor) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), visitorKey{}, v))
}

// by names who acts, for events: "the web page (192.0.2.7)".
func (v visitor) by() string { return "the web page (" + v.from + ")" }

var (
	errWrongToken = errors.New("the token is wrong")
	errTooMany    = errors.New("too many wrong tokens came from this address: wait a minute")
)

// rights knows the tokens, and who has tried wrong ones. Tokens are compared by their hashes in constant time.
type rights struct {
	actor, reader tranter.Secret

	mu      sync.Mutex
	wrong   map[string]*rate.Limiter // by address
	overall *rate.Limiter            // for all addresses together, should there be many
	out     map[string]time.Time     // sessions that were ended, until they would have been over
}

func newRights(actor, reader tranter.Secret) *rights {
	return &rights{
		actor: actor, reader: reader, wrong: map[string]*rate.Limiter{}, out: map[string]time.Time{},
		overall: rate.NewLimiter(rate.Every(100*time.Millisecond), 100),
	}
}

func (a *rights) any() bool { return a.actor != "" || a.reader != "" }

// cookie is the name of the session's cookie. Browsers do not tell the ports of a host apart: two managers of one host have tokens of
// their own, and so names of their own.
func (a *rights) cookie() string {
	sum := sha256.Sum256([]byte("name\x00" + a.actor.Reveal() + "\x00" + a.reader.Reveal()))
	return sessionCookie + "_" + hex.EncodeToString(sum[:4])
}

// open is what everybody may do.
func (a *rights) open() role {
	if a.reader == "" {
		return reader
	}
	return nobody
}

// check returns what a token is good for. The error is errWrongToken or errTooMany.
func (a *rights) check(token, from string) (role, error) {
	if a.blocked(from) {
		return nobody, errTooMany
	}
	got := sha256.Sum256([]byte(token))
	is := func(want tranter.Secret) bool {
		sum := sha256.Sum256([]byte(want.Reveal()))
		return hmac.Equal(got[:], sum[:]) && want != ""
	}
	asActor, asReader := is(a.actor), is(a.reader)
	switch {
	case asActor:
		return actor, nil
	case asReader:
		return reader, nil
	}
	a.failed(from)
	return nobody, errWrongToken
}

func (a *rights) blocked(from string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.wrong[from]
	return l != nil && l.Tokens() < 1 || a.overall.Tokens() < 1
}

func (a *rights) failed(from string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l, ok := a.wrong[from]
	if !ok {
		if len(a.wrong) >= maxAddresses {
			for other, l := range a.wrong {
				if l.Tokens() >= failuresBurst || len(a.wrong) >= maxAddresses {
					delete(a.wrong, other)
				}
			}
		}
		l = rate.NewLimiter(rate.Every(failureEvery), failuresBurst)
		a.wrong[from] = l
	}
	l.Allow()
	a.overall.Allow()
}

// key is what sessions of a role are signed with. It comes from the token, so that sessions outlast a restart and end when the
// token changes, and doesn't tell it.
func (a *rights) key(r role) []byte {
	token := a.actor
	if r == reader {
		token = a.reader
	}
	if token == "" {
		return nil
	}
	h := hmac.New(sha256.New, []byte(token.Reveal()))
	h.Write([]byte("tranter web session, role " + strconv.Itoa(int(r))))
	return h.Sum(nil)
}

// session makes the value of a cookie: role, end, a random number, and their signature.
func (a *rights) session(r role, now time.Time) string {
	value := strconv.Itoa(int(r)) + "." + strconv.FormatInt(now.Add(sessionTime).Unix(), 10) + "." + rand.Text()
	return value + "." + a.sign(r, value)
}

func (a *rights) sign(r role, value string) string {
	h := hmac.New(sha256.New, a.key(r))
	h.Write([]byte(value))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// verify returns what a cookie is good for, and when it is over.
func (a *rights) verify(cookie string, now time.Time) (role, time.Time, bool) {
	at := strings.LastIndexByte(cookie, '.')
	if at < 0 {
		return nobody, time.Time{}, false
	}
	value, signature := cookie[:at], cookie[at+1:]
	parts := strings.Split(value, ".")
	if len(parts) != 3 {
		return nobody, time.Time{}, false
	}
	var r role
	switch parts[0] {
	case "1":
		r = reader
	case "2":
		r = actor
	default:
		return nobody, time.Time{}, false
	}
	if a.key(r) == nil || !hmac.Equal([]byte(signature), []byte(a.sign(r, value))) {
		return nobody, time.Time{}, false
	}
	end, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || now.Unix() >= end {
		return nobody, time.Time{}, false
	}
	a.mu.Lock()
	_, out := a.out[signature]
	a.mu.Unlock()
	return r, time.Unix(end, 0), !out
}

// end makes a session invalid before its time.
func (a *rights) end(cookie string, now time.Time) {
	_, until, ok := a.verify(cookie, now)
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for signature, until := range a.out {
		if now.After(until) || len(a.out) >= maxLoggedOut {
			delete(a.out, signature)
		}
	}
	a.out[cookie[strings.LastIndexByte(cookie, '.')+1:]] = until
}

// visitor finds out who asks: by the Authorization header when there is one, else by the cookie.
func (a *rights) visitor(r *http.Request) (visitor, error) {
	v := visitor{role: a.open(), from: address(r)}
	if header := r.Header.Get("Authorization"); header != "" {
		kind, token, _ := strings.Cut(header, " ")
		if !strings.EqualFold(kind, "Bearer") {
			return v, nil
		}
		found, err := a.check(strings.TrimSpace(token), v.from)
		if err != nil {
			return visitor{role: nobody, from: v.from}, err
		}
		v.role = max(v.role, found)
		return v, nil
	}
	if c, err := r.Cookie(a.cookie()); err == nil {
		if found, _, ok := a.verify(c.Value, time.Now()); ok {
			v.role, v.session = max(v.role, found), true
		}
	}
	return v, nil
}

// address is where a request comes from, without the port.
func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
