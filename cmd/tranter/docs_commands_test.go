package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/store"
)

// shellCheck knows our commands and the Makefile's targets.
type shellCheck struct {
	root    *cobra.Command
	targets string
}

func newShellCheck(t *testing.T) *shellCheck {
	t.Helper()
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	root := newRoot(streams{})
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	walk(root, func(cmd *cobra.Command) {
		cmd.InitDefaultHelpFlag()
		cmd.InitDefaultVersionFlag()
	})
	return &shellCheck{root, "\n" + string(makefile)}
}

// script checks the commands of a script: ours exist with their flags, files of this repository are there, and make has the targets.
func (c *shellCheck) script(t *testing.T, b block) {
	t.Helper()
	file, err := syntax.NewParser().Parse(strings.NewReader(b.text), "")
	if err != nil {
		t.Errorf("%s:%d: %v\nin\n%s", b.file, b.line, err, b.text)
		return
	}
	around := &expand.Config{
		Env:      expand.FuncEnviron(func(name string) string { return "$" + name }),
		CmdSubst: func(io.Writer, *syntax.CmdSubst) error { return nil }, // its commands are visited themselves
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		call, ok := n.(*syntax.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		words, err := expand.Fields(around, call.Args...)
		if err == nil {
			err = c.command(words)
		}
		if err != nil {
			t.Errorf("%s:%d: %v", b.file, b.line+int(call.Pos().Line()), err)
		}
		return true
	})
}

// session checks what is typed in a session at a terminal: lines that begin with "$ ".
func (c *shellCheck) session(t *testing.T, b block) {
	t.Helper()
	typed := 0
	for i, line := range strings.Split(b.text, "\n") {
		if text, ok := strings.CutPrefix(line, "$ "); ok {
			typed++
			c.script(t, block{file: b.file, line: b.line + i, text: text})
		}
	}
	if typed == 0 {
		t.Errorf("%s:%d: nothing is typed in this session: lines of commands begin with \"$ \"", b.file, b.line)
	}
}

// command checks the words of a command.
func (c *shellCheck) command(words []string) error {
	for len(words) > 1 && slices.Contains([]string{"sudo", "watch", "exec", "nohup", "time"}, words[0]) {
		words = words[1:]
	}
	for _, w := range words {
		if err := checkPath(strings.TrimPrefix(w, "./")); err != nil {
			return err
		}
	}
	switch name := filepath.Base(words[0]); {
	case name == "tranter":
		return c.ours(words[1:])
	case name == "make":
		return c.made(words[1:])
	case name == "docker" && slices.Contains(words, "run"):
		if i := slices.Index(words, "tranter"); i >= 0 && i+1 < len(words) {
			return c.ours(words[i+1:])
		}
	}
	return nil
}

// checkPath fails for a path in this repository that leads nowhere.
func checkPath(path string) error {
	root, _, below := strings.Cut(path, "/")
	if !below || !slices.Contains([]string{"docs", "deploy", "examples", "bench", "tools", "internal", "cmd"}, root) {
		return nil
	}
	_, err := os.Stat(filepath.Join("../..", path))
	return err
}

// made checks that the Makefile has targets.
func (c *shellCheck) made(words []string) error {
	for _, w := range words {
		if !strings.HasPrefix(w, "-") && !strings.Contains(w, "=") && !strings.Contains(c.targets, "\n"+w+":") {
			return fmt.Errorf("make has no target %s", w)
		}
	}
	return nil
}

// ours checks that a command line of ours exists, with its flags and as many arguments as it may have. Nothing is run.
func (c *shellCheck) ours(args []string) error {
	fail := func(err error) error {
		if err != nil {
			err = fmt.Errorf("tranter %s: %w", strings.Join(args, " "), err)
		}
		return err
	}
	cmd, rest, err := c.root.Find(doubleDashes(c.root, args))
	if err != nil {
		return fail(err)
	}
	defer cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Changed = false })
	if err := cmd.ParseFlags(rest); err != nil {
		return fail(err)
	}
	positional := cmd.Flags().Args()
	switch {
	case cmd.Flags().Changed("help"):
		return nil
	case cmd.Runnable():
		return fail(errors.Join(cmd.ValidateArgs(positional), cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups()))
	case len(positional) > 0:
		return fail(fmt.Errorf("there is no command %q", positional[0]))
	}
	return nil
}

// TestCommandsInSentencesExist checks what stands in the text of the documents as `tranter ...`, and paths of this repository.
func TestCommandsInSentencesExist(t *testing.T) {
	command := regexp.MustCompile("`((?:bin/)?tranter [a-z-][^`]*|(?:docs|deploy|examples|bench|tools|internal|cmd)/[^`{}*A-Z ]+)`")
	c, seen := newShellCheck(t), 0
	for name, page := range pages(t) {
		_, prose := blocks(t, name, page)
		for _, m := range command.FindAllStringSubmatch(prose, -1) {
			seen++
			file, err := syntax.NewParser().Parse(strings.NewReader(m[1]), "")
			if err != nil {
				t.Errorf("%s: %s: %v", name, m[1], err)
				continue
			}
			words, err := expand.Fields(&expand.Config{Env: expand.ListEnviron()}, file.Stmts[0].Cmd.(*syntax.CallExpr).Args...)
			if err == nil {
				err = c.command(words)
			}
			if err != nil && !strings.Contains(err.Error(), "accepts") && !strings.Contains(err.Error(), "requires") { // a command may be named without its arguments
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d commands were found", seen)
	}
}

// TestExamplesInTheDocumentsRun runs the blocks that are marked with "sh run", each in a directory with a configuration, a site
// file, a pipeline, and a state that knows one job.
func TestExamplesInTheDocumentsRun(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(program, filepath.Join(bin, "tranter")); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for name, page := range pages(t) {
		found, _ := blocks(t, name, page)
		for _, b := range found {
			if b.kind != "sh run" {
				continue
			}
			ran += strings.Count("\n"+b.text, "\ntranter ")
			t.Run(fmt.Sprintf("%s:%d", filepath.Base(b.file), b.line), func(t *testing.T) {
				t.Parallel()
				runBlock(t, b, bin)
			})
		}
	}
	if ran < 10 {
		t.Errorf("only %d commands are run", ran)
	}
}

func runBlock(t *testing.T, b block, bin string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"config.toml": docsConfig, ".gitlab-ci.yml": "test:\n  script: [make test]\n", "mine.toml": "concurrent = {{ CONCURRENT | 2 }}\n\n[[runners]]\n  executor = \"shell\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	docsPast(t, filepath.Join(dir, "state"))
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", b.text)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "CONFIG_FILE=" + filepath.Join(dir, "config.toml"),
		"TRANTER_STATE_DIR=" + filepath.Join(dir, "state"), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s:%d: %v\n%s\n%s", b.file, b.line, err, b.text, out)
	}
}

const docsConfig = `concurrent = 4

[[runners]]
  name = "cloud"
  url = "https://gitlab.example.com"
  token = "glrt-t1_abcdefghijklmnopqrst"
  executor = "docker+machine"
  limit = 4
  [runners.docker]
    image = "debian:stable-slim"
  [runners.machine]
    MachineDriver = "openstack"
    MachineName = "ci-%s"
    MachineOptions = ["openstack-flavor-name=m1.large", "openstack-image-name=debian-12", "openstack-ssh-user=debian"]
    IdleCount = 1
    IdleTime = 600
    price_per_hour = 0.1
`

// docsPast makes a state directory whose history has one job, which has failed.
func docsPast(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	h, err := store.OpenHistory(t.Context(), filepath.Join(dir, historyFile))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	err = h.Keep(t.Context(), tranter.JobHistory{
		Key: "4711-8f2c91d0a3b4", Runner: "abcdefghi", Name: "cloud", Executor: "docker+machine",
		Job:    tranter.JobLabel{ID: 4711, Name: "rspec", Project: "group/app", User: "ada"},
		Times:  tranter.JobTimes{Taken: now.Add(-time.Minute), Placed: now.Add(-50 * time.Second), Started: now.Add(-40 * time.Second), Ended: now},
		Result: tranter.Result{State: tranter.JobFailed, Reason: tranter.ScriptFailure, ExitCode: 1},
	})
	if err := errors.Join(err, h.Record(t.Context(), []tranter.Event{{Time: now, Kind: tranter.JobEnded, Job: "4711-8f2c91d0a3b4", Text: "ended"}}), h.Close()); err != nil {
		t.Fatal(err)
	}
}
