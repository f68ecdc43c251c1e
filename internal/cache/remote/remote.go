// Package remote lets jobs reach a distributed cache, in S3, Google Cloud Storage or Azure, without credentials: it signs
// the requests that a job may make for each archive of its phase, good for the job's time (runner contract, sections 7.3
// and 7.8).
//
// It moves no archives; the agent's package transfer makes the requests. Package main makes a Signer of a runner's
// configuration, package job calls it.
package remote

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tranter-ci/tranter"
)

// Object is an archive that is to be reached.
type Object struct {
	Name      string // in the bucket
	Key       string // of the cache, as the user knows it
	Download  bool
	Upload    bool
	MaxUpload int64 // bytes; 0: no limit
}

// Backend signs for one kind of storage. It is safe for concurrent use.
type Backend interface {
	// Sign returns the requests for an object, which hold until the given time or for as long as the storage allows. What
	// it begins at the storage, an upload in parts, it names by its Abort request.
	Sign(ctx context.Context, o Object, until time.Time) (tranter.RemoteArchive, error)
}

// aborter is a Backend whose uploads, once begun, stay until they are completed or undone.
type aborter interface {
	// abort undoes an upload. There being none any more is success.
	abort(ctx context.Context, r tranter.SignedRequest) error
}

// atOnce is how many objects are signed at the same time. Most backends need a request for each.
const atOnce = 8

// Signer fills phases with signed requests. It is safe for concurrent use.
type Signer struct{ backend Backend }

// New returns a signer for a storage.
func New(b Backend) *Signer { return &Signer{backend: b} }

// wanted is an object of a phase with the entries that it belongs to.
type wanted struct {
	object Object
	uses   []use
}

type use struct {
	entry  *tranter.CacheEntry
	index  int
	upload bool
}

// Sign fills in Remote of all caches of a phase that are in a distributed cache. Archives for which that fails are left
// without; the error says why, once for each reason.
func (s *Signer) Sign(ctx context.Context, phase *tranter.Phase, until time.Time) error {
	objects, err := collect(phase)
	faults := []error{err}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, w := range objects {
		group.Go(func() error {
			signed, err := s.backend.Sign(ctx, w.object, until)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				faults = append(faults, err)
				return nil // the others are still of use
			}
			w.fill(signed)
			return nil
		})
	}
	_ = group.Wait() // each fault is kept above
	for _, w := range objects {
		for _, u := range w.uses {
			dropEmpty(u.entry)
		}
	}
	return distinct(faults)
}

// collect returns the objects of a phase, each once, and makes room for their requests.
func collect(phase *tranter.Phase) ([]*wanted, error) {
	var all []*wanted
	var faults []error
	byName := map[string]*wanted{}
	add := func(entry *tranter.CacheEntry, upload bool) {
		if entry.Skip != "" || !distributed(entry.Store.Type) {
			return
		}
		entry.Remote = make([]tranter.RemoteArchive, len(entry.Objects))
		for i := range entry.Objects {
			name, err := objectName(entry, i)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			w := byName[name]
			if w == nil {
				w = &wanted{object: Object{Name: name, Key: entry.Key, Download: true}}
				byName[name] = w
				all = append(all, w)
			}
			if upload {
				w.object.Key, w.object.Upload, w.object.MaxUpload = entry.Key, true, entry.Store.MaxUpload
			}
			w.uses = append(w.uses, use{entry: entry, index: i, upload: upload})
		}
	}
	for i := range phase.Steps {
		if step := phase.Steps[i].Restore; step != nil {
			for j := range step.Caches {
				add(&step.Caches[j], false)
			}
		}
		if step := phase.Steps[i].Archive; step != nil {
			for j := range step.Caches {
				add(&step.Caches[j], true)
			}
		}
	}
	return all, errors.Join(faults...)
}

// distributed says whether this package signs for a type of store.
func distributed(kind string) bool {
	return slices.Contains([]string{"s3", "gcs", "azure", "builtin"}, kind)
}

// objectName returns the name of an entry's i-th archive in the bucket (runner contract, section 7.3). An archive whose
// key is hashed lies below the hash's first two digits.
func objectName(entry *tranter.CacheEntry, i int) (string, error) {
	key := entry.Objects[i]
	if len(entry.Names) > 0 && len(key) > 2 {
		key = key[:2] + "/" + key
	}
	name := path.Join(entry.Store.Prefix, key)
	if !strings.HasPrefix(name, strings.Trim(entry.Store.Prefix, "/")+"/") {
		return "", fmt.Errorf("the cache %q would lie outside the project's place in the bucket", entry.Key)
	}
	return name, nil
}

// fill gives the requests to the entries: only those who save get the upload.
func (w *wanted) fill(signed tranter.RemoteArchive) {
	for _, u := range w.uses {
		got := tranter.RemoteArchive{Download: signed.Download}
		if u.upload {
			got.Upload = signed.Upload
		}
		u.entry.Remote[u.index] = got
	}
}

// dropEmpty says of an entry of which nothing can be reached that there is no distributed cache.
func dropEmpty(entry *tranter.CacheEntry) {
	for _, r := range entry.Remote {
		if r.Download != nil || r.Upload != nil {
			return
		}
	}
	entry.Remote = nil
}

// distinct joins errors, leaving out those that say what another one says.
func distinct(faults []error) error {
	var out []error
	seen := map[string]bool{}
	for _, err := range faults {
		if err != nil && !seen[err.Error()] {
			seen[err.Error()] = true
			out = append(out, err)
		}
	}
	return errors.Join(out...)
}

// Abort undoes uploads that were begun by Sign, given by the Abort requests of their parts. One that was completed, or
// undone already, is fine. They are signed anew: the time of those in the phase may be over.
func (s *Signer) Abort(ctx context.Context, begun []tranter.SignedRequest) error {
	a, ok := s.backend.(aborter)
	if !ok {
		return nil
	}
	faults := make([]error, len(begun))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, r := range begun {
		group.Go(func() error {
			faults[i] = a.abort(ctx, r)
			return nil
		})
	}
	_ = group.Wait() // each fault is kept above
	return distinct(faults)
}

// metadataValue returns a cache's key as it can be sent in a header. HTTP trims and shortens spaces, and allows ASCII only.
func metadataValue(key string) string {
	plain := key == strings.Join(strings.Fields(key), " ")
	for _, c := range key {
		plain = plain && c >= ' ' && c < 0x7f
	}
	if plain {
		return key
	}
	return "=?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte(key)) + "?=" // RFC 2047, as S3 wants it
}
