package stagescript_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/stagescript"
)

// ownNames are variables that some shell does not let a script set.
var ownNames = []string{"UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO", "OPTIND", "HISTCMD", "SRANDOM"}

func TestVariablesOfTheShellsOwn(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		p.withProject()
		var lines strings.Builder
		for _, name := range ownNames {
			for _, file := range []bool{false, true} {
				p.phase.Variables = []tranter.Variable{{Key: name, Value: "a:b", File: file}, {Key: "OTHER", Value: "y"}}
				out, code := p.run(script(`echo "OTHER=$OTHER"`), stagescript.Around{})
				if code != 0 || !strings.Contains(out, "\nOTHER=y\n") {
					t.Errorf("%s: exit code %d\n%s", name, code, out)
				}
				out = p.must(tranter.Step{Name: "prepare_script", Prepare: &tranter.PrepareStep{Greeting: "Running on %s"}})
				if !strings.Contains(out, "WARNING") || !strings.Contains(out, name+"\x1b") {
					t.Errorf("nothing tells that %s is left out: %s", name, out)
				}
			}
			lines.WriteString(name + "=a:b\n")
		}
		p.phase.Variables = nil
		write(t, p.temp("gitlab_runner_env"), lines.String()+"_tranter_key="+strings.Repeat("x", 30_000)+"\nOTHER=z\n")
		if out, code := p.run(script(`echo "OTHER=$OTHER"`), stagescript.Around{}); code != 0 || !strings.Contains(out, "\nOTHER=z\n") {
			t.Errorf("GITLAB_ENV: exit code %d\n%s", code, out)
		}
		if out := p.must(tranter.Step{Name: "get_sources", Sources: &tranter.SourcesStep{Strategy: "none"}}); strings.Contains(out, "xxx") {
			t.Errorf("GITLAB_ENV in a stage of the runner: %.1000s", out)
		}
	})
}

// No variable of the job, nor what it writes to GITLAB_ENV, keeps its secrets from being removed.
func TestCleanupWhateverTheJobSets(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 300_000)
	for _, v := range [][2]string{{"UID", "3"}, {"PATH", "/nonexistent"}, {"LARGE", large}, {"LD_PRELOAD", "/nonexistent"}, {"OPTIND", "x"}} {
		t.Run(v[0], func(t *testing.T) {
			t.Parallel()
			eachShell(t, func(t *testing.T, p *play) {
				p.withProject()
				for _, secret := range []string{"SECRET", "tranter-git-credential-0", "tranter-git.conf", "tranter-file-variables", "git-template/config"} {
					write(t, p.temp(secret), "secret")
				}
				write(t, p.temp("gitlab_runner_env"), v[0]+"="+v[1]+"\n")
				p.phase.Variables = []tranter.Variable{{Key: "SECRET", Value: "secret", File: true}, {Key: v[0], Value: v[1]}}
				out := p.must(tranter.Step{Name: "cleanup_file_variables", Cleanup: &tranter.CleanupStep{WipeBuild: true, Strategy: "fetch"}})
				if left, _ := os.ReadDir(p.phase.Dirs.Temp); out != "" || len(left) > 0 {
					t.Errorf("left: %v\n%s", left, out)
				}
			})
		})
	}
}

// A value that no program can be started with keeps nothing of the runner's own work from being done.
func TestLargeValues(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, p *play) {
		p.withProject()
		large := strings.Repeat("é it's", 40_000)
		write(t, p.temp("gitlab_runner_env"), "WRITTEN="+large+"\nINHERITED="+large+"\nSMALL=s\n")
		p.phase.Variables = []tranter.Variable{{Key: "LARGE", Value: large}, {Key: "FILE", Value: large, File: true}, {Key: "INHERITED", Value: "small"}}
		count := `printf '%s' "$LARGE$WRITTEN$INHERITED" >count; wc -c <count >total; env >exported`
		p.must(tranter.Step{Name: "get_sources", Sources: &tranter.SourcesStep{
			Strategy: "fetch", RepoURL: p.bareRepo(), Ref: "main", Refspecs: []string{"+refs/heads/main:refs/remotes/origin/main"}, PostScripts: []string{count},
		}})
		if got := strings.Count(read(t, p.project("count")), large); got != 3 {
			t.Errorf("%d of the values are there, want 3", got)
		}
		if env := read(t, p.project("exported")); !strings.Contains(env, "\nSMALL=s\n") && !strings.HasPrefix(env, "SMALL=s\n") {
			t.Error("a small value is not exported")
		}
		if got := read(t, p.temp("FILE")); got != large {
			t.Errorf("the file variable has %d bytes", len(got))
		}
		out, code := p.run(script(`echo "large=${#LARGE}"`), stagescript.Around{})
		if code != 0 || !strings.Contains(out, "\nlarge=") {
			t.Errorf("a script without programs: exit code %d\n%.1000s", code, out)
		}
		if out, code := p.run(script("env"), stagescript.Around{}); code != 126 || !strings.Contains(strings.ToLower(out), "too long") {
			t.Errorf("the user's script has no such variable in its environment: exit code %d\n%.1000s", code, out)
		}
	})
}

// bareRepo returns a repository on this machine with one commit on main.
func (p *play) bareRepo() string {
	p.t.Helper()
	dir := filepath.Join(p.t.TempDir(), "repo")
	sh(p.t, p.dir, "git init -q --template= -b main '"+dir+"'; cd '"+dir+"'; echo one >file; git add -A; git commit -q -m one")
	return dir
}
