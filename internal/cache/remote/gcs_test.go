package remote

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

type googleVector struct {
	Description, Method, Bucket, Object string
	Headers                             map[string]string
	Timestamp                           time.Time
	Expiration                          int
	UniverseDomain                      string
	ExpectedURL                         string `json:"expectedUrl"`
}

// The signatures are those that Google has published for writers of clients.
func TestGoogleSignaturesArePublishedOnes(t *testing.T) {
	data, err := os.ReadFile("testdata/gcs_signatures.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []googleVector
	if err := json.Unmarshal(data, &vectors); err != nil || len(vectors) < 10 {
		t.Fatal(err, len(vectors))
	}
	for _, v := range vectors {
		t.Run(v.Description, func(t *testing.T) {
			g := NewGCS(GCSOptions{
				Bucket: v.Bucket, CredentialsFile: "testdata/gcs_account.json", Universe: v.UniverseDomain, Now: func() time.Time { return v.Timestamp },
			})
			s, err := g.account.signer(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, err := g.presign(t.Context(), s, request{v.Method, v.Object, v.Headers, v.Timestamp.Add(time.Duration(v.Expiration) * time.Second)})
			if err != nil || got.URL.Reveal() != v.ExpectedURL {
				t.Errorf("got  %s\nwant %s\n%v", got.URL.Reveal(), v.ExpectedURL, err)
			}
		})
	}
}

func googleObject(t *testing.T, o GCSOptions, object Object) tranter.RemoteArchive {
	t.Helper()
	r, err := NewGCS(o).Sign(t.Context(), object, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func signedHeaders(t *testing.T, r *tranter.SignedRequest) string {
	t.Helper()
	u, err := url.Parse(r.URL.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("X-Goog-SignedHeaders")
}

func TestGoogleRequests(t *testing.T) {
	o := GCSOptions{Bucket: "b", CredentialsFile: "testdata/gcs_account.json"}
	r := googleObject(t, o, Object{Name: "p/ä b", Key: "ä b", Download: true, Upload: true, MaxUpload: 1000})
	up := r.Upload
	if r.Download.Method != http.MethodGet || up.Whole.Method != http.MethodPut || up.Parts.Part.Method != http.MethodPost || up.Parts.Protocol != tranter.PartsGCS {
		t.Errorf("methods %s, %s, %s; protocol %s", r.Download.Method, up.Whole.Method, up.Parts.Part.Method, up.Parts.Protocol)
	}
	if up.Parts.PartBytes%(256<<10) != 0 {
		t.Errorf("Google takes parts of multiples of 256 KiB, not of %d bytes", up.Parts.PartBytes)
	}
	if got := signedHeaders(t, up.Whole); got != "content-type;host;x-goog-content-length-range;x-goog-meta-cachekey" || up.Whole.Header["X-Goog-Content-Length-Range"] != "0,1000" || up.WholeLimit != 1000 {
		t.Errorf("signed %s, headers %v", got, up.Whole.Header)
	}
	if got := signedHeaders(t, &up.Parts.Part); got != "content-type;host;x-goog-meta-cachekey;x-goog-resumable" || up.Parts.Part.Header["X-Goog-Resumable"] != "start" {
		t.Errorf("signed %s, headers %v", got, up.Parts.Part.Header)
	}
	if !strings.HasPrefix(r.Download.URL.Reveal(), "https://storage.googleapis.com/b/p/%C3%A4%20b?") {
		t.Errorf("address %s", r.Download.URL.Reveal())
	}
	free := googleObject(t, o, Object{Name: "o", Key: "o", Upload: true})
	if _, ok := free.Upload.Whole.Header["X-Goog-Content-Length-Range"]; ok || free.Download != nil {
		t.Errorf("without a limit: %v, %v", free.Upload.Whole.Header, free.Download)
	}
}

func pemKey(t *testing.T) (*rsa.PrivateKey, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

func TestGoogleKeysOfTheConfiguration(t *testing.T) {
	_, key := pemKey(t)
	for name, text := range map[string]string{"as it is": key, "in one line": strings.ReplaceAll(key, "\n", `\n`)} {
		r := googleObject(t, GCSOptions{Bucket: "b", AccessID: "me@example.com", PrivateKey: tranter.Secret(text)}, Object{Name: "o", Download: true})
		if !strings.Contains(r.Download.URL.Reveal(), "X-Goog-Credential=me%40example.com%2F") {
			t.Errorf("%s: %s", name, r.Download.URL.Reveal())
		}
	}
	for want, o := range map[string]GCSOptions{
		"not in PEM form":      {AccessID: "me", PrivateKey: "secret-text"},
		"read the credentials": {CredentialsFile: "testdata/none"},
		"not JSON":             {CredentialsFile: "gcs.go"},
		"name no service account,": {CredentialsFile: "user", Read: func(string) ([]byte, error) {
			return []byte(`{"type":"authorized_user","refresh_token":"secret-text"}`), nil
		}},
	} {
		_, err := NewGCS(o).Sign(t.Context(), Object{Name: "o", Download: true}, time.Now().Add(time.Hour))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret-text") {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// Where there is no key, Google signs, for whom the machine or the credentials file says.
func TestGoogleSignsWhereThereIsNoKey(t *testing.T) {
	key, _ := pemKey(t)
	tokens := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/token":
			tokens++
			_, _ = io.WriteString(w, `{"access_token":"federated","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":3600}`)
		case strings.HasSuffix(r.URL.Path, ":generateAccessToken"):
			_, _ = io.WriteString(w, `{"accessToken":"impersonated","expireTime":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"}`)
		case r.URL.Path == "/v1/projects/-/serviceAccounts/cache@p.iam.gserviceaccount.com:signBlob":
			var in struct{ Payload []byte }
			if r.Header.Get("Authorization") != "Bearer impersonated" || json.NewDecoder(r.Body).Decode(&in) != nil {
				http.Error(w, `{"error":{"status":"UNAUTHENTICATED","message":"no"}}`, http.StatusUnauthorized)
				return
			}
			signature, _ := (&keySigner{"", key}).sign(r.Context(), in.Payload)
			_ = json.NewEncoder(w).Encode(map[string]string{"signedBlob": base64.StdEncoding.EncodeToString(signature)})
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	client := &http.Client{Transport: detourTransport(server.URL)}
	file := t.TempDir() + "/oidc"
	if err := os.WriteFile(file, []byte("identity"), 0o600); err != nil {
		t.Fatal(err)
	}
	credentials := `{"type":"external_account","audience":"//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/x","subject_token_type":"urn:ietf:params:oauth:token-type:jwt",
		"token_url":"https://sts.googleapis.com/token","credential_source":{"file":"` + file + `"},
		"service_account_impersonation_url":"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/cache@p.iam.gserviceaccount.com:generateAccessToken"}`
	at := time.Now()
	o := GCSOptions{Bucket: "b", CredentialsFile: "c", Client: client, Now: func() time.Time { return at }, Read: func(string) ([]byte, error) { return []byte(credentials), nil }}
	backend := NewGCS(o)
	r, err := backend.Sign(t.Context(), Object{Name: "o", Download: true, Upload: true}, at.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	local := &GCS{options: backend.options, account: &account{found: &keySigner{"cache@p.iam.gserviceaccount.com", key}}}
	want, err := local.Sign(t.Context(), Object{Name: "o", Download: true, Upload: true}, at.Add(time.Hour))
	if err != nil || r.Download.URL != want.Download.URL || r.Upload.Whole.URL != want.Upload.Whole.URL {
		t.Errorf("got %s, want %s (%v)", r.Download.URL.Reveal(), want.Download.URL.Reveal(), err)
	}
	if tokens != 1 {
		t.Errorf("%d tokens for three signatures", tokens)
	}
}

// detourTransport sends all requests to one server, whatever host they are for.
func detourTransport(to string) http.RoundTripper {
	return transport(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		u, err := url.Parse(to)
		if err != nil {
			return nil, err
		}
		r.Host, r.URL.Scheme, r.URL.Host = r.URL.Host, u.Scheme, u.Host
		return http.DefaultTransport.RoundTrip(r)
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestErrorsOfServicesHoldNoAddress(t *testing.T) {
	c := newCaller(&http.Client{Transport: transport(func(*http.Request) (*http.Response, error) { return nil, context.Canceled })})
	_, err := c.do(t.Context(), func() (*http.Request, error) {
		return http.NewRequestWithContext(t.Context(), http.MethodGet, "https://example.com/x?sig=secret-text", nil)
	})
	if err == nil || strings.Contains(err.Error(), "secret-text") || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
