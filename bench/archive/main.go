// Command archive measures artifacts: packing and uploading, downloading and unpacking, as a job does them. The built
// agent works through a phase of one step; the server on loopback is another process, so its time and memory do not
// count. Run it with: make bench-archive
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net/http"
	"os"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/bench/measure"
)

func main() {
	b := bench{measure.NewTransfer("ARTIFACT_COMPRESSION_LEVEL", "artifacts", "be the server that keeps the last upload in this file")}
	flag.Parse()
	if b.Level != "" {
		b.Variables = []tranter.Variable{{Key: "ARTIFACT_COMPRESSION_LEVEL", Value: b.Level}}
	}
	if err := b.Main(server, b.measure, "archive MB"); err != nil {
		log.Fatal(err)
	}
}

type bench struct{ *measure.Transfer }

func (b bench) measure(name, project string) error {
	if err := b.upload(name, project); err != nil {
		return err
	}
	return b.download(name, project)
}

// server answers as GitLab does. It keeps an upload only if it is of type "keep".
func server(path string) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v4/jobs/{id}/artifacts", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })
	mux.HandleFunc("POST /api/v4/jobs/{id}/artifacts", func(w http.ResponseWriter, r *http.Request) {
		if err := receive(r, path); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
	return mux, nil
}

func receive(r *http.Request, path string) error {
	if r.URL.Query().Get("artifact_type") != "keep" {
		_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, make([]byte, 1<<20))
		return err
	}
	form, err := r.MultipartReader()
	if err != nil {
		return err
	}
	var part *multipart.Part
	if part, err = form.NextPart(); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, part)
	return errors.Join(err, f.Close())
}

func (b bench) upload(name, project string) error {
	step := func(kind string) tranter.Step {
		art := tranter.Artifact{Name: "bench", Paths: []string{"."}, Type: kind, Format: b.Format}
		return tranter.Step{Name: "upload_artifacts_on_success", When: tranter.OnSuccess, Upload: &tranter.UploadStep{Artifacts: []tranter.Artifact{art}}}
	}
	if _, err := b.Phase(project, step("keep")); err != nil { // for the download, and to have all in the page cache
		return err
	}
	return b.runs("pack and upload, "+name, func() (string, tranter.Step, error) { return project, step("archive"), nil })
}

// download unpacks into another directory each time, and nothing is removed before the end: ext4 is slow to make files
// for minutes after many were removed.
func (b bench) download(name, project string) error {
	step := tranter.Step{Name: "download_artifacts", When: tranter.OnSuccess, Download: &tranter.DownloadStep{Dependencies: []tranter.Dependency{
		{ID: 1, Token: "t", Name: "bench", File: &tranter.DependencyFile{Filename: "bench.zip"}},
	}}}
	n := 0
	return b.runs("download and unpack, "+name, func() (string, tranter.Step, error) {
		n++
		dir := fmt.Sprintf("%s-%d", project, n)
		return dir, step, os.MkdirAll(dir, 0o755)
	})
}

// runs says also how large the archive is.
func (b bench) runs(name string, next func() (project string, step tranter.Step, err error)) error {
	info, err := os.Stat(b.Kept)
	if err != nil {
		return err
	}
	return b.Runs(name, next, fmt.Sprintf("%.1f", float64(info.Size())/1e6))
}
