package stagescript

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter"
	"github.com/tranter-ci/tranter/internal/agent/script"
)

// Files in the job's temporary directory.
const (
	gitlabEnv      = "gitlab_runner_env"
	maskingDB      = "masking.db"
	fileVariables  = "tranter-file-variables" // names of the file variables there, one a line
	settingsName   = "tranter-git.conf"
	credentialName = "tranter-git-credential-"
	templateName   = "git-template"
)

// writer collects the commands of a script.
type writer struct {
	strings.Builder

	phase  *tranter.Phase
	around Around
}

func (w *writer) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

// text returns the whole script.
func (w *writer) text() string {
	return shebang(w.phase) + shell(w.phase)(script.Script{Before: w.String()})
}

// words returns args as words of a shell.
func words(args []string) string {
	quoted := make([]string, 0, len(args))
	for _, a := range args {
		quoted = append(quoted, script.Quote(a))
	}
	return strings.Join(quoted, " ")
}

// variables returns the variables that a script can export, the last of each name, in order.
func (w *writer) variables() []tranter.Variable {
	all := w.phase.Variables
	last := make(map[string]int, len(all))
	for i, v := range all {
		last[v.Key] = i
	}
	var out []tranter.Variable
	for i, v := range all {
		if last[v.Key] == i && script.Exportable(v.Key) {
			out = append(out, v)
		}
	}
	return out
}

// reserved returns the names of the job's variables that a script leaves out.
func (w *writer) reserved() []string {
	var out []string
	for _, v := range w.phase.Variables {
		if script.Reserved(v.Key) && !slices.Contains(out, v.Key) {
			out = append(out, v.Key)
		}
	}
	return out
}

// files returns the file variables.
func (w *writer) files() []tranter.Variable {
	var out []tranter.Variable
	for _, v := range w.variables() {
		if v.File {
			out = append(out, v)
		}
	}
	return out
}

// maxExport is the size from which on a value is not exported to the programs of the runner's stages, in bytes. Linux
// starts no program with a variable of 128 KiB.
const maxExport = 100_000

// userExports gives a script of the user the job's variables, and what the job has written to GITLAB_ENV (runner
// contract, sections 5.3, 5.4 and 9.1). File variables are written anew.
func (w *writer) userExports() {
	w.fileVariables()
	w.exportAll(func(key, value string) { w.line("export %s=%s", key, value) }, readGitlabEnv(""))
}

// exports does the same for the stages of the runner, whose programs must start however large a value is.
func (w *writer) exports() {
	w.fileVariables()
	w.exportAll(func(key, value string) {
		if len(value) > maxExport {
			w.line("unset %[1]s; %[1]s=%[2]s", key, value) // it may be exported already
			return
		}
		w.line("export %s=%s", key, value)
	}, readGitlabEnv(largeLine))
}

func (w *writer) exportAll(export func(key, quoted string), read string) {
	for _, v := range w.variables() {
		value := v.Value
		if v.File {
			value = w.temp(v.Key)
		}
		export(v.Key, script.Quote(value))
	}
	w.line("export GITLAB_ENV=%s", script.Quote(w.temp(gitlabEnv)))
	w.WriteString(read)
}

// fileVariables writes the file variables. It comes before the exports, which may keep programs from being found or
// started.
func (w *writer) fileVariables() {
	files := w.files()
	if len(files) == 0 {
		return
	}
	var names strings.Builder
	for _, v := range files {
		names.WriteString(v.Key + "\n")
	}
	w.makeTemp()
	w.private(w.temp(fileVariables), names.String())
	for _, v := range files {
		w.private(w.temp(v.Key), v.Value)
	}
}

// largeLine sets a variable that is too large to export: shells count characters, of at most four bytes each.
const largeLine = `if [ ${#_tranter_line} -gt 25000 ]; then unset "$_tranter_key"; eval "$_tranter_key=\${_tranter_line#*=}"; continue; fi
`

// readGitlabEnv exports the lines of the file. What is in special is done before a line is exported.
func readGitlabEnv(special string) string {
	return `if [ -f "$GITLAB_ENV" ]; then
_tranter_cr=$(printf '\r')
while IFS= read -r _tranter_line || [ -n "$_tranter_line" ]; do
_tranter_line=${_tranter_line%"$_tranter_cr"}
_tranter_key=${_tranter_line%%=*}
case $_tranter_line in
'') continue ;;
[!A-Za-z_]*) _tranter_key=- ;;
*=*) ;;
*) _tranter_key=- ;;
esac
case $_tranter_key in
*[!A-Za-z0-9_]*) printf '\033[0;33m%s\033[0;m\n' 'WARNING: ignored a line of $GITLAB_ENV that is not KEY=VALUE'; continue ;;
BASHOPTS|BASH_VERSINFO|EUID|HISTCMD|OPTIND|PPID|SHELLOPTS|SRANDOM|UID|_tranter_*) continue ;;
esac
` + special + `export "$_tranter_line"
done <"$GITLAB_ENV"
unset _tranter_line _tranter_key _tranter_cr
fi
`
}

// makeTemp makes the job's temporary directory, which others have no business in, and the directories above it.
func (w *writer) makeTemp() {
	temp := w.phase.Dirs.Temp
	w.line("mkdir -p %s", script.Quote(path.Dir(temp)))
	w.line("(umask 077; mkdir -p %s)", script.Quote(temp))
}

// private writes a file that only the user can read, whatever was in its place. The text is in no process list: printf
// is a command of the shell itself.
func (w *writer) private(file, text string) {
	w.line("(umask 077; rm -f %[1]s; printf '%%s' %[2]s >%[1]s)", script.Quote(file), script.Quote(text))
}

// info writes a message in bold green, as the log has those of the agent.
func (w *writer) info(format string, args ...any) {
	w.line("_info %s", script.Quote(fmt.Sprintf(format, args...)))
}

func (w *writer) warn(format string, args ...any) {
	w.line("_warn %s", script.Quote(fmt.Sprintf(format, args...)))
}

// functions defines what the stages of the runner use; those of the user do not see it.
func (w *writer) functions() {
	w.WriteString(`_info() { printf '\033[32;1m%s\033[0;m\n' "$1"; }
_warn() { printf '\033[0;33mWARNING: %s\033[0;m\n' "$1"; }
_fail() { printf '\033[31;1mERROR: %s\033[0;m\n' "$1"; exit 1; }
_remove() {
[ -e "$1" ] || [ -L "$1" ] || return 0
rm -rf "$1" 2>/dev/null && return 0
chmod -R u+rwX "$1" 2>/dev/null || :
rm -rf "$1" || [ -z "$(ls -A "$1")" ]
}
`)
	git := script.Quote(path.Join(w.phase.Dirs.Project, ".git"))
	w.line(`_unlock() {
[ -d %[1]s ] && [ ! -L %[1]s ] || return 0
rm -f %[1]s/index.lock %[1]s/shallow.lock %[1]s/HEAD.lock %[1]s/hooks/post-checkout %[1]s/config.lock
[ ! -d %[1]s/modules ] || find %[1]s/modules -type f \( -name index.lock -o -name shallow.lock -o -name HEAD.lock -o -name post-checkout -o -name config.lock \) -exec rm -f {} +
[ ! -d %[1]s/refs ] || find %[1]s/refs -type f -name '*.lock' -exec rm -f {} +
}`, git)
}

// runner finds the program that does the work on caches and artifacts. Its name is then in _runner.
func (w *writer) runner() {
	w.WriteString(`_runner=
for _name in gitlab-runner tranter; do
if [ -z "$_runner" ] && command -v "$_name" >/dev/null 2>&1; then _runner=$_name; fi
done
`)
}
