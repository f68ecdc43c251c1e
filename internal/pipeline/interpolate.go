package pipeline

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tranter-ci/tranter/internal/lazy"
)

var (
	interpolation = lazy.Regexp(`\$\[\[(.*?)\]\]`)
	accessPart    = lazy.Regexp(`^([^\[\]]+)((?:\[\d+\])*)$`)
	functionCall  = lazy.Regexp(`^(\w+)(?:\((.*)\))?$`)
)

const (
	maxBlockBytes     = 1024
	maxAccessLevels   = 5
	maxBlockFunctions = 3
)

// interpolator replaces $[[ inputs.x ]] in a parsed file. $[[ matrix.x ]] is left for needs.
type interpolator struct {
	report    *report
	inputs    map[string]*value
	scope     *scope
	component map[string]any
}

func (ip *interpolator) apply(v *value) *value {
	if v == nil {
		return nil
	}
	switch v.kind {
	case text:
		return ip.text(v)
	case list, reference:
		out := &value{kind: v.kind, at: v.at}
		for _, item := range v.items {
			out.items = append(out.items, ip.apply(item))
		}
		return out
	case hash:
		out := newHash(v.at)
		for _, p := range v.pairs {
			key := p.key
			if strings.Contains(key, "$[[") {
				key = ip.text(newText(key, p.at)).plainText()
			}
			out.set(key, p.at, ip.apply(p.val))
		}
		return out
	default:
		return v
	}
}

func (ip *interpolator) text(v *value) *value {
	if !strings.Contains(v.text, "$[[") {
		return v
	}
	if m := interpolation().FindStringSubmatch(v.text); m != nil && m[0] == v.text {
		if out, keep := ip.block(m[1], v.at); !keep {
			return out
		}
		return v
	}
	out := interpolation().ReplaceAllStringFunc(v.text, func(block string) string {
		result, keep := ip.block(block[3:len(block)-2], v.at)
		if keep {
			return block
		}
		return result.plainText()
	})
	if len(out) > maxExpanded {
		ip.report.errorf(v.at, "", "the interpolated text is longer than %d bytes", maxExpanded)
		out = ""
	}
	return newText(out, v.at)
}

// block evaluates what stands between $[[ and ]]. keep asks to leave it as it is.
func (ip *interpolator) block(s string, at position) (v *value, keep bool) {
	none := newText("", at)
	if len(s) > maxBlockBytes {
		ip.report.errorf(at, "", "interpolation block is longer than %d bytes", maxBlockBytes)
		return none, false
	}
	parts := splitPipes(s)
	access := strings.TrimSpace(parts[0])
	if root, _, _ := strings.Cut(access, "."); root == "matrix" || root == "job" {
		return nil, true
	}
	out, err := ip.access(access)
	if err == nil && len(parts)-1 > maxBlockFunctions {
		err = fmt.Errorf("too many functions in interpolation block: at most %d", maxBlockFunctions)
	}
	for _, f := range parts[1:] {
		if err == nil {
			out, err = ip.call(strings.TrimSpace(f), out)
		}
	}
	if err != nil {
		ip.report.errorf(at, "", "$[[%s]]: %v", s, err)
		return none, false
	}
	at2 := *out
	at2.at = at
	return &at2, false
}

// splitPipes splits at |, but not inside quotes.
func splitPipes(s string) []string {
	var parts []string
	start, quote := 0, byte(0)
	for i := range len(s) {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '|':
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

func (ip *interpolator) access(path string) (*value, error) {
	parts := strings.Split(path, ".")
	if len(parts) > maxAccessLevels {
		return nil, fmt.Errorf("at most %d levels of access", maxAccessLevels)
	}
	if len(parts) < 2 {
		return nil, fmt.Errorf("invalid pattern: write inputs.name")
	}
	if parts[0] == "component" {
		if v, ok := ip.component[parts[1]].(string); ok {
			return newText(v, position{}), nil
		}
		return nil, fmt.Errorf("unknown component context: %s", parts[1])
	}
	if parts[0] != "inputs" {
		return nil, fmt.Errorf("unknown interpolation key: `%s`", parts[0])
	}
	var v *value
	for i, part := range parts[1:] {
		m := accessPart().FindStringSubmatch(strings.TrimSpace(part))
		if m == nil {
			return nil, fmt.Errorf("unknown input name provided: `%s`", part)
		}
		if i == 0 {
			v = ip.inputs[m[1]]
		} else {
			v = v.get(m[1])
		}
		if v == nil {
			return nil, fmt.Errorf("unknown input name provided: `%s`%s", m[1], nearest(m[1], sortedKeys(ip.inputs)))
		}
		var err error
		if v, err = element(v, m[2]); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// element follows [0][1] into arrays.
func element(v *value, indexes string) (*value, error) {
	for s := range strings.SplitSeq(strings.Trim(indexes, "[]"), "][") {
		if s == "" {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil || !v.is(list) || n >= len(v.items) {
			return nil, fmt.Errorf("there is no element %s", s)
		}
		v = v.items[n]
	}
	return v, nil
}

var errNotText = errors.New("the function needs a string")

func (ip *interpolator) call(s string, v *value) (*value, error) {
	m := functionCall().FindStringSubmatch(s)
	if m == nil {
		return nil, fmt.Errorf("no function matching `%s`", s)
	}
	if !v.scalar() {
		return nil, fmt.Errorf("%s: %w", m[1], errNotText)
	}
	switch m[1] {
	case "expand_vars":
		return newText(ip.scope.expandKnown(v.text), v.at), nil
	case "truncate":
		return truncate(v, m[2])
	case "posix_escape":
		return newText(shellEscape(v.text), v.at), nil
	case "posix_quote":
		return newText("'"+strings.ReplaceAll(v.text, "'", `'\''`)+"'", v.at), nil
	case "split":
		sep := strings.Trim(strings.TrimSpace(m[2]), `'"`)
		if sep == "" {
			return nil, fmt.Errorf("split needs a separator: split(',')")
		}
		out := &value{kind: list, at: v.at}
		for part := range strings.SplitSeq(v.text, sep) {
			out.items = append(out.items, newText(part, v.at))
		}
		return out, nil
	}
	return nil, fmt.Errorf("no function matching `%s`: check that the function name, arguments, and types are correct", s)
}

func truncate(v *value, args string) (*value, error) {
	from, count, ok := strings.Cut(args, ",")
	a, err1 := strconv.Atoi(strings.TrimSpace(from))
	n, err2 := strconv.Atoi(strings.TrimSpace(count))
	if !ok || err1 != nil || err2 != nil || a < 0 || n < 0 {
		return nil, fmt.Errorf("truncate needs offset and length: truncate(0,8)")
	}
	runes := []rune(v.text)
	a = min(a, len(runes))
	return newText(string(runes[a:a+min(n, len(runes)-a)]), v.at), nil
}

var shellSafe = lazy.Regexp(`[^A-Za-z0-9_\-.,:+/@\n]`)

// shellEscape puts a backslash before everything that a shell may take for more than a letter.
func shellEscape(s string) string {
	if s == "" {
		return "''"
	}
	return strings.ReplaceAll(shellSafe().ReplaceAllString(s, `\$0`), "\n", "'\n'")
}
