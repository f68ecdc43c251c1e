// Package vaulttest stands in for a Vault or OpenBao server where none can be installed: its HTTP API as far as jobs use
// it, with logins that are checked, tokens that end, and both versions of the key-value engine.
package vaulttest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Server holds secrets for those who log in with a known token and role.
type Server struct {
	URL string
	t   testing.TB

	mu       sync.Mutex
	logins   map[string]string // JWT to role
	tokens   map[string]bool
	data     map[string]map[string]any // by the API's path
	faults   []int
	requests []string
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server {
	s := &Server{t: t, logins: map[string]string{}, tokens: map[string]bool{}, data: map[string]map[string]any{}}
	server := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Allow lets a JWT log in at auth/jwt with a role; "" is the server's default role.
func (s *Server) Allow(jwt, role string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins[jwt] = role
}

// Put stores data at a path of the API, such as "kv/data/app/db"; with nil, the newest version is a deleted one.
func (s *Server) Put(path string, data map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data[path] = data
}

// Fail answers the next requests with the given statuses.
func (s *Server) Fail(statuses ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, statuses...)
}

// Requests returns method and path of all requests so far.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

// Tokens returns how many tokens are valid.
func (s *Server) Tokens() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tokens)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	s.requests = append(s.requests, r.Method+" "+path)
	if len(s.faults) > 0 {
		status := s.faults[0]
		s.faults = s.faults[1:]
		answer(w, status, map[string]any{"errors": []string{"told to fail"}})
		return
	}
	if r.Header.Get("X-Vault-Request") != "true" {
		answer(w, http.StatusPreconditionFailed, map[string]any{"errors": []string{"missing X-Vault-Request"}})
		return
	}
	// A namespace is a place of its own: here, a prefix of all paths.
	path = strings.Trim(r.Header.Get("X-Vault-Namespace"), "/") + "/" + path
	path = strings.TrimPrefix(path, "/")
	switch {
	case strings.HasSuffix(path, "auth/jwt/login"):
		s.login(w, r)
	case strings.HasSuffix(path, "auth/token/revoke-self"):
		delete(s.tokens, r.Header.Get("X-Vault-Token"))
		w.WriteHeader(http.StatusNoContent)
	case !s.tokens[r.Header.Get("X-Vault-Token")] && !s.inline(r):
		answer(w, http.StatusForbidden, map[string]any{"errors": []string{"permission denied"}})
	default:
		s.read(w, path)
	}
}

func (s *Server) read(w http.ResponseWriter, path string) {
	data, ok := s.data[path]
	versioned := strings.Contains(path, "/data/")
	switch {
	case !ok:
		answer(w, http.StatusNotFound, map[string]any{"errors": []string{}})
	case versioned && data == nil:
		answer(w, http.StatusNotFound, map[string]any{"data": map[string]any{"data": nil, "metadata": map[string]any{"deletion_time": "2026-01-01T00:00:00Z"}}})
	case versioned:
		answer(w, http.StatusOK, map[string]any{"data": map[string]any{"data": data, "metadata": map[string]any{"version": 1}}})
	default:
		answer(w, http.StatusOK, map[string]any{"data": data})
	}
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	var body struct{ JWT, Role string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"errors": []string{"malformed"}})
		return
	}
	if role, ok := s.logins[body.JWT]; !ok || role != body.Role {
		answer(w, http.StatusBadRequest, map[string]any{"errors": []string{"error validating token"}})
		return
	}
	token := "hvs." + rand.Text()
	s.tokens[token] = true
	answer(w, http.StatusOK, map[string]any{"auth": map[string]any{"client_token": token, "lease_duration": 60}})
}

// inline checks a login that goes with the request.
func (s *Server) inline(r *http.Request) bool {
	if r.Header.Get("X-Vault-Inline-Auth-Path") != "auth/jwt/login" {
		return false
	}
	got := map[string]string{}
	for name, values := range r.Header {
		if !strings.HasPrefix(name, "X-Vault-Inline-Auth-Parameter-") {
			continue
		}
		var p struct{ Key, Value string }
		data, err := base64.RawURLEncoding.DecodeString(values[0])
		if err != nil || json.Unmarshal(data, &p) != nil {
			return false
		}
		got[p.Key] = p.Value
	}
	role, ok := s.logins[got["jwt"]]
	return ok && role == got["role"]
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
