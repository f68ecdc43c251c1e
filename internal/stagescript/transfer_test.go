package stagescript_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/stagescript"
)

// recorder is a gitlab-runner that writes down how it is called and ends as the file "codes" says, line by line.
func (p *play) recorder(name string) {
	p.t.Helper()
	p.program(name, `printf '%s' "token=$CI_JOB_TOKEN meta=$CACHE_METADATA dir=$PWD" >>`+p.dir+`/calls
for a; do printf '|%s' "$a" >>`+p.dir+`/calls; done
echo >>`+p.dir+`/calls
code=$(head -n 1 `+p.dir+`/codes 2>/dev/null); sed -i 1d `+p.dir+`/codes 2>/dev/null
exit ${code:-0}
`)
}

func (p *play) calls() []string {
	p.t.Helper()
	data, err := os.ReadFile(p.dir + "/calls")
	if err != nil {
		return nil
	}
	if err := os.Remove(p.dir + "/calls"); err != nil {
		p.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func (p *play) withProject() {
	p.t.Helper()
	if err := os.MkdirAll(p.phase.Dirs.Project, 0o755); err != nil {
		p.t.Fatal(err)
	}
}

func TestArtifacts(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		p.withProject()
		p.recorder("gitlab-runner")
		p.phase.Server.URL = "https://gitlab.example.com"
		up := tranter.Step{Name: "upload_artifacts_on_success", Upload: &tranter.UploadStep{Artifacts: []tranter.Artifact{
			{Name: "it's", Paths: []string{"a b", "$X"}, Exclude: []string{"c"}, Format: "zip", Type: "archive", ExpireIn: "1 day"}, {Untracked: true},
		}}}
		p.must(up)
		start := "token=" + token + " meta= dir=" + p.phase.Dirs.Project + "|"
		fixed := "artifacts-uploader|--url|https://gitlab.example.com|--id|7|--timeout|1h0m0s|--response-header-timeout|10m0s|"
		want := []string{
			start + fixed + "--path|a b|--path|$X|--exclude|c|--name|it's|--expire-in|1 day|--artifact-format|zip|--artifact-type|archive",
			start + fixed + "--untracked",
		}
		if d := cmp.Diff(want, p.calls()); d != "" {
			t.Error(d)
		}
		write(t, p.dir+"/codes", "3\n")
		if out, code := p.run(up, stagescript.Around{}); code != 3 || len(p.calls()) != 1 {
			t.Errorf("exit code %d\n%s", code, out)
		}
		down := tranter.Step{Name: "download_artifacts", Download: &tranter.DownloadStep{Dependencies: []tranter.Dependency{
			{ID: 1, Name: "none"}, {ID: 5, Name: "build", Token: "other", File: &tranter.DependencyFile{Filename: "a.zip"}},
		}}}
		if out := p.must(down); !strings.Contains(out, "Downloading artifacts for build (5)...") {
			t.Error(out)
		}
		want = []string{"token=other meta= dir=" + p.phase.Dirs.Project + "|artifacts-downloader|--url|https://gitlab.example.com|--id|5"}
		if d := cmp.Diff(want, p.calls()); d != "" {
			t.Error(d)
		}
	})
}

// Of the candidates of a cache, the first that can be had is taken; none of it can fail the job.
func TestCaches(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		p.withProject()
		p.recorder("tranter")
		p.phase.Variables = []tranter.Variable{{Key: "CACHE_REQUEST_TIMEOUT", Value: "3"}}
		entry := tranter.CacheEntry{
			Key: "main", Objects: []string{"main", "second", "third"}, Paths: []string{"deps"}, Warnings: []string{"a warning"}, Store: tranter.CacheStore{MaxUpload: 9},
			Remote: []tranter.RemoteArchive{{
				Download: &tranter.SignedRequest{URL: "https://s3/get"},
				Upload:   &tranter.RemoteUpload{Whole: &tranter.SignedRequest{URL: "https://s3/put", Header: map[string]string{"A": "1"}}},
			}},
		}
		skipped := tranter.CacheEntry{Key: "x", Objects: []string{"x"}, Paths: []string{"x"}, Skip: "Not downloading cache x due to policy"}
		restore := tranter.Step{Name: "restore_cache", Restore: &tranter.RestoreStep{Caches: []tranter.CacheEntry{skipped, entry}}}
		write(t, p.dir+"/codes", "1\n0\n")
		out := p.must(restore)
		for _, want := range []string{"Not downloading cache x due to policy", "WARNING: a warning", "Checking cache for main...", "Checking cache for second...", "Successfully extracted cache"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
		calls := p.calls()
		if len(calls) != 2 || !strings.HasSuffix(calls[0], "|cache-extractor|--file|"+p.phase.Dirs.Cache+"/main/cache.zip|--timeout|3|--url|https://s3/get") ||
			!strings.HasSuffix(calls[1], "|cache-extractor|--file|"+p.phase.Dirs.Cache+"/second/cache.zip|--timeout|3") || strings.Contains(out, "third") {
			t.Errorf("calls %q\n%s", calls, out)
		}
		write(t, p.dir+"/codes", "1\n1\n1\n")
		if out := p.must(restore); !strings.Contains(out, "Failed to extract cache") || len(p.calls()) != 3 {
			t.Error(out)
		}
		archive := tranter.Step{Name: "archive_cache", Archive: &tranter.ArchiveStep{Caches: []tranter.CacheEntry{entry}}}
		if out := p.must(archive); !strings.Contains(out, "Creating cache main...") || !strings.Contains(out, "Created cache") {
			t.Error(out)
		}
		calls = p.calls()
		if len(calls) != 1 || !strings.Contains(calls[0], `meta={"cachekey":"main"}`) || !strings.Contains(calls[0], "|cache-archiver|--file|"+p.phase.Dirs.Cache+"/main/cache.zip|--alternate-file|") ||
			!strings.HasSuffix(calls[0], "|--timeout|3|--max-uploaded-archive-size|9|--path|deps|--url|https://s3/put|--header|A: 1") {
			t.Errorf("calls %q", calls)
		}
		write(t, p.dir+"/codes", "1\n")
		if out := p.must(archive); !strings.Contains(out, "Failed to create cache") {
			t.Error(out)
		}
	})
}

// Without a program for it the job goes on, and says what it lacks.
func TestMissingProgram(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		p.withProject()
		entry := tranter.CacheEntry{Key: "main", Objects: []string{"main"}, Paths: []string{"deps"}, Store: tranter.CacheStore{Type: "directory"}}
		for want, s := range map[string]tranter.Step{
			"Missing gitlab-runner. Extracting cache is disabled.":      {Restore: &tranter.RestoreStep{Caches: []tranter.CacheEntry{entry}}},
			"Missing gitlab-runner. Creating cache is disabled.":        {Archive: &tranter.ArchiveStep{Caches: []tranter.CacheEntry{entry}}},
			"Missing gitlab-runner. Uploading artifacts is disabled.":   {Upload: &tranter.UploadStep{Artifacts: []tranter.Artifact{{Paths: []string{"x"}}}}},
			"Missing gitlab-runner. Downloading artifacts is disabled.": {Download: &tranter.DownloadStep{Dependencies: []tranter.Dependency{{ID: 1, File: &tranter.DependencyFile{Filename: "x"}}}}},
		} {
			if out := p.must(s); !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
			if out := p.must(s); (s.Restore != nil) != strings.Contains(out, "the shared directory of the cache") && s.Archive == nil {
				t.Errorf("about the shared directory:\n%s", out)
			}
		}
	})
}
