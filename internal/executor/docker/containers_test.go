package docker_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/executor/executortest"
)

func TestEntrypoints(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		image      string
		entrypoint []string // that the job asks for
		wants      []string
		wantsNot   string
	}{
		"exec, with variables":      {"entrypoint-exec", nil, []string{"hello from the entrypoint", "\nFOO=bar\n", "\nuser 0\n"}, ""},
		"as another user":           {"entrypoint-user", nil, []string{"\nFOO=bar\n", "\nuser 1000\n"}, ""},
		"becomes another user":      {"entrypoint-su", nil, []string{"\nuser 1000\n"}, ""},
		"a shell with -c":           {"entrypoint-shc", nil, []string{"\nuser 0\n"}, ""},
		"waits for what it starts":  {"entrypoint-child", nil, []string{"\nuser 0\n"}, ""},
		"gets the job's variables":  {"entrypoint-env", nil, []string{"\nGOT=S3cret\n"}, ""},
		"none, for the job says so": {"entrypoint-exec", []string{""}, []string{"\nuser 0\n"}, "hello from the entrypoint"},
		"another one of the job's":  {"busybox", []string{"/bin/sh", "-c", "echo from the job; export FOO=job; exec \"$0\" \"$@\""}, []string{"from the job", "\nFOO=job\n"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, tt.image)
			r.settings.EntrypointTimeout = 20 * time.Second
			r.job.Image.Entrypoint = tt.entrypoint
			r.set("WANTED", "S3cret")
			r.open()
			r.sources("echo theirs >file")
			log := r.script(`env | grep -e ^FOO= -e ^GOT= || true`, `echo "user $(id -u)"`, "echo mine >>file", "cat file")
			has(t, log, append(tt.wants, "\ntheirs\nmine\n")...)
			if tt.wantsNot != "" {
				hasNot(t, log+r.log.String(), tt.wantsNot)
			}
		})
	}
}

func TestEntrypointsThatDoNotStartTheJob(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		image string
		wants []string
	}{
		"it is stuck":     {"entrypoint-stuck", []string{"has not handed over to the job's shell within 2s", `exec "$@"`}},
		"it ends":         {"entrypoint-exit", []string{"exit code 3", "no licence", `exec "$@"`, `entrypoint: [""]`}},
		"it is not there": {"entrypoint-gone", []string{"/no/such/program", `entrypoint: [""]`}},
	} {
		for _, helper := range []bool{true, false} {
			t.Run(name+map[bool]string{true: " with a helper", false: " without a helper"}[helper], func(t *testing.T) {
				t.Parallel()
				r := newRig(t, tt.image)
				r.settings.EntrypointTimeout, r.settings.DisableHelper = 2*time.Second, !helper
				err := r.try()
				if helper {
					if err != nil {
						t.Fatal(err)
					}
					r.sources()
					_, _, err = r.perform(r.phase("script", tranter.PlaceBuild, "echo never"))
				}
				if _, ok := errors.AsType[*tranter.ConfigError](err); !ok {
					t.Fatalf("error %v of type %T", err, err)
				}
				has(t, err.Error(), tt.wants...)
			})
		}
	}
}

// A whole job in the container of its image, with sources from a real repository.
func TestWithoutAHelper(t *testing.T) {
	t.Parallel()
	repository := executortest.OpenDir(t)
	git := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", repository, "-c", "user.name=x", "-c", "user.email=x@x"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "-b", "main", ".")
	if err := os.WriteFile(filepath.Join(repository, "file"), []byte("from the repository\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	git("add", ".")
	git("commit", "-q", "-m", "one")
	r := newRig(t, "debian")
	r.settings.DisableHelper = true
	r.settings.Volumes = []string{repository + ":/repository:ro"}
	r.open()
	equal(t, "containers", len(r.ref().Containers), 1)
	p := r.phase("job", tranter.PlaceBuild, "cat file", "git log --oneline", "id -u")
	for _, s := range p.Steps {
		if s.Sources != nil {
			*s.Sources = tranter.SourcesStep{
				Strategy: "clone", RepoURL: "file:///repository", Ref: "main", SHA: git("rev-parse", "HEAD"), SafeDirectory: true,
				Refspecs: []string{"+refs/heads/*:refs/remotes/origin/*"},
			}
		}
	}
	has(t, r.good(r.perform(p)), "\nfrom the repository\n", " one\n")
}

// An image without git can't do without the helper, and the job says what to do.
func TestWithoutAHelperAndGit(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.settings.DisableHelper = true
	r.open()
	p := r.phase("job", tranter.PlaceBuild, "true")
	for _, s := range p.Steps {
		if s.Sources != nil {
			*s.Sources = tranter.SourcesStep{Strategy: "clone", RepoURL: "http://127.0.0.1:9/x.git", Ref: "main", SHA: strings.Repeat("0", 40), Refspecs: []string{"+refs/heads/*:refs/remotes/origin/*"}}
		}
	}
	result, log, err := r.perform(p)
	if err != nil || result.Status != tranter.PhaseFailed {
		t.Fatalf("%+v, %v", result, err)
	}
	has(t, result.Message+log, "git is not installed where the job runs: install it")
}

// Nobody who may look at containers, or into one, learns what the job keeps to itself.
func TestNoSecretsInContainers(t *testing.T) {
	t.Parallel()
	r := newRig(t, "busybox")
	r.set("HIDDEN", "S3cret-value")
	r.variables = append(r.variables, tranter.Variable{Key: "PUBLIC", Value: "plain-value", Public: true})
	r.job.Services = []tranter.Image{greeter(t, "web", "x")}
	r.job.Credentials = []tranter.Credential{{Type: "registry", URL: "registry.example", Username: "user", Password: "S3cret-password"}}
	r.open()
	r.sources(": S3cret-script")
	log := r.script(": S3cret-script", `tr '\0' '\n' </proc/1/environ || echo "it can't be read"`, `echo "there: $HIDDEN"`)
	has(t, log, "\nthere: S3cret-value\n")
	own, _, _ := strings.Cut(log, "there: ")
	hasNot(t, own, "HIDDEN=", "PUBLIC=", "CI_CONCURRENT_ID=")
	for _, c := range []container.InspectResponse{r.build(), r.helper(), r.service(0)} {
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		hasNot(t, string(data), "S3cret", "glcbt-token", "glrt-abcdefghijk")
	}
	for _, c := range []container.InspectResponse{r.build(), r.helper()} {
		data, _ := json.Marshal(c)
		hasNot(t, string(data), "plain-value")
	}
	hasNot(t, string(r.session.Ref())+r.log.String(), "S3cret", "glcbt-token", "glrt-abcdefghijk")
}

func TestTerminalInTheBuildContainer(t *testing.T) {
	t.Parallel()
	r := newRig(t, "entrypoint-exec")
	r.settings.User = "1000"
	r.set("LEVEL", "high")
	r.open()
	r.sources()
	p := r.phase("script", tranter.PlaceBuild, "until test -e done; do sleep 0.1; done", "cat done")
	if err := r.session.Start(r.context(), p); err != nil {
		t.Fatal(err)
	}
	term, err := r.session.(tranter.TerminalSession).Terminal(r.context(), "script")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(term, `echo "in: $(id -u) $LEVEL $PWD"; echo typed >done; exit 5`+"\n"); err != nil {
		t.Fatal(err)
	}
	shown, err := io.ReadAll(term)
	if code, known := term.ExitCode(); err != nil || code != 5 || !known {
		t.Errorf("exit code %d, known: %v, %v", code, known, err)
	}
	has(t, string(shown), "in: 1000 high /builds/group/project")
	if err := term.Close(); err != nil {
		t.Error(err)
	}
	has(t, r.good(r.perform(p)), "\ntyped\n")
}

// An engine may be set up to give nobody a root directory to write to: nothing of ours needs that.
func TestReadOnlyRoot(t *testing.T) {
	t.Parallel()
	for _, image := range []string{"busybox", "user", "entrypoint-exec"} {
		t.Run(image, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, image)
			r.settings.Volumes = []string{"/cache"}
			r.settings.Host = front(t, r.settings.Host, func(asked map[string]any) {
				if host, ok := asked["HostConfig"].(map[string]any); ok {
					host["ReadonlyRootfs"] = true
				}
			})
			r.variables = append(r.variables, tranter.Variable{Key: "FILE", Value: "content", File: true})
			r.open()
			r.sources("! touch /file", "echo theirs >file")
			has(t, r.script("! touch /file", `cat file "$FILE"`, "echo mine >>file"), "Read-only file system", "\ntheirs\ncontent")
		})
	}
}
