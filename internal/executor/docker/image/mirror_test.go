package image_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter/internal/executor/docker/enginetest"
	"github.com/tranter-ci/tranter/internal/executor/docker/image"
)

func TestTheMirrorIsAskedFirst(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	digest, ids := push(t, server, r, "1", tiny{})
	original, copied := newProxy(t, server), newProxy(t, server)
	s := image.NewStore(engine(t), image.Options{Mirror: image.Mirror{Address: "http://" + copied.Address + "/", Remote: original.Address}})
	logins := image.LoginsOf(configFor(original.Address, "user", "password"), "", "", nil)

	for _, name := range []string{original.Address + "/" + r + ":1", original.Address + "/" + r + "@" + digest} {
		f, log, err := get(t, s, image.Wanted{Name: name, Logins: logins})
		if err != nil || f.ID != ids[0] || f.Digest != digest {
			t.Fatalf("%s: %+v %v", name, f, err)
		}
		contains(t, log, "Pulling docker image "+name+" from the registry mirror "+copied.Address+" ...\n")
		f, log, err = get(t, s, image.Wanted{Name: name, Policies: []string{image.IfNotPresent}})
		if err != nil || f.ID != ids[0] || strings.Contains(log, "Pulling") {
			t.Errorf("%s is not found again: %+v %v\n%s", name, f, err, log)
		}
	}
	if _, err := engine(t).ImageInspect(t.Context(), original.Address+"/"+r+":1"); err != nil {
		t.Errorf("the copy does not have the image's own name: %v", err)
	}
	if n := original.count(""); n != 0 {
		t.Errorf("%d requests to the original", n)
	}
	if n := copied.logins(); n != 0 || copied.count("") == 0 {
		t.Errorf("%d requests with a login to the mirror of %d", n, copied.count(""))
	}
}

func TestTheOriginalIsAskedWhenTheMirrorFails(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	_, ids := push(t, server, r, "1", tiny{})
	original, copied := newProxy(t, server), newProxy(t, server)
	s := image.NewStore(engine(t), noPause(image.Options{Stalled: 2 * time.Second, Mirror: image.Mirror{Address: copied.Address, Remote: original.Address}}))
	for name, c := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request) bool
		warns string // empty: it does not
	}{
		"server error":      {status(-1, http.StatusInternalServerError, ""), copied.Address + " fails itself"},
		"too many requests": {status(-1, http.StatusTooManyRequests, ""), "too many requests"},
		"hangs":             {func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }, "no progress for 400ms"},
		"has no such image": {status(-1, http.StatusNotFound, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`), ""},
		"is not for all":    {status(-1, http.StatusForbidden, `{"errors":[{"code":"DENIED","message":"access forbidden"}]}`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			copied.fail(c.fault)
			f, log, err := get(t, s, image.Wanted{Name: original.Address + "/" + r + ":1"})
			if err != nil || f.ID != ids[0] {
				t.Fatalf("%+v %v", f, err)
			}
			warnings := strings.Count(log, "WARNING: The registry mirror is not used for")
			if c.warns == "" && warnings != 0 || c.warns != "" && (warnings != 1 || !strings.Contains(log, c.warns)) {
				t.Errorf("warnings: %d, want %q\n%s", warnings, c.warns, log)
			}
			contains(t, log, "Pulling docker image "+original.Address+"/"+r+":1 ...\n")
		})
	}
}

func TestTheMirrorIsForItsRegistryOnly(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	push(t, server, r, "1", tiny{})
	copied := newProxy(t, server)
	s := image.NewStore(engine(t), image.Options{Mirror: image.Mirror{Address: copied.Address}})
	if _, _, err := get(t, s, image.Wanted{Name: server.Address + "/" + r + ":1"}); err != nil {
		t.Fatal(err)
	}
	if n := copied.count(""); n != 0 {
		t.Errorf("%d requests for an image of another registry", n)
	}
}

func TestTheMirrorStandsForDockerHub(t *testing.T) {
	server, r := enginetest.Registry(t), repo(t)
	_, ids := push(t, server, r, "1", tiny{})
	s := image.NewStore(engine(t), image.Options{Mirror: image.Mirror{Address: server.Address}})
	f, log, err := get(t, s, image.Wanted{Name: r + ":1"})
	if err != nil || f.ID != ids[0] || f.Name != r+":1" {
		t.Fatalf("%+v %v\n%s", f, err, log)
	}
}
