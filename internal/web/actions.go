package web

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

const (
	flashCookie   = "tranter_flash"
	maxFlash      = 1000 // bytes of a message
	maxForm       = 64 << 10
	actionTimeout = 30 * time.Second
)

// Flash is a message about what was just done.
type Flash struct {
	Text string `json:"text"`
	Bad  bool   `json:"bad,omitempty"` // it was not
}

// action is something that people can want. Its fields say what of; what it answers is told to who wanted it.
type action struct {
	name   string
	fields []string
	ask    func(form) string // what is asked before it is done
	button string
	do     func(ctx context.Context, c Control, f form, by string) (string, error)
}

// form are the fields of an action.
type form map[string]string

func actions() []action {
	return []action{
		{
			name: "drain", button: "Drain the manager",
			ask: func(form) string {
				return "Drain the manager? It takes no more jobs, lets those that it has come to their end, and ends then. Only a new start takes that back."
			},
			do: func(ctx context.Context, c Control, _ form, _ string) (string, error) {
				return "The manager drains: it takes no more jobs, and ends when those that it has are done.", c.Drain(ctx)
			},
		},
		{
			name: "pause", fields: []string{"runner"}, button: "Pause the runner",
			ask: func(f form) string {
				return "Pause the runner " + f.label() + "? It takes no more jobs until it is resumed; those that it has go on."
			},
			do: func(ctx context.Context, c Control, f form, by string) (string, error) {
				return "The runner " + f.label() + " is paused: it takes no more jobs until it is resumed.", c.Pause(ctx, f["runner"], true, by)
			},
		},
		{
			name: "resume", fields: []string{"runner"}, button: "Resume the runner",
			ask: func(f form) string { return "Resume the runner " + f.label() + "? It takes jobs again." },
			do: func(ctx context.Context, c Control, f form, by string) (string, error) {
				return "The runner " + f.label() + " takes jobs again.", c.Pause(ctx, f["runner"], false, by)
			},
		},
		{
			name: "drain-machine", fields: []string{"name"}, button: "Drain the machine",
			ask: func(f form) string {
				return "Drain the machine " + f["name"] + "? It gets no more jobs, and is removed when those on it are done."
			},
			do: func(ctx context.Context, c Control, f form, _ string) (string, error) {
				return "The machine " + f["name"] + " gets no more jobs, and is removed when those on it are done.", c.DrainMachine(ctx, f["name"])
			},
		},
		{
			name: "remove-machine", fields: []string{"name"}, button: "Remove the machine",
			ask: func(f form) string {
				if f["force"] != "" {
					return "Remove the machine " + f["name"] + " now? Jobs on it fail."
				}
				return "Remove the machine " + f["name"] + "?"
			},
			do: func(ctx context.Context, c Control, f form, _ string) (string, error) {
				return "The machine " + f["name"] + " is being removed.", c.RemoveMachine(ctx, f["name"], f["force"] != "")
			},
		},
		{
			name: "cancel-job", fields: []string{"key"}, button: "Cancel the job",
			ask: func(f form) string {
				return "Cancel the job " + f.label() + "? Its after_script still runs; it ends as failed."
			},
			do: func(ctx context.Context, c Control, f form, by string) (string, error) {
				return "The job " + f.label() + " is being canceled.", c.CancelJob(ctx, f["key"], by)
			},
		},
	}
}

// label is how people know what an action is about.
func (f form) label() string {
	for _, name := range []string{"label", "runner", "key", "name"} {
		if f[name] != "" {
			return f[name]
		}
	}
	return ""
}

// Question asks whether an action is meant.
type Question struct {
	Action, Text, Button string
	Fields               form
	Back                 string
}

// actionPages are the actions: POST /actions/NAME with the fields of a form. From a page they ask first, unless confirm is there.
type actionPages struct{ *Server }

func (s actionPages) routes(mux *http.ServeMux) {
	for _, a := range actions() {
		mux.HandleFunc("POST /actions/"+a.name, func(w http.ResponseWriter, r *http.Request) { s.act(w, r, a) })
	}
}

func (s actionPages) act(w http.ResponseWriter, r *http.Request, a action) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		s.fail(w, r, http.StatusBadRequest, "The form could not be read.")
		return
	}
	f := form{}
	for _, name := range append([]string{"label", "force"}, a.fields...) {
		if v := r.PostForm.Get(name); v != "" {
			f[name] = v[:min(len(v), 300)]
		}
	}
	for _, name := range a.fields {
		if f[name] == "" {
			s.fail(w, r, http.StatusBadRequest, "The field "+name+" is missing: it says what this is about.")
			return
		}
	}
	if s.options.Control == nil {
		s.fail(w, r, http.StatusServiceUnavailable, "This server only shows; it cannot act.")
		return
	}
	v, back := visitorOf(r), localPath(r.PostForm.Get("back"))
	if v.session && r.PostForm.Get("confirm") == "" {
		s.page(w, r, "confirm", Question{Action: a.name, Text: a.ask(f), Button: a.button, Fields: f, Back: back})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), actionTimeout)
	defer cancel()
	text, err := a.do(ctx, s.options.Control, f, v.by())
	s.now.expire()
	s.done(w, r, text, err)
}

// done tells what has come of an action: people on the page where they were, programs as JSON.
func (s actionPages) done(w http.ResponseWriter, r *http.Request, text string, err error) {
	v := visitorOf(r)
	if err != nil {
		s.log.Warn("An action on the web page has failed", append(whatFor(r), "from", v.from, "error", err)...)
		text = "That was not done: " + err.Error()
	} else {
		s.log.Info("An action on the web page", append(whatFor(r), "from", v.from)...)
	}
	if !v.session {
		switch {
		case errors.Is(err, tranter.ErrNotFound):
			writeJSON(w, r, http.StatusNotFound, map[string]any{"error": text})
		case err != nil:
			writeJSON(w, r, http.StatusConflict, map[string]any{"error": text})
		default:
			writeJSON(w, r, http.StatusOK, map[string]any{"done": text})
		}
		return
	}
	setFlash(w, r, Flash{Text: text, Bad: err != nil})
	http.Redirect(w, r, localPath(r.PostForm.Get("back")), http.StatusSeeOther)
}

// whatFor names an action in the log, and what it is about.
func whatFor(r *http.Request) []any {
	words := []any{"path", r.URL.Path}
	for field, name := range map[string]string{"runner": "runner", "name": "machine", "key": "job"} {
		if v := r.PostForm.Get(field); v != "" {
			words = append(words, name, v[:min(len(v), 300)])
		}
	}
	return words
}

func setFlash(w http.ResponseWriter, r *http.Request, f Flash) {
	f.Text = strings.ToValidUTF8(f.Text[:min(len(f.Text), maxFlash)], "")
	b, err := json.Marshal(f)
	if err != nil {
		return // a text always can be
	}
	http.SetCookie(w, &http.Cookie{
		Name: flashCookie, Value: base64.RawURLEncoding.EncodeToString(b), Path: "/", MaxAge: 60,
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
	})
}

func hasFlash(r *http.Request) bool {
	_, err := r.Cookie(flashCookie)
	return err == nil
}

// takeFlash returns the message that waits for a visitor, which is then told.
func takeFlash(w http.ResponseWriter, r *http.Request) Flash {
	var f Flash
	c, err := r.Cookie(flashCookie)
	if err != nil {
		return f
	}
	http.SetCookie(w, &http.Cookie{Name: flashCookie, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil})
	if b, err := base64.RawURLEncoding.DecodeString(c.Value); err == nil && json.Unmarshal(b, &f) != nil {
		return Flash{}
	}
	return f
}
