// Package stagescript writes what a step of a phase does as the text of a shell script, for environments that only a
// custom executor's driver can reach (runner contract, sections 3.1, 6 to 9 and 10.6).
//
// A script needs nothing but a POSIX shell, git for the sources, and the program gitlab-runner or tranter for caches and
// artifacts. It is pure: package agent/driver gives the texts to the driver.
package stagescript

import (
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/script"
)

// Around is what a script depends on besides its phase.
type Around struct {
	Status string // of the job so far, for after_script: the value of CI_JOB_STATUS
	Now    func() time.Time
}

// ClearWorktree is the name of the stage that comes before another try to get the sources.
const ClearWorktree = "clear_worktree"

// Name returns the name under which a driver knows the step (runner contract, section 10.1).
func Name(s *tranter.Step) string {
	if s.Name == "step_script" {
		return "build_script"
	}
	return s.Name
}

// Of returns the script of a step.
func Of(p *tranter.Phase, s *tranter.Step, around Around) string {
	if s.Script != nil {
		return user(p, s, around)
	}
	w := &writer{phase: p, around: around}
	switch {
	case s.Prepare != nil:
		w.prepare(s.Prepare)
	case s.Sources != nil:
		w.exports()
		w.sources(s.Sources)
	case s.Restore != nil:
		w.exports()
		mover{w}.restore(s.Restore)
	case s.Download != nil:
		w.exports()
		mover{w}.download(s.Download)
	case s.Archive != nil:
		w.exports()
		mover{w}.archive(s.Archive)
	case s.Upload != nil:
		w.exports()
		mover{w}.upload(s.Upload)
	case s.Cleanup != nil:
		// Nothing of the job's variables: one of them may keep programs from being found, and secrets would stay.
		w.cleanup(s.Cleanup)
	}
	return w.text()
}

// Clear returns the script of the stage ClearWorktree (runner contract, section 6.7).
func Clear(p *tranter.Phase) string {
	w := &writer{phase: p}
	w.exports()
	w.functions()
	w.clear()
	return w.text()
}

// user returns a script of the user (runner contract, section 9.2).
func user(p *tranter.Phase, s *tranter.Step, around Around) string {
	w := &writer{phase: p}
	w.userExports()
	section := "script_step"
	if s.Script.After {
		section = "after_script_step"
		w.line("export CI_JOB_STATUS=%s", script.Quote(around.Status))
	}
	return shebang(p) + shell(p)(script.Script{
		Before: w.String(), Dir: p.Dirs.Project, Commands: s.Script.Commands, Echo: true, Trace: s.Script.Trace,
		ExitChecks: s.Script.ExitChecks, Sections: s.Script.Sections, Section: section, Now: around.Now,
	})
}

func shell(p *tranter.Phase) func(script.Script) string {
	return script.Shells(false)[shellName(p)].Text
}

func shebang(p *tranter.Phase) string { return "#!/usr/bin/env " + shellName(p) + "\n" }

func shellName(p *tranter.Phase) string {
	if p.Shell == "sh" {
		return "sh"
	}
	return "bash"
}

// prepare makes the job's directories, takes away what a job before may have left in them, and tells where it runs.
func (w *writer) prepare(s *tranter.PrepareStep) {
	host := "\"$(hostname 2>/dev/null || uname -n 2>/dev/null || echo 'an unnamed host')\""
	if d := w.phase.Driver; d != nil && d.Host != "" {
		host = script.Quote(d.Host)
	}
	before, after, _ := strings.Cut(s.Greeting, "%s")
	w.line("printf '%%s%%s%%s\\n' %s %s %s", script.Quote(literal(before)), host, script.Quote(literal(after)))
	if names := w.reserved(); len(names) > 0 {
		w.functions()
		w.warn("variables of the shell's own can't be set by a job and are left out: %s", strings.Join(names, ", "))
	}
	w.makeTemp()
	left := script.Quote(w.temp(fileVariables))
	w.line("if [ -f %s ]; then", left)
	w.line("while IFS= read -r _name; do")
	w.line("case $_name in ''|.|..|*/*) ;; *) rm -f %s/\"$_name\" ;; esac", script.Quote(w.phase.Dirs.Temp))
	w.line("done <%s", left)
	w.line("fi")
	w.line("rm -f %s %s %s", left, script.Quote(w.temp(gitlabEnv)), script.Quote(w.temp(maskingDB)))
}

// literal is a piece of a format of package fmt that has no verbs in it.
func literal(s string) string { return strings.ReplaceAll(s, "%%", "%") }

// cleanup takes away what the job must not leave behind (runner contract, section 6.9).
func (w *writer) cleanup(s *tranter.CleanupStep) {
	w.functions()
	if s.WipeBuild {
		w.wipe(s)
	}
	files := []string{gitlabEnv, maskingDB, settingsName, fileVariables}
	for _, v := range w.files() {
		files = append(files, v.Key)
	}
	var quoted []string
	for _, f := range files {
		quoted = append(quoted, script.Quote(w.temp(f)))
	}
	w.line("rm -f %s %s*", strings.Join(quoted, " "), script.Quote(w.temp(credentialName)))
	w.line("rm -rf %s", script.Quote(w.temp(templateName)))
	w.line("_unlock")
	w.line("rmdir %s 2>/dev/null || :", script.Quote(w.phase.Dirs.Temp))
}

// wipe takes the job's changes out of the working tree, or all of it when the next job would not use it.
func (w *writer) wipe(s *tranter.CleanupStep) {
	project := script.Quote(w.phase.Dirs.Project)
	switch s.Strategy {
	case "none":
		return
	case "clone", "empty":
		w.line("_remove %s", project)
		return
	}
	steps := [][]string{{"reset", "--hard"}}
	if s.CleanFlags != nil {
		steps = slices.Insert(steps, 0, slices.Concat([]string{"clean"}, s.CleanFlags))
	}
	w.line("if [ -d %s/.git ]; then (", project)
	w.line("cd %s", project)
	for _, args := range steps {
		w.line("git %s || :", words(args))
	}
	w.line("if [ -f .gitmodules ]; then")
	for _, args := range steps {
		w.line("git submodule foreach --recursive %s || :", script.Quote("git "+words(args)))
	}
	w.line("fi")
	w.line(") || :; fi")
}

// temp returns the path of a file in the job's temporary directory.
func (w *writer) temp(name string) string { return path.Join(w.phase.Dirs.Temp, name) }
