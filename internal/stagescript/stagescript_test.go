package stagescript_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/stagescript"
)

var update = flag.Bool("update", false, "write the golden files")

// Every stage of a job that has all of them, as text.
func TestGolden(t *testing.T) {
	t.Parallel()
	phase := tranter.Phase{
		JobID: 7, Shell: "sh", JobToken: "job-token", Version: "tranter 1.2.3 linux/amd64", Server: tranter.Server{URL: "https://gitlab.example.com"},
		Dirs:   tranter.Dirs{Builds: "/builds", Project: "/builds/g/p", Temp: "/builds/g/p.tmp", Cache: "/cache/g/p"},
		Driver: &tranter.Driver{},
		Variables: []tranter.Variable{
			{Key: "TWICE", Value: "old"},
			{Key: "TEXT", Value: "it's $HOME"},
			{Key: "TWICE", Value: "new"},
			{Key: "KUBECONFIG", Value: "the\ncontent", File: true},
			{Key: "no-name", Value: "x"},
		},
	}
	cached := tranter.CacheEntry{Key: "main", Objects: []string{"main", "other"}, Paths: []string{"deps/", "$X/*.o"}, Untracked: true}
	cached.Remote = []tranter.RemoteArchive{{
		Download: &tranter.SignedRequest{Method: "GET", URL: "https://s3.example.com/get?sig=1"},
		Upload:   &tranter.RemoteUpload{Whole: &tranter.SignedRequest{Method: "PUT", URL: "https://s3.example.com/put?sig=2", Header: map[string]string{"X-B": "2", "X-A": "1"}}},
	}}
	sources := tranter.SourcesStep{
		Strategy: "fetch", RepoURL: "https://gitlab.example.com/g/p.git", BaseURL: "https://gitlab.example.com", Username: "gitlab-ci-token", Password: "repo-token",
		Ref: "main", SHA: "0123456789abcdef", Refspecs: []string{"+refs/heads/main:refs/remotes/origin/main"}, Depth: 20, FetchFlags: []string{"--prune"},
		CleanFlags: []string{"-ffdx"}, CleanConfig: true, SharedEnv: true, CorrelationID: "c1", PreScripts: []string{"echo pre\necho two"}, PostScripts: []string{"echo post"},
		Submodules: tranter.Submodule{Strategy: "recursive", Depth: 5, Paths: []string{"a b"}, UpdateFlags: []string{"--remote"}, ForceHTTPS: true, SSHHost: "gitlab.example.com"},
	}
	clone := sources
	clone.Strategy, clone.NativeClone, clone.SkipLFS, clone.Depth, clone.Submodules = "clone", true, true, 0, tranter.Submodule{Strategy: "none"}
	for _, s := range []tranter.Step{
		{Name: "prepare_script", Prepare: &tranter.PrepareStep{Greeting: "Running on %s via 100%% mine..."}},
		{Name: "get_sources", Sources: &sources},
		{Name: "get_sources_clone", Sources: &clone},
		{Name: "restore_cache", Restore: &tranter.RestoreStep{Caches: []tranter.CacheEntry{cached}}},
		{Name: "download_artifacts", Download: &tranter.DownloadStep{Dependencies: []tranter.Dependency{{ID: 5, Token: "dep-token", Name: "build", File: &tranter.DependencyFile{Filename: "a.zip"}}}}},
		{Name: "step_script", Script: &tranter.ScriptStep{Commands: []string{"make", "echo a\necho b"}, User: true}},
		{Name: "after_script", Script: &tranter.ScriptStep{Commands: []string{"make clean"}, User: true, After: true}},
		{Name: "archive_cache", Archive: &tranter.ArchiveStep{Caches: []tranter.CacheEntry{cached}}},
		{Name: "upload_artifacts_on_success", Upload: &tranter.UploadStep{Artifacts: []tranter.Artifact{
			{Name: "a-$CI_JOB_NAME", Paths: []string{"bin/"}, Exclude: []string{"bin/tmp"}, ExpireIn: "1 week", Format: "zip", Type: "archive"},
			{Untracked: true, Type: "junit", Format: "gzip"},
		}, Timeout: 90 * time.Second, Provenance: &tranter.Provenance{RunnerID: "3", RepoURL: "https://gitlab.example.com/g/p", SHA: "0123", JobName: "it's", Executor: "custom", RunnerName: "r", Parameters: []string{"A"}}}},
		{Name: "cleanup_file_variables", Cleanup: &tranter.CleanupStep{Strategy: "fetch", WipeBuild: true, CleanFlags: []string{"-ffdx"}}},
	} {
		got := stagescript.Of(&phase, &s, stagescript.Around{Status: "failed", Now: func() time.Time { return time.Unix(1_000_000_000, 0) }})
		file := filepath.Join("testdata", s.Name+".sh")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(read(t, file), got); d != "" {
			t.Errorf("%s: %s", file, d)
		}
	}
}

func TestStageNames(t *testing.T) {
	t.Parallel()
	for step, stage := range map[string]string{"step_script": "build_script", "step_release": "step_release", "get_sources": "get_sources"} {
		if got := stagescript.Name(&tranter.Step{Name: step}); got != stage {
			t.Errorf("%s is called %s, want %s", step, got, stage)
		}
	}
}

func TestUsersScript(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		p.phase.Variables = []tranter.Variable{
			{Key: "TEXT", Value: "first"},
			{Key: "TEXT", Value: "it's \"$HOME\" `x` \\"},
			{Key: "no-name", Value: "x"},
			{Key: "SECRET", Value: "line 1\nline 2", File: true},
		}
		if err := os.MkdirAll(p.phase.Dirs.Project, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, p.temp("gitlab_runner_env"), "FROM_JOB=a=b c\r\nnot a line\n9=x\n\nNO-NAME=1\nLAST=there")
		out, code := p.run(script(
			`echo "text=$TEXT"`, `cat "$SECRET"`, "stat -c 'mode=%a' \"$SECRET\"", `pwd`, `echo "FROM=$FROM_JOB LAST=$LAST"`, `x=1`, `echo "x=$x"`, `read line || echo "no input"`, "(exit 7)", "echo went on",
		), stagescript.Around{})
		if code != 7 || strings.Contains(out, "\nwent on") {
			t.Errorf("exit code %d\n%s", code, out)
		}
		for _, want := range []string{
			"text=it's \"$HOME\" `x` \\\n", "\nline 1\nline 2", "\nmode=600\n", "\n" + p.phase.Dirs.Project + "\n", "\nFROM=a=b c LAST=there\n", "\nx=1\n", "\nno input\n", "32;1m$ (exit 7)",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
		if n := strings.Count(out, "ignored a line of $GITLAB_ENV"); n != 3 {
			t.Errorf("%d bad lines of GITLAB_ENV are named, want 3:\n%s", n, out)
		}
	})
}

func TestAfterScriptKnowsHowTheJobStands(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		p.phase.Variables = []tranter.Variable{{Key: "CI_JOB_STATUS", Value: "running"}}
		if err := os.MkdirAll(p.phase.Dirs.Project, 0o755); err != nil {
			t.Fatal(err)
		}
		s := tranter.Step{Name: "after_script", Script: &tranter.ScriptStep{Commands: []string{`echo "status=$CI_JOB_STATUS"`}, After: true, User: true}}
		if out, _ := p.run(s, stagescript.Around{Status: "failed"}); !strings.Contains(out, "\nstatus=failed\n") {
			t.Error(out)
		}
	})
}

// Whatever bytes a value has, it arrives as it is, in a variable and in a file, and nothing of it is executed.
func TestValuesOfAnyBytes(t *testing.T) {
	t.Parallel()
	all := make([]byte, 0, 256)
	for b := 1; b < 256; b++ {
		all = append(all, byte(b))
	}
	eachShell(t, func(t *testing.T, p *play) {
		if err := os.MkdirAll(p.phase.Dirs.Project, 0o755); err != nil {
			t.Fatal(err)
		}
		try := func(value string) string {
			p.phase.Variables = []tranter.Variable{{Key: "V", Value: value}, {Key: "F", Value: value, File: true}}
			out, code := p.run(script(`printf '%s' "$V" >v`, `cat "$F" >f`), stagescript.Around{})
			if code != 0 {
				return out
			}
			return cmp.Diff(value, read(t, p.project("v"))) + cmp.Diff(value, read(t, p.project("f")))
		}
		if d := try(string(all)); d != "" {
			t.Error(d)
		}
		rapid.Check(t, func(rt *rapid.T) {
			value := rapid.StringMatching(`[a'"$\\`+"`"+`\r\n\t ;&|(){}é!*#~%\x01-\x08\x7f]{0,40}`).Draw(rt, "value")
			if d := try(value); d != "" {
				rt.Fatal(d)
			}
		})
	})
}

func TestPrepareAndCleanup(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		write(t, p.temp("tranter-file-variables"), "OLD\n../outside\n")
		write(t, p.temp("OLD"), "a secret of a job before")
		write(t, filepath.Join(p.dir, "builds", "group", "outside"), "x")
		write(t, p.temp("gitlab_runner_env"), "A=1")
		prepare := tranter.Step{Name: "prepare_script", Prepare: &tranter.PrepareStep{Greeting: "Running on %s via 100%% mine..."}}
		if out := p.must(prepare); !strings.HasPrefix(out, "Running on ") || !strings.HasSuffix(out, " via 100% mine...\n") || strings.Contains(out, "on  via") {
			t.Errorf("%q", out)
		}
		p.phase.Driver = &tranter.Driver{Host: "it's a machine"}
		if out := p.must(prepare); out != "Running on it's a machine via 100% mine...\n" {
			t.Errorf("%q", out)
		}
		if exists(p.temp("OLD")) || exists(p.temp("gitlab_runner_env")) || !exists(filepath.Join(p.dir, "builds", "group", "outside")) {
			t.Error("what an earlier job has left is still there, or too much is gone")
		}
		p.phase.Variables = []tranter.Variable{{Key: "SECRET", Value: "x", File: true}}
		p.must(tranter.Step{Name: "get_sources", Sources: &tranter.SourcesStep{Strategy: "none"}})
		if !exists(p.temp("SECRET")) {
			t.Error("no file variable")
		}
		p.must(tranter.Step{Name: "cleanup_file_variables", Cleanup: &tranter.CleanupStep{}})
		if exists(p.phase.Dirs.Temp) {
			t.Error("the temporary directory is still there")
		}
	})
}

func TestStrategies(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		write(t, p.project("sub/left"), "x")
		if err := os.Chmod(p.project("sub"), 0o500); err != nil {
			t.Fatal(err)
		}
		p.must(tranter.Step{Name: "get_sources", Sources: &tranter.SourcesStep{Strategy: "none"}})
		if !exists(p.project("sub/left")) {
			t.Error("none has removed a file")
		}
		p.must(tranter.Step{Name: "get_sources", Sources: &tranter.SourcesStep{Strategy: "empty"}})
		if exists(p.project("sub/left")) || !exists(p.project("")) {
			t.Error("empty has left a file")
		}
	})
}

// Drivers hand a script to a shell on its standard input as often as by its name; none of it is taken for input of the
// job's commands.
func TestScriptOnStandardInput(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		p.withProject()
		p.phase.Variables = []tranter.Variable{{Key: "LARGE", Value: strings.Repeat("it's large\n", 5_000)}}
		s := script("cat", "echo ${#LARGE}", "cat /dev/stdin", "echo end")
		cmd := exec.CommandContext(t.Context(), p.shell)
		cmd.Dir, cmd.Env = p.dir, environ(p.dir, p.bin)
		cmd.Stdin = strings.NewReader(stagescript.Of(&p.phase, &s, stagescript.Around{}))
		out, err := cmd.CombinedOutput()
		if text := string(out); err != nil || !strings.Contains(text, "\n55000\n") || !strings.HasSuffix(text, "\nend\n") || len(text) > 1000 {
			t.Errorf("%v\n%.2000s", err, text)
		}
	})
}
