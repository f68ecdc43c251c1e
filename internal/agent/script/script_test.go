package script

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func run(t testing.TB, shell string, s Script) (string, int) {
	t.Helper()
	sh := Shells(false)[shell]
	cmd := exec.Command(sh.Program, sh.Args...)
	cmd.Stdin = strings.NewReader(sh.Text(s))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestCommandsRunInOneShell(t *testing.T) {
	for _, shell := range []string{"bash", "sh"} {
		out, code := run(t, shell, Script{
			Variables: []Variable{{"A", "it's $B"}, {"not-a-name", "x"}}, Dir: "/",
			Commands: []string{"x=1", "echo \"$x $A\"", " cd /tmp ", "pwd", "read line || echo no input"},
		})
		if want := "1 it's $B\n/tmp\nno input\n"; out != want || code != 0 {
			t.Errorf("%s: code %d, %s", shell, code, cmp.Diff(want, out))
		}
	}
}

func TestTheFirstFailureStops(t *testing.T) {
	for _, shell := range []string{"bash", "sh"} {
		for _, checks := range []bool{false, true} {
			out, code := run(t, shell, Script{Commands: []string{"echo a", "(exit 7)", "echo b"}, ExitChecks: checks})
			if out != "a\n" || code != 7 {
				t.Errorf("%s, checks %v: code %d, output %q", shell, checks, code, out)
			}
		}
	}
	if _, code := run(t, "bash", Script{Commands: []string{"false | true", "exit 0"}}); code != 1 {
		t.Errorf("pipefail: code %d", code)
	}
}

func TestEcho(t *testing.T) {
	s := Script{Commands: []string{"true # 'quoted' %s", "true\ntrue", ""}, Echo: true}
	out, _ := run(t, "bash", s)
	want := green + "$ true # 'quoted' %s" + reset + "\n" + green + "$ true # collapsed multi-line command" + reset + "\n\n"
	if d := cmp.Diff(want, out); d != "" {
		t.Error(d)
	}
	s.Sections, s.Section, s.Now = true, "script_step", func() time.Time { return time.Unix(5, 0) }
	out, _ = run(t, "sh", s)
	if !strings.Contains(out, "section_start:5:section_script_step_1[hide_duration=true,collapsed=true]\r\x1b[0K"+green+"$ true\ntrue") || !strings.Contains(out, "section_end:5:section_script_step_1\r\x1b[0K") {
		t.Errorf("no section in %q", out)
	}
}

// No value can break out of its quotes.
func TestValuesArriveAsTheyAre(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		value := rapid.StringMatching(`[a'"$\\`+"`"+`\n\t ;&|(){}é\x01-\x08]{0,30}`).Draw(rt, "value")
		out, code := run(t, "sh", Script{Variables: []Variable{{"V", value}}, Commands: []string{`printf '%s' "$V"`}})
		if out != value || code != 0 {
			rt.Fatalf("%q became %q (code %d)", value, out, code)
		}
	})
}

func TestPowerShellText(t *testing.T) {
	got := powershell(Script{Variables: []Variable{{"A", "it's ’quoted’ $x"}, {"HOME", "/x"}}, Dir: `C:\x`, Commands: []string{"make"}, Echo: true})
	for _, want := range []string{"$Env:A = 'it''s ’’quoted’’ $x'\r\n", "$CI_HOME = $Env:HOME", `Set-Location -LiteralPath 'C:\x'`, "make\r\nif (!$?)"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

func TestWhatFailsAtTheExitOfALoginShellIsNotTheJobs(t *testing.T) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".bash_logout"), []byte("[ -n \"$HOME\" ] && false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sh := Shells(true)["bash"]
	for _, want := range []int{0, 7} {
		cmd := exec.Command(sh.Program, sh.Args...)
		cmd.Env = append(os.Environ(), "HOME="+home)
		cmd.Stdin = strings.NewReader(sh.Text(Script{Commands: []string{"true", "(exit " + strconv.Itoa(want) + ")"}}))
		_ = cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("code %d, want %d", got, want)
		}
	}
}
