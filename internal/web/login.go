package web

import (
	"errors"
	"net/http"
	"strings"
	"time"
)

// Login is the sign-in page.
type Login struct {
	Back     string
	Problem  string
	NoTokens bool // there is nothing to sign in with
	Reading  bool // reading needs a token
}

// loginPages sign people in and out: the token is sent once, in a form, and a cookie that does not hold it stands for it then.
type loginPages struct{ *Server }

func (s loginPages) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		s.show(w, r, http.StatusOK, localPath(r.URL.Query().Get("back")), "")
	})
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /logout", s.logout)
}

func (s loginPages) show(w http.ResponseWriter, r *http.Request, status int, back, problem string) {
	s.pageWith(w, r, status, "login", Login{Back: back, Problem: problem, NoTokens: !s.rights.any(), Reading: s.options.ReadToken != ""})
}

func (s loginPages) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, http.StatusBadRequest, "The form could not be read.")
		return
	}
	back := localPath(r.PostForm.Get("back"))
	found, err := s.rights.check(strings.TrimSpace(r.PostForm.Get("token")), visitorOf(r).from)
	switch {
	case errors.Is(err, errTooMany):
		w.Header().Set("Retry-After", "60")
		s.show(w, r, http.StatusTooManyRequests, back, "Too many wrong tokens came from your address. Wait a minute.")
		return
	case err != nil:
		s.log.Warn("A wrong token for the web page", "from", visitorOf(r).from)
		s.show(w, r, http.StatusUnauthorized, back, "That token is wrong.")
		return
	}
	now := time.Now()
	http.SetCookie(w, &http.Cookie{
		Name: s.rights.cookie(), Value: s.rights.session(found, now), Path: "/", MaxAge: int(sessionTime.Seconds()),
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
	})
	http.Redirect(w, r, back, http.StatusSeeOther)
}

func (s loginPages) logout(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(s.rights.cookie()); err == nil {
		s.rights.end(c.Value, time.Now())
	}
	http.SetCookie(w, &http.Cookie{Name: s.rights.cookie(), Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil})
	setFlash(w, r, Flash{Text: "You are signed out."})
	to := "/"
	if s.options.ReadToken != "" {
		to = "/login"
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}
