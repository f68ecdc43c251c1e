package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
)

const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// loopbackKey marks requests that came in on a listener that only this host reaches.
type loopbackKey struct{}

// gate stands before all that is served: it finds out who asks and what that one may do.
type gate struct {
	*Server

	small bool // it is that of listen_address, where only pprof needs a token
}

func (s gate) before(mux *http.ServeMux) http.Handler {
	cross := http.NewCrossOriginProtection()
	routed := s.routed(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.recovered(w, r)
		secure(w)
		v, err := s.visitor(r)
		r = withVisitor(r, v)
		switch {
		case errors.Is(err, errTooMany):
			w.Header().Set("Retry-After", "60")
			s.fail(w, r, http.StatusTooManyRequests, "Too many wrong tokens came from your address. Wait a minute.")
		case err != nil && !open(r.URL.Path):
			w.Header().Set("WWW-Authenticate", `Bearer realm="tranter", error="invalid_token"`)
			s.fail(w, r, http.StatusUnauthorized, "The token in the Authorization header is wrong. It is that of [web] token, or the content of web-token in the state directory.")
		case !knownHost(r, v):
			s.fail(w, r, http.StatusForbidden, "This server listens on loopback only and is asked for under a name that is not of this host. That may be another site's attempt to read it. "+
				"Use localhost or 127.0.0.1; behind a proxy, sign in first.")
		case !reads(r) && cross.Check(r) != nil:
			s.fail(w, r, http.StatusForbidden, "This request came from another site, so nothing was done.")
		case !s.allowed(w, r, v):
		case noTime(r) != "":
			s.fail(w, r, http.StatusBadRequest, fmt.Sprintf("%q is neither a day, such as 2026-11-29, nor a time, such as 2026-11-29T14:30:00Z.", noTime(r)))
		default:
			routed.ServeHTTP(w, r)
		}
	})
}

// visitor finds out who asks. Who may read without a token may do so with any: existing scrapers of listen_address may send one that is not
// of ours, and that is no attempt at guessing it.
func (s gate) visitor(r *http.Request) (visitor, error) {
	if s.small && needs(r) < actor {
		return visitor{role: reader, from: address(r)}, nil
	}
	return s.rights.visitor(r)
}

// noTime returns what should be a time in a request, and is none.
func noTime(r *http.Request) string {
	q := r.URL.Query()
	for _, name := range []string{"from", "to"} {
		if text := q.Get(name); text != "" && timeOf(text).IsZero() {
			return text
		}
	}
	return ""
}

// secure sets the headers that each answer has.
func secure(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
}

// allowed tells whether a visitor may do what is asked; it has answered when not.
func (s gate) allowed(w http.ResponseWriter, r *http.Request, v visitor) bool {
	need := needs(r)
	if v.role >= need {
		return true
	}
	switch {
	case need == actor && s.options.Token == "":
		s.fail(w, r, http.StatusForbidden, "There is no token for this: set token in [web] of the configuration.")
	case wantsPage(r) && reads(r):
		http.Redirect(w, r, loginURL(r), http.StatusSeeOther)
	case v.role == nobody || need == actor:
		w.Header().Set("WWW-Authenticate", `Bearer realm="tranter"`)
		s.fail(w, r, http.StatusUnauthorized, "This needs a token: sign in, or send it as Authorization: Bearer.")
	}
	return false
}

// needs returns what a visitor must be allowed.
func needs(r *http.Request) role {
	switch {
	case open(r.URL.Path):
		return nobody
	case strings.HasPrefix(r.URL.Path, "/debug/pprof"):
		return actor
	case reads(r):
		return reader
	default:
		return actor
	}
}

// open tells whether a path is for everybody: health probes, the sign-in page and what it looks like.
func open(path string) bool {
	switch path {
	case "/healthz", "/readyz", "/login", "/logout":
		return true
	}
	return strings.HasPrefix(path, "/static/")
}

func reads(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// knownHost tells whether a request that came in on loopback asks for this host. A site that lets its name point at 127.0.0.1
// could have its visitors' browsers read the pages otherwise; it has no token, though.
func knownHost(r *http.Request, v visitor) bool {
	if local, _ := r.Context().Value(loopbackKey{}).(bool); !local || v.role == actor || v.session || open(r.URL.Path) {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// routed serves what the mux knows, and pages for what it doesn't.
func (s gate) routed(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		into := &recorder{header: http.Header{}}
		h.ServeHTTP(into, r)
		switch code := into.code(); {
		case code == http.StatusMethodNotAllowed:
			w.Header().Set("Allow", into.header.Get("Allow"))
			s.fail(w, r, code, "This address does not answer to "+safeMethod(r.Method)+", only to "+into.header.Get("Allow")+".")
		case code >= 300 && code < 400:
			http.Redirect(w, r, into.header.Get("Location"), code)
		default:
			s.fail(w, r, http.StatusNotFound, "There is nothing at this address. What was there may be gone, or the address is mistyped.")
		}
	})
}

// safeMethod bounds what a request calls its method.
func safeMethod(m string) string { return m[:min(len(m), 20)] }

func (s gate) recovered(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	s.log.Error("A page has failed", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
	s.fail(w, r, http.StatusInternalServerError, "That is a fault of this program; its log says more.")
}

func wantsJSON(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, "/api/") || strings.HasPrefix(r.Header.Get("Accept"), "application/json")
}

func wantsPage(r *http.Request) bool {
	return !strings.HasPrefix(r.URL.Path, "/api/") && strings.Contains(r.Header.Get("Accept"), "text/html")
}

// loginURL is the sign-in page that leads back to where a request wanted to go.
func loginURL(r *http.Request) string {
	return "/login?back=" + url.QueryEscape(ownPath(r))
}

// ownPath is the address of the page that a request is about, on this server.
func ownPath(r *http.Request) string {
	if !reads(r) || r.URL.Path == "/login" {
		return "/"
	}
	back := url.URL{Path: r.URL.Path}
	q := r.URL.Query()
	q.Del("fragment")
	back.RawQuery = q.Encode()
	return localPath(back.RequestURI())
}

// localPath returns a path on this server, or the overview when it is none.
func localPath(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") ||
		strings.ContainsAny(to, "\\\r\n") {
		return "/"
	}
	return to
}

func loopbackContext(ctx context.Context, loopback bool) context.Context {
	return context.WithValue(ctx, loopbackKey{}, loopback)
}
