// Command archive measures artifacts: packing and uploading, downloading and unpacking, as a job does them. The built
// agent works through a phase of one step; the server on loopback is another process, so its time and memory do not
// count. Run it with: make bench-archive
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tranter-ci/tranter"
)

func main() {
	program := flag.String("program", "bin/tranter", "the built program")
	dir := flag.String("dir", "", "where the files are made; empty: the system's temporary directory")
	repeat := flag.Int("n", 3, "runs of each measurement; the median and the range are printed")
	megabytes := flag.Int("mb", 1000, "size of the one large file in MB")
	files := flag.Int("files", 50_000, "number of small files")
	level := flag.String("level", "", "ARTIFACT_COMPRESSION_LEVEL")
	format := flag.String("format", "zip", "of the artifacts: zip, zipzstd, tarzstd")
	serve := flag.String("serve", "", "be the server that keeps the last upload in this file")
	flag.Parse()
	var err error
	if *serve != "" {
		err = server(*serve)
	} else {
		err = measure(&bench{program: *program, dir: *dir, repeat: *repeat, level: *level, format: *format}, *megabytes, *files)
	}
	if err != nil {
		log.Fatal(err)
	}
}

type bench struct {
	program, dir, level, format string
	repeat                      int
	url                         string
	archive                     string // what the server has kept
}

func measure(b *bench, megabytes, files int) error {
	var err error
	if b.program, err = filepath.Abs(b.program); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(b.dir, "bench-archive-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.archive = filepath.Join(b.dir, "kept")
	stop, err := b.startServer()
	if err != nil {
		return err
	}
	defer stop()
	fmt.Printf("%s, %d processors, format %s, level %s\n", runtime.Version(), runtime.NumCPU(), b.format, cmp.Or(b.level, "default"))
	fmt.Println("| what | wall s | user+sys s | peak RSS MB | archive MB |")
	fmt.Println("|---|---|---|---|---|")
	for i, set := range []struct {
		name string
		fill func(dir string) error
	}{
		{fmt.Sprintf("%d MB in one file, incompressible", megabytes), func(dir string) error { return oneFile(dir, megabytes) }},
		{fmt.Sprintf("%d files of 3 KB", files), func(dir string) error { return manyFiles(dir, files) }},
	} {
		project := filepath.Join(b.dir, fmt.Sprintf("project-%d", i))
		if err := set.fill(project); err != nil {
			return err
		}
		if err := b.upload(set.name, project); err != nil {
			return err
		}
		if err := b.download(set.name, project); err != nil {
			return err
		}
	}
	return nil
}

// startServer starts this program as the server and returns how to end it.
func (b *bench) startServer() (func(), error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-serve", b.archive)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, err
	}
	b.url = "http://" + strings.TrimSpace(line)
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}, nil
}

// server answers as GitLab does. It keeps an upload only if it is of type "keep".
func server(path string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v4/jobs/{id}/artifacts", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })
	mux.HandleFunc("POST /api/v4/jobs/{id}/artifacts", func(w http.ResponseWriter, r *http.Request) {
		if err := receive(r, path); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
	return (&http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}).Serve(l)
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

func oneFile(dir string, megabytes int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "data.bin"))
	if err != nil {
		return err
	}
	noise := rand.NewChaCha8([32]byte{1})
	_, err = io.CopyN(f, noise, int64(megabytes)*1_000_000)
	return errors.Join(err, f.Close())
}

// manyFiles makes files of words, 100 in each directory. They shrink to about half.
func manyFiles(dir string, files int) error {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same files each time
	var text strings.Builder
	for i := range files {
		sub := filepath.Join(dir, "src", fmt.Sprintf("package-%03d", i/100))
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		text.Reset()
		for text.Len() < 3000 {
			fmt.Fprintf(&text, "const value%d = %q // line of file %d\n", random.IntN(1_000_000), fmt.Sprintf("%x", random.Uint64()), i)
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file_%05d.js", i)), []byte(text.String()[:3000]), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) upload(name, project string) error {
	art := tranter.Artifact{Name: "bench", Paths: []string{"."}, Type: "archive", Format: b.format}
	step := func(kind string) tranter.Step {
		a := art
		a.Type = kind
		return tranter.Step{Name: "upload_artifacts_on_success", When: tranter.OnSuccess, Upload: &tranter.UploadStep{Artifacts: []tranter.Artifact{a}}}
	}
	if _, err := b.phase(project, step("keep")); err != nil { // for the download, and to have all in the page cache
		return err
	}
	return b.runs("pack and upload, "+name, step("archive"), func() (string, error) { return project, nil })
}

// download unpacks into another directory each time, and nothing is removed before the end: ext4 is slow to make files
// for minutes after many were removed.
func (b *bench) download(name, project string) error {
	step := tranter.Step{Name: "download_artifacts", When: tranter.OnSuccess, Download: &tranter.DownloadStep{Dependencies: []tranter.Dependency{
		{ID: 1, Token: "t", Name: "bench", File: &tranter.DependencyFile{Filename: "bench.zip"}},
	}}}
	n := 0
	return b.runs("download and unpack, "+name, step, func() (string, error) {
		n++
		dir := fmt.Sprintf("%s-%d", project, n)
		return dir, os.MkdirAll(dir, 0o755)
	})
}

type figures struct{ wall, cpu, rss float64 }

func (b *bench) runs(name string, step tranter.Step, where func() (project string, err error)) error {
	var all []figures
	for range b.repeat {
		project, err := where()
		if err != nil {
			return err
		}
		f, err := b.phase(project, step)
		if err != nil {
			return err
		}
		all = append(all, f)
	}
	size := 0.0
	if info, err := os.Stat(b.archive); err == nil {
		size = float64(info.Size()) / 1e6
	}
	show := func(get func(figures) float64) string {
		var v []float64
		for _, f := range all {
			v = append(v, get(f))
		}
		slices.Sort(v)
		return fmt.Sprintf("%.2f [%.2f..%.2f]", v[len(v)/2], v[0], v[len(v)-1])
	}
	fmt.Printf("| %s | %s | %s | %s | %.1f |\n", name, show(func(f figures) float64 { return f.wall }),
		show(func(f figures) float64 { return f.cpu }), show(func(f figures) float64 { return f.rss }), size)
	return nil
}

// phase lets the agent work through a phase of one step.
func (b *bench) phase(project string, step tranter.Step) (figures, error) {
	dir, err := os.MkdirTemp(b.dir, "phase-")
	if err != nil {
		return figures{}, err
	}
	defer os.RemoveAll(dir)
	p := tranter.Phase{
		ID: "1", JobID: 1, Shell: "sh", JobToken: "t", Server: tranter.Server{URL: b.url}, Steps: []tranter.Step{step},
		Dirs: tranter.Dirs{Builds: b.dir, Project: project, Temp: project + ".tmp", Cache: filepath.Join(b.dir, "cache")},
	}
	if b.level != "" {
		p.Variables = []tranter.Variable{{Key: "ARTIFACT_COMPRESSION_LEVEL", Value: b.level}}
	}
	data, err := json.Marshal(p)
	if err != nil {
		return figures{}, err
	}
	if err := os.WriteFile(filepath.Join(dir, "phase.json"), data, 0o600); err != nil {
		return figures{}, err
	}
	cmd := exec.Command(b.program, "agent", "run", dir)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return figures{}, err
	}
	wall := time.Since(began)
	var result tranter.PhaseResult
	if data, err = os.ReadFile(filepath.Join(dir, "result.json")); err == nil {
		err = json.Unmarshal(data, &result)
	}
	if err != nil || result.Status != tranter.PhaseSucceeded {
		journal, _ := os.ReadFile(filepath.Join(dir, "journal"))
		return figures{}, fmt.Errorf("the phase failed: %v %+v\n%s", err, result, journal)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return figures{}, errors.New("the system does not tell what a process used")
	}
	return figures{
		wall: wall.Seconds(), cpu: (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), rss: float64(usage.Maxrss) * 1024 / 1e6,
	}, nil
}
