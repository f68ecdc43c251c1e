package vault_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/vault"
	"github.com/tranter-ci/tranter/internal/vault/vaulttest"
)

const jwt = "header.payload.signature"

func secret(url string) tranter.ExternalSecret {
	return tranter.ExternalSecret{
		Variable: "DB", URL: url, AuthPath: "auth/jwt/login", Role: "ci", JWT: jwt,
		Engine: "kv-v2", Mount: "kv", Path: "app/db", Field: "password",
	}
}

func open(t *testing.T, s *vaulttest.Server) tranter.SecretReader {
	t.Helper()
	s.Allow(jwt, "ci")
	l := vault.New(http.DefaultTransport).Open()
	t.Cleanup(func() { l.Close(context.WithoutCancel(t.Context())) })
	return l
}

func TestRead(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		change func(*tranter.ExternalSecret)
		want   string
	}{
		"versioned engine":     {func(*tranter.ExternalSecret) {}, "hunter2"},
		"slashes round places": {func(s *tranter.ExternalSecret) { s.Mount, s.Path, s.URL = "/kv/", "/app/db", s.URL+"/" }, "hunter2"},
		"plain engine":         {func(s *tranter.ExternalSecret) { s.Engine, s.Mount = "kv-v1", "old" }, "plain"},
		"generic engine":       {func(s *tranter.ExternalSecret) { s.Engine, s.Mount = "generic", "old" }, "plain"},
		"a number":             {func(s *tranter.ExternalSecret) { s.Field = "port" }, "5432"},
		"several lines":        {func(s *tranter.ExternalSecret) { s.Field = "key" }, "-----BEGIN\nabc\n-----END\n"},
		"namespace":            {func(s *tranter.ExternalSecret) { s.Namespace = "team/a" }, "of the team"},
		"login in the request": {func(s *tranter.ExternalSecret) { s.Inline = true }, "hunter2"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := vaulttest.New(t)
			server.Put("kv/data/app/db", map[string]any{"password": "hunter2", "port": 5432, "key": "-----BEGIN\nabc\n-----END\n"})
			server.Put("old/app/db", map[string]any{"password": "plain"})
			server.Put("team/a/kv/data/app/db", map[string]any{"password": "of the team"})
			s := secret(server.URL)
			c.change(&s)
			got, err := open(t, server).Read(t.Context(), s)
			if err != nil || got.Reveal() != c.want {
				t.Fatalf("got %q, %v; want %q", got.Reveal(), err, c.want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	missing := func(err error) bool { return errors.Is(err, tranter.ErrNoSecret) }
	config := func(err error) bool { _, ok := errors.AsType[*tranter.ConfigError](err); return ok }
	dependency := func(err error) bool { _, ok := errors.AsType[*tranter.DependencyError](err); return ok }
	ours := func(err error) bool { return err != nil && !missing(err) && !config(err) && !dependency(err) }
	cases := map[string]struct {
		prepare func(*vaulttest.Server, *tranter.ExternalSecret)
		is      func(error) bool
	}{
		"no such path":     {func(_ *vaulttest.Server, s *tranter.ExternalSecret) { s.Path = "other" }, missing},
		"no such field":    {func(_ *vaulttest.Server, s *tranter.ExternalSecret) { s.Field = "other" }, missing},
		"empty":            {func(_ *vaulttest.Server, s *tranter.ExternalSecret) { s.Field = "empty" }, missing},
		"deleted":          {func(v *vaulttest.Server, _ *tranter.ExternalSecret) { v.Put("kv/data/app/db", nil) }, missing},
		"wrong token":      {func(_ *vaulttest.Server, s *tranter.ExternalSecret) { s.JWT = "other" }, config},
		"wrong role":       {func(_ *vaulttest.Server, s *tranter.ExternalSecret) { s.Role = "admin" }, config},
		"wrong in request": {func(_ *vaulttest.Server, s *tranter.ExternalSecret) { s.Inline, s.Role = true, "admin" }, config},
		"not text":         {func(_ *vaulttest.Server, s *tranter.ExternalSecret) { s.Inline, s.Field = true, "port" }, config},
		"sealed":           {func(v *vaulttest.Server, _ *tranter.ExternalSecret) { v.Fail(503) }, dependency},
		"fails at the end": {func(v *vaulttest.Server, _ *tranter.ExternalSecret) { v.Fail(502) }, dependency},
		"too many":         {func(v *vaulttest.Server, _ *tranter.ExternalSecret) { v.Fail(429) }, ours},
		"nobody there":     {func(_ *vaulttest.Server, s *tranter.ExternalSecret) { s.URL = "http://127.0.0.1:1/s3cr3t" }, ours},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := vaulttest.New(t)
			server.Put("kv/data/app/db", map[string]any{"password": "hunter2", "port": 5432, "empty": ""})
			s := secret(server.URL)
			c.prepare(server, &s)
			got, err := open(t, server).Read(t.Context(), s)
			if !c.is(err) || got != "" {
				t.Fatalf("got %q, %v", got.Reveal(), err)
			}
			if strings.Contains(err.Error(), jwt) || strings.Contains(err.Error(), "s3cr3t") {
				t.Fatalf("the error shows what is secret: %v", err)
			}
		})
	}
}

func TestOneLoginForAllAndItEnds(t *testing.T) {
	t.Parallel()
	server := vaulttest.New(t)
	server.Allow(jwt, "ci")
	server.Put("kv/data/app/db", map[string]any{"password": "hunter2"})
	l := vault.New(http.DefaultTransport).Open()
	for range 3 {
		if _, err := l.Read(t.Context(), secret(server.URL)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(slices.DeleteFunc(server.Requests(), func(r string) bool { return r != "PUT auth/jwt/login" })); n != 1 {
		t.Errorf("%d logins for three secrets", n)
	}
	l.Close(t.Context())
	if n := server.Tokens(); n != 0 {
		t.Errorf("%d tokens are left", n)
	}
}

// A redirect would carry the token to a server that the job did not name.
func TestNoRedirects(t *testing.T) {
	t.Parallel()
	other := vaulttest.New(t)
	other.Allow(jwt, "ci")
	server := httptest.NewServer(http.RedirectHandler(other.URL+"/v1/auth/jwt/login", http.StatusTemporaryRedirect))
	t.Cleanup(server.Close)
	l := vault.New(http.DefaultTransport).Open()
	if _, err := l.Read(t.Context(), secret(server.URL)); err == nil {
		t.Fatal("a redirect was followed")
	}
	if got := other.Requests(); len(got) > 0 {
		t.Fatalf("the other server got %v", got)
	}
}
