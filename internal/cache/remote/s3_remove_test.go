package remote_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter/internal/cache/remote"
	"github.com/tranter-ci/tranter/internal/cache/remote/s3test"
)

func TestObjectsBelowAPrefixAreRemoved(t *testing.T) {
	g := s3test.Start(t)
	put := func(name string) string {
		path := filepath.Join(g.Dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var gone []string
	for i := range 3 {
		gone = append(gone, put(fmt.Sprintf("up/a+b 1/runner/x/project/%d/ü&?", i)))
	}
	stays := put("up/a+b 12/runner/x/project/1/deps")
	s := remote.NewS3(gatewayOptions(g))
	n, err := s.RemovePrefix(t.Context(), "/up/a+b 1/")
	if err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
	for _, path := range gone {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	if _, err := os.Stat(stays); err != nil {
		t.Error(err)
	}
	if n, err := s.RemovePrefix(t.Context(), "nothing"); n != 0 || err != nil {
		t.Errorf("a prefix without objects: %d, %v", n, err)
	}
	if _, err := s.RemovePrefix(t.Context(), "/"); err == nil {
		t.Error("the whole bucket may be removed")
	}
}

// What a server says is not believed where it would cost something.
func TestNothingOutsideOfThePrefixIsRemoved(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			t.Errorf("%s is removed", r.URL.Path)
		}
		fmt.Fprint(w, "<ListBucketResult><Contents><Key>other/deps</Key></Contents></ListBucketResult>")
	}))
	defer server.Close()
	_, err := remote.NewS3(keys(strings.TrimPrefix(server.URL, "http://"))).RemovePrefix(t.Context(), "mine")
	if err == nil || !strings.Contains(err.Error(), `"other/deps", which is not below mine/`) {
		t.Error(err)
	}
}
