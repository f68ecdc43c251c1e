package coordinator

import (
	"errors"
	"net/http"
	"time"

	"github.com/tranter-ci/tranter"
)

// runnerAPI serves what runners call with their own token (gitlab-server 1.2, 1.3).
type runnerAPI struct{ c *Coordinator }

func (a *runnerAPI) register(mux *http.ServeMux) {
	mux.HandleFunc("POST /runners", a.create)
	mux.HandleFunc("POST /runners/verify", a.verify)
	mux.HandleFunc("DELETE /runners", a.remove)
	mux.HandleFunc("DELETE /runners/managers", a.removeManager)
	mux.HandleFunc("POST /runners/reset_authentication_token", a.reset)
	mux.HandleFunc("GET /runners/router/discovery", a.discover)
	mux.HandleFunc("POST /jobs/request", a.request)
}

// runnerBody is the body of all calls that carry a runner token.
type runnerBody struct {
	Token      tranter.Secret `json:"token"`
	SystemID   string         `json:"system_id"`
	LastUpdate string         `json:"last_update"`
	Info       managerInfo    `json:"info"`
	runnerChange
}

type runnerAnswer struct {
	ID      int64          `json:"id,omitempty"`
	Token   tranter.Secret `json:"token"`
	Expires *time.Time     `json:"token_expires_at"`
}

func (r Runner) answer() runnerAnswer {
	a := runnerAnswer{ID: r.ID, Token: r.Token}
	if !r.Expires.IsZero() {
		a.Expires = &r.Expires
	}
	return a
}

// read decodes the body; on false it has answered.
func (a *runnerAPI) read(w http.ResponseWriter, r *http.Request) (runnerBody, bool) {
	return a.readUpTo(w, r, maxBody)
}

func (a *runnerAPI) readUpTo(w http.ResponseWriter, r *http.Request, limit int64) (runnerBody, bool) {
	var body runnerBody
	if !decodeUpTo(w, r, limit, &body) {
		return body, false
	}
	body.Token = tokenOf(r, body.Token, "Runner-Token")
	if body.Token == "" {
		invalid(w, "token is missing")
		return body, false
	}
	if len(body.SystemID) > 64 {
		invalid(w, "system_id is too long (maximum is 64 characters)")
		return body, false
	}
	return body, true
}

// reply sends an answer. It is called without the book's lock: a slow reader must not stop the others.
type reply func(w http.ResponseWriter)

func replyJSON(status int, v any) reply {
	return func(w http.ResponseWriter) { answer(w, status, v) }
}

func replyFault(err error) reply { return func(w http.ResponseWriter) { fault(w, err) } }

func replyRefusal(status int, reason string) reply {
	return func(w http.ResponseWriter) { refuse(w, status, reason) }
}

func replyNothing(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) }

// with calls f with the runner that the body's token names, with the book locked, and sends its reply. Without such a
// runner it answers 403.
func (a *runnerAPI) with(w http.ResponseWriter, body runnerBody, f func(*runner) reply) {
	b := a.c.book
	b.mu.Lock()
	send := replyRefusal(http.StatusForbidden, "")
	if rn := b.runnerByToken(body.Token); rn != nil {
		send = f(rn)
	}
	b.mu.Unlock()
	if send != nil {
		send(w)
	}
}

func (a *runnerAPI) create(w http.ResponseWriter, r *http.Request) {
	body, ok := a.read(w, r)
	if !ok {
		return
	}
	if wrong := body.refuse(); wrong != "" {
		invalid(w, wrong)
		return
	}
	if a.c.options.Registration == "" {
		refuse(w, http.StatusGone, "Runner registration disallowed")
		return
	}
	if !same(a.c.options.Registration, body.Token) {
		refuse(w, http.StatusForbidden, "invalid token supplied")
		return
	}
	spec := RunnerSpec{RunUntagged: true}
	body.apply(&spec)
	a.c.book.mu.Lock()
	send := created(a.c.book.createRunner(spec, "glrtr-"))
	a.c.book.mu.Unlock()
	send(w)
}

func created(rn Runner, err error) reply {
	if wrong, ok := errors.AsType[specError](err); ok {
		return replyJSON(http.StatusBadRequest, map[string]any{"message": wrong})
	}
	if err != nil {
		return replyFault(err)
	}
	return replyJSON(http.StatusCreated, rn.answer())
}

func (a *runnerAPI) verify(w http.ResponseWriter, r *http.Request) {
	body, ok := a.read(w, r)
	if !ok {
		return
	}
	a.with(w, body, func(rn *runner) reply {
		a.c.book.meet(rn, body.SystemID, body.Info)
		return replyJSON(http.StatusOK, rn.view().answer())
	})
}

func (a *runnerAPI) remove(w http.ResponseWriter, r *http.Request) {
	body, ok := a.read(w, r)
	if !ok {
		return
	}
	a.with(w, body, func(rn *runner) reply { return replyDone(a.c.book.removeRunner(rn.ID)) })
}

func replyDone(err error) reply {
	if err != nil {
		return replyFault(err)
	}
	return replyNothing
}

func (a *runnerAPI) removeManager(w http.ResponseWriter, r *http.Request) {
	body, ok := a.read(w, r)
	if !ok {
		return
	}
	if body.SystemID == "" {
		invalid(w, "system_id is missing")
		return
	}
	a.with(w, body, func(rn *runner) reply {
		m := rn.Managers[body.SystemID]
		if m == nil {
			return replyRefusal(http.StatusNotFound, "Runner manager not found")
		}
		delete(rn.Managers, body.SystemID)
		err := a.c.book.saveSettings()
		if err != nil {
			rn.Managers[body.SystemID] = m
		}
		return replyDone(err)
	})
}

func (a *runnerAPI) reset(w http.ResponseWriter, r *http.Request) {
	body, ok := a.read(w, r)
	if !ok {
		return
	}
	a.with(w, body, a.c.book.resetToken)
}

func (b *roster) resetToken(rn *runner) reply {
	if err := b.saveRunner(rn, func() { rn.renew(rn.prefix(), b.now()) }); err != nil {
		return replyFault(err)
	}
	a := rn.view().answer()
	a.ID = 0
	return replyJSON(http.StatusCreated, a)
}

func (a *runnerAPI) discover(w http.ResponseWriter, r *http.Request) {
	body := runnerBody{Token: tranter.Secret(r.Header.Get("Runner-Token"))}
	a.with(w, body, func(*runner) reply { return replyRefusal(http.StatusNotImplemented, "") })
}
