package web

import (
	"bytes"
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/view"
)

// pages are the templates: layout.html and those below parts are in every set, and each other file is a page that defines "title",
// "section" (the entry of the navigation), "main", and, where needed, "topics" (what it follows live, in words) and "head".
type pages struct {
	sets map[string]*template.Template
}

// Page is what a template gets: Data is the page's own.
type Page struct {
	Data any

	Now      time.Time
	Path     string
	Query    url.Values
	Version  string
	Docs     string
	Manager  view.Manager
	Trouble  string // why it is not known what is there
	Acts     bool   // the visitor may act
	CanAct   bool   // somebody may
	SignedIn bool
	Flash    Flash
	Section  string // of the navigation, where this page is
	Nav      []NavEntry
	Back     string // where signing in leads back to
}

// NavEntry is a link of the navigation.
type NavEntry struct {
	Section, Name, Link string
	Count               int // of what needs attention
}

// navigation are the pages that a visitor sees. Those of batch jobs and pipelines are there when there are some.
func navigation(now view.Snapshot, notices int) []NavEntry {
	all := []NavEntry{
		{Section: "overview", Name: "Overview", Link: "/", Count: notices},
		{Section: "jobs", Name: "Jobs", Link: "/jobs"},
		{Section: "machines", Name: "Machines", Link: "/machines"},
	}
	if len(now.Clusters) > 0 || len(now.Batches) > 0 {
		all = append(all, NavEntry{Section: "batches", Name: "Batch jobs", Link: "/batches"})
	}
	if len(now.Pipes) > 0 {
		all = append(all, NavEntry{Section: "pipelines", Name: "Pipelines", Link: "/pipelines"})
	}
	return append(all,
		NavEntry{Section: "runners", Name: "Runners", Link: "/runners"},
		NavEntry{Section: "charts", Name: "Charts", Link: "/charts"},
		NavEntry{Section: "events", Name: "Events", Link: "/events"},
		NavEntry{Section: "cost", Name: "Cost", Link: "/cost"},
	)
}

func newPages(a *assets) *pages {
	files, err := fs.Sub(embedded, "templates")
	if err != nil {
		panic(err) // they were built in
	}
	base := template.Must(template.New("").Funcs(funcs(a)).ParseFS(files, "layout.html", "parts/*.html"))
	p := &pages{sets: map[string]*template.Template{}}
	names, err := fs.Glob(files, "*.html")
	if err != nil {
		panic(err)
	}
	for _, file := range names {
		name := strings.TrimSuffix(path.Base(file), ".html")
		if name == "layout" {
			continue
		}
		p.sets[name] = template.Must(template.Must(base.Clone()).ParseFS(files, file))
	}
	return p
}

// isFragment tells whether a request wants only what lies between header and footer.
func isFragment(r *http.Request) bool {
	return r.Header.Get("HX-Request") != "" || r.URL.Query().Get("fragment") == "1"
}

// page answers with a page: the template templates/name.html, which gets a Page. For a fragment only its main part is rendered.
func (s *Server) page(w http.ResponseWriter, r *http.Request, name string, data any) {
	s.pageWith(w, r, http.StatusOK, name, data)
}

func (s *Server) pageWith(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	p := s.newPage(w, r)
	p.Data = data
	set, ok := s.pages.sets[name]
	if !ok {
		s.log.Error("There is no template for a page", "page", name)
		http.Error(w, "This page has no template.", http.StatusInternalServerError)
		return
	}
	var section strings.Builder
	if err := set.ExecuteTemplate(&section, "section", nil); err == nil {
		p.Section = strings.TrimSpace(section.String())
	}
	part := "layout"
	if isFragment(r) {
		part = "fragment"
	}
	var b bytes.Buffer
	if err := set.ExecuteTemplate(&b, part, p); err != nil {
		s.log.Error("A page could not be rendered", "page", name, "error", err)
		http.Error(w, "This page could not be rendered; the manager's log says why.", http.StatusInternalServerError)
		return
	}
	to := w.Header()
	to.Set("Content-Type", "text/html; charset=utf-8")
	to.Set("Cache-Control", "private, no-cache")
	if into, ok := w.(*recorder); ok {
		into.WriteHeader(status)
		_, _ = into.Write(b.Bytes())
		return
	}
	answer(w, r, status, b.Bytes())
}

func (s *Server) newPage(w http.ResponseWriter, r *http.Request) *Page {
	v := visitorOf(r)
	p := &Page{
		Now: time.Now(), Path: r.URL.Path, Query: r.URL.Query(), Version: s.options.Version, Docs: s.options.Links.Docs,
		Acts: v.role == actor, CanAct: s.options.Token != "" && s.options.Control != nil, SignedIn: v.session,
		Flash: takeFlash(w, r), Back: ownPath(r),
	}
	if v.role == nobody {
		return p // who may not read learns nothing
	}
	now, err := s.snapshot(r.Context())
	if err != nil {
		p.Trouble = err.Error()
		p.Nav = navigation(view.Snapshot{}, 0)
		return p
	}
	p.Manager = now.Manager
	p.Nav = navigation(now, urgent(s.now.attention()))
	return p
}

// urgent counts the notices that are more than worth to know.
func urgent(all []view.Notice) int {
	n := 0
	for _, notice := range all {
		if notice.Level != view.Info {
			n++
		}
	}
	return n
}

// Fault is what an error page says.
type Fault struct {
	Status int
	Title  string
	Text   string
	Login  string // address of the sign-in page; empty: that would not help
}

// fail answers with an error: a page for people, JSON for programs. Text says what is wrong and what to do.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, status int, text string) {
	f := Fault{Status: status, Title: faultTitle(status), Text: text}
	w.Header().Set("Cache-Control", "no-store")
	if wantsJSON(r) {
		writeJSON(w, r, status, map[string]any{"error": text, "status": status})
		return
	}
	if (status == http.StatusForbidden || status == http.StatusUnauthorized) && visitorOf(r).role != actor && s.rights.any() {
		f.Login = loginURL(r)
	}
	s.pageWith(w, r, status, "error", f)
}

// failed answers with what has gone wrong with what is kept of the past.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, doing string, err error) {
	if errors.Is(err, tranter.ErrNotFound) {
		s.fail(w, r, http.StatusNotFound, "There is no such thing, or nothing is known of it any more.")
		return
	}
	if r.Context().Err() == nil {
		s.log.Error(doing, "path", r.URL.Path, "error", err) //nolint:sloglint // the few callers give constants
	}
	s.fail(w, r, http.StatusInternalServerError, doing+": "+err.Error())
}

func faultTitle(status int) string {
	switch status {
	case http.StatusNotFound:
		return "Not here"
	case http.StatusForbidden:
		return "Not allowed"
	case http.StatusUnauthorized:
		return "Sign in first"
	case http.StatusMethodNotAllowed:
		return "Not this way"
	case http.StatusTooManyRequests:
		return "Too many attempts"
	case http.StatusServiceUnavailable:
		return "Not now"
	case http.StatusBadRequest:
		return "Not understood"
	default:
		return "That went wrong"
	}
}
