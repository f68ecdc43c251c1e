package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/coordinator"
)

// Values of variables reach a script byte for byte, whatever they hold.
func TestValuesOfEveryCharacter(t *testing.T) {
	t.Parallel()
	var every strings.Builder
	for c := rune(1); c < 0x180; c++ {
		if c != '\n' {
			every.WriteRune(c)
		}
	}
	values := []string{
		every.String(), "\n\n", "a\nb\n", `$HOME $(touch pwned) ` + "`touch pwned`" + ` ${IFS} $$`, `'"'"'; touch pwned; '`, `\`, `\n`, " ", "-n", "!x", "€\u2028\U0001F600",
		strings.Repeat("x", 100_000), "EOF\ntouch pwned\nEOF",
	}
	for _, shell := range []string{"bash", "sh"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "", fmt.Sprintf("shell = %q", shell))
			r.start()
			job := script()
			var commands []string
			for i, v := range values {
				for kind, file := range map[string]bool{"V": false, "F": true} {
					key := fmt.Sprintf("%s%d", kind, i)
					job.Variables = append(job.Variables, tranter.Variable{Key: key, Value: v, Raw: true, File: file})
				}
				commands = append(commands, fmt.Sprintf(`printf '%%s' "$V%d" > %s; cat "$F%d" > %s`, i, r.path(fmt.Sprintf("v%d", i)), i, r.path(fmt.Sprintf("f%d", i))))
			}
			job.Steps[0].Script = commands
			id := r.Enqueue(job)
			if v := r.Wait(id); v.Status != coordinator.Success {
				t.Fatalf("%s; log:\n%.3000s", v.Status, plain(r.Log(id)))
			}
			for i, want := range values {
				for _, kind := range []string{"v", "f"} {
					got, err := os.ReadFile(r.path(fmt.Sprintf("%s%d", kind, i)))
					if err != nil || string(got) != want {
						t.Errorf("%s%d: %.60q, %v; want %.60q", kind, i, got, err, want)
					}
				}
			}
			notPwned(t, r)
		})
	}
}

// notPwned looks for what the hostile texts try to make.
func notPwned(t *testing.T, r *rig) {
	t.Helper()
	err := filepath.WalkDir(r.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "pwned" {
			t.Errorf("%s was made", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Names of variables, of caches, artifacts and jobs are data: none of them runs, or leads out of the job's directories.
func TestHostileNames(t *testing.T) { onEach(t, testHostileNames) }

func testHostileNames(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, "", "")
	r.start()
	names := []string{"A-B", "A B", "A;touch pwned", "$(touch pwned)", "`touch pwned`", "A\nB=1", "1A", "é", `A'"`, "A(", "BASH_FUNC_x%%", "-p", "a[$(touch pwned)]", "IFS", "UID", "OPTIND", "BASH_VERSINFO", "PPID", strings.Repeat("n", 5000)}
	ids := map[string]int64{}
	for _, name := range names {
		job := script("echo fine")
		job.Info.Name, job.Info.Stage = name, name
		job.Variables = append(job.Variables, tranter.Variable{Key: name, Value: "value"})
		job.Cache = []tranter.Cache{{Key: "../../" + name, Paths: []string{"c"}, Policy: "pull-push", When: "always"}}
		ids[name] = r.Enqueue(job)
	}
	for name, id := range ids {
		if v := r.Wait(id); v.Status != coordinator.Success {
			t.Errorf("%.30q: %s %s\n%.2000s", name, v.Status, v.Reason, plain(r.Log(id)))
		}
	}
	notPwned(t, r)
}

// A file variable is a file in the job's own directory, or the job fails and says why.
func TestHostileFileVariables(t *testing.T) { onEach(t, testHostileFileVariables) }

func testHostileFileVariables(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, "", "")
	r.start()
	outside := r.path("outside")
	for name, fails := range map[string]bool{
		"../outside": true, "/" + outside: true, "a/b": true, ".": true, "..": true, "": true,
		"gitlab_runner_env": false, "-rf": false, "a b": false, "a\nb": false, "$(touch pwned)": false, strings.Repeat("n", 300): true,
	} {
		job := script(`echo fine`)
		job.Variables = append(job.Variables, tranter.Variable{Key: name, Value: "value", File: true})
		job.Features.FailureReasons = known
		id := r.Enqueue(job)
		v := r.Wait(id)
		if failed := v.Status == coordinator.Failed; failed != fails {
			t.Errorf("%.30q: %s %s\n%.2000s", name, v.Status, v.Reason, plain(r.Log(id)))
		}
		if fails && !strings.Contains(plain(r.Log(id)), "file variable") {
			t.Errorf("%.30q: the log does not say why:\n%.2000s", name, plain(r.Log(id)))
		}
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("a file variable was written outside of the job's directory")
	}
	notPwned(t, r)
}

// What a job prints goes to GitLab as it is: no terminal sequence is interpreted or lost.
func TestTerminalSequencesPass(t *testing.T) { onEach(t, testTerminalSequencesPass) }

func testTerminalSequencesPass(t *testing.T, newRig maker) {
	t.Helper()
	r := newRig(t, "", "[runners.feature_flags]\nFF_TIMESTAMPS = false\n")
	r.start()
	printed := "\x1b[2J\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\rover\x08\x08 \x1bc\x9b"
	id := r.Enqueue(script(`printf '\033[2J\033[31mred\033[0m\033]0;title\007\033]8;;http://x\033\\link\033]8;;\033\\\rover\010\010 \033c\302\233\n'`))
	r.Wait(id)
	if !strings.Contains(r.Log(id), strings.ReplaceAll(printed, "\x9b", "\u009b")) {
		t.Errorf("the log is %q", r.Log(id))
	}
}
