package pipeline

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// fnmatch matches a path of the repository as Ruby's File.fnmatch? with the flags that GitLab gives it: "*" stops at a
// slash, "**/" crosses directories, dot files are not special, {a,b} is an alternative.
type fnmatch struct {
	patterns []string
}

// maxAlternatives bounds what the braces of one glob may grow to.
const maxAlternatives = 1000

func newFnmatch(glob string) fnmatch {
	return fnmatch{patterns: braces(glob, nil)}
}

func (f fnmatch) match(path string) bool {
	for _, p := range f.patterns {
		if matchPath(p, path) {
			return true
		}
	}
	return false
}

// braces expands {a,b}, nested ones too; a backslash keeps a brace as it is.
func braces(glob string, out []string) []string {
	open, end, commas := outerBraces(glob)
	if open < 0 || len(out) >= maxAlternatives {
		return append(out, glob)
	}
	start := open + 1
	for _, comma := range append(commas, end) {
		out = braces(glob[:open]+glob[start:comma]+glob[end+1:], out)
		start = comma + 1
	}
	return out
}

func outerBraces(glob string) (open, end int, commas []int) {
	open, depth := -1, 0
	for i := 0; i < len(glob); i++ {
		switch glob[i] {
		case '\\':
			i++
		case '{':
			if depth == 0 {
				open = i
			}
			depth++
		case ',':
			if depth == 1 {
				commas = append(commas, i)
			}
		case '}':
			if depth == 0 {
				continue
			}
			if depth--; depth == 0 {
				return open, i, commas
			}
		}
	}
	return -1, -1, nil
}

// matchPath matches segment by segment, so that "*" cannot cross a slash.
func matchPath(pattern, path string) bool {
	for {
		if rest, ok := strings.CutPrefix(pattern, "**/"); ok {
			for strings.HasPrefix(rest, "**/") {
				rest = rest[3:]
			}
			return matchBelow(rest, path)
		}
		p, patternRest, patternMore := strings.Cut(pattern, "/")
		s, pathRest, pathMore := strings.Cut(path, "/")
		if patternMore != pathMore || !matchSegment(p, s) {
			return false
		}
		if !patternMore {
			return true
		}
		pattern, path = patternRest, pathRest
	}
}

func matchBelow(pattern, path string) bool {
	for {
		if matchPath(pattern, path) {
			return true
		}
		_, rest, more := strings.Cut(path, "/")
		if !more {
			return false
		}
		path = rest
	}
}

// matchSegment matches within one directory level, going back to the last star only: that is enough and never slow.
func matchSegment(p, s string) bool {
	star, starAt := -1, 0
	i, j := 0, 0
	for j < len(s) {
		if i < len(p) && p[i] == '*' {
			star, starAt = i, j
			i++
			continue
		}
		if size, width, ok := matchOne(p[i:], s[j:]); ok {
			i, j = i+size, j+width
			continue
		}
		if star < 0 {
			return false
		}
		_, width := utf8.DecodeRuneInString(s[starAt:])
		starAt += width
		i, j = star+1, starAt
	}
	return strings.Trim(p[i:], "*") == ""
}

// matchOne matches one character; it returns how much of pattern and text that took.
func matchOne(p, s string) (size, width int, ok bool) {
	if p == "" {
		return 0, 0, false
	}
	r, width := utf8.DecodeRuneInString(s)
	switch p[0] {
	case '?':
		return 1, width, true
	case '[':
		if size, ok := matchSet(p, r); size > 0 {
			return size, width, ok
		}
	case '\\':
		if len(p) > 1 {
			want, size := utf8.DecodeRuneInString(p[1:])
			return 1 + size, width, want == r
		}
	}
	want, size := utf8.DecodeRuneInString(p)
	return size, width, want == r
}

// matchSet matches [a-z]; size is 0 when the bracket is not closed and so stands for itself.
func matchSet(p string, r rune) (size int, ok bool) {
	i := 1
	negated := i < len(p) && (p[i] == '^' || p[i] == '!')
	if negated {
		i++
	}
	for first := true; i < len(p); first = false {
		if p[i] == ']' && !first {
			return i + 1, ok != negated
		}
		low, n := setRune(p[i:])
		i += n
		high := low
		if i+1 < len(p) && p[i] == '-' && p[i+1] != ']' {
			high, n = setRune(p[i+1:])
			i += 1 + n
		}
		ok = ok || (low <= r && r <= high)
	}
	return 0, false
}

func setRune(p string) (r rune, size int) {
	if p[0] == '\\' && len(p) > 1 {
		r, size = utf8.DecodeRuneInString(p[1:])
		return r, size + 1
	}
	return utf8.DecodeRuneInString(p)
}

// wildcard compiles a path of include:local: there "**" crosses directories anywhere, and "*" does not.
func wildcard(path string) *regexp.Regexp {
	escaped := regexp.QuoteMeta(path)
	escaped = strings.ReplaceAll(escaped, `\*\*`, `.*?`)
	escaped = strings.ReplaceAll(escaped, `\*`, `[^/]*?`)
	return regexp.MustCompile(`^` + escaped + `$`) // of quoted text and our own pieces: it always compiles
}
