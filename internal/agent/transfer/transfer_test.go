package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/archive"
	"github.com/tranter-ci/tranter/internal/agent/env"
	"github.com/tranter-ci/tranter/internal/joblog"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// job is a job's environment in a directory of its own.
type job struct {
	*env.Env
	out bytes.Buffer
}

func newJob(t testing.TB, environ ...string) *job {
	t.Helper()
	base := t.TempDir()
	j := &job{}
	dirs := tranter.Dirs{
		Builds: filepath.Join(base, "builds"), Project: filepath.Join(base, "builds/g/p"),
		Temp: filepath.Join(base, "builds/g/p.tmp"), Cache: filepath.Join(base, "cache/g/p"),
	}
	must(t, os.MkdirAll(dirs.Project, 0o755))
	j.Env = &env.Env{
		Phase:   &tranter.Phase{JobID: 42, JobToken: "glcbt-64_secretsecret", Dirs: dirs},
		Log:     joblog.New(&j.out, tranter.LogFormat{}, time.Now),
		Environ: append(os.Environ(), environ...),
		Exec: func(ctx context.Context, cmd *exec.Cmd) error {
			if err := cmd.Start(); err != nil {
				return err
			}
			stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
			defer stop()
			return cmd.Wait()
		},
	}
	return j
}

func (j *job) write(t testing.TB, name, content string) {
	t.Helper()
	path := filepath.Join(j.Dirs().Project, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(content), 0o644))
	earlier := time.Now().Add(-time.Minute) // not in the second in which a test makes an archive
	must(t, os.Chtimes(path, earlier, earlier))
}

func (j *job) read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(j.Dirs().Project, name))
	if errors.Is(err, os.ErrNotExist) {
		return "(none)"
	}
	must(t, err)
	return string(b)
}

func (j *job) clean(t testing.TB) {
	t.Helper()
	must(t, os.RemoveAll(j.Dirs().Project))
	must(t, os.MkdirAll(j.Dirs().Project, 0o755))
}

// said returns the log since the last call, without colours and the test's directories.
func (j *job) said(t testing.TB) string {
	t.Helper()
	s := regexp.MustCompile(`\x1b\[[0-9;]*[mK]`).ReplaceAllString(j.out.String(), "")
	j.out.Reset()
	return strings.ReplaceAll(s, filepath.Dir(j.Dirs().Builds), "BASE")
}

func (j *job) expect(t testing.TB, lines ...string) {
	t.Helper()
	if got, want := strings.TrimSuffix(j.said(t), "\n"), strings.Join(lines, "\n"); got != want {
		t.Errorf("log:\n%s\nwant:\n%s", got, want)
	}
}

// leftovers fails if temporary files are left.
func (j *job) leftovers(t testing.TB) {
	t.Helper()
	entries, _ := os.ReadDir(j.Dirs().Temp)
	for _, e := range entries {
		t.Errorf("left behind: %s", e.Name())
	}
}

// server keeps artifacts of jobs in memory. Faults are what the next calls run into.
type server struct {
	mu      sync.Mutex
	jobs    map[tranter.JobRef][]byte
	uploads []tranter.ArtifactUpload
	bodies  []string
	refs    []tranter.JobRef
	faults  []fault
	calls   int
}

// fault lets a call fail with err, after n bytes of a body if n is not 0; hang lets it wait for the context.
type fault struct {
	err  error
	n    int
	hang bool
}

func (s *server) next() fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if len(s.faults) == 0 {
		return fault{}
	}
	f := s.faults[0]
	s.faults = s.faults[1:]
	return f
}

func (s *server) Upload(ctx context.Context, ref tranter.JobRef, a tranter.ArtifactUpload) error {
	f := s.next()
	if f.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	body, err := a.Body()
	if err != nil {
		return err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil || f.err != nil {
		return errors.Join(err, f.err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uploads, s.bodies, s.refs = append(s.uploads, a), append(s.bodies, string(b)), append(s.refs, ref)
	return nil
}

func (s *server) Download(ctx context.Context, ref tranter.JobRef) (io.ReadCloser, error) {
	f := s.next()
	if f.err != nil && f.n == 0 {
		return nil, f.err
	}
	data, ok := s.jobs[ref]
	switch {
	case !ok:
		return nil, tranter.ErrNotFound
	case f.hang:
		r, w := io.Pipe()
		context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
		return r, nil
	case f.n > 0:
		return io.NopCloser(io.MultiReader(bytes.NewReader(data[:f.n]), failing{f.err})), nil
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	return 0, f.err
}

// pack makes an archive of files as another job would.
func pack(t testing.TB, format archive.Format, files map[string]string) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	log := newJob(t).Log
	found, err := archive.Collect(t.Context(), dir, archive.Selection{Paths: []string{"."}}, log)
	must(t, err)
	var out bytes.Buffer
	must(t, archive.Create(t.Context(), &out, found, archive.Options{Format: format}, log))
	return out.Bytes()
}
