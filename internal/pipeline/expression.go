package pipeline

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/tranter-ci/tranter/internal/lazy"
)

// expression is a parsed rules:if.
type expression struct {
	op    string // "" for an operand, "!" with left only, or an operator
	leaf  token
	left  *expression
	right *expression
	regex *regexp.Regexp // of a pattern
}

// textForPattern returns a string that stands where =~ or !~ want a pattern.
func (e *expression) textForPattern() (s string, found bool) {
	if e == nil {
		return "", false
	}
	if r := e.right; (e.op == "=~" || e.op == "!~") && r.op == "" && r.leaf.kind == tokenString && !patternShape().MatchString(r.leaf.text) {
		return r.leaf.text, true
	}
	if s, found = e.left.textForPattern(); !found {
		s, found = e.right.textForPattern()
	}
	return s, found
}

// operand is what a part of an expression yields: nothing, a string, a boolean or a pattern.
type operand struct {
	set    bool
	text   string
	truth  bool
	isBool bool
	regex  *regexp.Regexp
}

// Ruby's notion of truth, by which && and || choose their operand: only nothing and false are not true.
func (o operand) truthy() bool { return o.set && (!o.isBool || o.truth) }

// present decides whether a rule passes: nothing, false and blank text do not.
func (o operand) present() bool {
	if o.isBool {
		return o.truth
	}
	return o.set && (o.regex != nil || strings.TrimSpace(o.text) != "")
}

func (o operand) asText() string {
	if o.isBool {
		return fmt.Sprint(o.truth)
	}
	return o.text
}

func boolOperand(b bool) operand { return operand{set: true, isBool: true, truth: b} }

type expressionParser struct {
	tokens []token
	next   int
}

// parseExpression reads a rules:if. The error says what is wrong in a few words.
func parseExpression(text string) (*expression, error) {
	tokens, err := tokenize(text)
	if err != nil {
		return nil, err
	}
	p := &expressionParser{tokens: tokens}
	e, err := p.or()
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != tokenEnd {
		return nil, fmt.Errorf("unexpected %q", t.text)
	}
	return e, nil
}

func (p *expressionParser) peek() token { return p.tokens[p.next] }

func (p *expressionParser) take() token {
	t := p.tokens[p.next]
	if t.kind != tokenEnd {
		p.next++
	}
	return t
}

func (p *expressionParser) operators(operand func() (*expression, error), ops ...string) (*expression, error) {
	left, err := operand()
	if err != nil {
		return nil, err
	}
	for {
		t := p.peek()
		if t.kind != tokenOperator || !slices.Contains(ops, t.text) {
			return left, nil
		}
		p.take()
		right, err := operand()
		if err != nil {
			return nil, err
		}
		left = &expression{op: t.text, left: left, right: right}
	}
}

func (p *expressionParser) or() (*expression, error)  { return p.operators(p.and, "||") }
func (p *expressionParser) and() (*expression, error) { return p.operators(p.comparison, "&&") }

func (p *expressionParser) comparison() (*expression, error) {
	return p.operators(p.unary, "==", "!=", "=~", "!~")
}

func (p *expressionParser) unary() (*expression, error) {
	t := p.take()
	switch t.kind {
	case tokenNot:
		inner, err := p.unary()
		if err != nil {
			return nil, err
		}
		return &expression{op: "!", left: inner}, nil
	case tokenOpen:
		inner, err := p.or()
		if err != nil {
			return nil, err
		}
		if p.take().kind != tokenClose {
			return nil, fmt.Errorf("a parenthesis is not closed")
		}
		return inner, nil
	case tokenVariable, tokenInput, tokenString, tokenNull, tokenBoolean:
		return &expression{leaf: t}, nil
	case tokenPattern:
		re, err := compilePattern(t.text)
		if err != nil {
			return nil, fmt.Errorf("the pattern %s is not valid RE2: %w", t.text, err)
		}
		return &expression{leaf: t, regex: re}, nil
	case tokenEnd:
		return nil, fmt.Errorf("the expression ends where a value should be")
	default:
		return nil, fmt.Errorf("unexpected %q", t.text)
	}
}

var patternShape = lazy.Regexp(`^/((?s:.+))/([ismU]*)$`)

// compilePattern compiles /.../flags.
func compilePattern(s string) (*regexp.Regexp, error) {
	m := patternShape().FindStringSubmatch(s)
	if m == nil {
		return nil, fmt.Errorf("not of the form /.../")
	}
	source := strings.ReplaceAll(m[1], `\/`, "/")
	if m[2] != "" {
		source = "(?" + m[2] + ")" + source
	}
	return regexp.Compile(source)
}

// values is what an expression may ask for.
type values struct {
	variable func(name string) (string, bool)
	input    func(name string) (string, bool)
}

// passes evaluates the expression as the condition of a rule.
func (e *expression) passes(v values) bool { return e.eval(v).present() }

func (e *expression) eval(v values) operand {
	switch e.op {
	case "":
		return e.operand(v)
	case "!":
		return boolOperand(!e.left.eval(v).present())
	case "&&":
		if left := e.left.eval(v); !left.truthy() {
			return left
		}
		return e.right.eval(v)
	case "||":
		if left := e.left.eval(v); left.truthy() {
			return left
		}
		return e.right.eval(v)
	case "==":
		return boolOperand(equal(e.left.eval(v), e.right.eval(v)))
	case "!=":
		return boolOperand(!equal(e.left.eval(v), e.right.eval(v)))
	case "=~":
		return boolOperand(matches(e.left.eval(v), e.right.eval(v)))
	default:
		return boolOperand(!matches(e.left.eval(v), e.right.eval(v)))
	}
}

func (e *expression) operand(v values) operand {
	switch e.leaf.kind {
	case tokenVariable:
		s, ok := v.variable(e.leaf.text)
		return operand{set: ok, text: s}
	case tokenInput:
		if v.input == nil {
			return operand{}
		}
		s, ok := v.input(e.leaf.text)
		return operand{set: ok, text: s}
	case tokenString:
		return operand{set: true, text: e.leaf.text}
	case tokenPattern:
		return operand{set: true, text: e.leaf.text, regex: e.regex}
	case tokenBoolean:
		return boolOperand(e.leaf.text == "true")
	default:
		return operand{}
	}
}

func equal(a, b operand) bool {
	if a.set != b.set {
		return false
	}
	return a.asText() == b.asText()
}

// matches answers a =~ b. What is not a pattern is searched for the text on the left, as the server does.
func matches(a, b operand) bool {
	if !b.truthy() {
		return false
	}
	if b.regex != nil {
		return b.regex.MatchString(a.asText())
	}
	if re, err := compilePattern(b.asText()); err == nil {
		return re.MatchString(a.asText())
	}
	return strings.Contains(b.asText(), a.asText())
}
