package transfer_test

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/archive"
	"github.com/tranter-ci/tranter/internal/agent/transfer"
)

func TestUploadArtifacts(t *testing.T) {
	j := newJob(t, "CI_JOB_NAME=unit tests", "OUT=build")
	j.write(t, "build/app", "binary")
	j.write(t, "build/app.log", "log")
	j.write(t, "junit.xml", "<testsuite/>")
	s := &server{}
	step := &tranter.UploadStep{Timeout: time.Hour, HeaderTimeout: time.Minute, Artifacts: []tranter.Artifact{
		{Name: "$CI_JOB_NAME/${OUT}-x", Paths: []string{"$OUT/", "nothing/*.bin"}, Exclude: []string{"**/*.log"}, Type: "archive", Format: "zip", ExpireIn: "1 week"},
		{Name: "junit.xml", Paths: []string{"junit.xml"}, Type: "junit", Format: "gzip"},
		{Paths: []string{"junit.xml"}, Type: "metrics", Format: "raw"},
		{Paths: []string{"missing"}},
		{Name: "unused"},
	}}
	must(t, transfer.UploadArtifacts(t.Context(), j.Env, s, step))
	j.expect(t,
		"Uploading artifacts...",
		"build/: found 2 matching artifact files and directories",
		"WARNING: nothing/*.bin: no matching files. Ensure that the artifact path is relative to the working directory (BASE/builds/g/p)",
		"**/*.log: excluded 1 files",
		`Uploading artifacts as "archive" to coordinator... 201 Created  id=42 responseStatus=201 Created token=64_secret`,
		"Uploading artifacts...",
		"junit.xml: found 1 matching artifact files and directories",
		`Uploading artifacts as "junit" to coordinator... 201 Created  id=42 responseStatus=201 Created token=64_secret`,
		"Uploading artifacts...",
		"junit.xml: found 1 matching artifact files and directories",
		`Uploading artifacts as "metrics" to coordinator... 201 Created  id=42 responseStatus=201 Created token=64_secret`,
		"Uploading artifacts...",
		"WARNING: missing: no matching files. Ensure that the artifact path is relative to the working directory (BASE/builds/g/p)",
		"ERROR: No files to upload")
	j.leftovers(t)
	if len(s.uploads) != 3 {
		t.Fatalf("%d uploads", len(s.uploads))
	}
	u := s.uploads[0]
	if u.Filename != "build-x.zip" || u.Type != "archive" || u.Format != "zip" || u.ExpireIn != "1 week" || u.Timeout != time.Hour || u.HeaderTimeout != time.Minute {
		t.Errorf("%+v", u)
	}
	if want := (tranter.JobRef{ID: 42, Token: j.Phase.JobToken}); s.refs[0] != want {
		t.Errorf("%v", s.refs[0].ID)
	}
	if s.uploads[1].Filename != "junit.xml.gz" || s.uploads[2].Filename != "artifacts" || s.bodies[2] != "<testsuite/>" {
		t.Errorf("%+v %q", s.uploads[1:], s.bodies[2])
	}
	zr, err := gzip.NewReader(strings.NewReader(s.bodies[1]))
	must(t, err)
	if b, err := io.ReadAll(zr); err != nil || string(b) != "<testsuite/>" {
		t.Errorf("%q %v", b, err)
	}
	// What was uploaded is what a later job gets.
	next := newJob(t)
	dep := tranter.Dependency{ID: 42, Token: "dep-token", Name: "build", File: &tranter.DependencyFile{Filename: u.Filename, Size: int64(len(s.bodies[0]))}}
	s.jobs = map[tranter.JobRef][]byte{{ID: 42, Token: "dep-token"}: []byte(s.bodies[0])}
	must(t, transfer.DownloadArtifacts(t.Context(), next.Env, s, &tranter.DownloadStep{Dependencies: []tranter.Dependency{{ID: 1, Name: "none"}, dep}}))
	next.expect(t, "Downloading artifacts for build (42)...", "Downloading artifacts from coordinator... ok  id=42 responseStatus=200 OK token=dep-token")
	next.leftovers(t)
	if next.read(t, "build/app") != "binary" || next.read(t, "build/app.log") != "(none)" {
		t.Error("other files than were uploaded")
	}
}

func TestUploadNames(t *testing.T) {
	for name, want := range map[string]string{"": "artifacts.zip", "$EMPTY": "default.zip", ".": "default.zip", "/": "default.zip", "a/b c": "b c.zip", "../../x": "x.zip", "$": "$.zip", "$(id)": "default.zip"} {
		j := newJob(t, "EMPTY=")
		j.write(t, "f", "x")
		s := &server{}
		must(t, transfer.UploadArtifacts(t.Context(), j.Env, s, &tranter.UploadStep{Artifacts: []tranter.Artifact{{Name: name, Paths: []string{"f"}}}}))
		if got := s.uploads[0].Filename; got != want || s.uploads[0].Format != "" {
			t.Errorf("%q: %s", name, got)
		}
	}
}

func TestUploadUntracked(t *testing.T) {
	j := newJob(t)
	j.write(t, "new", "x")
	cmd := "git init -q " + j.Dirs().Project
	must(t, j.Exec(t.Context(), shell(cmd)))
	s := &server{}
	must(t, transfer.UploadArtifacts(t.Context(), j.Env, s, &tranter.UploadStep{Artifacts: []tranter.Artifact{{Untracked: true, Format: "tarzstd"}}}))
	if said := j.said(t); !strings.Contains(said, "untracked: found 1 files") || s.uploads[0].Filename != "artifacts.tar.zst" {
		t.Errorf("%s %+v", said, s.uploads)
	}
}

// Faults that pass are tried again, three times in all; others are not.
func TestUploadFaults(t *testing.T) {
	passing := errors.New("502 Bad Gateway")
	tests := map[string]struct {
		faults []fault
		calls  int
		want   error
		log    string
	}{
		"passing":   {[]fault{{err: passing}, {err: passing}}, 3, nil, "WARNING: 502 Bad Gateway; trying again"},
		"lasting":   {[]fault{{err: passing}, {err: passing}, {err: passing}}, 3, passing, `ERROR: Uploading artifacts as "archive" to coordinator... error: 502 Bad Gateway  id=42`},
		"too large": {[]fault{{err: tranter.ErrTooLarge}}, 1, tranter.ErrTooLarge, `ERROR: Uploading artifacts as "archive" to coordinator... 413 Request Entity Too Large  id=42`},
		"forbidden": {[]fault{{err: passing}, {err: tranter.ErrForbidden}}, 2, tranter.ErrForbidden, "forbidden  id=42"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := newJob(t)
				j.write(t, "f", "content")
				s := &server{faults: tt.faults}
				step := &tranter.UploadStep{Artifacts: []tranter.Artifact{{Paths: []string{"f"}}, {Paths: []string{"f"}, Type: "later"}}}
				err := transfer.UploadArtifacts(t.Context(), j.Env, s, step)
				if !errors.Is(err, tt.want) {
					t.Error(err)
				}
				calls := s.calls
				if tt.want == nil {
					calls-- // that of the second artifact
				}
				if calls != tt.calls {
					t.Errorf("%d calls, want %d", calls, tt.calls)
				}
				if said := j.said(t); !strings.Contains(said, tt.log) {
					t.Errorf("%s\nlacks %s", said, tt.log)
				}
				j.leftovers(t)
			})
		})
	}
}

func TestUploadOfWhatCannotBePacked(t *testing.T) {
	j := newJob(t)
	j.write(t, "d/f", "x")
	s := &server{}
	err := transfer.UploadArtifacts(t.Context(), j.Env, s, &tranter.UploadStep{Artifacts: []tranter.Artifact{{Paths: []string{"d"}, Format: "gzip", Type: "junit"}}})
	if err == nil || !strings.Contains(err.Error(), `upload artifacts as "junit": create the archive: archive d: not a regular file`) {
		t.Error(err)
	}
	if _, ok := errors.AsType[*tranter.ConfigError](err); !ok {
		t.Error("a report that names a directory is the job's mistake, not the runner's fault")
	}
	err = transfer.UploadArtifacts(t.Context(), j.Env, s, &tranter.UploadStep{Artifacts: []tranter.Artifact{{Paths: []string{"d"}, Format: "rar"}}})
	if _, ok := errors.AsType[*tranter.ConfigError](err); !ok {
		t.Error(err)
	}
	j.leftovers(t)
}

func TestDownloadFaults(t *testing.T) {
	passing := errors.New("connection reset")
	data := pack(t, archive.Zip, map[string]string{"a": "from the job before", "b/c": "too"})
	size := int64(len(data))
	tests := map[string]struct {
		faults []fault
		size   int64
		calls  int
		want   error
		log    string
	}{
		"call":        {[]fault{{err: passing}}, size, 2, nil, "WARNING: connection reset; trying again"},
		"stream":      {[]fault{{err: passing, n: 30}, {err: passing, n: 10}}, size, 3, nil, "WARNING: connection reset; trying again"},
		"cut":         {[]fault{{n: 50}}, size, 2, nil, "unexpected EOF: got 50 of"},
		"cut, always": {[]fault{{n: 50}, {n: 50}, {n: 50}}, size, 3, io.ErrUnexpectedEOF, "ERROR: Downloading artifacts from coordinator... error: unexpected EOF"},
		"damaged":     {[]fault{{n: 50}}, 0, 1, archive.ErrDamaged, "... ok  id=7"},
		"expired":     {[]fault{{err: tranter.ErrNotFound}}, size, 1, tranter.ErrNotFound, "ERROR: Downloading artifacts from coordinator... not found  id=7"},
		"forbidden":   {[]fault{{err: tranter.ErrForbidden}}, size, 1, tranter.ErrForbidden, "forbidden"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := newJob(t)
				s := &server{faults: tt.faults, jobs: map[tranter.JobRef][]byte{{ID: 7, Token: "t"}: data}}
				err := transfer.DownloadArtifacts(t.Context(), j.Env, s, &tranter.DownloadStep{Dependencies: []tranter.Dependency{
					{ID: 7, Token: "t", Name: "build", File: &tranter.DependencyFile{Filename: "artifacts.zip", Size: tt.size}},
				}})
				if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), "artifacts of build (7)") {
					t.Error(err)
				}
				if s.calls != tt.calls {
					t.Errorf("%d calls, want %d", s.calls, tt.calls)
				}
				if tt.want == nil && (j.read(t, "a") != "from the job before" || j.read(t, "b/c") != "too") {
					t.Error("the files are missing")
				}
				if said := j.said(t); !strings.Contains(said, tt.log) {
					t.Errorf("%s\nlacks %s", said, tt.log)
				}
				j.leftovers(t)
			})
		})
	}
}

// A cancel ends transfers that wait, and the error tells why the context has ended.
func TestCancel(t *testing.T) {
	why := errors.New("the step's time is over")
	data := pack(t, archive.Zip, map[string]string{"a": "a"})
	run := map[string]func(context.Context, *job, *server) error{
		"upload": func(ctx context.Context, j *job, s *server) error {
			return transfer.UploadArtifacts(ctx, j.Env, s, &tranter.UploadStep{Artifacts: []tranter.Artifact{{Paths: []string{"f"}}}})
		},
		"download": func(ctx context.Context, j *job, s *server) error {
			return transfer.DownloadArtifacts(ctx, j.Env, s, &tranter.DownloadStep{Dependencies: []tranter.Dependency{
				{ID: 7, Token: "t", Name: "b", File: &tranter.DependencyFile{Filename: "a.zip"}},
			}})
		},
	}
	for name, do := range run {
		for how, faults := range map[string][]fault{"call": {{hang: true}}, "between tries": {{err: errors.New("passing")}, {hang: true}}} {
			t.Run(name+"/"+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					j := newJob(t)
					j.write(t, "f", "x")
					ctx, cancel := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, why)
					defer cancel()
					start := time.Now()
					err := do(ctx, j, &server{faults: faults, jobs: map[tranter.JobRef][]byte{{ID: 7, Token: "t"}: data}})
					if !errors.Is(err, why) || time.Since(start) > 500*time.Millisecond {
						t.Errorf("%v after %v", err, time.Since(start))
					}
					j.leftovers(t)
				})
			})
		}
	}
}

// A download lies where the job says until it is unpacked. An upload needs no room.
func TestStagingDirectory(t *testing.T) {
	data := pack(t, archive.Zip, map[string]string{"a": "a"})
	for _, set := range []string{"staging", "/ABSOLUTE"} {
		j := newJob(t)
		where := filepath.Join(j.Dirs().Project, set)
		if set == "/ABSOLUTE" {
			where = filepath.Join(t.TempDir(), "staging")
			set = where
		}
		j.Environ = append(j.Environ, "ARCHIVER_STAGING_DIR="+set)
		j.write(t, "f", "x")
		s := &server{jobs: map[tranter.JobRef][]byte{{ID: 7}: data}}
		must(t, transfer.UploadArtifacts(t.Context(), j.Env, s, &tranter.UploadStep{Artifacts: []tranter.Artifact{{Paths: []string{"f"}}}}))
		if _, err := os.Stat(where); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("an upload has made %s: %v", set, err)
		}
		must(t, transfer.DownloadArtifacts(t.Context(), j.Env, s, &tranter.DownloadStep{Dependencies: []tranter.Dependency{{ID: 7, File: &tranter.DependencyFile{Filename: "a.zip"}}}}))
		if entries, err := os.ReadDir(where); err != nil || len(entries) > 0 {
			t.Errorf("%s: %v, %v", set, entries, err)
		}
		if _, err := os.Stat(j.Dirs().Temp); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: something was made elsewhere too: %v", set, err)
		}
	}
}

// An archive of another job cannot write outside the project.
func TestDownloadIsConfined(t *testing.T) {
	j := newJob(t)
	outside := filepath.Join(j.Dirs().Builds, "outside")
	must(t, os.MkdirAll(outside, 0o755))
	must(t, os.Symlink(outside, filepath.Join(j.Dirs().Project, "l")))
	data := pack(t, archive.Zip, map[string]string{"l/evil": "evil", "good": "good"})
	s := &server{jobs: map[tranter.JobRef][]byte{{ID: 7}: data}}
	must(t, transfer.DownloadArtifacts(t.Context(), j.Env, s, &tranter.DownloadStep{Dependencies: []tranter.Dependency{{ID: 7, File: &tranter.DependencyFile{Filename: "a.zip"}}}}))
	if entries, _ := os.ReadDir(outside); len(entries) > 0 || j.read(t, "good") != "good" {
		t.Errorf("%v", entries)
	}
	if said := j.said(t); !strings.Contains(said, `WARNING: "l/evil": not extracted`) {
		t.Error(said)
	}
}
