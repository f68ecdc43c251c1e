// Command cache measures caches of type builtin: packing and uploading, downloading and unpacking, as a job does them. The
// built agent works through a phase of one step; the store is served by another process, so its time and memory do not
// count. Run it with: make bench-cache
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
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
	"github.com/tranter-ci/tranter/internal/cache/builtin"
	"github.com/tranter-ci/tranter/internal/cache/remote"
)

func main() {
	program := flag.String("program", "bin/tranter", "the built program")
	dir := flag.String("dir", "", "where the files are made; empty: the system's temporary directory")
	repeat := flag.Int("n", 3, "runs of each measurement; the median and the range are printed")
	megabytes := flag.Int("mb", 1000, "size of the one large file in MB")
	files := flag.Int("files", 50_000, "number of small files")
	level := flag.String("level", "", "CACHE_COMPRESSION_LEVEL")
	format := flag.String("format", "zip", "of the caches: zip, zipzstd, tarzstd")
	serve := flag.String("serve", "", "be the server of the store in this directory")
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
	archive                     string // directory of the store
	n                           int
}

// key signs: the store is nobody's but ours.
func key() []byte { return []byte("the key of a store for measurements") }

func measure(b *bench, megabytes, files int) error {
	var err error
	if b.program, err = filepath.Abs(b.program); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(b.dir, "bench-cache-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	b.archive = filepath.Join(b.dir, "kept")
	stop, err := b.startServer()
	if err != nil {
		return err
	}
	defer stop()
	fmt.Printf("%s, %d processors, format %s, level %s\n", runtime.Version(), runtime.NumCPU(), b.format, cmp.Or(b.level, "default"))
	fmt.Println("| what | wall s | user+sys s | peak RSS MB |")
	fmt.Println("|---|---|---|---|")
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

// server serves the store, and says where.
func server(dir string) error {
	store, err := builtin.Open(builtin.Options{Dir: dir, Key: key(), Log: slog.Default()})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return (&http.Server{Handler: store, ReadHeaderTimeout: time.Minute}).Serve(l)
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

// entry is a cache of the whole project.
func (b *bench) entry(object string) (tranter.CacheEntry, error) {
	o := remote.Object{Name: "project/1/" + object, Download: true, Upload: true}
	a, err := builtin.NewSigner(b.url, key()).Sign(context.Background(), o, time.Now().Add(time.Hour))
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
	if _, err := b.phase(project, s); err != nil { // to have all in the page cache
		return err
	}
	return b.runs("pack and upload, "+name, func() (string, tranter.Step, error) {
		s, err := step()
		return project, s, err
	})
}

// download unpacks into another directory each time, of a machine that has nothing of the cache.
func (b *bench) download(name, project string) error {
	n := 0
	return b.runs("download and unpack, "+name, func() (string, tranter.Step, error) {
		n++
		dir := fmt.Sprintf("%s-%d", project, n)
		c, err := b.entry(fmt.Sprint(name, b.n))
		step := tranter.Step{Name: "restore_cache", When: tranter.OnSuccess, Restore: &tranter.RestoreStep{Caches: []tranter.CacheEntry{c}}}
		return dir, step, errors.Join(err, os.RemoveAll(filepath.Join(b.dir, "cache")), os.MkdirAll(dir, 0o755))
	})
}

type figures struct{ wall, cpu, rss float64 }

func (b *bench) runs(name string, next func() (project string, step tranter.Step, err error)) error {
	var all []figures
	for range b.repeat {
		project, step, err := next()
		if err != nil {
			return err
		}
		f, err := b.phase(project, step)
		if err != nil {
			return err
		}
		all = append(all, f)
	}
	show := func(get func(figures) float64) string {
		var v []float64
		for _, f := range all {
			v = append(v, get(f))
		}
		slices.Sort(v)
		return fmt.Sprintf("%.2f [%.2f..%.2f]", v[len(v)/2], v[0], v[len(v)-1])
	}
	fmt.Printf("| %s | %s | %s | %s |\n", name, show(func(f figures) float64 { return f.wall }),
		show(func(f figures) float64 { return f.cpu }), show(func(f figures) float64 { return f.rss }))
	return nil
}

// phase lets the agent work through a phase of one step.
func (b *bench) phase(project string, step tranter.Step) (figures, error) {
	dir, err := os.MkdirTemp(b.dir, "phase-")
	if err != nil {
		return figures{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	p := tranter.Phase{
		ID: "1", JobID: 1, Shell: "sh", JobToken: "t", Server: tranter.Server{URL: b.url}, Steps: []tranter.Step{step},
		Dirs: tranter.Dirs{Builds: b.dir, Project: project, Temp: project + ".tmp", Cache: filepath.Join(b.dir, "cache")},
	}
	p.Variables = []tranter.Variable{{Key: "CACHE_COMPRESSION_LEVEL", Value: b.level}, {Key: "CACHE_COMPRESSION_FORMAT", Value: b.format}}
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
	journal, _ := os.ReadFile(filepath.Join(dir, "journal"))
	if err != nil || result.Status != tranter.PhaseSucceeded || strings.Contains(string(journal), "WARNING") {
		return figures{}, fmt.Errorf("the phase failed: %+v: %w\n%s", result, cmp.Or(err, errors.New("see its log")), journal)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return figures{}, errors.New("the system does not tell what a process used")
	}
	return figures{
		wall: wall.Seconds(), cpu: (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), rss: float64(usage.Maxrss) * 1024 / 1e6,
	}, nil
}
