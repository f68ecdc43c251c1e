package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"sync"
)

//go:embed static templates
var embedded embed.FS

// assets are the files that pages need, packed once. Their addresses hold a hash of their content, so that a browser may keep them
// for good.
type assets struct {
	byURL map[string]*asset
	urls  map[string]string // by the path below static
}

type asset struct {
	kind   string
	plain  []byte
	packed func() []byte // once, for whoever wants it first
	tag    string
}

func newAssets() *assets {
	a := &assets{byURL: map[string]*asset{}, urls: map[string]string{}}
	files, err := fs.Sub(embedded, "static")
	if err != nil {
		panic(err) // it was built in
	}
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		hash := hex.EncodeToString(sum[:6])
		url := "/static/" + hash + "/" + name
		a.byURL[url] = &asset{kind: kindOf(name), plain: body, packed: sync.OnceValue(func() []byte { return packBest(body) }), tag: `"` + hash + `"`}
		a.urls[name] = url
		return nil
	})
	if err != nil {
		panic(err)
	}
	return a
}

func kindOf(name string) string {
	switch ext := path.Ext(name); ext {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	default:
		if kind := mime.TypeByExtension(ext); kind != "" {
			return kind
		}
		return "text/plain; charset=utf-8"
	}
}

func packBest(body []byte) []byte {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil
	}
	if _, err := z.Write(body); err != nil {
		return nil
	}
	if err := z.Close(); err != nil || b.Len() >= len(body) {
		return nil
	}
	return b.Bytes()
}

// url returns the address of a file below static; it panics when there is none, which the first page shows.
func (a *assets) url(name string) string {
	url, ok := a.urls[name]
	if !ok {
		panic("web: there is no static file " + name)
	}
	return url
}

// ServeHTTP serves a file.
func (a *assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	file, ok := a.byURL[r.URL.Path]
	if !ok {
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "There is no such file; it may be of another version: load the page anew.", http.StatusNotFound)
		return
	}
	to := w.Header()
	to.Set("Content-Type", file.kind)
	to.Set("Cache-Control", "public, max-age=31536000, immutable")
	to.Set("ETag", file.tag)
	if matches(r.Header.Get("If-None-Match"), file.tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	send(w, r, http.StatusOK, file.plain, file.packed())
}
