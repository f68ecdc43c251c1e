// Command cache measures caches of type builtin: packing and uploading, downloading and unpacking, as a job does them. The
// built agent works through a phase of one step; the store is served by another process, so its time and memory do not
// count. Run it with: make bench-cache
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/bench/measure"
	"github.com/tranter-ci/tranter/internal/cache/builtin"
	"github.com/tranter-ci/tranter/internal/cache/remote"
)

func main() {
	b := &bench{Transfer: measure.NewTransfer("CACHE_COMPRESSION_LEVEL", "caches", "be the server of the store in this directory")}
	flag.Parse()
	b.Variables = []tranter.Variable{{Key: "CACHE_COMPRESSION_LEVEL", Value: b.Level}, {Key: "CACHE_COMPRESSION_FORMAT", Value: b.Format}}
	if err := b.Main(server, b.measure); err != nil {
		log.Fatal(err)
	}
}

type bench struct {
	*measure.Transfer
	n int // of the last object
}

// key signs: the store is nobody's but ours.
func key() []byte { return []byte("the key of a store for measurements") }

func (b *bench) measure(name, project string) error {
	if err := b.upload(name, project); err != nil {
		return err
	}
	return b.download(name, project)
}

// server serves the store in dir.
func server(dir string) (http.Handler, error) {
	return builtin.Open(builtin.Options{Dir: dir, Key: key(), Log: slog.Default()})
}

// entry is a cache of the whole project.
func (b *bench) entry(object string) (tranter.CacheEntry, error) {
	o := remote.Object{Name: "project/1/" + object, Download: true, Upload: true}
	a, err := builtin.NewSigner(b.URL, key()).Sign(context.Background(), o, time.Now().Add(time.Hour))
	return tranter.CacheEntry{
		Key: object, Objects: []string{object}, Paths: []string{"."}, Remote: []tranter.RemoteArchive{a},
		Store: tranter.CacheStore{Type: "builtin", Prefix: "project/1"},
	}, err
}

// upload packs and uploads as another object each time: what has not changed is not uploaded again.
func (b *bench) upload(name, project string) error {
	step := func() (tranter.Step, error) {
		b.n++
		c, err := b.entry(fmt.Sprint(name, b.n))
		return tranter.Step{Name: "archive_cache", When: tranter.OnSuccess, Archive: &tranter.ArchiveStep{Caches: []tranter.CacheEntry{c}}}, err
	}
	s, err := step()
	if err != nil {
		return err
	}
	if _, err := b.Phase(project, s); err != nil { // to have all in the page cache
		return err
	}
	return b.Runs("pack and upload, "+name, func() (string, tranter.Step, error) {
		s, err := step()
		return project, s, err
	})
}

// download unpacks into another directory each time, of a machine that has nothing of the cache.
func (b *bench) download(name, project string) error {
	n := 0
	return b.Runs("download and unpack, "+name, func() (string, tranter.Step, error) {
		n++
		dir := fmt.Sprintf("%s-%d", project, n)
		c, err := b.entry(fmt.Sprint(name, b.n))
		step := tranter.Step{Name: "restore_cache", When: tranter.OnSuccess, Restore: &tranter.RestoreStep{Caches: []tranter.CacheEntry{c}}}
		return dir, step, errors.Join(err, os.RemoveAll(filepath.Join(b.Dir, "cache")), os.MkdirAll(dir, 0o755))
	})
}
