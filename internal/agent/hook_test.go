package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
)

// Hooks and git are commands of one shell in GitLab Runner: what a hook exports holds for git and for later hooks of the
// stage, and not for later stages (runner contract, section 6.1).
func TestWhatHooksExport(t *testing.T) {
	t.Parallel()
	repo := t.TempDir()
	git := func(args ...string) string {
		cmd := exec.Command("git", append([]string{"-C", repo, "-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q")
	git("commit", "-q", "--allow-empty", "-m", "one")
	p := newPlay(t, tranter.Step{Name: "get_sources", When: tranter.OnSuccess, Sources: &tranter.SourcesStep{
		Strategy: "fetch", RepoURL: "file://" + repo, Ref: "main", SHA: git("rev-parse", "HEAD"), Refspecs: []string{"+refs/heads/*:refs/remotes/origin/*"},
		PreScripts:  []string{`export GIT_TRACE="$TRACE" ADDED=$'two\nlines' CHANGED=changed`, `LOCAL=here`, `echo "pre=$LOCAL"`},
		PostScripts: []string{`echo "post=$CHANGED,$ADDED"`},
	}}, userScript(`echo "script=$CHANGED,$ADDED,"`))
	trace := filepath.Join(p.phase.Dirs.Builds, "trace")
	p.phase.Variables = []tranter.Variable{{Key: "TRACE", Value: trace}, {Key: "CHANGED", Value: "original"}}
	if r := p.run(t); r.Status != tranter.PhaseSucceeded {
		t.Errorf("result %+v", r)
	}
	inOrder(t, p.log.String(), "\npre=here\n", "Fetching changes", "\npost=changed,two\nlines\n", "\nscript=original,,\n")
	if data, err := os.ReadFile(trace); err != nil || !strings.Contains(string(data), "fetch origin") {
		t.Errorf("git has not heard of what the hook exports: %v %q", err, data)
	}
}
