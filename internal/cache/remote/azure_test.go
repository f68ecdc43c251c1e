package remote

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
)

var azureNow = time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)

func azureOptions() AzureOptions {
	return AzureOptions{
		Account: "acct", Key: tranter.Secret(base64.StdEncoding.EncodeToString([]byte("secret-key-of-the-account"))), Container: "ci cache",
		Now: func() time.Time { return azureNow }, Getenv: func(string) string { return "" },
	}
}

const azureName = "project/1/a key/ü"

func azureUpload(t *testing.T, a *Azure) (*url.URL, tranter.RemoteArchive) {
	t.Helper()
	r, err := a.Sign(t.Context(), Object{Name: azureName, Key: "a key/ü", Download: true, Upload: true}, azureNow.Add(90*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(r.Upload.Whole.URL.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return u, r
}

// The signature was made once with Microsoft's own library, sas of azblob 1.2.0.
func TestAzureSignsWithTheAccountsKey(t *testing.T) {
	u, r := azureUpload(t, NewAzure(azureOptions()))
	const want = "se=2026-03-01T12%3A30%3A00Z&sig=xuo8N0X6lUepcAlCKJnMYSgrv%2BQ9N9PazM9pV2cL%2Ba8%3D&sp=cw&spr=https&sr=b&sv=2020-12-06"
	if u.RawQuery != want || u.Host != "acct.blob.core.windows.net" || u.EscapedPath() != "/ci%20cache/project/1/a%20key/%C3%BC" {
		t.Errorf("got %s\nwant %s", u, want)
	}
	for what, c := range map[string]struct {
		got  *tranter.SignedRequest
		has  string
		perm string
	}{
		"download": {r.Download, "sv=", "sp=r&"},
		"block":    {&r.Upload.Parts.Part, "&comp=block&blockid={block}", "sp=cw&"},
		"list":     {r.Upload.Parts.Complete, "&comp=blocklist", "sp=cw&"},
	} {
		if got := c.got.URL.Reveal(); !strings.Contains(got, c.has) || !strings.Contains(got, c.perm) {
			t.Errorf("%s: %s", what, got)
		}
	}
	if h := r.Upload.Whole.Header; h["X-Ms-Blob-Type"] != "BlockBlob" || h["X-Ms-Meta-Cachekey"] == "" {
		t.Errorf("headers of the upload: %v", h)
	}
	if h := r.Upload.Parts.Complete.Header; h["X-Ms-Meta-Cachekey"] == "" || r.Upload.Parts.Protocol != tranter.PartsAzure {
		t.Errorf("headers of the completion: %v", h)
	}
}

func TestAzureStorageDomain(t *testing.T) {
	o := azureOptions()
	o.Domain = "blob.core.chinacloudapi.cn"
	if u, _ := azureUpload(t, NewAzure(o)); u.Host != "acct.blob.core.chinacloudapi.cn" {
		t.Errorf("host %s", u.Host)
	}
	o.Key = "no base64!"
	if _, err := NewAzure(o).Sign(t.Context(), Object{Name: "o", Download: true}, azureNow); err == nil || strings.Contains(err.Error(), "no base64!") {
		t.Errorf("got %v", err)
	}
}

// cloud is what there is of Azure when there is no account key: logins, machines, and the service that gives out keys.
type cloud struct {
	*httptest.Server
	t      *testing.T
	asked  []string
	expiry string
}

func newCloud(t *testing.T) *cloud {
	c := &cloud{t: t, expiry: "2026-03-01T14:00:00Z"}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	c.asked = append(c.asked, r.Host+r.URL.Path)
	switch {
	case r.URL.Query().Get("comp") == "userdelegationkey":
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "Bearer the-token" || r.Header.Get("X-Ms-Version") == "" || !strings.Contains(string(body), "<Start>2026-03-01T10:59:00Z</Start>") {
			c.t.Errorf("asked for a key with %v: %s", r.Header, body)
		}
		_, _ = io.WriteString(w, `<?xml version="1.0"?><UserDelegationKey><SignedOid>oid-1</SignedOid><SignedTid>tid-1</SignedTid><SignedStart>2026-03-01T10:00:00Z</SignedStart><SignedExpiry>`+c.expiry+`</SignedExpiry><SignedService>b</SignedService><SignedVersion>2020-12-06</SignedVersion><Value>ZGVsZWdhdGVkLWtleQ==</Value></UserDelegationKey>`)
	case r.Host == "login.microsoftonline.com" && r.URL.Path == "/tenant/oauth2/v2.0/token":
		ok := r.PostForm.Get("client_id") == "client" && r.PostForm.Get("scope") == "https://storage.azure.com/.default" &&
			(r.PostForm.Get("client_secret") == "cs" || r.PostForm.Get("client_assertion") == "workload")
		if !ok {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}`)
			return
		}
		_, _ = io.WriteString(w, `{"access_token":"the-token","expires_in":3600}`)
	case r.Host == "169.254.169.254" && r.Header.Get("Metadata") == "true" && r.URL.Query().Get("resource") == "https://storage.azure.com/":
		_, _ = io.WriteString(w, `{"access_token":"the-token","expires_in":"3600"}`)
	case r.Host == "app.internal" && r.Header.Get("X-Identity-Header") == "ih":
		_, _ = io.WriteString(w, `{"access_token":"the-token","expires_on":"1772370000"}`)
	default:
		http.NotFound(w, r)
	}
}

func TestAzureIdentities(t *testing.T) {
	for name, c := range map[string]struct {
		env   map[string]string
		asked string
	}{
		"application": {map[string]string{"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_SECRET": "cs"}, "login.microsoftonline.com/tenant/oauth2/v2.0/token"},
		"workload":    {map[string]string{"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_FEDERATED_TOKEN_FILE": "/token"}, "login.microsoftonline.com/tenant/oauth2/v2.0/token"},
		"machine":     {nil, "169.254.169.254/metadata/identity/oauth2/token"},
		"platform":    {map[string]string{"IDENTITY_ENDPOINT": "http://app.internal/msi", "IDENTITY_HEADER": "ih"}, "app.internal/msi"},
	} {
		t.Run(name, func(t *testing.T) {
			cloud := newCloud(t)
			o := azureOptions()
			o.Key = ""
			o.Client = &http.Client{Transport: detourTransport(cloud.URL)}
			o.Getenv = func(k string) string { return c.env[k] }
			o.Read = func(string) ([]byte, error) { return []byte("workload\n"), nil }
			a := NewAzure(o)
			u, _ := azureUpload(t, a)
			// Made once with Microsoft's own library, as above.
			const want = "se=2026-03-01T12%3A30%3A00Z&sig=W3gSmk7dpfae1pmISTGt1pkscqrkeCCXPKlX0Ln9iWw%3D&ske=2026-03-01T14%3A00%3A00Z&skoid=oid-1&sks=b&skt=2026-03-01T10%3A00%3A00Z&sktid=tid-1&skv=2020-12-06&sp=cw&spr=https&sr=b&sv=2020-12-06"
			if u.RawQuery != want {
				t.Errorf("got  %s\nwant %s", u.RawQuery, want)
			}
			azureUpload(t, a)
			if len(cloud.asked) != 2 || cloud.asked[0] != c.asked || cloud.asked[1] != "acct.blob.core.windows.net/" {
				t.Errorf("asked %q", cloud.asked)
			}
		})
	}
}

func TestAzureAsksForANewKeyWhenAJobOutlivesIt(t *testing.T) {
	cloud := newCloud(t)
	o := azureOptions()
	o.Key = ""
	o.Client = &http.Client{Transport: detourTransport(cloud.URL)}
	a := NewAzure(o)
	azureUpload(t, a)
	cloud.expiry = "2026-03-02T14:00:00Z"
	r, err := a.Sign(t.Context(), Object{Name: "o", Download: true}, azureNow.Add(10*time.Hour))
	if err != nil || !strings.Contains(r.Download.URL.Reveal(), "ske=2026-03-02") {
		t.Errorf("got %v, %v", r.Download, err)
	}
	if len(cloud.asked) != 3 { // the token still holds
		t.Errorf("asked %q", cloud.asked)
	}
}

func TestAzureRefusalsAreTold(t *testing.T) {
	o := azureOptions()
	o.Key = ""
	env := map[string]string{"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_SECRET": "secret-text"}
	o.Getenv = func(k string) string { return env[k] }
	o.Client = &http.Client{Transport: detourTransport(newCloud(t).URL)}
	_, err := NewAzure(o).Sign(t.Context(), Object{Name: "o", Download: true}, azureNow.Add(time.Hour))
	if err == nil || !strings.Contains(err.Error(), "AADSTS7000215") || strings.Contains(err.Error(), "secret-text") {
		t.Errorf("got %v", err)
	}
	o.Getenv = func(string) string { return "" }
	o.Client = &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) { return nil, errors.New("no route") })}
	if _, err := NewAzure(o).Sign(t.Context(), Object{Name: "o", Download: true}, azureNow.Add(time.Hour)); err == nil || !strings.Contains(err.Error(), "no AccountKey") {
		t.Errorf("got %v", err)
	}
}
