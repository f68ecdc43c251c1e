package remote

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A service that sends us elsewhere does not get our tokens there.
func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a request with a token came to another server")
	}))
	defer elsewhere.Close()
	service := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer service.Close()
	_, err := newCaller(nil).do(t.Context(), func() (*http.Request, error) {
		return http.NewRequestWithContext(t.Context(), http.MethodPost, service.URL, strings.NewReader("WebIdentityToken=secret"))
	})
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("the error is %v", err)
	}
}
