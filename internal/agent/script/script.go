// Package script writes the text of a shell script from a job's commands: exports, echo of each command, sections,
// strictness (runner contract, sections 9.1 and 9.2).
//
// It starts nothing. Package agent gives the text to the shell, on standard input or in a file that only the job's user
// can read, so that no value of a variable shows up in a process list.
package script

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Variable is one that the script exports.
type Variable struct{ Key, Value string }

// Script is what to write.
type Script struct {
	Before     string // shell code to go first; POSIX shells only
	After      string // shell code to go last, without an echo; POSIX shells only
	Variables  []Variable
	Dir        string // where the commands run; "" stays
	Commands   []string
	Echo       bool // print each command before it runs
	Trace      bool // set -o xtrace
	ExitChecks bool // look at the exit code after each command
	Sections   bool // wrap commands of several lines into sections of the log
	Section    string
	Now        func() time.Time
}

// Shell says how to run the scripts of one kind of shell.
type Shell struct {
	Program string   // looked up in the PATH
	Args    []string // for a script on standard input; for one in a file, the file's name follows
	File    string   // file name ending if the script must be in a file; "": standard input
	Text    func(Script) string
}

// Shells returns the shells by the names that a configuration gives them. Login shells read the profile files.
func Shells(login bool) map[string]Shell {
	var args []string
	if login {
		args = []string{"-l"}
	}
	pwsh := []string{"-NoProfile", "-NoLogo", "-InputFormat", "text", "-OutputFormat", "text", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File"}
	return map[string]Shell{
		"bash":       {Program: "bash", Args: args, Text: posix},
		"sh":         {Program: "sh", Args: args, Text: posix},
		"pwsh":       {Program: "pwsh", Args: pwsh, File: ".ps1", Text: powershell},
		"powershell": {Program: "powershell", Args: pwsh, File: ".ps1", Text: powershell},
	}
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Exportable says whether key can be the name of a variable in a shell; others reach a script by its environment only.
func Exportable(key string) bool { return identifier.MatchString(key) && !Reserved(key) }

// Reserved says whether a name is the shell's own: setting it ends the script, in bash because it can't be changed or
// takes numbers only, in dash because OPTIND does.
func Reserved(key string) bool {
	switch key {
	case "BASHOPTS", "BASH_VERSINFO", "EUID", "HISTCMD", "OPTIND", "PPID", "SHELLOPTS", "SRANDOM", "UID":
		return true
	}
	return false
}

const (
	green = "\x1b[32;1m"
	reset = "\x1b[0;m"
)

// posix returns the text for bash and every POSIX shell.
func posix(s Script) string {
	var b strings.Builder
	b.WriteString(s.Before)
	for _, v := range s.Variables {
		if Exportable(v.Key) {
			fmt.Fprintf(&b, "export %s=%s\n", v.Key, Quote(v.Value))
		}
	}
	if s.Dir != "" {
		fmt.Fprintf(&b, "cd %s\n", Quote(s.Dir))
	}
	for i, command := range s.Commands {
		command = strings.TrimSpace(strings.ReplaceAll(command, "\x00", ""))
		s.posixEcho(&b, i, command)
		b.WriteString(command)
		b.WriteString("\n")
		if s.ExitChecks {
			b.WriteString("_tranter_status=$?; if [ $_tranter_status -ne 0 ]; then exit $_tranter_status; fi\n")
		}
	}
	b.WriteString(s.After)
	var out strings.Builder
	out.WriteString("trap 'exit 1' TERM\n")
	if s.Trace {
		out.WriteString("set -o xtrace\n")
	}
	out.WriteString("if (set -o pipefail) 2>/dev/null; then set -o pipefail; fi; set -o errexit; set +o noclobber\n")
	// One word, so that the shell has read all of its standard input before the first command runs. A login shell runs
	// ~/.bash_logout at its exit: what fails there, as Debian's does without a terminal, is not the job's.
	fmt.Fprintf(&out, "(trap 'exit 1' TERM; eval %s) < /dev/null\nset +o errexit\nexit 0\n", Quote(b.String()))
	return out.String()
}

func (s Script) posixEcho(b *strings.Builder, i int, command string) {
	if !s.Echo {
		return
	}
	if command == "" {
		b.WriteString("echo\n")
		return
	}
	first, _, several := strings.Cut(command, "\n")
	switch {
	case several && s.Sections:
		name := fmt.Sprintf("section_%s_%d", s.Section, i)
		now := s.Now().Unix()
		fmt.Fprintf(b, "printf '%%b%%s%%b' %s %s %s\n",
			Quote(fmt.Sprintf(`section_start:%d:%s[hide_duration=true,collapsed=true]\r\033[0K`, now, name)),
			Quote(green+"$ "+command+reset+"\n"),
			Quote(fmt.Sprintf(`section_end:%d:%s\r\033[0K`, now, name)))
	case several:
		fmt.Fprintf(b, "printf '%%s\\n' %s\n", Quote(green+"$ "+first+" # collapsed multi-line command"+reset))
	default:
		fmt.Fprintf(b, "printf '%%s\\n' %s\n", Quote(green+"$ "+command+reset))
	}
}

// SaveEnviron returns POSIX shell code that writes the shell's environment to a file, each variable ended by a NUL, or
// nothing where "env" can't do that.
func SaveEnviron(file string) string { return "env -0 > " + Quote(file) + " 2>/dev/null || :\n" }

// Quote returns s as one word of a POSIX shell.
func Quote(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", `'\''`) + "'"
}
