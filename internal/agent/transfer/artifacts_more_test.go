package transfer_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/archive"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
)

func TestProvenance(t *testing.T) {
	j := newJob(t)
	j.write(t, "out/b.bin", "second")
	j.write(t, "out/a.bin", "first")
	j.write(t, "site-metadata.json", "what the job has made itself")
	at := func(clock string) int64 {
		when, err := time.Parse(time.RFC3339, "2026-03-04T"+clock+"Z")
		must(t, err)
		return when.UnixMilli()
	}
	j.Steps = func() []tranter.StepRecord {
		return []tranter.StepRecord{
			{Name: "prepare_script", Started: at("05:00:00"), Ended: at("05:00:01")},
			{Name: "step_script", Started: at("05:01:00"), Ended: at("05:02:00")},
			{Name: "archive_cache", Started: at("05:02:00"), Ended: at("05:09:00")},
		}
	}
	about := &tranter.Provenance{
		Schema: "v2", BuildType: "https://example.com/type", RepoURL: "https://gitlab.example.com/g/p", SHA: "0123456789012345678901234567890123456789",
		JobName: "build", Executor: "shell", RunnerName: "blue", RunnerID: "12", Architecture: "amd64", Parameters: []string{"CI", "SECRET"},
	}
	s := &server{faults: []fault{{err: errors.New("502 Bad Gateway")}}} // another try tells of each file once, too
	step := &tranter.UploadStep{Provenance: about, Artifacts: []tranter.Artifact{
		{Name: "site", Paths: []string{"out", "site-metadata.json"}, Format: "zip"}, {Paths: []string{"out"}},
	}}
	must(t, transfer.UploadArtifacts(t.Context(), j.Env, s, step))
	if said := j.said(t); !strings.Contains(said, `WARNING: SLSA_PROVENANCE_SCHEMA_VERSION: unknown version "v2", using v1`) {
		t.Error(said)
	}
	zr, err := zip.NewReader(strings.NewReader(s.bodies[0]), int64(len(s.bodies[0])))
	must(t, err)
	last := zr.File[len(zr.File)-1]
	if last.Name != "site-metadata.json" || len(zr.File) != 4 {
		t.Fatalf("%s is the last of %d", last.Name, len(zr.File))
	}
	r, err := last.Open()
	must(t, err)
	got, err := io.ReadAll(r)
	must(t, err)
	want, err := os.ReadFile("testdata/provenance.json")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile("testdata/provenance.json", got, 0o644))
		return
	}
	must(t, err)
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error(diff)
	}
	if zr, err = zip.NewReader(strings.NewReader(s.bodies[1]), int64(len(s.bodies[1]))); err != nil || len(zr.File) != 3 {
		t.Errorf("only archives of the format zip have it: %v", zr.File)
	}
}

// An archive whose files cannot be read fails at once, with the reason; the server's complaint about half of it is none.
func TestUploadOfUnreadableFile(t *testing.T) {
	if os.Getuid() == 0 {
		t.Log("as root every file can be read: a directory on the way becomes a link out instead")
	}
	j := newJob(t)
	j.write(t, "d/f", "x")
	s := &spoiling{server: server{}, spoil: func() {
		must(t, os.RemoveAll(filepath.Join(j.Dirs().Project, "d")))
		must(t, os.Symlink("/etc", filepath.Join(j.Dirs().Project, "d")))
	}}
	err := transfer.UploadArtifacts(t.Context(), j.Env, s, &tranter.UploadStep{Artifacts: []tranter.Artifact{{Paths: []string{"d/f"}}}})
	if err == nil || !strings.Contains(err.Error(), "create the archive: archive d/f:") || s.calls != 1 {
		t.Errorf("%v after %d calls", err, s.calls)
	}
}

// spoiling changes the project once the upload has begun.
type spoiling struct {
	server
	spoil func()
}

func (s *spoiling) Upload(ctx context.Context, ref tranter.JobRef, a tranter.ArtifactUpload) error {
	s.spoil()
	return s.server.Upload(ctx, ref, a)
}

func TestUploadTrace(t *testing.T) {
	j := newJob(t)
	j.write(t, "f", "x")
	s := &answering{}
	must(t, transfer.UploadArtifacts(t.Context(), j.Env, s, &tranter.UploadStep{Trace: true, Artifacts: []tranter.Artifact{{Paths: []string{"f"}}}}))
	said := j.said(t)
	if !strings.Contains(said, "The server's answer: 201 Created\nA: 1, 2\nB: 3\n"+strings.Repeat("b", 512)+"\n") {
		t.Error(said)
	}
	must(t, transfer.UploadArtifacts(t.Context(), j.Env, s, &tranter.UploadStep{Artifacts: []tranter.Artifact{{Paths: []string{"f"}}}}))
	if said := j.said(t); strings.Contains(said, "answer") {
		t.Error(said)
	}
}

type answering struct{ server }

func (s *answering) Upload(ctx context.Context, ref tranter.JobRef, a tranter.ArtifactUpload) error {
	if a.Answered != nil {
		a.Answered("201 Created", map[string][]string{"B": {"3"}, "A": {"1", "2"}}, bytes.Repeat([]byte("b"), 600))
	}
	return s.server.Upload(ctx, ref, a)
}

func TestArtifactsMeter(t *testing.T) {
	j := newJob(t, "TRANSFER_METER_FREQUENCY=1s")
	j.write(t, "f", "x")
	s := &server{}
	must(t, transfer.UploadArtifacts(t.Context(), j.Env, s, &tranter.UploadStep{Artifacts: []tranter.Artifact{{Paths: []string{"f"}, Format: "raw"}}}))
	data := pack(t, archive.Zip, map[string]string{"a": "a"})
	s.jobs = map[tranter.JobRef][]byte{{ID: 7}: data}
	must(t, transfer.DownloadArtifacts(t.Context(), j.Env, s, &tranter.DownloadStep{Dependencies: []tranter.Dependency{{ID: 7, File: &tranter.DependencyFile{Filename: "a.zip", Size: int64(len(data))}}}}))
	said := j.said(t)
	if !strings.Contains(said, "\rUploading artifacts 1 B (") || !strings.Contains(said, fmt.Sprintf("\rDownloading artifacts %d B/%d B (", len(data), len(data))) {
		t.Errorf("%q", said)
	}
}

// storage gives archives in parts too, and breaks connections.
type storage struct {
	server
	mu     sync.Mutex
	refuse error // of Locate
	breaks int   // so many parts are cut
	parts  int
	most   int
	open   int
	whole  int
}

func (s *storage) Download(ctx context.Context, ref tranter.JobRef) (io.ReadCloser, error) {
	s.mu.Lock()
	s.whole++
	s.mu.Unlock()
	return s.server.Download(ctx, ref)
}

func (s *storage) Locate(_ context.Context, ref tranter.JobRef) (func(context.Context, int64, int64) (io.ReadCloser, error), int64, error) {
	data := s.jobs[ref]
	return func(_ context.Context, from, to int64) (io.ReadCloser, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.parts++
		s.open++
		s.most = max(s.most, s.open)
		if s.breaks > 0 {
			s.breaks--
			cut := from + (to-from)/3
			return closing{io.MultiReader(bytes.NewReader(data[from:cut]), failing{errors.New("connection reset")}), s}, nil
		}
		return closing{bytes.NewReader(data[from:to]), s}, nil
	}, int64(len(data)), s.refuse
}

type closing struct {
	io.Reader
	s *storage
}

func (c closing) Close() error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.open--
	return nil
}

func TestDownloadInParts(t *testing.T) {
	noise := make([]byte, 40<<20)
	rand.New(rand.NewSource(1)).Read(noise)
	large := pack(t, archive.Zip, map[string]string{"large": string(noise)})
	small := pack(t, archive.Zip, map[string]string{"small": "s"})
	for name, tt := range map[string]struct {
		s            *storage
		flag         bool
		parts, whole int
	}{
		"in parts":      {&storage{}, true, 3, 1},
		"broken":        {&storage{breaks: 5}, true, 8, 1},
		"refused":       {&storage{refuse: errors.New("no ranges")}, true, 0, 2},
		"without flag":  {&storage{}, false, 0, 2},
		"parts are cut": {&storage{breaks: 1 << 30}, true, -1, 2}, // each brings something, until nothing is left to bring
	} {
		t.Run(name, func(t *testing.T) {
			j := newJob(t)
			s := tt.s
			s.jobs = map[tranter.JobRef][]byte{{ID: 1}: large, {ID: 2}: small}
			must(t, transfer.DownloadArtifacts(t.Context(), j.Env, s, &tranter.DownloadStep{Parallel: tt.flag, Dependencies: []tranter.Dependency{
				{ID: 1, File: &tranter.DependencyFile{Filename: "a", Size: int64(len(large))}}, {ID: 2, File: &tranter.DependencyFile{Filename: "b", Size: int64(len(small))}},
			}}))
			if j.read(t, "large") != string(noise) || j.read(t, "small") != "s" {
				t.Error("the files are not what they were")
			}
			if tt.parts >= 0 && (s.parts != tt.parts || s.whole != tt.whole) {
				t.Errorf("%d parts and %d whole archives", s.parts, s.whole)
			}
			j.leftovers(t)
		})
	}
}

// The archives of several jobs come at the same time, and the last job's files win whatever comes first.
func TestDownloadsInParallelUnpackInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJob(t)
		s := &slow{server: server{jobs: map[tranter.JobRef][]byte{}}}
		var deps []tranter.Dependency
		for i := range int64(6) {
			data := pack(t, archive.Zip, map[string]string{"same": fmt.Sprint(i), fmt.Sprint(i): "own"})
			s.jobs[tranter.JobRef{ID: i}] = data
			deps = append(deps, tranter.Dependency{ID: i, Name: "j", File: &tranter.DependencyFile{Filename: "a.zip"}})
		}
		start := time.Now()
		must(t, transfer.DownloadArtifacts(t.Context(), j.Env, s, &tranter.DownloadStep{Parallel: true, Dependencies: deps}))
		if took := time.Since(start); took > 12*time.Second || s.most > 4 { // one after the other it would take 21 s
			t.Errorf("%v, %d at once", took, s.most)
		}
		if j.read(t, "same") != "5" || j.read(t, "0") != "own" {
			t.Error(j.read(t, "same"))
		}
		j.leftovers(t)
		// A failure ends the others and leaves nothing.
		delete(s.jobs, tranter.JobRef{ID: 1})
		err := transfer.DownloadArtifacts(t.Context(), j.Env, s, &tranter.DownloadStep{Parallel: true, Dependencies: deps})
		if !errors.Is(err, tranter.ErrNotFound) {
			t.Error(err)
		}
		j.leftovers(t)
	})
}

// slow takes the longer, the earlier a job was.
type slow struct {
	server
	mu       sync.Mutex
	at, most int
}

func (s *slow) Download(ctx context.Context, ref tranter.JobRef) (io.ReadCloser, error) {
	s.mu.Lock()
	s.at++
	s.most = max(s.most, s.at)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.at--
	}()
	select {
	case <-time.After(time.Duration(6-ref.ID) * time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.server.Download(ctx, ref)
}
