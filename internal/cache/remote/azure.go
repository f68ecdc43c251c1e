package remote

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/tranter-ci/tranter"
)

// AzureOptions say how to reach a container: [runners.cache.azure].
type AzureOptions struct {
	Account   string
	Key       tranter.Secret // empty: the identity of the environment or the machine is used
	Container string
	Domain    string // empty: blob.core.windows.net

	Client *http.Client                 // for the manager's own requests; nil: one with a time limit
	Getenv func(string) string          // nil: os.Getenv
	Now    func() time.Time             // nil: time.Now
	Read   func(string) ([]byte, error) // a file; nil: os.ReadFile
}

// Azure signs for a container in Azure Blob Storage. It is safe for concurrent use.
type Azure struct {
	options  AzureOptions
	http     caller
	identity *identity

	mu  sync.Mutex
	key delegationKey
}

const (
	// sasVersion is the version of the service that requests are signed for, and with that the form of the signature.
	sasVersion = "2020-12-06"
	sasTime    = "2006-01-02T15:04:05Z"
	// azureWhole is what the service takes in one request.
	azureWhole = 5000 << 20
)

// NewAzure returns the backend of a container.
func NewAzure(o AzureOptions) *Azure {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Read == nil {
		o.Read = os.ReadFile
	}
	o.Domain = cmp.Or(o.Domain, "blob.core.windows.net")
	c := newCaller(o.Client)
	return &Azure{options: o, http: c, identity: &identity{getenv: o.Getenv, read: o.Read, now: o.Now, http: c}}
}

// Sign implements Backend. A shared access signature is for a blob and what may be done with it, not for one request.
func (a *Azure) Sign(ctx context.Context, o Object, until time.Time) (tranter.RemoteArchive, error) {
	var out tranter.RemoteArchive
	if o.Download {
		address, err := a.address(ctx, o.Name, "r", until)
		if err != nil {
			return out, err
		}
		out.Download = &tranter.SignedRequest{Method: http.MethodGet, URL: tranter.Secret(address)}
	}
	if !o.Upload {
		return out, nil
	}
	address, err := a.address(ctx, o.Name, "cw", until)
	if err != nil {
		return out, err
	}
	key := metadataValue(o.Key)
	out.Upload = &tranter.RemoteUpload{
		Whole: &tranter.SignedRequest{Method: http.MethodPut, URL: tranter.Secret(address), Header: map[string]string{
			"Content-Type": contentType, "X-Ms-Blob-Type": "BlockBlob", "X-Ms-Meta-Cachekey": key,
		}},
		WholeLimit: azureWhole,
		Parts: &tranter.PartUpload{
			Protocol: tranter.PartsAzure, PartBytes: partBytes,
			Part: tranter.SignedRequest{Method: http.MethodPut, URL: tranter.Secret(address + "&comp=block&blockid={block}")},
			Complete: &tranter.SignedRequest{Method: http.MethodPut, URL: tranter.Secret(address + "&comp=blocklist"), Header: map[string]string{
				"X-Ms-Blob-Content-Type": contentType, "X-Ms-Meta-Cachekey": key,
			}},
		},
	}
	return out, nil
}

// address returns that of a blob, with a signature for what permissions says.
func (a *Azure) address(ctx context.Context, object, permissions string, until time.Time) (string, error) {
	o := a.options
	now := o.Now()
	until = now.Add(time.Duration(lifetime(now, until)) * time.Second)
	query := url.Values{"sv": {sasVersion}, "sr": {"b"}, "sp": {permissions}, "se": {until.UTC().Format(sasTime)}, "spr": {"https"}}
	key := o.Key
	var delegation []string
	if key == "" {
		d, err := a.delegation(ctx, until)
		if err != nil {
			return "", fmt.Errorf("get credentials for Azure: %w", err)
		}
		key = d.Value
		delegation = []string{d.SignedOid, d.SignedTid, d.SignedStart, d.SignedExpiry, d.SignedService, d.SignedVersion}
		for i, name := range []string{"skoid", "sktid", "skt", "ske", "sks", "skv"} {
			query.Set(name, delegation[i])
		}
	}
	secret, err := base64.StdEncoding.DecodeString(key.Reveal())
	if err != nil {
		return "", errors.New("sign a request to Azure: the account's key is not in base64")
	}
	fields := []string{permissions, "", query.Get("se"), "/blob/" + o.Account + "/" + o.Container + "/" + object}
	if delegation == nil {
		fields = append(fields, "") // no stored policy
	} else {
		fields = append(fields, delegation...)
		fields = append(fields, "", "", "") // no other user's identity, no correlation
	}
	// No address range; no snapshot, no encryption scope, no headers of the answer.
	fields = append(fields, "", "https", sasVersion, "b", "", "", "", "", "", "", "")
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(strings.Join(fields, "\n")))
	query.Set("sig", base64.StdEncoding.EncodeToString(h.Sum(nil)))
	return a.service() + escapePath("/"+o.Container+"/"+object) + "?" + query.Encode(), nil
}

func (a *Azure) service() string { return "https://" + a.options.Account + "." + a.options.Domain }

// delegationKey is a key that the service gives to an identity, in place of the account's.
type delegationKey struct {
	SignedOid, SignedTid      string
	SignedStart, SignedExpiry string
	SignedService             string
	SignedVersion             string
	Value                     tranter.Secret
}

// delegation returns a key that holds until the given time. The lock is held while it is asked for: all who wait want the
// same answer.
func (a *Azure) delegation(ctx context.Context, until time.Time) (delegationKey, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if end, err := time.Parse(sasTime, a.key.SignedExpiry); err == nil && !end.Before(until) {
		return a.key, nil
	}
	token, err := a.identity.token(ctx)
	if err != nil {
		return delegationKey{}, err
	}
	now := a.options.Now().UTC()
	// The clocks may differ, and the next jobs can use it too. A week is the longest.
	end := min(until.Sub(now)+time.Hour, maxLifetime-time.Minute)
	info := "<KeyInfo><Start>" + now.Add(-time.Minute).Format(sasTime) + "</Start><Expiry>" + now.Add(max(end, 0)).Format(sasTime) + "</Expiry></KeyInfo>"
	body, err := a.http.do(ctx, func() (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.service()+"/?restype=service&comp=userdelegationkey", strings.NewReader(info))
		if err != nil {
			return nil, fmt.Errorf("make a request to Azure: %w", err)
		}
		req.Header.Set("X-Ms-Version", sasVersion)
		req.Header.Set("Content-Type", "application/xml")
		req.Header.Set("Authorization", "Bearer "+token)
		return req, nil
	})
	if err != nil {
		return delegationKey{}, fmt.Errorf("ask for a key of the account %s: %w", a.options.Account, err)
	}
	var key delegationKey
	if err := xml.NewDecoder(bytes.NewReader(body)).Decode(&key); err != nil || key.Value == "" {
		return delegationKey{}, errors.New("the answer to the request for a key holds none")
	}
	a.key = key
	return key, nil
}
