package pipeline

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// The grammar of rules:if is that of gitlab-server 5.2.

type tokenKind int

const (
	tokenEnd tokenKind = iota
	tokenOpen
	tokenClose
	tokenNot
	tokenOperator // == != =~ !~ && ||
	tokenVariable
	tokenInput
	tokenString
	tokenPattern
	tokenNull
	tokenBoolean
)

type token struct {
	kind tokenKind
	text string // name, content or operator
	at   int    // byte offset in the expression
}

const maxTokens = 100

var (
	errTooManyTokens = errors.New("too many tokens: at most 100")
	inputToken       = lazy.Regexp(`^\$\[\[\s*inputs\.(\w+)\s*\]\]`)
	variableToken    = lazy.Regexp(`^\$(\w+)`)
	stringToken      = lazy.Regexp(`^(?s:"(.*?)"|'(.*?)')`)
	patternToken     = lazy.Regexp(`^/(?:[^/\\]|\\.)(?:[^/\\]|\\.)*/[ismU]*`)
	wordToken        = lazy.Regexp(`^(?:null|true|false)\b`)
	operatorToken    = lazy.Regexp(`^(?:==|=~|!=|!~|&&|\|\|)`)
)

func tokenize(expression string) ([]token, error) {
	var tokens []token
	for at := 0; ; {
		rest := strings.TrimLeft(expression[at:], " \t\r\n\v\f")
		at = len(expression) - len(rest)
		if rest == "" {
			return append(tokens, token{kind: tokenEnd, at: at}), nil
		}
		if len(tokens) >= maxTokens {
			return nil, errTooManyTokens
		}
		t, size := scanToken(rest)
		if size == 0 {
			return nil, fmt.Errorf("unknown text at %q%s", clip(rest, 20), tokenHint(rest))
		}
		t.at = at
		tokens = append(tokens, t)
		at += size
	}
}

func scanToken(s string) (token, int) {
	if m := inputToken().FindStringSubmatch(s); m != nil {
		return token{kind: tokenInput, text: m[1]}, len(m[0])
	}
	if m := variableToken().FindStringSubmatch(s); m != nil {
		return token{kind: tokenVariable, text: m[1]}, len(m[0])
	}
	if m := stringToken().FindStringSubmatch(s); m != nil {
		return token{kind: tokenString, text: m[1] + m[2]}, len(m[0])
	}
	if m := operatorToken().FindString(s); m != "" {
		return token{kind: tokenOperator, text: m}, len(m)
	}
	if m := wordToken().FindString(s); m != "" {
		kind := tokenBoolean
		if m == "null" {
			kind = tokenNull
		}
		return token{kind: kind, text: m}, len(m)
	}
	switch s[0] {
	case '(':
		return token{kind: tokenOpen, text: "("}, 1
	case ')':
		return token{kind: tokenClose, text: ")"}, 1
	case '!':
		return token{kind: tokenNot, text: "!"}, 1
	case '/':
		if m := scanPattern(s); m != "" {
			return token{kind: tokenPattern, text: m}, len(m)
		}
	}
	return token{}, 0
}

// scanPattern finds /.../flags with at least two characters between the slashes.
func scanPattern(s string) string {
	m := patternToken().FindString(s)
	if end := strings.LastIndexByte(m, '/'); end < 3 {
		return ""
	}
	return m
}

func tokenHint(s string) string {
	switch {
	case strings.HasPrefix(s, "${"), strings.HasPrefix(s, "%"):
		return " (write $NAME: the forms ${NAME} and %NAME% are not for rules)"
	case s[0] == '/':
		return " (a pattern is /.../ with at least two characters)"
	case s[0] == '"' || s[0] == '\'':
		return " (the string is not closed)"
	case s[0] == '&' || s[0] == '|' || s[0] == '=':
		return " (the operators are ==, !=, =~, !~, && and ||)"
	}
	return " (strings need quotes, variables a $)"
}

func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "..."
	}
	return s
}
