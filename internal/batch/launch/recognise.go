package launch

import (
	"bufio"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// handed is a job that a command has handed to a batch system.
type handed struct {
	Command string `json:"command"` // that has taken it: sbatch, qsub, bsub or flux, with its path if that is known
	ID      string `json:"id"`
}

// form is one in which a submit command names the job.
type form struct {
	command string
	anyway  bool // unmistakable: also if another command was run, in which this one may have been
	line    func() *regexp.Regexp
}

// forms returns those that are known. What is matched in parentheses is the id.
func forms() []form {
	return []form{
		{"sbatch", true, slurmSays},
		{"sbatch", false, slurmParsable},
		{"bsub", true, lsfSays},
		{"qsub", true, pbsWithServer},
		{"qsub", false, pbsNumber},
		{"flux", true, fluxSign},
		{"flux", false, fluxPlain},
	}
}

var (
	slurmSays     = lazy.Regexp(`^Submitted batch job ([0-9]{1,18})\b`)
	slurmParsable = lazy.Regexp(`^([0-9]{1,18})(?:;[\w.-]{1,64})?$`) // sbatch --parsable
	lsfSays       = lazy.Regexp(`^Job <([0-9]{1,18})> is submitted to `)
	pbsWithServer = lazy.Regexp(`^([0-9]{1,18}(?:\[\])?\.[A-Za-z][\w.-]{0,200})$`)
	pbsNumber     = lazy.Regexp(`^([0-9]{1,18})$`)
	fluxSign      = lazy.Regexp(`^(ƒ[1-9A-HJ-NP-Za-km-z]{1,12})$`)
	fluxPlain     = lazy.Regexp(`^(f[1-9A-HJ-NP-Za-km-z]{1,12}|[0-9]{1,20})$`) // where the terminal knows no ƒ
)

// mostLine is how much of a line of output is looked at.
const mostLine = 4096

// longestName is how long a line may be that names a job.
const longestName = 512

// recognise looks for the last job that a command has named in its output. executable is what was run.
func recognise(executable string, output io.Reader) (handed, bool) {
	var found handed
	r := bufio.NewReaderSize(output, mostLine)
	for continued := false; ; {
		line, more, err := r.ReadLine()
		if err != nil {
			return found, found.ID != ""
		}
		if !continued && !more {
			if h, ok := named(executable, strings.TrimSpace(string(line))); ok {
				found = h
			}
		}
		continued = more
	}
}

// named reads one line of output.
func named(executable, line string) (handed, bool) {
	if line == "" || len(line) > longestName || !strings.ContainsRune("SJf\u01920123456789", first(line)) {
		return handed{}, false // soon, as most lines of much output are no id
	}
	base := filepath.Base(executable)
	for _, f := range forms() {
		if base != f.command && !f.anyway {
			continue
		}
		m := f.line().FindStringSubmatch(line)
		switch {
		case m == nil:
		case base == f.command:
			return handed{Command: executable, ID: m[1]}, true // which may be in a place of its own
		default:
			return handed{Command: f.command, ID: m[1]}, true
		}
	}
	return handed{}, false
}

func first(text string) rune {
	r, _ := utf8.DecodeRuneInString(text)
	return r
}
