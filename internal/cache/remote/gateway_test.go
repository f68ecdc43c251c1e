package remote_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/cache/remote"
	"github.com/tranter-ci/tranter/internal/cache/remote/s3test"
)

func gatewayOptions(g *s3test.Gateway) remote.S3Options {
	return remote.S3Options{
		Bucket: g.Bucket, Endpoint: remote.S3Endpoint{Address: g.Address, Insecure: true},
		Credentials: remote.S3Credentials{AccessKey: tranter.Secret(g.AccessKey), SecretKey: tranter.Secret(g.SecretKey)},
	}
}

// phase is one that restores and saves a cache.
func phase(store string, objects ...string) *tranter.Phase {
	entry := tranter.CacheEntry{Key: objects[0], Objects: objects, Paths: []string{"x"}, Store: tranter.CacheStore{Type: store, Prefix: "runner/abc/project/7"}}
	save := entry
	save.Objects = objects[:1]
	return &tranter.Phase{Steps: []tranter.Step{
		{Name: "restore_cache", Restore: &tranter.RestoreStep{Caches: []tranter.CacheEntry{entry}}},
		{Name: "archive_cache", Archive: &tranter.ArchiveStep{Caches: []tranter.CacheEntry{save}}},
		{Name: "archive_cache_on_failure", Archive: &tranter.ArchiveStep{Caches: []tranter.CacheEntry{save}}},
	}}
}

func restored(p *tranter.Phase) []tranter.RemoteArchive { return p.Steps[0].Restore.Caches[0].Remote }

func saved(p *tranter.Phase) tranter.RemoteArchive { return p.Steps[1].Archive.Caches[0].Remote[0] }

func signed(t *testing.T, o remote.S3Options, p *tranter.Phase) *remote.Signer {
	t.Helper()
	s := remote.New(remote.NewS3(o))
	if err := s.Sign(t.Context(), p, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestArchivesTravelThroughARealS3(t *testing.T) {
	g := s3test.Start(t)
	for _, key := range []string{"deps", "a b/ü+&=?#%41'*(){}", " lead", "plain/main-protected"} {
		t.Run(key, func(t *testing.T) {
			p := phase("s3", key, "fallback")
			signed(t, gatewayOptions(g), p)
			if code, _, body := send(t, restored(p)[0].Download, nil, nil); code != http.StatusNotFound {
				t.Errorf("a missing archive gives %d: %s", code, body)
			}
			if code, _, body := send(t, saved(p).Upload.Whole, []byte("archive"), nil); code != http.StatusOK {
				t.Fatalf("upload gives %d: %s", code, body)
			}
			for name, download := range map[string]*tranter.SignedRequest{"who restores": restored(p)[0].Download, "who looks before saving": saved(p).Download} {
				code, header, body := send(t, download, nil, nil)
				if code != http.StatusOK || body != "archive" {
					t.Errorf("%s gets %d: %s", name, code, body)
				}
				if got := header.Get("X-Amz-Meta-Cachekey"); got == "" {
					t.Errorf("%s gets no key", name)
				}
			}
			if _, err := os.Stat(filepath.Join(g.Dir, "runner/abc/project/7", key)); err != nil {
				t.Errorf("the object has another name than GitLab Runner gives it: %v", err)
			}
		})
	}
}

func TestOnlyWhoSavesMayUpload(t *testing.T) {
	g := s3test.Start(t)
	p := phase("s3", "key", "other")
	signed(t, gatewayOptions(g), p)
	for i, r := range restored(p) {
		if r.Upload != nil || r.Download == nil {
			t.Errorf("candidate %d: %+v", i, r)
		}
	}
	get := *restored(p)[0].Download
	get.Method = http.MethodPut
	if code, _, _ := send(t, &get, []byte("x"), nil); code != http.StatusForbidden {
		t.Errorf("a download's address used for an upload gives %d", code)
	}
	elsewhere := *saved(p).Upload.Whole
	elsewhere.URL = tranter.Secret(strings.Replace(elsewhere.URL.Reveal(), "/project/7/key", "/project/8/key", 1))
	if code, _, _ := send(t, &elsewhere, []byte("x"), nil); code != http.StatusForbidden {
		t.Errorf("an address changed to another project's gives %d", code)
	}
}

// part returns the request for a part, as an agent makes it of the description.
func part(u *tranter.PartUpload, n int) *tranter.SignedRequest {
	r := u.Part
	r.URL = tranter.Secret(strings.NewReplacer("{part}", strconv.Itoa(n), "{signature}", u.Signatures[n-1]).Replace(r.URL.Reveal()))
	return &r
}

func TestAnArchiveIsUploadedInParts(t *testing.T) {
	g := s3test.Start(t)
	p := phase("s3", "big one")
	s := signed(t, gatewayOptions(g), p)
	up := saved(p).Upload.Parts
	if other := p.Steps[2].Archive.Caches[0].Remote[0].Upload.Parts; other.Abort.URL != up.Abort.URL {
		t.Error("two uploads were begun for one archive")
	}
	data := make([]byte, 2*up.PartBytes+1000)
	_, _ = rand.Read(data)
	var done strings.Builder
	for i := 0; i*int(up.PartBytes) < len(data); i++ {
		piece := data[i*int(up.PartBytes) : min((i+1)*int(up.PartBytes), len(data))]
		code, header, body := send(t, part(up, i+1), piece, nil)
		if code != http.StatusOK {
			t.Fatalf("part %d gives %d: %s", i+1, code, body)
		}
		fmt.Fprintf(&done, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i+1, header.Get("ETag"))
	}
	body := "<CompleteMultipartUpload>" + done.String() + "</CompleteMultipartUpload>"
	if code, _, text := send(t, up.Complete, []byte(body), nil); code != http.StatusOK {
		t.Fatalf("completion gives %d: %s", code, text)
	}
	code, header, got := send(t, saved(p).Download, nil, nil)
	if code != http.StatusOK || !bytes.Equal([]byte(got), data) || header.Get("X-Amz-Meta-Cachekey") != "big one" {
		t.Errorf("download gives %d and %d bytes of %d, key %q", code, len(got), len(data), header.Get("X-Amz-Meta-Cachekey"))
	}
	if err := s.Abort(t.Context(), []tranter.SignedRequest{*up.Abort}); err != nil {
		t.Errorf("undoing an upload that was completed: %v", err)
	}
	if code, _, _ := send(t, saved(p).Download, nil, nil); code != http.StatusOK {
		t.Errorf("after that, the archive gives %d", code)
	}
}

func TestUploadsThatWereNotCompletedAreUndone(t *testing.T) {
	g := s3test.Start(t)
	for name, until := range map[string]time.Duration{"soon": time.Hour, "after the time of the signature": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			o := gatewayOptions(g)
			p := phase("s3", "begun")
			s := remote.New(remote.NewS3(o))
			if err := s.Sign(t.Context(), p, time.Now().Add(until)); err != nil {
				t.Fatal(err)
			}
			up := saved(p).Upload.Parts
			if until > 0 {
				if code, _, body := send(t, part(up, 1), make([]byte, 1000), nil); code != http.StatusOK {
					t.Fatalf("a part gives %d: %s", code, body)
				}
			}
			if g.Unfinished(t) == 0 {
				t.Fatal("no upload is there to be undone")
			}
			for range 2 {
				if err := s.Abort(t.Context(), []tranter.SignedRequest{*up.Abort}); err != nil {
					t.Fatal(err)
				}
			}
			if n := g.Unfinished(t); n != 0 {
				t.Errorf("%d uploads are left", n)
			}
			if until > 0 {
				if code, _, _ := send(t, part(up, 2), make([]byte, 1000), nil); code != http.StatusNotFound {
					t.Errorf("a further part gives %d", code)
				}
			}
		})
	}
}

func TestAgentsCanUndoAnUpload(t *testing.T) {
	g := s3test.Start(t)
	p := phase("s3", "begun")
	signed(t, gatewayOptions(g), p)
	if code, _, body := send(t, saved(p).Upload.Parts.Abort, nil, nil); code != http.StatusNoContent || g.Unfinished(t) != 0 {
		t.Errorf("undoing gives %d, %d uploads are left: %s", code, g.Unfinished(t), body)
	}
}

func TestRefusalsSayWhyWithoutSecrets(t *testing.T) {
	g := s3test.Start(t)
	for want, change := range map[string]func(*remote.S3Options){
		"SignatureDoesNotMatch": func(o *remote.S3Options) { o.Credentials.SecretKey = "wrong-secret-key" },
		"UserNotFound":          func(o *remote.S3Options) { o.Credentials.AccessKey = "nobody" },
		"NoSuchBucket":          func(o *remote.S3Options) { o.Bucket = "no-such-bucket" },
	} {
		t.Run(want, func(t *testing.T) {
			o := gatewayOptions(g)
			change(&o)
			p := phase("s3", "key", "fallback")
			err := remote.New(remote.NewS3(o)).Sign(t.Context(), p, time.Now().Add(time.Hour))
			if err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), want) != 1 {
				t.Fatalf("got %v", err)
			}
			for _, secret := range []string{"wrong-secret-key", g.SecretKey, "X-Amz-"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error holds %q: %v", secret, err)
				}
			}
			if p.Steps[1].Archive.Caches[0].Remote != nil {
				t.Errorf("what could not be signed for is not left out: %+v", p.Steps[1].Archive.Caches[0].Remote)
			}
		})
	}
}

func TestSignaturesEnd(t *testing.T) {
	g := s3test.Start(t)
	o := gatewayOptions(g)
	o.Region = "us-east-1"
	o.Now = func() time.Time { return time.Now().Add(-2 * time.Minute) }
	r, err := remote.NewS3(o).Sign(t.Context(), remote.Object{Name: "x", Download: true}, time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if code, _, body := send(t, r.Download, nil, nil); code != http.StatusForbidden || !strings.Contains(body, "expired") {
		t.Errorf("got %d: %s", code, body)
	}
}

func TestPathStyleAndRegion(t *testing.T) {
	g := s3test.Start(t)
	for name, change := range map[string]func(*remote.S3Options){
		"path style on":             func(o *remote.S3Options) { o.Endpoint.PathStyle = remote.PathStyleOn },
		"region given":              func(o *remote.S3Options) { o.Region = "us-east-1" },
		"address with its protocol": func(o *remote.S3Options) { o.Endpoint = remote.S3Endpoint{Address: "http://" + g.Address + "/"} },
		"access-key in any case":    func(o *remote.S3Options) { o.Credentials.Type = "Access-Key" },
		"credentials of the environment": func(o *remote.S3Options) {
			o.Credentials = remote.S3Credentials{Type: "IAM"}
			o.Getenv = func(k string) string {
				return map[string]string{"AWS_ACCESS_KEY_ID": g.AccessKey, "AWS_SECRET_ACCESS_KEY": g.SecretKey}[k]
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := gatewayOptions(g)
			change(&o)
			p := phase("s3", "key")
			signed(t, o, p)
			if code, _, body := send(t, saved(p).Upload.Whole, []byte(name), nil); code != http.StatusOK {
				t.Errorf("upload gives %d: %s", code, body)
			}
		})
	}
}

func TestAnUnreachableStorageIsToldOnce(t *testing.T) {
	o := remote.S3Options{Bucket: "b", Endpoint: remote.S3Endpoint{Address: "127.0.0.1:1", Insecure: true}, Credentials: remote.S3Credentials{AccessKey: "a", SecretKey: "s"}}
	p := phase("s3", "one", "two", "three")
	err := remote.New(remote.NewS3(o)).Sign(t.Context(), p, time.Now().Add(time.Hour))
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
}
