package gitlab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// ManagementOptions say which server to manage, and with which rights. URL and Token are needed.
type ManagementOptions struct {
	URL       string
	Token     tranter.Secret // a personal, group or project access token
	TLSCAFile string         // PEM, in addition to the system's certificate authorities
	Version   Program
	Backoff   time.Duration // before the first retry; it doubles. 0: 100 ms
	Log       *slog.Logger
}

// Management is a client of GitLab's management API (gitlab-server, sections 4.1 and 4.2): projects, groups, the jobs that
// wait in them, and runners. A server that asks to be left alone for up to two minutes is waited for. It is safe for
// concurrent use.
type Management struct {
	wire
	token tranter.Secret

	mu      sync.Mutex
	pending map[int64]map[string]pendingPage // by project and query: what was last answered
}

const privateHeader = "PRIVATE-TOKEN"

// NewManagement makes a client. It does not connect.
func NewManagement(o ManagementOptions) (*Management, error) {
	if o.Token == "" {
		return nil, errors.New("there is no management token")
	}
	c, err := New(Options{URL: o.URL, TLSCAFile: o.TLSCAFile, Version: o.Version, Backoff: o.Backoff, Log: o.Log})
	if err != nil {
		return nil, err
	}
	return &Management{wire: c.wire, token: o.Token, pending: map[int64]map[string]pendingPage{}}, nil
}

// The scopes of access tokens that management needs. ScopeAPI holds all others.
const (
	ScopeAPI          = "api"
	ScopeReadAPI      = "read_api"
	ScopeCreateRunner = "create_runner"
	ScopeManageRunner = "manage_runner"
)

// Access is what a token may do, and whose it is.
type Access struct {
	Scopes    []string  // nil: the server does not tell
	User      string    // login; empty: not known
	UserID    int64     // 0: not known
	ExpiresAt time.Time // zero: never, or not known

	server string // address of the server, for advice
}

// MovedError means that a project or group has another path now. The old one works as long as nobody takes it.
type MovedError struct{ Kind, From, To string }

// Error says where it is and what to do.
func (e *MovedError) Error() string {
	return fmt.Sprintf("the %s %s has moved to %s: write the new path where the old one is", e.Kind, e.From, e.To)
}

// ScopeError means that a token lacks scopes. It wraps tranter.ErrForbidden.
type ScopeError struct {
	Missing []string
	Have    []string // nil: not known
	Advice  string
}

// Error says which scopes are missing, what they are for, and how to make a token that has them.
func (e *ScopeError) Error() string {
	var needs []string
	for _, s := range e.Missing {
		needs = append(needs, s+" ("+purpose(s)+")")
	}
	have := ""
	if e.Have != nil {
		have = "; it has " + cmp.Or(strings.Join(e.Have, ", "), "none")
	}
	return "the management token lacks the scope " + strings.Join(needs, " and ") + have + ": " + e.Advice
}

// Unwrap makes it a tranter.ErrForbidden.
func (e *ScopeError) Unwrap() error { return tranter.ErrForbidden }

func purpose(scope string) string {
	switch scope {
	case ScopeReadAPI:
		return "to read projects, runners and the jobs that wait"
	case ScopeCreateRunner:
		return "to create runners"
	case ScopeManageRunner:
		return "to change and remove runners and to replace their tokens"
	}
	return "for everything"
}

// Check returns a *ScopeError unless the token has all of the scopes, or has the scope api. What the server does not tell
// counts as had: the call that needs it will say.
func (a Access) Check(scopes ...string) error {
	if a.Scopes == nil || slices.Contains(a.Scopes, ScopeAPI) {
		return nil
	}
	missing := slices.DeleteFunc(slices.Clone(scopes), func(s string) bool { return slices.Contains(a.Scopes, s) })
	if len(missing) == 0 {
		return nil
	}
	return &ScopeError{Missing: missing, Have: a.Scopes, Advice: advice(a.server)}
}

func advice(server string) string {
	return "make one with the scopes read_api, create_runner and manage_runner (or only api) at " + server + "/-/user_settings/personal_access_tokens, or as a group or project access token of a maintainer or owner"
}

func (m *Management) server() string {
	return strings.TrimSuffix(m.base.String(), "/api/v4/")
}

// Scopes asks the server about the token itself. ErrForbidden means that the token is not valid: wrong, expired or revoked.
func (m *Management) Scopes(ctx context.Context) (Access, error) {
	access := Access{server: m.server()}
	var self struct {
		Scopes  []string `json:"scopes"`
		UserID  int64    `json:"user_id"`
		Active  *bool    `json:"active"`
		Expires string   `json:"expires_at"` // a date
	}
	switch err := m.get(ctx, "ask about the management token", "personal_access_tokens/self", nil, &self); {
	case errors.Is(err, tranter.ErrNotFound): // a server or a kind of token without this
	case err != nil:
		return Access{}, err
	case self.Active != nil && !*self.Active:
		return Access{}, fmt.Errorf("ask about the management token: %w: it is revoked or has expired: %s", tranter.ErrForbidden, advice(m.server()))
	default:
		access.Scopes, access.UserID = slices.Clip(append([]string{}, self.Scopes...)), self.UserID
		access.ExpiresAt = day(self.Expires)
	}
	var user struct {
		ID   int64  `json:"id"`
		Name string `json:"username"`
	}
	err := m.get(ctx, "ask whose the management token is", "user", nil, &user)
	switch {
	case err == nil:
		access.User, access.UserID = user.Name, user.ID
	case access.Scopes == nil:
		return Access{}, err // not even that is allowed
	default:
		m.log.Debug("The management token may not read its user", "error", err)
	}
	return access, nil
}

// day reads a date or a time; zero: it is none.
func day(text string) time.Time {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

// call prepares a call with the management token.
func (m *Management) call(what, method, path string, query url.Values) *call {
	q := m.newCall(what, method, path)
	q.tokenHeader, q.token, q.json, q.want, q.limit = privateHeader, m.token, true, http.StatusOK, maxManaged
	q.url.RawQuery = query.Encode()
	return q
}

// maxManaged is how much one answer of the management API may bring: a page of a hundred jobs is a tenth of a MiB.
const maxManaged = 16 << 20

// get reads one thing.
func (m *Management) get(ctx context.Context, what, path string, query url.Values, v any) error {
	q := m.call(what, http.MethodGet, path, query)
	a, err := m.exchange(ctx, q)
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return m.refused(q, a)
	}
	return q.read(a, v)
}

// read decodes the wanted answer of a call.
func (q *call) read(a *answer, v any) error {
	if err := a.decode(v); err != nil {
		return fmt.Errorf("%s: %w", q.what, err)
	}
	return nil
}

// refused is the error for an answer that is not wanted: what all calls say, and what a management token can lack.
func (m *Management) refused(q *call, a *answer) error {
	err := q.refusal(a)
	switch {
	case a.status == http.StatusUnauthorized && errors.Is(err, tranter.ErrForbidden):
		return fmt.Errorf("%w: the management token is wrong, revoked or has expired: %s", err, advice(m.server()))
	case a.status == http.StatusForbidden && strings.Contains(string(a.body), "insufficient_scope"):
		return fmt.Errorf("%s: %w", q.what, &ScopeError{Missing: []string{q.needs()}, Advice: advice(m.server())})
	case a.status == http.StatusForbidden && errors.Is(err, tranter.ErrForbidden):
		return fmt.Errorf("%w: the owner of the management token may not do this; for runners it must be at least a maintainer of the project, an owner of the group, or for the instance an administrator", err)
	}
	return err
}

// needs is the smallest scope that the call needs.
func (q *call) needs() string {
	switch {
	case q.method == http.MethodGet:
		return ScopeReadAPI
	case strings.HasSuffix(q.url.Path, "/user/runners"):
		return ScopeCreateRunner
	case strings.Contains(q.url.Path, "/runners/"), strings.HasSuffix(q.url.Path, "/runners"):
		return ScopeManageRunner
	}
	return ScopeAPI
}

// maxPages bounds every list: a hundred entries each.
const maxPages = 500

// pages reads a list page by page, following the answers' links (gitlab-server, section 4.2). Only the query of a link is used:
// the address that a server behind a proxy knows of itself may not be the one that we reach it by.
func (m *Management) pages(ctx context.Context, q *call, page func(*answer) error) error {
	for range maxPages {
		a, err := m.exchange(ctx, q)
		if err != nil {
			return err
		}
		if a.status != q.want {
			return m.refused(q, a)
		}
		if err := page(a); err != nil {
			return err
		}
		next, ok := nextPage(a.header)
		if !ok {
			return nil
		}
		if next == q.url.RawQuery {
			return fmt.Errorf("%s: the server's list never ends: the page after %q is the same one", q.what, next)
		}
		q.url.RawQuery = next
	}
	return fmt.Errorf("%s: the server's list has more than %d pages", q.what, maxPages)
}

// nextPage is the query of the link to the next page.
func nextPage(h http.Header) (string, bool) {
	for part := range strings.SplitSeq(strings.Join(h.Values("Link"), ","), ",") {
		address, parameters, ok := strings.Cut(strings.TrimSpace(part), ">")
		if !ok || !strings.HasPrefix(address, "<") || !strings.Contains(parameters, `rel="next"`) {
			continue
		}
		u, err := url.Parse(address[1:])
		if err != nil || u.RawQuery == "" {
			return "", false
		}
		return u.RawQuery, true
	}
	return "", false
}
