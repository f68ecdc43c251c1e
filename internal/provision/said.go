package provision

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Limits of what a machine may say.
const (
	maxLine   = 128 << 10 // a line for us: the longest has a daemon.json of 64 KiB
	maxText   = 400       // what is shown of one, in bytes
	maxLogged = 2000      // lines of one session that are logged
	keptLines = 12        // that are in the error when a step fails
)

// event is a line that a script has for us.
type event struct{ verb, name, text string }

// parseLine reads a line of a script's standard output: @MARKER VERB [NAME [TEXT]]. Others, as from a profile of the login,
// count for nothing.
func parseLine(line, marker string) (event, bool) {
	rest, ours := strings.CutPrefix(strings.TrimSuffix(line, "\r"), "@"+marker+" ")
	if !ours {
		return event{}, false
	}
	var e event
	e.verb, rest, _ = strings.Cut(rest, " ")
	e.name, e.text, _ = strings.Cut(rest, " ")
	if !isWord(e.verb) || e.name != "" && !isWord(e.name) {
		return event{}, false
	}
	return e, true
}

// isWord says whether a text is a short word of letters and digits.
func isWord(text string) bool {
	return text != "" && len(text) <= 64 && !strings.ContainsFunc(text, notPlain)
}

// clean makes a text of a machine's one that can be shown.
func clean(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r == utf8.RuneError, !unicode.IsPrint(r):
			return -1
		}
		return r
	}, text)
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return strings.TrimSpace(text)
}

// lines is a writer that cuts what it gets into lines. Of one that is too long the beginning counts.
type lines struct {
	limit int
	each  func(line string) error
	rest  []byte
}

func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, rest, whole := bytes.Cut(p, []byte("\n"))
		l.rest = append(l.rest, line[:min(len(line), l.limit-len(l.rest))]...)
		p = rest
		if !whole {
			break
		}
		text := string(l.rest)
		l.rest = l.rest[:0]
		if err := l.each(text); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// noise is what a script says on standard error: its programs' output. It goes to the log, and its end into the error.
type noise struct {
	log *slog.Logger

	mu    sync.Mutex
	tail  []string // guarded by mu
	count int      // guarded by mu
}

func (n *noise) add(line string) error {
	line = clean(line, maxText)
	if line == "" {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.count++; n.count <= maxLogged {
		n.log.LogAttrs(context.Background(), slog.LevelDebug, "the machine says", slog.String("text", line))
	}
	if len(n.tail) == keptLines {
		n.tail = n.tail[1:]
	}
	n.tail = append(n.tail, line)
	return nil
}

// last returns the end of it, in one line.
func (n *noise) last() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.tail, " | ")
}
