// Package blob moves one archive between the machine of a job and a storage that speaks HTTP, by requests that the
// manager has signed: in parts, several at a time, each of which is repeated by itself from where it broke off.
//
// It knows no vendor's library, no credentials and nothing of what an archive holds. A signed URL is a secret: no error
// and no message of this package has one; at most the storage's host is named. Package transfer uses it.
package blob

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/tranter-ci/tranter"
)

// Defaults of Options.
const (
	defaultChunk       = 16 << 20 // the contract's CACHE_CHUNK_SIZE
	defaultConcurrency = 16       // the contract's CACHE_CONCURRENCY
	defaultBuffer      = 128 << 10
	defaultTimeout     = 10 * time.Minute // the contract's CACHE_REQUEST_TIMEOUT
	defaultPatience    = 30 * time.Second
	defaultWait        = 250 * time.Millisecond
	defaultStall       = time.Minute
	// memory bounds what parts of an upload take: an agent has at most 64 MiB, and packs meanwhile.
	memory = 24 << 20
)

// Options say how to transfer. The zero value of each means its default.
type Options struct {
	Chunk       int64         // bytes of a part of a download
	Concurrency int           // parts at a time; uploads take fewer, as their memory is bounded
	Buffer      int           // bytes that are read at once
	Timeout     time.Duration // of one request
	Patience    time.Duration // without any progress after which a transfer is given up
	Wait        time.Duration // before the second try; doubled for each further one, up to 5 s
	Stall       time.Duration // without a byte after which a connection is given up
	// CA is PEM text of certificates that are trusted besides the system's.
	CA string
	// Warn is told about what goes wrong and is tried again; nil: nobody is.
	Warn func(format string, args ...any)
}

// Client transfers archives. Its methods may be called at the same time.
type Client struct {
	opt  Options
	http *http.Client
	// tired is set once a storage could not be reached for all of the patience: further transfers are tried once.
	tired atomic.Bool
}

// Object describes a stored archive.
type Object struct {
	Size    int64     // -1: unknown
	ModTime time.Time // zero: unknown
	Tag     string    // ETag, with its quotes; empty: unknown
	Key     string    // the cache's key as the user knows it, from the object's metadata
	sum     []byte    // SHA-256 of the content, if the storage tells it
}

// Errors of transfers. Missing objects are tranter.ErrNotFound, those over a limit tranter.ErrTooLarge.
var (
	ErrNotModified = errors.New("the stored archive is not newer")
	ErrDamaged     = errors.New("the stored archive is damaged")
)

var errReplaced = errors.New("the stored archive was replaced while it was downloaded")

// New returns a client. Close it.
func New(o Options) *Client {
	o.Chunk = cmp.Or(max(o.Chunk, 0), defaultChunk)
	o.Concurrency = cmp.Or(max(o.Concurrency, 0), defaultConcurrency)
	o.Buffer = cmp.Or(max(o.Buffer, 0), defaultBuffer)
	o.Timeout = cmp.Or(max(o.Timeout, 0), defaultTimeout)
	o.Patience = cmp.Or(max(o.Patience, 0), defaultPatience)
	o.Wait = cmp.Or(max(o.Wait, 0), defaultWait)
	o.Stall = cmp.Or(max(o.Stall, 0), defaultStall)
	if o.Warn == nil {
		o.Warn = func(string, ...any) {}
	}
	return &Client{opt: o, http: &http.Client{Transport: transport(o)}}
}

// transport speaks HTTP/1.1 only: parts at the same time are to have connections, and so windows, of their own.
func transport(o Options) *http.Transport {
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: o.Concurrency,
		IdleConnTimeout:     30 * time.Second,
		DisableCompression:  true,
		WriteBufferSize:     64 << 10,
		ReadBufferSize:      64 << 10,
		Protocols:           new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	if o.CA != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		pool.AppendCertsFromPEM([]byte(o.CA))
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return t
}

// Close gives connections back. No transfer may be under way.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Host returns the host that a request goes to, which is no secret.
func Host(r *tranter.SignedRequest) string {
	if r == nil {
		return ""
	}
	u, err := url.Parse(r.URL.Reveal())
	if err != nil {
		return ""
	}
	return u.Host
}

// Stat describes the archive that get downloads, at the cost of one byte of it.
func (c *Client) Stat(ctx context.Context, get *tranter.SignedRequest) (Object, error) {
	var obj Object
	err := c.persist(ctx, func(ctx context.Context) (bool, error) {
		resp, err := c.get(ctx, get, span{0, 1}, nil)
		if err != nil {
			return false, err
		}
		defer resp.done()
		obj = describe(resp.Response)
		return true, nil
	})
	return obj, err
}
