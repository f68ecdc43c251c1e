//go:build !race

// The race detector drops what is pooled at random: this runs without it.

package allocs

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/archive"
	"github.com/tranter-ci/tranter/internal/gitlab"
	"github.com/tranter-ci/tranter/internal/joblog"
	"github.com/tranter-ci/tranter/internal/plan"
	"github.com/tranter-ci/tranter/internal/redact"
	"github.com/tranter-ci/tranter/internal/trace"
	"github.com/tranter-ci/tranter/internal/variables"
)

var update = flag.Bool("update", false, "write the baseline")

const baseline = "testdata/allocs.txt"

// path is something that is done often.
type path struct {
	name string
	// tolerance is by how many percent it may grow: more where goroutines take turns.
	tolerance int
	prepare   func(t *testing.T) (once func())
}

func paths() []path {
	return []path{
		{"redact 32 KiB, nothing to mask", 10, maskNothing},
		{"redact 32 KiB, much to mask", 10, maskMuch},
		{"compile the masking of 10 secrets", 10, compile},
		{"log 32 KiB with time stamps", 10, stamped},
		{"log a message", 10, message},
		{"append 4 KiB to the spool", 10, spool},
		{"send 1 MiB of the log", 10, sendLog},
		{"plan a job", 10, planJob},
		{"expand 100 variables", 10, expand},
		{"pack 200 small files, zip", 25, func(t *testing.T) func() { return pack(t, archive.Zip) }},
		{"pack 200 small files, tar.zst", 25, func(t *testing.T) func() { return pack(t, archive.TarZstd) }},
		{"ask GitLab for a job, both sides", 20, request},
		{"report to GitLab, both sides", 20, report},
	}
}

type cost struct{ count, bytes uint64 }

// measure returns what one turn allocates, at the least: what the runtime does beside it is not counted then.
func measure(once func()) cost {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which empties pools
	const turns = 8
	least := cost{count: ^uint64(0), bytes: ^uint64(0)}
	once()
	for range 8 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range turns {
			once()
		}
		runtime.ReadMemStats(&after)
		least.count = min(least.count, (after.Mallocs-before.Mallocs)/turns)
		least.bytes = min(least.bytes, (after.TotalAlloc-before.TotalAlloc)/turns)
	}
	return least
}

// allowed is what a path may take that has taken was: some more, and a little even where it was nothing.
func (p path) allowed(was cost) cost {
	share := func(n uint64) uint64 { return n + n*uint64(p.tolerance)/100 }
	return cost{share(was.count) + 2, share(was.bytes) + 256}
}

func TestHotPathsDoNotAllocateMore(t *testing.T) {
	before := map[string]cost{}
	if !*update {
		before = read(t)
	}
	var table strings.Builder
	for _, p := range paths() {
		got := measure(p.prepare(t))
		fmt.Fprintf(&table, "%d\t%d\t%s\n", got.count, got.bytes, p.name)
		was, ok := before[p.name]
		delete(before, p.name)
		switch most := p.allowed(was); {
		case *update:
		case !ok:
			t.Errorf("%s: not in %s; -update adds it", p.name, baseline)
		case got.count > most.count || got.bytes > most.bytes:
			t.Errorf("%s: %d allocations of %d bytes, it was %d of %d; -update accepts that", p.name, got.count, got.bytes, was.count, was.bytes)
		case p.allowed(got).count < was.count || p.allowed(got).bytes < was.bytes:
			t.Logf("%s: %d allocations of %d bytes, better than %d of %d; -update keeps that", p.name, got.count, got.bytes, was.count, was.bytes)
		}
	}
	for name := range before {
		t.Errorf("%s is in %s and not measured; -update removes it", name, baseline)
	}
	if *update {
		text := "# allocations, bytes and what they are for; go test ./bench/allocs -update writes this\n" + table.String()
		if err := os.WriteFile(baseline, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T) map[string]cost {
	t.Helper()
	f, err := os.Open(baseline)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]cost{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		fields := strings.SplitN(lines.Text(), "\t", 3)
		var c cost
		if _, err := fmt.Sscan(fields[0]+" "+fields[1], &c.count, &c.bytes); err != nil || len(fields) != 3 {
			t.Fatalf("%s: %q: %v", baseline, lines.Text(), err)
		}
		all[fields[2]] = c
	}
	return all
}

// The test notices what it is for.
func TestMoreAllocationsAreNoticed(t *testing.T) {
	var kept [][]byte
	some := func(n, size int) func() {
		return func() {
			kept = kept[:0]
			for range n {
				kept = append(kept, make([]byte, size))
			}
		}
	}
	p := path{tolerance: 10}
	was := measure(some(100, 100))
	for name, c := range map[string]struct {
		once func()
		ok   bool
	}{"same": {some(100, 100), true}, "more": {some(120, 100), false}, "larger": {some(100, 200), false}} {
		got, most := measure(c.once), p.allowed(was)
		if ok := got.count <= most.count && got.bytes <= most.bytes; ok != c.ok {
			t.Errorf("%s: %v after %v: %v", name, got, was, ok)
		}
	}
}

func secrets() []string {
	all := make([]string, 10)
	for i := range all {
		all[i] = fmt.Sprintf("s3cr3t-number-%d/with+more", i)
	}
	return all
}

func text(line string) []byte { return []byte(strings.Repeat(line, 32<<10/len(line))) }

func maskNothing(*testing.T) func() {
	w := redact.NewWriter(io.Discard, redact.Rules{Phrases: secrets()})
	p := text("[ 42%] Building CXX object src/module/file.cpp.o and a few words more\n")
	return func() { _, _ = w.Write(p) }
}

func maskMuch(*testing.T) func() {
	w := redact.NewWriter(io.Discard, redact.Rules{Phrases: secrets()})
	p := text("login with s3cr3t-number-3/with+more at ?private_token=abcdef and glpat-abcdef\n")
	return func() { _, _ = w.Write(p) }
}

func compile(*testing.T) func() {
	all := secrets()
	return func() { redact.Compile(redact.Rules{Phrases: all}) }
}

func log() *joblog.Log {
	f := tranter.LogFormat{Timestamps: true, Sections: true}
	for _, s := range secrets() {
		f.Phrases = append(f.Phrases, tranter.Secret(s))
	}
	return joblog.New(io.Discard, f, time.Now)
}

func stamped(*testing.T) func() {
	s := log().Stdout()
	p := text("short line\n")
	return func() { _, _ = s.Write(p) }
}

func message(*testing.T) func() {
	l := log()
	return func() { l.Plain("Checking cache for %s...", "default") }
}

type accepting struct{}

func (accepting) Append(_ context.Context, _ tranter.JobRef, offset int64, p []byte) (tranter.Answer, error) {
	return tranter.Answer{Next: offset + int64(len(p))}, nil
}

func (accepting) Update(context.Context, tranter.JobRef, tranter.Update) (tranter.Answer, error) {
	return tranter.Answer{Verdict: tranter.Accepted}, nil
}

func openTrace(t *testing.T) *trace.Trace {
	tr, err := trace.Open(trace.Options{Reporter: accepting{}, Path: filepath.Join(t.TempDir(), "spool"), Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

func spool(t *testing.T) func() {
	tr, p := openTrace(t), text("a line of the log\n")[:4<<10]
	return func() { _, _ = tr.Write(p) }
}

func sendLog(t *testing.T) func() {
	tr, p := openTrace(t), make([]byte, 1<<20)
	return func() {
		_, _ = tr.Write(p)
		must(t, tr.Finish(t.Context(), tranter.Result{State: tranter.JobSuccess}, nil))
	}
}

func job() *tranter.Job {
	j := &tranter.Job{
		ID: 7, Token: "glcbt-64_secretoken", AllowGitFetch: true,
		Info: tranter.JobInfo{Name: "test", Stage: "test", ProjectID: 3},
		Git: tranter.GitInfo{
			RepoURL: "https://gitlab.example.com/group/project.git", Ref: "main", SHA: "0123456789abcdef0123456789abcdef01234567",
			Refspecs: []string{"+refs/heads/main:refs/remotes/origin/main"}, Depth: 20,
		},
		Runner: tranter.RunnerInfo{Timeout: 3600},
		Steps:  []tranter.JobStep{{Name: "script", Script: []string{"make", "make test"}}, {Name: "after_script", Script: []string{"echo bye"}}},
		Variables: []tranter.Variable{
			{Key: "CI_PROJECT_PATH", Value: "group/project", Public: true}, {Key: "PASSWORD", Value: "hunter2-and-more", Masked: true},
		},
		Features: tranter.JobFeatures{TraceSections: true},
	}
	for i := range 100 {
		j.Variables = append(j.Variables, tranter.Variable{Key: fmt.Sprint("VARIABLE_", i), Value: fmt.Sprintf("$CI_PROJECT_PATH/%d/${VARIABLE_%d}", i, i/2-1), Public: true})
	}
	return j
}

func planJob(t *testing.T) func() {
	j := job()
	s := plan.Settings{
		Name: "builder", Executor: "shell", ServerURL: "https://gitlab.example.com", ShortToken: "abcdefghi", SystemID: "s_1",
		Dirs: plan.DirSettings{Builds: "/srv/builds", Cache: "/srv/cache", SharedBuilds: true}, Shell: "bash", OutputLimit: 4 << 20,
	}
	return func() {
		_, err := plan.Build(j, s, variables.Slots{})
		must(t, err)
	}
}

func expand(*testing.T) func() {
	l := variables.List(job().Variables)
	return func() { l.Expand("/tmp/x") }
}

type silent struct{}

func (silent) Plain(string, ...any)   {}
func (silent) Warning(string, ...any) {}

func pack(t *testing.T, format archive.Format) func() {
	dir := t.TempDir()
	for i := range 200 {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), text(fmt.Sprintf("file %d\n", i))[:3000], 0o644))
	}
	return func() {
		files, err := archive.Collect(t.Context(), dir, archive.Selection{Paths: []string{"*"}}, silent{})
		must(t, err)
		must(t, archive.Create(t.Context(), io.Discard, files, archive.Options{Format: format}, silent{}))
	}
}

// client is connected to a server that takes all reports and has no jobs. What the server allocates counts too.
func client(t *testing.T) *gitlab.Client {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	t.Cleanup(server.Close)
	c, err := gitlab.New(gitlab.Options{URL: server.URL, Token: "glrt-secret", SystemID: "s_1", Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	return c
}

func request(t *testing.T) func() {
	c := client(t)
	r := tranter.Request{Executor: "shell", Shell: "bash"}
	must(t, json.Unmarshal([]byte(`{"variables": true, "artifacts": true, "cache": true}`), &r.Features))
	return func() {
		_, err := c.Request(t.Context(), r)
		must(t, err)
	}
}

func report(t *testing.T) func() {
	c := client(t)
	return func() {
		_, err := c.Update(t.Context(), tranter.JobRef{ID: 7, Token: "glcbt-64_x"}, tranter.Update{State: tranter.JobRunning, LogBytes: 9, Checksum: "crc32:00000000"})
		must(t, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
