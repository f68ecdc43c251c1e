package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
)

// AccessToken is a token for the management API that may do less than the administrator's.
type AccessToken struct {
	Name    string         `json:"name"`
	Token   tranter.Secret `json:"token"` // empty: one is made
	User    string         `json:"user"`  // whose it is
	UserID  int64          `json:"user_id"`
	Scopes  []string       `json:"scopes"`              // api, read_api, create_runner, manage_runner
	Places  []string       `json:"places,omitempty"`    // groups and projects that the user can see; empty: all
	Expires time.Time      `json:"expires_at,omitzero"` // zero: never
}

// estate changes what there is besides pipelines and runners.
type estate struct{ of *book }

// CreateAccessToken makes a token for the management API. One with the same name is replaced.
func (e estate) CreateAccessToken(t AccessToken) (tranter.Secret, error) {
	if len(t.Scopes) == 0 {
		return "", errors.New("create access token: it has no scopes")
	}
	if t.Token == "" {
		t.Token = tranter.Secret("glpat-" + randomHex(10))
	}
	b := e.of
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.settings.Access
	b.settings.Access = slices.DeleteFunc(slices.Clone(before), func(other AccessToken) bool { return other.Name == t.Name })
	b.settings.Access = append(b.settings.Access, t)
	if err := b.saveSettings(); err != nil {
		b.settings.Access = before
		return "", fmt.Errorf("create access token: %w", err)
	}
	return t.Token, nil
}

// MoveProject gives a project another path. Who asks for the old one is sent to the new one.
func (e estate) MoveProject(id int64, path string) error {
	if !projectPath().MatchString(path) || !strings.Contains(path, "/") {
		return fmt.Errorf("move project: %q is no path of a project", path)
	}
	b := e.of
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.project(id)
	if p.ID == 0 {
		return notFound("project", id)
	}
	before := *p
	p.Former = append(slices.Clip(p.Former), p.Path)
	p.Path = path
	b.makeGroups(path)
	if err := b.saveSettings(); err != nil {
		*p = before
		return fmt.Errorf("move project: %w", err)
	}
	return nil
}

// group is what several projects have in common: the beginning of their paths.
type group struct {
	ID   int64  `json:"id"`
	Path string `json:"path"`
}

// holds tells whether a project or group is in the group, however deep.
func (g *group) holds(path string) bool { return strings.HasPrefix(path, g.Path+"/") }

// makeGroups makes all groups that a project's path names.
func (b *roster) makeGroups(path string) {
	for at, r := range path {
		if r == '/' && b.group(path[:at]) == nil {
			b.settings.NextGroup++
			b.settings.Groups = append(b.settings.Groups, &group{ID: b.settings.NextGroup, Path: path[:at]})
		}
	}
}

func (b *roster) group(path string) *group {
	i := slices.IndexFunc(b.settings.Groups, func(g *group) bool { return g.Path == path })
	if i < 0 {
		return nil
	}
	return b.settings.Groups[i]
}

// groupByID finds a group, or one that holds nothing.
func (b *roster) groupByID(id int64) *group {
	i := slices.IndexFunc(b.settings.Groups, func(g *group) bool { return g.ID == id })
	if i < 0 {
		return nil
	}
	return b.settings.Groups[i]
}

// formerly finds the project that had a path before; 0: none. It needs the lock not to be held.
func (b *book) formerly(path string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.settings.Projects {
		if slices.Contains(p.Former, path) {
			return p.ID
		}
	}
	return 0
}

// caller is who calls the management API.
type caller struct{ token AccessToken }

type callerKey struct{}

// callerOf returns who sent a request that administer has let in.
func callerOf(r *http.Request) caller {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return c
}

// sees tells whether a project or group is shown to the caller.
func (c caller) sees(path string) bool {
	return len(c.token.Places) == 0 || slices.ContainsFunc(c.token.Places, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") })
}

// may tells whether the caller's token has the scope.
func (c caller) may(scope string) bool {
	return slices.Contains(c.token.Scopes, scope) || slices.Contains(c.token.Scopes, "api")
}

// caller finds out who sent a request.
func (c *Coordinator) caller(r *http.Request) (caller, bool) {
	token := tranter.Secret(r.Header.Get("Private-Token"))
	if token == "" {
		token = tranter.Secret(bearer(r))
	}
	if same(c.AdminToken(), token) {
		return caller{AccessToken{Name: "administrator", User: "root", UserID: 1, Scopes: []string{"api"}}}, true
	}
	b := c.book
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.settings.Access {
		if same(t.Token, token) && (t.Expires.IsZero() || b.now().Before(t.Expires)) {
			return caller{t}, true
		}
	}
	return caller{}, false
}

// neededScope is the smallest scope that lets a token call a route.
func neededScope(pattern string) string {
	method, path, _ := strings.Cut(pattern, " ")
	switch {
	case path == "/personal_access_tokens/self":
		return "" // any
	case method == http.MethodGet:
		return "read_api"
	case path == "/user/runners":
		return "create_runner"
	case strings.HasPrefix(path, "/runners/"), strings.HasSuffix(path, "/runners"):
		return "manage_runner"
	}
	return "api"
}

// administer adds routes that are open only to the administrator's token, and to access tokens with the scope for it.
func (c *Coordinator) administer(mux *http.ServeMux, routes map[string]http.HandlerFunc) {
	for pattern, next := range routes {
		scope := neededScope(pattern)
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			who, ok := c.caller(r)
			switch {
			case !ok:
				refuse(w, http.StatusUnauthorized, "")
			case scope != "" && !who.may(scope):
				answer(w, http.StatusForbidden, map[string]string{
					"error": "insufficient_scope", "error_description": "The request requires higher privileges than provided by the access token.",
					"scope": scope + " api",
				})
			default:
				next(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, who)))
			}
		})
	}
}
